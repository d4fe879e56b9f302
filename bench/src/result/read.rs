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
    #[error("not a result of nettrace bench: it has no `kind` of `bench-result` with a `schema` version number")]
    NotAResult,
    /// Of another version.
    #[error("the result has schema version {found}, this nettrace reads {SCHEMA_VERSION}: use one that reads it")]
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
