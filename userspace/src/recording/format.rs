//! The layout of a recording's files. All integers are little-endian.
//!
//! A file is a [`FileHeader`] and then frames. A frame is a [`FrameHeader`] and its payload, LZ4-compressed (block
//! format) when that is smaller:
//!
//! | bytes | field | |
//! | --- | --- | --- |
//! | 0..4 | `len` | bytes of the payload as stored |
//! | 4 | `kind` | a [`Kind`] |
//! | 5 | `flags` | [`COMPRESSED`], [`COPY`] |
//! | 6..8 | `check` | low half of the CRC-32 of the other fields but `crc32`: whether `len` can be trusted |
//! | 8..12 | `raw_len` | bytes of the payload |
//! | 12..16 | `crc32` | CRC-32 (IEEE) of `len`, `kind`, `flags`, `raw_len` and the stored payload |

use nettrace_common::WIRE_VERSION;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Version of this layout. Only the first twelve bytes of a file, magic and this, are the same in all versions.
pub const FORMAT_VERSION: u32 = 1;
/// The largest payload that is written or read, bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// How a file begins: a byte that no text has, the name, and line ends that a transfer as text would change.
pub(super) const MAGIC: [u8; 8] = *b"\x89NTREC\r\n";
/// Flag: the payload is compressed.
pub(super) const COMPRESSED: u8 = 1;
/// Flag: a Start frame repeated at the head of a later file.
pub(super) const COPY: u8 = 2;

/// What a frame holds.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What replay needs to know before everything else (JSON). The first frame, and there is one.
    Start = 1,
    /// Ring records as they were copied from the ring buffer, one after another.
    Batch = 2,
    /// Periodic state (JSON).
    Tick = 3,
    /// The kernel side's state at the end (JSON). The last frame; without it the recording is incomplete.
    End = 4,
}

impl Kind {
    pub(super) const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Start,
            2 => Self::Batch,
            3 => Self::Tick,
            4 => Self::End,
            _ => return None,
        })
    }
}

/// The head of every file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// [`FORMAT_VERSION`] of the writer.
    pub(super) format: u32,
    /// [`WIRE_VERSION`] of the writer.
    pub(super) wire: u32,
    /// A random number that the files of one recording share, so that those of an older one are told apart.
    pub(super) id: u64,
    /// Place of this file in the recording, from 1.
    pub(super) sequence: u32,
    /// The oldest file that was still there when this one was begun.
    pub(super) oldest: u32,
    /// Frames in the files before this one, without copies.
    pub(super) frames_before: u64,
    /// Bytes of the files before this one.
    pub(super) bytes_before: u64,
}

impl FileHeader {
    /// Bytes in a file.
    pub(super) const LEN: usize = 52;
    /// Bytes before the checksum.
    const SUMMED: usize = Self::LEN - 4;

    /// A header of this version.
    pub(super) const fn new(id: u64) -> Self {
        Self {
            format: FORMAT_VERSION,
            wire: WIRE_VERSION,
            id,
            sequence: 1,
            oldest: 1,
            frames_before: 0,
            bytes_before: 0,
        }
    }

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.format.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.wire.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.oldest.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.frames_before.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.bytes_before.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..Self::SUMMED]);
        bytes[Self::SUMMED..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The fields, and whether the checksum is right. The caller has compared the magic.
    pub(super) fn decode(bytes: &[u8; Self::LEN]) -> (Self, bool) {
        let header = Self {
            format: u32_at(bytes, 8),
            wire: u32_at(bytes, 12),
            id: u64_at(bytes, 16),
            sequence: u32_at(bytes, 24),
            oldest: u32_at(bytes, 28),
            frames_before: u64_at(bytes, 32),
            bytes_before: u64_at(bytes, 40),
        };
        (header, sums_agree(crc32fast::hash(&bytes[..Self::SUMMED]), u32_at(bytes, Self::SUMMED)))
    }
}

/// The head of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Bytes of the payload as stored.
    pub(super) len: u32,
    /// A [`Kind`].
    pub(super) kind: u8,
    /// [`COMPRESSED`], [`COPY`].
    pub(super) flags: u8,
    /// Bytes of the payload.
    pub(super) raw_len: u32,
}

