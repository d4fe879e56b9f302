//! Findings as JSON, and the schema that describes them; its published copy is `docs/advice.schema.json`.

use super::Finding;
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

/// Version of [`Advice`] as JSON; it grows when a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// All findings of one snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Advice {
    /// Version of this layout, 1.
    pub schema: u32,
    /// Version of nettrace.
    pub version: String,
    /// The node that was measured.
    pub node: String,
    /// By rule, the most urgent first.
    pub findings: Vec<Finding>,
}

impl Advice {
    /// Findings of a node.
    #[must_use]
    pub fn new(node: &str, findings: Vec<Finding>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { schema: SCHEMA_VERSION, version, node: node.to_owned(), findings }
    }
}

/// The schema as it is published in `docs/advice.schema.json`.
#[must_use]
pub fn schema_json() -> String {
    let mut value = schema_for!(Advice).to_value();
    // The order must not depend on how `serde_json` was built.
    value.sort_all_objects();
    format!("{value:#}\n")
}

/// The findings, indented, with a line end.
///
/// # Errors
/// When they cannot be written as JSON.
pub fn render(advice: &Advice) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(advice)?;
    text.push('\n');
    Ok(text)
}
