//! The one place from which the doctor and the node's state read files, below a root that tests choose.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

/// Files longer than this are not read: nothing that is looked at comes near, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Why a file does not tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Which one.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: `{found}` is not {expected}")]
    Content {
        /// Which one.
        path: String,
        /// What it should be, with its article.
        expected: &'static str,
        /// What is there instead.
        found: String,
    },
    /// None of several files tells.
    #[error("{0}")]
    Unknown(String),
}

impl FileError {
    /// Whether there is no such file, as opposed to one that cannot be read.
    #[must_use]
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Read { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Files below a root. Paths are as on a node, from `/`.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    /// Below `root`; `/` for this node.
    #[must_use]
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>, FileError> {
        let read = || {
            let mut bytes = Vec::new();
            fs::File::open(self.at(path))?.take(MAX_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| FileError::Read { path: path.to_owned(), error })
    }

    /// A file's text, without the white space around it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn text(&self, path: &str) -> Result<String, FileError> {
        Ok(String::from_utf8_lossy(&self.bytes(path)?).trim().to_owned())
    }

    /// The number that a file holds.
    ///
    /// # Errors
    /// When it cannot be read or holds something else.
    pub(crate) fn number<T: FromStr>(&self, path: &str) -> Result<T, FileError> {
        let text = self.text(path)?;
        text.parse().map_err(|_| FileError::Content {
            path: path.to_owned(),
            expected: "a number",
            found: text,
        })
    }

    /// Names in a directory, in order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, FileError> {
        let list = || {
            let entries = fs::read_dir(self.at(path))?;
            let mut names = entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(|error| FileError::Read { path: path.to_owned(), error })
    }

    /// A file's size, bytes.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn size_bytes(&self, path: &str) -> Result<u64, FileError> {
        let meta = fs::metadata(self.at(path));
        meta.map(|m| m.len()).map_err(|error| FileError::Read { path: path.to_owned(), error })
    }

    /// Whether something is there.
    #[must_use]
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }
}

/// A counter of `/proc/net/snmp` or `/proc/net/netstat`, where each group is two lines: names, then values.
pub(crate) fn counter(text: &str, group: &str, wanted: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|l| l.strip_prefix(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|n| n == wanted)?;
    values.split(' ').nth(at)?.parse().ok()
}
