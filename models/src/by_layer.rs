//! Values by layer pattern.

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::blocks::BlockKind;
use crate::layer_pattern::matches;

/// Values by layer pattern, in the order they were written; the last match wins. `*` in a
/// pattern stands for any text.
#[derive(Clone, Debug, PartialEq)]
pub struct ByLayer<T>(pub Vec<(String, T)>);

/// Blocks by layer pattern.
pub type LayerBlocks = ByLayer<BlockKind>;

impl<T> Default for ByLayer<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByLayer<T> {
    /// Whether no layer has a value of its own.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a layer.
    pub fn get(&self, layer: &str) -> Option<&T> {
        self.0.iter().rev().find(|(pattern, _)| matches(pattern, layer)).map(|(_, value)| value)
    }

    /// The patterns.
    pub fn patterns(&self) -> impl Iterator<Item = &String> {
        self.0.iter().map(|(pattern, _)| pattern)
    }
}

#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> schemars::JsonSchema for ByLayer<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("ByLayer{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        <std::collections::BTreeMap<String, T>>::json_schema(generator)
    }
}

impl<T: Serialize> Serialize for ByLayer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (pattern, value) in &self.0 {
            map.serialize_entry(pattern, value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByLayer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ordered<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Ordered<T> {
            type Value = ByLayer<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a table of values by layer pattern")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ByLayer<T>, A::Error> {
                let mut values = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    values.push(entry);
                }
                Ok(ByLayer(values))
            }
        }
        deserializer.deserialize_map(Ordered(std::marker::PhantomData))
    }
}
