//! `train.batch_size`: a number, or the largest that fits.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Images in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// So many.
    Images(usize),
    /// The largest number that fits into `train.memory_mb`. It is found when the data are opened, and
    /// written out in the run's own configuration.
    Auto,
}

/// The word for [`BatchSize::Auto`].
const AUTO: &str = "auto";

impl BatchSize {
    /// The number, once it is known.
    pub fn images(self) -> Option<usize> {
        match self {
            Self::Images(images) => Some(images),
            Self::Auto => None,
        }
    }
}

impl fmt::Display for BatchSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Images(images) => images.fmt(f),
            Self::Auto => f.write_str(AUTO),
        }
    }
}

impl Serialize for BatchSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Images(images) => images.serialize(serializer),
            Self::Auto => serializer.serialize_str(AUTO),
        }
    }
}

impl<'de> Deserialize<'de> for BatchSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Images;

        impl Visitor<'_> for Images {
            type Value = BatchSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of at least 2, or \"auto\"")
            }

            fn visit_u64<E: de::Error>(self, images: u64) -> Result<BatchSize, E> {
                let images = usize::try_from(images).map_err(E::custom)?;
                Ok(BatchSize::Images(images))
            }

            fn visit_i64<E: de::Error>(self, images: i64) -> Result<BatchSize, E> {
                match u64::try_from(images) {
                    Ok(images) => self.visit_u64(images),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(images), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BatchSize, E> {
                match text {
                    AUTO => Ok(BatchSize::Auto),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(Images)
    }
}

impl JsonSchema for BatchSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "BatchSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "format": "uint", "minimum": 2 },
                { "type": "string", "const": AUTO },
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Section {
        batch_size: BatchSize,
    }

    #[test]
    fn a_number_or_auto_is_read_and_written() {
        for (text, batch_size) in [
            ("batch_size = 64\n", BatchSize::Images(64)),
            ("batch_size = \"auto\"\n", BatchSize::Auto),
        ] {
            let section = Section { batch_size };
            assert_eq!(toml::from_str::<Section>(text).unwrap(), section);
            assert_eq!(toml::to_string(&section).unwrap(), text);
        }
        for (text, shown) in [("-4", "-4"), ("\"all\"", "\"all\""), ("1.5", "1.5")] {
            let error = toml::from_str::<Section>(&format!("batch_size = {text}")).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(shown) && error.contains("at least 2, or \"auto\""), "{error}");
        }
    }
}