impl FrameHeader {
    /// Bytes in a file.
    pub(super) const LEN: usize = 16;

    /// CRC-32 of the fields, to be continued with the payload.
    fn hasher(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.len.to_le_bytes());
        hasher.update(&[self.kind, self.flags]);
        hasher.update(&self.raw_len.to_le_bytes());
        hasher
    }

    /// CRC-32 of the fields and the stored payload.
    pub(super) fn crc32(&self, stored: &[u8]) -> u32 {
        let mut hasher = self.hasher();
        hasher.update(stored);
        hasher.finalize()
    }

    fn check(&self) -> u16 {
        (self.hasher().finalize() & 0xFFFF) as u16
    }

    fn encode(&self, crc32: u32) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5] = self.flags;
        bytes[6..8].copy_from_slice(&self.check().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&crc32.to_le_bytes());
        bytes
    }

    /// The fields and the `crc32` that goes with them, or none when the header's own check is wrong.
    pub(super) fn decode(bytes: &[u8; Self::LEN]) -> Option<(Self, u32)> {
        let header =
            Self { len: u32_at(bytes, 0), kind: bytes[4], flags: bytes[5], raw_len: u32_at(bytes, 8) };
        let check = u16::from_le_bytes([bytes[6], bytes[7]]);
        sums_agree(header.check(), check).then(|| (header, u32_at(bytes, 12)))
    }
}

/// Whether two checksums are the same. A fuzzer would hardly ever guess one, and what is behind would go untested, so
/// to a fuzzer all of them are.
pub(super) fn sums_agree<T: PartialEq + Copy>(a: T, b: T) -> bool {
    cfg!(fuzzing) || a == b
}

/// Replaces `out` by the frame of a payload, whose length the caller has compared with [`MAX_PAYLOAD_BYTES`].
pub(super) fn encode_frame(kind: Kind, flags: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.resize(FrameHeader::LEN + lz4_flex::block::get_maximum_output_size(payload.len()), 0);
    let compressed = lz4_flex::block::compress_into(payload, &mut out[FrameHeader::LEN..]);
    let (flags, len) = match compressed {
        Ok(len) if len < payload.len() => (flags | COMPRESSED, len),
        _ => {
            out[FrameHeader::LEN..][..payload.len()].copy_from_slice(payload);
            (flags, payload.len())
        }
    };
    out.truncate(FrameHeader::LEN + len);
    let header = FrameHeader { len: len as u32, kind: kind as u8, flags, raw_len: payload.len() as u32 };
    let crc = header.crc32(&out[FrameHeader::LEN..]);
    out[..FrameHeader::LEN].copy_from_slice(&header.encode(crc));
}

/// What a file seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A recording, whole or not, of any version.
    Recording,
    /// A JSON object: a snapshot, if it parses.
    Snapshot,
    /// Nothing in it.
    Empty,
    /// Something else.
    Unknown,
}

/// Tells what a file is by how it begins.
///
/// # Errors
/// When it cannot be opened or read.
pub fn sniff(path: &Path) -> io::Result<FileKind> {
    let mut head = Vec::new();
    File::open(path)?.take(4096).read_to_end(&mut head)?;
    Ok(sniff_bytes(&head))
}

/// Tells what a file is by its first bytes, some thousand of them.
#[must_use]
pub fn sniff_bytes(head: &[u8]) -> FileKind {
    if head.is_empty() {
        return FileKind::Empty;
    }
    if head.starts_with(&MAGIC) {
        return FileKind::Recording;
    }
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).trim_ascii_start();
    if text.first() == Some(&b'{') { FileKind::Snapshot } else { FileKind::Unknown }
}

/// The integer at `at`; the caller keeps within the array.
fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// A frame with true checksums and whatever else.
#[cfg(test)]
pub(super) fn forged_frame(len: u32, kind: u8, flags: u8, raw_len: u32, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { len, kind, flags, raw_len };
    let mut bytes = header.encode(header.crc32(payload)).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}
