//! Where a JSON document is wrong.

/// Line and column of the first problem, both from 1, and the message without them.
#[must_use]
pub fn position(error: &serde_json::Error) -> (usize, usize, String) {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let message = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    (line, column, message.to_owned())
}
