//! The keys in which two configurations differ.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Config;

impl Config {
    /// Every key whose value is not the same in `other`, by its dotted path, with the value here
    /// and the value there; null where a key is not set.
    pub fn differences(&self, other: &Self) -> Vec<(String, Value, Value)> {
        let (here, there) = (flat(self), flat(other));
        let keys: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let values = keys.into_iter().map(|key| {
            let value = |side: &BTreeMap<String, Value>| side.get(key).cloned().unwrap_or_default();
            (key.clone(), value(&here), value(&there))
        });
        values.filter(|(_, here, there)| here != there).collect()
    }
}

/// A value of a configuration as messages show it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not set".to_string(),
        value => value.to_string(),
    }
}

/// The values of a configuration by dotted key.
fn flat(config: &Config) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, value: Value, out: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(table) => {
                for (key, value) in table {
                    let path = match prefix {
                        "" => key,
                        _ => format!("{prefix}.{key}"),
                    };
                    walk(&path, value, out);
                }
            }
            _ => {
                out.insert(prefix.to_string(), value);
            }
        }
    }
    let mut out = BTreeMap::new();
    // Plain data always serialises.
    walk("", serde_json::to_value(config).expect("a configuration is plain data"), &mut out);
    out
}
