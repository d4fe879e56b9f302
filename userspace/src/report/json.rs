//! The snapshot as JSON, and the schema that describes it.
//!
//! Needs a [`Snapshot`] (or only its type); yields indented JSON that ends with a newline. The published copy of the
//! schema is `docs/snapshot.schema.json`.

use super::ReportError;
use crate::snapshot::Snapshot;
use schemars::{Schema, schema_for};
use serde::Serialize;

/// The JSON Schema of [`Snapshot`].
#[must_use]
pub fn schema() -> Schema {
    schema_for!(Snapshot)
}

/// The schema as it is published in `docs/snapshot.schema.json`.
#[must_use]
pub fn schema_json() -> String {
    published(schema())
}

/// A schema as it is published.
pub(crate) fn published(schema: Schema) -> String {
    let mut value = schema.to_value();
    // The order must not depend on how `serde_json` was built.
    value.sort_all_objects();
    format!("{value:#}\n")
}

/// The snapshot, indented.
pub(super) fn render(snapshot: &Snapshot) -> Result<String, ReportError> {
    Ok(indented(snapshot)?)
}

/// A document, indented, with a line end.
///
/// # Errors
/// When it cannot be written as JSON.
pub(crate) fn indented(document: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;

    /// Regenerate with `NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace schema`.
    #[test]
    fn published_schema_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/snapshot.schema.json");
        if std::env::var_os("NETTRACE_UPDATE_SCHEMA").is_some() {
            std::fs::write(path, schema_json()).expect("docs/ can be written");
        }
        let published = std::fs::read_to_string(path).expect("docs/snapshot.schema.json is in the tree");
        assert!(
            published == schema_json(),
            "docs/snapshot.schema.json is out of date: NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace schema"
        );
    }

    #[test]
    fn samples_validate_against_the_schema() {
        let validator = jsonschema::validator_for(schema().as_value()).expect("the schema is valid");
        for snapshot in [sample::rich(), sample::empty(), sample::hostile()] {
            let text = render(&snapshot).expect("renders");
            let value: serde_json::Value = serde_json::from_str(&text).expect("is JSON");
            let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
        assert!(!validator.is_valid(&serde_json::json!({"schema": 1})));
    }
}
