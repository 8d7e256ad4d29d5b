//! Blocks by layer pattern.

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::blocks::BlockKind;

/// Blocks by layer pattern, in the order they were written; the last match wins. `*` in a
/// pattern stands for any text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerBlocks(pub Vec<(String, BlockKind)>);

impl LayerBlocks {
    /// Whether every layer has the network's own block.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for LayerBlocks {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LayerBlocks".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        <std::collections::BTreeMap<String, BlockKind>>::json_schema(generator)
    }
}

impl Serialize for LayerBlocks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (pattern, kind) in &self.0 {
            map.serialize_entry(pattern, kind)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for LayerBlocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ordered;
        impl<'de> Visitor<'de> for Ordered {
            type Value = LayerBlocks;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a table of layer patterns and blocks")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LayerBlocks, A::Error> {
                let mut blocks = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    blocks.push(entry);
                }
                Ok(LayerBlocks(blocks))
            }
        }
        deserializer.deserialize_map(Ordered)
    }
}
