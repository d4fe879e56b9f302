//! Recordings: what `nettrace record FILE` writes and `nettrace report FILE` replays.
//!
//! Needs a path (and for writing its size limits); yields frames with opaque payloads, in the order in which they
//! were written. Everything comes back as it was or not at all: each frame carries a checksum, and what is damaged
//! or missing is an error in its place, after which reading goes on where that is possible.
//!
//! A recording is one file, or several after rotation: `FILE` is written, and when it is full it becomes `FILE.1`,
//! the next one `FILE.2`, and so on. The oldest, with the lowest number, go when the total reaches its limit. Every
//! file begins with a copy of the first one's Start frame, so each can be reported alone. The layout is in `format`.

pub(crate) mod format;
mod read;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::noise;
mod write;

pub use format::{FORMAT_VERSION, FileKind, Kind, MAX_PAYLOAD_BYTES, sniff, sniff_bytes};
pub use read::{Damage, Dropped, Frame, FrameReader, ReadError, Reader};
pub use write::{Stats, WriteError, Writer, WriterOptions};

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// Where a full file of the recording at `path` goes: `FILE.3`.
fn rotated_path(path: &Path, sequence: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{sequence}"));
    PathBuf::from(name)
}

/// The files beside `path` that are named like its rotated predecessors, lowest number first.
fn rotated_paths(path: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let Some(name) = path.file_name() else { return Ok(Vec::new()) };
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let Some(sequence) = sequence_of(name.as_encoded_bytes(), entry.file_name().as_encoded_bytes())
        else {
            continue;
        };
        found.push((sequence, rotated_path(path, sequence)));
    }
    found.sort_unstable_by_key(|(sequence, _)| *sequence);
    Ok(found)
}

/// The number in `candidate` when it is `name`, a dot and a number without leading zeros.
fn sequence_of(name: &[u8], candidate: &[u8]) -> Option<u32> {
    let digits = candidate.strip_prefix(name)?.strip_prefix(b".")?;
    if digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
