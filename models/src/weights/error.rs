//! What can be wrong with a weights file.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::ConfigError;

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
        "{} is damaged or no weights file ({format}): {detail}; expected safetensors, burnpack or \
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
    /// Tensors and network do not fit.
    #[error(
        "{}the weights do not fit the network{}",
        file(path),
        mismatch(missing, unexpected, misshapen)
    )]
    Keys {
        /// The file, once known.
        path: Option<PathBuf>,
        /// Keys the network needs and the file lacks.
        missing: Vec<String>,
        /// Keys the file has and the network does not know.
        unexpected: Vec<String>,
        /// Keys with another shape, and both shapes.
        misshapen: Vec<String>,
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
    /// The dialect has no names for blocks of several branches or folded convolutions.
    #[error(
        "{dialect} names exist for plain convolutions with batch norm only; export the folded \
         network (without --form train)"
    )]
    Unfolded {
        /// The dialect.
        dialect: String,
    },
    /// The architecture has no such dialect.
    #[error("{arch} has no {dialect} names; it has {available}")]
    Dialect {
        /// The architecture.
        arch: String,
        /// What was asked for.
        dialect: String,
        /// What there is.
        available: String,
    },
}

impl WeightsError {
    /// The same error, with the file it is about.
    pub fn in_file(mut self, file: &Path) -> Self {
        if let Self::Keys { path, .. } | Self::Block { path, .. } = &mut self {
            *path = Some(file.to_path_buf());
        }
        self
    }

    /// The same error, with every key below a prefix.
    pub(super) fn below(mut self, prefix: &str) -> Self {
        if let Self::Keys { missing, unexpected, misshapen, .. } = &mut self {
            for key in [missing, unexpected, misshapen].into_iter().flatten() {
                key.insert_str(0, prefix);
            }
        }
        self
    }
}

fn file(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default()
}

fn mismatch(missing: &[String], unexpected: &[String], misshapen: &[String]) -> String {
    let mut text = String::new();
    for (what, keys) in [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
    {
        if keys.is_empty() {
            continue;
        }
        let shown: Vec<_> = keys.iter().take(6).map(String::as_str).collect();
        let rest = keys.len() - shown.len();
        text += &format!("\n  {} {what}: {}", keys.len(), shown.join(", "));
        if rest > 0 {
            text += &format!(" and {rest} more");
        }
    }
    if misshapen.iter().any(|key| key.starts_with("linear.")) {
        text +=
            "\n  hint: the classifier has another number of classes or the network another width";
    }
    text
}
