//! What can be wrong with a weights file.

use std::io;
use std::path::{Path, PathBuf};

use crate::backbones::Arch;
use crate::blocks::BlockKind;
use crate::dialects::Dialect;
use crate::error::ConfigError;
use crate::form::Form;

/// A weights file that cannot be read, written or put into a network.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The content is not what its format demands.
    #[error(
        "{} is damaged or not a weights file ({format}): {detail}; expected safetensors, burnpack or \
         a PyTorch checkpoint", path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Format it was taken for.
        format: &'static str,
        /// What the reader found.
        detail: String,
    },
    /// The metadata cannot be understood.
    #[error("{}: the metadata of this file cannot be understood ({detail}); it may come from a \
             newer version", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Reason.
        detail: String,
    },
    /// The metadata name more or fewer classes than the network has outputs.
    #[error(
        "{}: the metadata of this file contradicts itself: it names {named} classes, but the network \
         has {outputs} outputs", path.display()
    )]
    Classes {
        /// The file.
        path: PathBuf,
        /// Classes that it names.
        named: usize,
        /// Outputs of its network.
        outputs: usize,
    },
    /// Tensors and network do not fit.
    #[error(
        "{}the weights do not fit the network{}{}",
        file(path),
        lookalike.as_ref().map_or(String::new(), |found| format!("; this looks like {found}")),
        mismatch(missing, unexpected, misshapen, classes.as_deref())
    )]
    Keys {
        /// The file, once known.
        path: Option<PathBuf>,
        /// The network of the zoo that the file seems to hold, if another one.
        lookalike: Option<Box<Lookalike>>,
        /// Keys the network needs and the file lacks.
        missing: Vec<String>,
        /// Keys the file has and the network does not know.
        unexpected: Vec<String>,
        /// Keys with another shape, and both shapes.
        misshapen: Vec<String>,
        /// Classes of the file and of the network, where the classifiers differ in nothing else.
        classes: Option<Box<[usize; 2]>>,
    },
    /// Weights or running statistics that are no numbers to compute with.
    #[error(
        "{}tensor {tensor}: {count} of {values} values are NaN, infinite or beyond the range of \
         f32 (the first is {value}){}",
        file(path),
        others(*other_tensors)
    )]
    NonFinite {
        /// The file, once known.
        path: Option<PathBuf>,
        /// Name of the first tensor with such a value.
        tensor: String,
        /// The first of them.
        value: f64,
        /// How many the tensor has.
        count: usize,
        /// All values of the tensor.
        values: usize,
        /// Further tensors with such values.
        other_tensors: usize,
    },
    /// A block that cannot be folded.
    #[error("{}block {name}: {detail}", file(path))]
    Block {
        /// The file, once known.
        path: Option<PathBuf>,
        /// Its name.
        name: String,
        /// Why.
        detail: String,
    },
    /// A value beyond the range of the type it is to be written in.
    #[error(
        "{name} holds {value:e}, beyond the range of {dtype}; nothing was written; hint: bf16 and \
         f32 have a wider range"
    )]
    Overflow {
        /// Name of the tensor.
        name: String,
        /// The value.
        value: f64,
        /// The type.
        dtype: &'static str,
    },
    /// The network of the file or of the flags cannot be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The dialect has names for another block only.
    #[error("{dialect} names exist for {block} blocks only; export the folded network")]
    Unfolded {
        /// The dialect.
        dialect: Dialect,
        /// The block there are names for.
        block: BlockKind,
    },
    /// The architecture has no such dialect.
    #[error("{arch} has no {dialect} names; it has {}", dialects(*arch))]
    Dialect {
        /// The architecture.
        arch: Arch,
        /// What was asked for.
        dialect: Dialect,
    },
}

impl WeightsError {
    /// The same error, with the file it is about.
    pub fn in_file(mut self, file: &Path) -> Self {
        if let Self::Keys { path, .. } | Self::Block { path, .. } | Self::NonFinite { path, .. } =
            &mut self
        {
            *path = Some(file.to_path_buf());
        }
        self
    }

    /// The same error, with every key below a prefix.
    pub(super) fn below(mut self, prefix: &str) -> Self {
        match &mut self {
            Self::Keys { missing, unexpected, misshapen, .. } => {
                for key in [missing, unexpected, misshapen].into_iter().flatten() {
                    key.insert_str(0, prefix);
                }
            }
            Self::NonFinite { tensor, .. } => tensor.insert_str(0, prefix),
            _ => {}
        }
        self
    }
}

/// A network of the zoo whose tensors have the names of those in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookalike {
    /// The architecture.
    pub arch: Arch,
    /// The block, which a folded network once had.
    pub block: BlockKind,
    /// The form.
    pub form: Form,
    /// Outputs of the classifier.
    pub num_classes: usize,
}

impl std::fmt::Display for Lookalike {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { arch, block, form, num_classes } = self;
        let folded = if *form == Form::Deploy { "a folded " } else { "" };
        write!(f, "{folded}{arch} with block {block} and {num_classes} classes")
    }
}

fn file(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default()
}

fn dialects(arch: Arch) -> String {
    arch.dialects().iter().map(Dialect::to_string).collect::<Vec<_>>().join(", ")
}

fn others(tensors: usize) -> String {
    match tensors {
        0 => String::new(),
        1 => "; so are values of 1 other tensor".into(),
        n => format!("; so are values of {n} other tensors"),
    }
}

/// Names that a message shows of each kind.
const SHOWN: usize = 6;
/// Similarity (Jaro-Winkler, 0 to 1) from which a name may be meant by another.
const SIMILAR: f64 = 0.8;

fn mismatch(
    missing: &[String],
    unexpected: &[String],
    misshapen: &[String],
    classes: Option<&[usize; 2]>,
) -> String {
    let mut text = String::new();
    for (what, keys) in [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
    {
        if keys.is_empty() {
            continue;
        }
        let shown: Vec<_> = keys.iter().take(SHOWN).map(String::as_str).collect();
        let rest = keys.len() - shown.len();
        text += &format!("\n  {} {what}: {}", keys.len(), shown.join(", "));
        if rest > 0 {
            text += &format!(" and {rest} more");
        }
    }
    for name in missing.iter().take(3) {
        if let Some(nearest) = nearest(name, unexpected) {
            text += &format!("\n  hint: {name} may be what the file calls {nearest}");
        }
    }
    if let Some([file, network]) = classes {
        text += &format!(
            "\n  the classifier of the file has {file} classes, that of the network {network}"
        );
    } else if misshapen.iter().any(|key| key.starts_with("linear.")) {
        text += "\n  hint: the network has another width, or its classifier other features";
    }
    text
}

/// The name most like another, if any is like it.
fn nearest<'a>(name: &str, names: &'a [String]) -> Option<&'a str> {
    let likeness = names.iter().map(|other| (strsim::jaro_winkler(name, other), other.as_str()));
    let best = likeness.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= SIMILAR).map(|(_, other)| other)
}
