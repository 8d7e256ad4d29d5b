//! A configuration to read: every default written out, every key that is not set as a comment.

use serde_json::Value;
use toml::Table;

use super::Config;

impl Config {
    /// The configuration as TOML with a comment for every key that is not set; a configuration file
    /// again.
    pub fn to_commented_toml(&self) -> String {
        // Plain data always serialises.
        let table = Table::try_from(self).expect("a configuration is plain data");
        let schema = Self::schema();
        let mut text = String::new();
        render("", &table, Some(&schema), &schema, &mut text);
        text.trim_start().to_string()
    }
}

/// Writes a table: its values, the keys that are not set, and then the tables in it.
fn render(path: &str, table: &Table, schema: Option<&Value>, root: &Value, text: &mut String) {
    let (tables, values): (Table, Table) =
        table.clone().into_iter().partition(|(_, value)| value.is_table());
    let unset = unset(table, schema, root);
    let only_tables = values.is_empty() && unset.is_empty() && !tables.is_empty();
    if !path.is_empty() && !only_tables {
        *text += &format!("\n[{path}]\n");
    }
    // As above.
    *text += &toml::to_string(&values).expect("values are plain data");
    for (key, what) in unset {
        *text += &format!("# {key} is not set: {what}\n");
    }
    for (key, value) in &tables {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let schema = schema.and_then(|schema| property(schema, key, root));
        if let Some(table) = value.as_table() {
            render(&path, table, schema, root, text);
        }
    }
}

/// The keys of a schema that a table lacks, each with the first sentence on it.
fn unset(table: &Table, schema: Option<&Value>, root: &Value) -> Vec<(String, String)> {
    let properties = schema.and_then(|schema| schema["properties"].as_object());
    let keys = properties.into_iter().flatten().filter(|(key, _)| !table.contains_key(*key));
    keys.map(|(key, own)| {
        let described = resolve(own, root);
        let text = [own, described].into_iter().find_map(|node| node["description"].as_str());
        let text = text.unwrap_or_default().replace('\n', " ");
        let sentence = text.split_once(". ").map_or(text.as_str(), |(first, _)| first);
        (key.clone(), sentence.trim_end_matches('.').to_string())
    })
    .collect()
}

fn property<'a>(schema: &'a Value, key: &str, root: &'a Value) -> Option<&'a Value> {
    schema["properties"].get(key).map(|node| resolve(node, root))
}

/// What a node of a schema refers to, or the node.
fn resolve<'a>(node: &'a Value, root: &'a Value) -> &'a Value {
    let name = node["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
    name.map_or(node, |name| &root["$defs"][name])
}
