//! The JSON Schema of the document, made from its types: what is here is what is read.

use schemars::generate::SchemaSettings;

use super::Document;

/// The schema as a file has it: `runtime-spec/schema/workspace.schema.json`.
///
/// # Errors
///
/// None that a schema of text and numbers could have; those of the JSON writer.
pub fn schema() -> Result<String, serde_json::Error> {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Document>();
    schema.insert("title".to_owned(), "Bulkhead workspace document".into());
    serde_json::to_string_pretty(&schema).map(|text| text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::workspace::PLAIN;

    #[test]
    fn the_keys_that_belong_to_no_table_are_known() {
        let schema: serde_json::Value = serde_json::from_str(&schema().unwrap()).unwrap();
        let tables = [
            "cpu", "io", "lease", "machine", "memory", "mount", "network",
        ];
        let properties = schema["properties"].as_object().unwrap();
        let plain: Vec<&str> = properties
            .keys()
            .map(String::as_str)
            .filter(|key| !tables.contains(key))
            .collect();
        assert_eq!(plain, PLAIN);
    }
}
