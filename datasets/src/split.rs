//! The two parts of a data set.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::DataError;

/// One of the two parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The images a network is trained on.
    Train,
    /// The images it is evaluated on; `test` is read as this.
    #[serde(alias = "test")]
    Val,
}

impl Split {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Train => Self::Val,
            Self::Val => Self::Train,
        }
    }

    /// Names of its folders and archives.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["train"],
            Self::Val => &["val", "validation", "test"],
        }
    }
}

impl FromStr for Split {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        match text {
            "train" => Ok(Self::Train),
            "val" | "test" => Ok(Self::Val),
            _ => Err(DataError::Split { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
        })
    }
}
