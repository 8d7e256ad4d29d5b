//! A TOML file that knows the line of every key.

use std::collections::BTreeMap;
use std::fs;
use std::iter::successors;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// A configuration that cannot be used, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
    /// The path is a folder.
    #[error(
        "{} is a folder; name a configuration (TOML), such as the config.toml of a run",
        .0.display()
    )]
    Folder(PathBuf),
    /// The file is not TOML.
    #[error("{}:{line}: not valid TOML: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser expected.
        detail: String,
    },
    /// An override that is not `KEY=VALUE`.
    #[error("the override {text}: {detail}; expected KEY=VALUE, for example optim.lr=0.05")]
    Override {
        /// As it was given.
        text: String,
        /// Reason.
        detail: String,
    },
    /// A key or value at fault.
    #[error("{place}: {text}")]
    Fault {
        /// Where.
        place: Place,
        /// What is wrong and what was expected.
        text: String,
    },
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// File, line and key, as far as they are known.
    File(String),
    /// An override of this key.
    Override(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(place) => f.write_str(place),
            Self::Override(key) => write!(f, "the override of {key}"),
        }
    }
}

/// Tables whose keys are layer patterns.
const PATTERN_TABLES: [&str; 2] = ["model.blocks", "model.mobileone.layers"];

/// A parsed file with overrides, before it is checked.
#[derive(Clone, Debug)]
pub struct Document {
    path: PathBuf,
    table: Table,
    /// Line of every key, by its dotted path.
    lines: BTreeMap<String, usize>,
    /// Keys that were set from outside the file.
    overridden: Vec<String>,
}

impl Document {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// If it cannot be read or is not TOML.
    pub fn read(path: &Path) -> Result<Self, ConfigFileError> {
        if path.is_dir() {
            return Err(ConfigFileError::Folder(path.into()));
        }
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigFileError::Read { path: path.into(), source })?;
        let syntax = |error: toml::de::Error| ConfigFileError::Syntax {
            path: path.into(),
            line: error.span().map_or(1, |span| line_of(&text, span.start)),
            detail: error.message().to_string(),
        };
        let spanned = DeTable::parse(&text).map_err(syntax)?;
        let mut lines = BTreeMap::new();
        collect_lines("", spanned.get_ref(), &text, &mut lines);
        let table = toml::from_str(&text).map_err(syntax)?;
        Ok(Self { path: path.into(), table, lines, overridden: Vec::new() })
    }

    /// Replaces values. A value that is not valid TOML is taken as a string, so that
    /// `model.block=dbb` needs no quotes.
    ///
    /// # Errors
    /// If an override is not `KEY=VALUE` or goes through a key that is not a table.
    pub fn with_overrides(mut self, overrides: &[String]) -> Result<Self, ConfigFileError> {
        for text in overrides {
            let error = |detail: &str| ConfigFileError::Override {
                text: text.clone(),
                detail: detail.to_string(),
            };
            let (key, value) = text.split_once('=').ok_or_else(|| error("there is no ="))?;
            let (key, value) = (key.trim(), value.trim());
            let value = parse_value(value);
            let mut parts: Vec<&str> = key.split('.').collect();
            // Layer patterns contain dots: everything after the table of patterns is one key.
            let pattern =
                |table: &'static str| Some((table, key.strip_prefix(table)?.strip_prefix('.')?));
            if let Some((table, pattern)) = PATTERN_TABLES.into_iter().find_map(pattern) {
                parts = table.split('.').chain([pattern.trim_matches('"')]).collect();
            }
            let (last, tables) = parts.split_last().ok_or_else(|| error("there is no key"))?;
            if parts.iter().any(|part| part.is_empty()) {
                return Err(error("a part of the key is empty"));
            }
            let mut table = &mut self.table;
            for part in tables {
                let entry = table.entry(*part).or_insert_with(|| Value::Table(Table::new()));
                table = entry.as_table_mut().ok_or_else(|| error("its key is inside a value"))?;
            }
            table.insert((*last).to_string(), value);
            self.overridden.push(parts.join("."));
        }
        Ok(self)
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The typed configuration.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong kind, with file, line and key.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigFileError> {
        serde_path_to_error::deserialize(self.table.clone()).map_err(|error| {
            let mut key = error.path().to_string();
            let message = error.inner().message().to_string();
            if let Some(field) = quoted_after(&message, "missing field `") {
                return match key.as_str() {
                    "." => self.fault(field, format!("the section [{field}] is missing")),
                    _ => self.fault(&format!("{key}.{field}"), "the key is missing".into()),
                };
            }
            let unknown = quoted_after(&message, "unknown field `");
            if let Some(field) = unknown
                && key != field
                && !key.ends_with(&format!(".{field}"))
            {
                key = if key == "." { field.to_string() } else { format!("{key}.{field}") };
            }
            self.fault(&key, with_suggestion(&message))
        })
    }

    /// Whether a fault at a key is that of an override: of the key, of a table that it is in, or of a key
    /// below it, which made a table that the file does not have.
    fn is_fault_of(&self, set: &str, key: &str) -> bool {
        set == key || is_below(key, set) || (is_below(set, key) && !self.lines.contains_key(key))
    }

    /// An error at a key.
    pub fn fault(&self, key: &str, text: String) -> ConfigFileError {
        let file = self.path.display();
        if let Some(set) = self.overridden.iter().rfind(|set| self.is_fault_of(set, key)) {
            // Of a table that was set as a whole the key is told, too.
            let text = if is_below(key, set) { format!("{key}: {text}") } else { text };
            return ConfigFileError::Fault { place: Place::Override(set.clone()), text };
        }
        // A missing key is reported at its table, a fault of a table at its header.
        let mut keys = successors(Some(key), |key| Some(key.rsplit_once('.')?.0));
        let line = keys.find_map(|key| self.lines.get(key));
        let place = Place::File(match line {
            Some(line) => format!("{file}:{line}: {key}"),
            None => format!("{file}: {key}"),
        });
        ConfigFileError::Fault { place, text }
    }
}

