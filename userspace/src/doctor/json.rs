//! The diagnosis as JSON, and the schema that describes it; its published copy is `docs/doctor.schema.json`.

use super::Diagnosis;
use crate::report::json::{indented, published};
use schemars::{Schema, schema_for};

/// The JSON Schema of [`Diagnosis`].
#[must_use]
pub fn schema() -> Schema {
    schema_for!(Diagnosis)
}

/// The schema as it is published in `docs/doctor.schema.json`.
#[must_use]
pub fn schema_json() -> String {
    published(schema())
}

/// The diagnosis, indented, with a line end.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn render(diagnosis: &Diagnosis) -> Result<String, serde_json::Error> {
    indented(diagnosis)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regenerate with `NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace schema`.
    #[test]
    fn published_schema_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.schema.json");
        if std::env::var_os("NETTRACE_UPDATE_SCHEMA").is_some() {
            std::fs::write(path, schema_json()).expect("docs/ can be written");
        }
        let published = std::fs::read_to_string(path).expect("docs/doctor.schema.json is in the tree");
        assert!(
            published == schema_json(),
            "docs/doctor.schema.json is out of date: NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace schema"
        );
    }
}
