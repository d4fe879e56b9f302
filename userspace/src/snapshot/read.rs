//! Reads a snapshot from bytes that nobody vouches for: a file from another node, an upload, a pipe.
//!
//! Needs the whole JSON document; yields a [`Snapshot`] or says what is wrong with it and where. It never panics.

use super::{SCHEMA_VERSION, Snapshot};
use nettrace_bench::json::position;
use serde::Deserialize;

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not JSON at all.
    #[error("not valid JSON at line {line}, column {column}: {message}")]
    Json {
        /// Line of the first problem, from 1.
        line: usize,
        /// Column of the first problem, from 1.
        column: usize,
        /// What was wrong there.
        message: String,
    },
    /// JSON, but without the number that every snapshot begins with.
    #[error("not a nettrace snapshot: it has no `schema` version number")]
    NotASnapshot,
    /// Written by a newer nettrace.
    #[error(
        "the snapshot has schema version {found}, this nettrace reads up to version {supported}: \
         read it with a newer nettrace"
    )]
    TooNew {
        /// Version in the file.
        found: u32,
        /// The newest that can be read: [`SCHEMA_VERSION`].
        supported: u32,
    },
    /// Of a version that can be read, but a field is missing or has the wrong type.
    #[error("not a snapshot of schema version {version}: line {line}, column {column}: {message}")]
    Shape {
        /// Version in the file.
        version: u32,
        /// Line of the first problem, from 1.
        line: usize,
        /// Column of the first problem, from 1.
        column: usize,
        /// What was wrong there.
        message: String,
    },
}

/// The part of a snapshot that stays the same in all versions.
#[derive(Deserialize)]
struct Head {
    schema: u32,
}

impl Snapshot {
    /// Reads a snapshot's JSON.
    ///
    /// # Errors
    /// When it is not JSON, not a snapshot, one of a newer version, or misses a field.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ReadError> {
        let head: Head = serde_json::from_slice(bytes).map_err(|e| {
            if e.is_data() {
                return ReadError::NotASnapshot;
            }
            let (line, column, message) = position(&e);
            ReadError::Json { line, column, message }
        })?;
        if head.schema > SCHEMA_VERSION {
            return Err(ReadError::TooNew { found: head.schema, supported: SCHEMA_VERSION });
        }
        serde_json::from_slice(bytes).map_err(|e| {
            let (line, column, message) = position(&e);
            ReadError::Shape { version: head.schema, line, column, message }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sample, *};
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        Snapshot::from_json(text.as_bytes()).expect_err("must not be read").to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        for snapshot in [sample::rich(), sample::empty(), sample::hostile()] {
            let text = serde_json::to_vec(&snapshot).expect("serialises");
            assert_eq!(Snapshot::from_json(&text).expect("reads back"), snapshot);
        }
    }

    #[test]
    fn fields_that_came_later_may_be_missing() {
        let mut json = serde_json::to_value(sample::rich()).expect("serialises");
        for (place, field) in [("/tcp", "segments_sent"), ("/meta", "rotated")] {
            let object = json.pointer_mut(place).and_then(|v| v.as_object_mut()).expect("an object");
            assert!(object.remove(field).is_some(), "{field}");
        }
        let read = Snapshot::from_json(json.to_string().as_bytes()).expect("an older snapshot");
        assert_eq!((read.tcp.segments_sent, read.meta.rotated), (None, None));
    }

    #[test]
    fn errors_say_what_and_where() {
        assert_eq!(error("{\n  \"schema\": 1,\n}"), "not valid JSON at line 3, column 1: trailing comma");
        assert_eq!(error("{}"), "not a nettrace snapshot: it has no `schema` version number");
        assert_eq!(error("[\"x\"]"), "not a nettrace snapshot: it has no `schema` version number");
        assert_eq!(
            error(r#"{"schema": 7, "later": {}}"#),
            "the snapshot has schema version 7, this nettrace reads up to version 1: \
             read it with a newer nettrace"
        );
        assert_eq!(
            error("{\"schema\": 1,\n \"meta\": 3}"),
            "not a snapshot of schema version 1: line 2, column 10: invalid type: integer `3`, expected struct Meta"
        );
    }

    #[test]
    fn deep_nesting_is_an_error() {
        assert!(error(&format!("{{\"x\": {}", "[".repeat(100_000))).contains("not valid JSON"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn damaged_snapshots_never_panic(at in 0.0..1.0_f64, byte: u8, cut in 0.0..1.0_f64) {
            let mut text = serde_json::to_vec(&sample::rich())?;
            let place = |share: f64| (text.len() as f64 * share) as usize;
            let (at, cut) = (place(at), place(cut));
            text[at] = byte;
            let _ = Snapshot::from_json(&text);
            let _ = Snapshot::from_json(&text[..cut]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Snapshot::from_json(&bytes);
        }
    }
}
