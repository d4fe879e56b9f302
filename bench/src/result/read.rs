//! Results as bytes: written, and read from whoever wrote them.
//!
//! Needs a [`RunResult`], or the whole JSON document of one. Says what is wrong with a document and where; it never panics.

use super::{Kind, RunResult, SCHEMA_VERSION};
use crate::json::position;
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

/// Larger files are nobody's result, bytes.
pub const MOST_BYTES: u64 = 1 << 28;

/// Why bytes are not a result.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error("cannot read {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Longer than any result.
    #[error("{path} is larger than {MOST_BYTES} bytes: not a result of nettrace bench")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
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
    /// JSON, but not of this kind.
    #[error(
        "not a result of nettrace bench: it has no `kind` of `bench-result` with a `schema` version number"
    )]
    NotAResult,
    /// Of another version.
    #[error(
        "the result has schema version {found}, this nettrace reads {SCHEMA_VERSION}: use one that reads it"
    )]
    Version {
        /// Version in the file.
        found: u32,
    },
    /// Of a version that can be read, but a field is missing or has the wrong type, or a histogram is damaged.
    #[error("not a result of schema version {SCHEMA_VERSION}: line {line}, column {column}: {message}")]
    Shape {
        /// Line of the first problem, from 1.
        line: usize,
        /// Column of the first problem, from 1.
        column: usize,
        /// What was wrong there.
        message: String,
    },
    /// Every field is there, and together they cannot be.
    #[error("not a result that can be: {0}")]
    Contradiction(String),
}

/// Why a result cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file.
    #[error("cannot write {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A number that JSON does not have, or a histogram that cannot be encoded.
    #[error("cannot write the result: {0}")]
    Json(#[from] serde_json::Error),
}

/// The part of a result that stays the same in all versions.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "kind")]
    _kind: Kind,
    schema: u32,
}

impl RunResult {
    /// Reads a result's JSON.
    ///
    /// # Errors
    /// When it is not JSON, not a result, one of another version, misses a field, or contradicts itself.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ReadError> {
        let head: Head = serde_json::from_slice(bytes).map_err(|e| {
            if e.is_data() {
                return ReadError::NotAResult;
            }
            let (line, column, message) = position(&e);
            ReadError::Json { line, column, message }
        })?;
        if head.schema != SCHEMA_VERSION {
            return Err(ReadError::Version { found: head.schema });
        }
        let result: Self = serde_json::from_slice(bytes).map_err(|e| {
            let (line, column, message) = position(&e);
            ReadError::Shape { line, column, message }
        })?;
        result.check().map_err(ReadError::Contradiction)?;
        Ok(result)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is not a result.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let failed = |error| ReadError::File { path: path.to_owned(), error };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(ReadError::TooLarge { path: path.to_owned() });
        }
        Self::from_json(&bytes)
    }

    /// Its JSON, indented, with a newline at the end.
    ///
    /// # Errors
    /// When a number is none, or a histogram cannot be encoded.
    pub fn to_json(&self) -> Result<String, WriteError> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// Writes it to a file, which is there as a whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        let text = self.to_json()?;
        let failed = |error| WriteError::File { path: path.to_owned(), error };
        // A device or a pipe is nothing to put a file in the place of.
        if path.metadata().is_ok_and(|m| !m.is_file()) {
            let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            return file.write_all(text.as_bytes()).map_err(failed);
        }
        crate::atomic::replace(path, text.as_bytes()).map_err(failed)
    }

    /// What the types alone do not say.
    fn check(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for (n, round) in self.rounds.iter().enumerate() {
            if !seen.insert((round.block, round.arm)) {
                return Err(format!("round {n}: block {} has two rounds of the same arm", round.block));
            }
            for (load, outcome) in &round.loads {
                if outcome.elapsed_ns == 0 {
                    return Err(format!("round {n}, load {load}: measured for no time"));
                }
            }
        }
        Ok(())
    }
}

