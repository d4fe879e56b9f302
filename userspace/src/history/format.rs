//! The layout of a segment. All integers are little-endian.
//!
//! A segment is a [`SegmentHeader`] and then frames as in a recording ([`crate::recording`]): a header with two checksums, and
//! a payload that is deflated. Frames of the kind [`ENTRY`] hold an [`EntryHead`] and then a snapshot's JSON. A segment that
//! was ended in order has behind them one frame of the kind [`INDEX`], which has the place and the head of each entry, and a
//! [`Tail`], so that a month of minutes is opened by reading some dozen tails. One without a tail is read as a whole.

use super::Stamp;
use crate::recording::format::{FrameHeader, sums_agree, u32_at, u64_at};
use std::path::{Path, PathBuf};

/// Version of this layout. Only the first twelve bytes of a file, magic and this, are the same in all versions.
pub const SEGMENT_VERSION: u32 = 1;

/// How a segment begins.
pub(super) const MAGIC: [u8; 8] = *b"\x89NTHIS\r\n";
/// How a tail begins.
const TAIL_MAGIC: [u8; 8] = *b"\x89NTIDX\r\n";
/// Kind of a frame: an [`EntryHead`] and a snapshot. Numbers go on from those of [`crate::recording::Kind`].
pub(super) const ENTRY: u8 = 6;
/// Kind of a frame: the index.
pub(super) const INDEX: u8 = 7;

/// A segment's name.
pub(super) fn segment_path(dir: &Path, sequence: u32) -> PathBuf {
    dir.join(format!("{sequence:010}.seg"))
}

/// The number in a segment's name.
pub(super) fn sequence_of(name: &[u8]) -> Option<u32> {
    let digits = name.strip_suffix(b".seg")?;
    if digits.len() != 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// [`SEGMENT_VERSION`] of the writer.
    pub(super) version: u32,
    /// As in its name.
    pub(super) sequence: u32,
}

impl SegmentHeader {
    /// Bytes in a file.
    pub(super) const LEN: usize = 20;
    const SUMMED: usize = Self::LEN - 4;

    pub(super) fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..Self::SUMMED]);
        bytes[Self::SUMMED..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// None when it is no segment, or its checksum is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.first_chunk()?;
        let header = Self { version: u32_at(bytes, 8), sequence: u32_at(bytes, 12) };
        let sum = crc32fast::hash(&bytes[..Self::SUMMED]);
        (bytes.starts_with(&MAGIC) && sums_agree(sum, u32_at(bytes, Self::SUMMED))).then_some(header)
    }
}

/// When a snapshot is of, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// Start of its measurement, Unix time, ns.
    pub start_unix_ns: u64,
    /// Length of its measurement, ns.
    pub duration_ns: u64,
    /// When it was written.
    pub written: Stamp,
}

impl EntryHead {
    /// Bytes before the JSON.
    pub(super) const LEN: usize = 48;

    /// End of its measurement, Unix time, ns.
    #[must_use]
    pub const fn end_unix_ns(&self) -> u64 {
        self.start_unix_ns.saturating_add(self.duration_ns)
    }

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..8].copy_from_slice(&self.start_unix_ns.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.duration_ns.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.written.unix_ns.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.written.boot_ns.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.written.boot_id);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.first_chunk()?;
        let (_, boot_id) = bytes.split_last_chunk::<16>()?;
        let written = Stamp { unix_ns: u64_at(bytes, 16), boot_ns: u64_at(bytes, 24), boot_id: *boot_id };
        Some(Self { start_unix_ns: u64_at(bytes, 0), duration_ns: u64_at(bytes, 8), written })
    }
}

/// Where a frame with a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Place of its frame, bytes.
    pub(super) offset: u64,
    /// Length of its frame, bytes.
    pub(super) len: u32,
    pub(super) head: EntryHead,
}

impl Entry {
    /// Bytes in an index.
    pub(super) const LEN: usize = 12 + EntryHead::LEN;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.offset.to_le_bytes());
        out.extend(self.len.to_le_bytes());
        out.extend(self.head.encode());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.first_chunk()?;
        Some(Self { offset: u64_at(bytes, 0), len: u32_at(bytes, 8), head: EntryHead::decode(&bytes[12..])? })
    }

    /// All entries of an index; none where it has a remainder.
    pub(super) fn decode_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let entries = bytes.chunks(Self::LEN).map(Self::decode).collect::<Option<Vec<_>>>()?;
        bytes.len().is_multiple_of(Self::LEN).then_some(entries)
    }
}

/// What is known of a segment without reading its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Entries.
    pub(super) entries: u32,
    /// Places where frames are damaged.
    pub(super) damaged: u32,
    /// The earliest start of an entry, Unix time, ns.
    pub(super) from_unix_ns: u64,
    /// The latest end of one, Unix time, ns.
    pub(super) to_unix_ns: u64,
}

impl Summary {
    pub(super) fn of(entries: &[Entry], damaged: u32) -> Self {
        Self {
            entries: entries.len() as u32,
            damaged,
            from_unix_ns: entries.iter().map(|e| e.head.start_unix_ns).min().unwrap_or(0),
            to_unix_ns: entries.iter().map(|e| e.head.end_unix_ns()).max().unwrap_or(0),
        }
    }

    /// Whether an entry may lie between these times.
    pub(super) const fn overlaps(&self, from_unix_ns: u64, to_unix_ns: u64) -> bool {
        self.entries > 0 && self.from_unix_ns < to_unix_ns && self.to_unix_ns > from_unix_ns
    }
}

/// The end of a segment that was ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// Place of the index frame, bytes.
    pub(super) index: u64,
    pub(super) summary: Summary,
}

impl Tail {
    /// Bytes in a file.
    pub(super) const LEN: usize = 44;
    const SUMMED: usize = Self::LEN - 4;

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..8].copy_from_slice(&TAIL_MAGIC);
        bytes[8..16].copy_from_slice(&self.index.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.summary.entries.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.summary.damaged.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.summary.from_unix_ns.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.summary.to_unix_ns.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..Self::SUMMED]);
        bytes[Self::SUMMED..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// None when these bytes are no tail.
    pub(super) fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let summary = Summary {
            entries: u32_at(bytes, 16),
            damaged: u32_at(bytes, 20),
            from_unix_ns: u64_at(bytes, 24),
            to_unix_ns: u64_at(bytes, 32),
        };
        let sum = crc32fast::hash(&bytes[..Self::SUMMED]);
        let whole = bytes.starts_with(&TAIL_MAGIC) && sums_agree(sum, u32_at(bytes, Self::SUMMED));
        whole.then_some(Self { index: u64_at(bytes, 8), summary })
    }
}

/// Bytes that ending a segment of so many entries takes at most.
pub(super) const fn end_bytes(entries: usize) -> u64 {
    (FrameHeader::LEN + entries * Entry::LEN + Tail::LEN) as u64
}