/// Whether a key is in the table of another one.
fn is_below(key: &str, table: &str) -> bool {
    key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

/// The line, from 1, of a position in a text.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn collect_lines(prefix: &str, table: &DeTable, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table.iter() {
        let path = if prefix.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{prefix}.{}", key.get_ref())
        };
        lines.insert(path.clone(), line_of(text, Spanned::span(key).start));
        match value.get_ref() {
            DeValue::Table(inner) => collect_lines(&path, inner, text, lines),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    lines.insert(path.clone(), line_of(text, item.span().start));
                    if let DeValue::Table(inner) = item.get_ref() {
                        collect_lines(&path, inner, text, lines);
                    }
                }
            }
            _ => {}
        }
    }
}

fn parse_value(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        // A text of several lines could hold further keys.
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_string()))
}

fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    let rest = &message[message.find(start)? + start.len()..];
    rest.split('`').next()
}

/// Adds "did you mean" to an error that lists what was expected.
fn with_suggestion(message: &str) -> String {
    let mut message = message.trim_end().replace(", expected one of", "; expected one of");
    for (rust, plain) in [
        ("a tuple of size 2", "two values"),
        ("u32", "a whole number from 0 to 4294967295"),
        // TOML has no larger numbers.
        ("usize", "a whole number from 0 to 9223372036854775807"),
        ("u64", "a whole number from 0 to 9223372036854775807"),
        ("f64", "a number"),
        ("f32", "a number"),
    ] {
        message = message.replace(&format!("expected {rust}"), &format!("expected {plain}"));
    }
    let is_unquoted = ["integer", "floating point", "boolean", "datetime"]
        .iter()
        .any(|kind| message.starts_with(&format!("invalid type: {kind}")));
    if is_unquoted && message.ends_with("expected a string") {
        message += "; hint: put the value in quotes";
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let nearest = match quoted.next() {
        Some(given) if message.contains("unknown") => quoted
            .map(|known| (strsim::damerau_levenshtein(given, known), known))
            .filter(|(distance, known)| *distance <= known.len().max(3) / 2)
            .min(),
        _ => None,
    };
    match nearest {
        Some((_, known)) => format!("{message} (did you mean `{known}`?)"),
        None => message,
    }
}