/// The schema as it is published in `docs/bench-result.schema.json`.
#[must_use]
pub fn schema_json() -> String {
    let mut value = schemars::schema_for!(RunResult).to_value();
    // The order must not depend on how `serde_json` was built.
    value.sort_all_objects();
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Mode;
    use crate::result::{Arm, Environment, Latencies, Partial, sample};
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        RunResult::from_json(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let mut result = sample::experiment(3, 2, sample::Slower { all: 1.1, tail: 1.0 });
        result.partial = Some(Partial { reason: "stopped".to_owned(), planned_rounds: 8 });
        result.environment_b = Some(Environment::default());
        result.write(&path).unwrap();
        assert_eq!(RunResult::read(&path).unwrap(), result);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(result.write(&dir.path().join("no/such")).is_err());
        assert!(matches!(RunResult::read(&dir.path().join("no")), Err(ReadError::File { .. })));
        result.write(Path::new("/dev/null")).unwrap();
        assert!(!Path::new("/dev/null").is_file());
    }

    #[test]
    fn errors_say_what_and_where() {
        assert_eq!(
            error("{\n  \"kind\": \"bench-result\",\n}"),
            "not valid JSON at line 3, column 1: trailing comma"
        );
        let not = "not a result of nettrace bench: it has no `kind` of `bench-result` with a `schema` version number";
        assert_eq!(error("{}"), not);
        assert_eq!(error(r#"{"schema": 1, "meta": {}}"#), not);
        assert_eq!(
            error(r#"{"kind": "bench-result", "schema": 9, "later": {}}"#),
            "the result has schema version 9, this nettrace reads 1: use one that reads it"
        );
        assert_eq!(
            error(r#"{"kind": "bench-result", "schema": 1}"#),
            "not a result of schema version 1: line 1, column 37: missing field `tool`"
        );
    }

    #[test]
    fn damage_is_told() {
        let result = sample::run(3, 2, 1.0);
        let text = result.to_json().unwrap();
        assert!(matches!(
            RunResult::from_json(&text.as_bytes()[..text.len() / 2]),
            Err(ReadError::Json { .. })
        ));
        // Of what the text is made of, the histogram is the largest part.
        let at = text.find("HISTFAAA").unwrap() + 60;
        let mut damaged = text.clone().into_bytes();
        damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
        let said = RunResult::from_json(&damaged).unwrap_err().to_string();
        assert!(said.contains("histogram"), "{said}");
        let counts = text.replacen(
            "\"count\": 600,\n            \"p50_ns\"",
            "\"count\": 6,\n            \"p50_ns\"",
            1,
        );
        assert_ne!(counts, text);
        assert!(error(&counts).contains("histogram holds 600 counts, not 6"), "{}", error(&counts));
        let mut twice = result.clone();
        twice.rounds[1].block = 0;
        assert_eq!(
            error(&twice.to_json().unwrap()),
            "not a result that can be: round 1: block 0 has two rounds of the same arm"
        );
        let mut never = result;
        never.rounds[0].loads.get_mut("tcp_rr").unwrap().elapsed_ns = 0;
        assert!(error(&never.to_json().unwrap()).ends_with("round 0, load tcp_rr: measured for no time"));
    }

    /// Regenerate with `NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace-bench schema`.
    #[test]
    fn published_schema_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bench-result.schema.json");
        if std::env::var_os("NETTRACE_UPDATE_SCHEMA").is_some() {
            std::fs::write(path, schema_json()).unwrap();
        }
        let published = std::fs::read_to_string(path).unwrap();
        assert!(
            published == schema_json(),
            "docs/bench-result.schema.json is out of date: NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace-bench schema"
        );
    }

    #[test]
    fn samples_validate_against_the_schema() {
        let schema: serde_json::Value = serde_json::from_str(&schema_json()).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let value = serde_json::to_value(sample::run(3, 2, 1.0)).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
        assert!(!validator.is_valid(&serde_json::json!({"kind": "bench-result", "schema": 1})));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_result_is_read_as_it_was_written(
            values in prop::collection::vec(1..=super::super::LAYOUT.highest, 0..40),
            errors in prop::collection::btree_map(".{0,12}", any::<u64>(), 0..3),
            settings in prop::collection::btree_map(".{0,12}", ".{0,12}", 0..4),
            (name, load, reason) in (".{0,12}", ".{0,12}", ".{0,12}"),
            (count, elapsed_ns, seed) in (any::<u64>(), 1..=u64::MAX, any::<u64>()),
            reached in prop::option::of(".{0,12}"),
            is_b in any::<bool>(),
        ) {
            let mut result = sample::run(1, 1, 1.0);
            let mut outcome = result.rounds[0].loads.remove("tcp_rr").unwrap();
            let mut latency = Latencies::default();
            values.iter().for_each(|ns| latency.record(*ns));
            outcome.latency = Some(latency);
            (outcome.errors, outcome.count, outcome.elapsed_ns) = (errors, count, elapsed_ns);
            (outcome.mode, outcome.lateness) = (Mode::OpenPoisson, outcome.latency.clone());
            outcome.partial = reached;
            result.rounds[0].loads.insert(load, outcome);
            result.rounds[0].arm = if is_b { Arm::B } else { Arm::A };
            (result.scenario.name, result.environment.settings, result.seed) = (name, settings, seed);
            result.partial = Some(Partial { reason, planned_rounds: 3 });
            prop_assert_eq!(RunResult::from_json(result.to_json()?.as_bytes())?, result);
        }

        #[test]
        fn arbitrary_damage_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = sample::run(1, 1, 1.0).to_json()?.into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            let _ = RunResult::from_json(&text);
        }
    }
}
