//! The layout of a recording's files. All integers are little-endian.
//!
//! A file is a [`FileHeader`] and then frames. A frame is a [`FrameHeader`] and its payload, compressed when that is
//! smaller: batches, which come fast, by LZ4 (block format), snapshots by DEFLATE (RFC 1951). Segments of
//! [`crate::history`] are made of the same frames.
//!
//! | bytes | field | |
//! | --- | --- | --- |
//! | 0..4 | `len` | bytes of the payload as stored |
//! | 4 | `kind` | a [`Kind`] |
//! | 5 | `flags` | [`COMPRESSED`], [`COPY`], [`DEFLATED`] |
//! | 6..8 | `check` | low half of the CRC-32 of the other fields but `crc32`: whether `len` can be trusted |
//! | 8..12 | `raw_len` | bytes of the payload |
//! | 12..16 | `crc32` | CRC-32 (IEEE) of `len`, `kind`, `flags`, `raw_len` and the stored payload |

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use nettrace_common::WIRE_VERSION;
use std::{
    fs::File,
    io::{self, Read, Write as _},
    path::Path,
};

/// Version of this layout. Only the first twelve bytes of a file, magic and this, are the same in all versions.
pub const FORMAT_VERSION: u32 = 1;
/// The largest payload that is written or read, bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// How a file begins: a byte that no text has, the name, and line ends that a transfer as text would change.
pub(super) const MAGIC: [u8; 8] = *b"\x89NTREC\r\n";
/// Flag: the payload is compressed by LZ4.
pub(super) const COMPRESSED: u8 = 1;
/// Flag: a Start frame repeated at the head of a later file.
pub(super) const COPY: u8 = 2;
/// Flag: the payload is compressed by DEFLATE.
pub(crate) const DEFLATED: u8 = 4;

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
    /// A snapshot of a time around what is recorded (JSON). Only in what the flight recorder writes.
    Snapshot = 5,
}

impl Kind {
    pub(super) const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Start,
            2 => Self::Batch,
            3 => Self::Tick,
            4 => Self::End,
            5 => Self::Snapshot,
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
pub(crate) struct FrameHeader {
    /// Bytes of the payload as stored.
    pub(crate) len: u32,
    /// A [`Kind`]; segments of a history have their own.
    pub(crate) kind: u8,
    /// [`COMPRESSED`], [`COPY`], [`DEFLATED`].
    pub(crate) flags: u8,
    /// Bytes of the payload.
    pub(crate) raw_len: u32,
}

impl FrameHeader {
    /// Bytes in a file.
    pub(crate) const LEN: usize = 16;

    /// CRC-32 of the fields, to be continued with the payload.
    fn hasher(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.len.to_le_bytes());
        hasher.update(&[self.kind, self.flags]);
        hasher.update(&self.raw_len.to_le_bytes());
        hasher
    }

    /// CRC-32 of the fields and the stored payload.
    pub(crate) fn crc32(&self, stored: &[u8]) -> u32 {
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
    pub(crate) fn decode(bytes: &[u8; Self::LEN]) -> Option<(Self, u32)> {
        let header =
            Self { len: u32_at(bytes, 0), kind: bytes[4], flags: bytes[5], raw_len: u32_at(bytes, 8) };
        let check = u16::from_le_bytes([bytes[6], bytes[7]]);
        sums_agree(header.check(), check).then(|| (header, u32_at(bytes, 12)))
    }

    /// Whether its lengths agree with its flags, and no payload is larger than [`MAX_PAYLOAD_BYTES`].
    pub(crate) const fn lengths_fit(&self) -> bool {
        let fits = if self.is_compressed() { self.len < self.raw_len } else { self.len == self.raw_len };
        fits && self.raw_len as usize <= MAX_PAYLOAD_BYTES
    }

    const fn is_compressed(&self) -> bool {
        self.flags & (COMPRESSED | DEFLATED) != 0
    }

    /// The payload of what is stored of it; none where it cannot be decompressed to [`Self::raw_len`] bytes, which the caller
    /// has compared with [`MAX_PAYLOAD_BYTES`].
    pub(crate) fn unpack(&self, stored: Vec<u8>) -> Option<Vec<u8>> {
        if !self.is_compressed() {
            return Some(stored);
        }
        let mut raw = vec![0; self.raw_len as usize];
        if self.flags & DEFLATED == 0 {
            let len = lz4_flex::block::decompress_into(&stored, &mut raw).ok()?;
            return (len == raw.len()).then_some(raw);
        }
        let mut inflated = DeflateDecoder::new(stored.as_slice());
        inflated.read_exact(&mut raw).ok()?;
        // Nothing may follow.
        matches!(inflated.read(&mut [0]), Ok(0)).then_some(raw)
    }
}

/// Whether two checksums are the same. A fuzzer would hardly ever guess one, and what is behind would go untested, so
/// to a fuzzer all of them are.
pub(crate) fn sums_agree<T: PartialEq + Copy>(a: T, b: T) -> bool {
    cfg!(fuzzing) || a == b
}

/// Replaces `out` by the frame of a payload, whose length the caller has compared with [`MAX_PAYLOAD_BYTES`]. With
/// [`DEFLATED`] among the flags it is deflated, else compressed by LZ4; neither where it would not become smaller.
pub(crate) fn encode_frame(kind: u8, flags: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.resize(FrameHeader::LEN, 0);
    let packed = if flags & DEFLATED == 0 { lz4(payload, out) } else { deflate(payload, out) };
    let mut flags = flags & !DEFLATED;
    match packed {
        Some(flag) if out.len() - FrameHeader::LEN < payload.len() => flags |= flag,
        _ => {
            out.truncate(FrameHeader::LEN);
            out.extend_from_slice(payload);
        }
    }
    let len = (out.len() - FrameHeader::LEN) as u32;
    let header = FrameHeader { len, kind, flags, raw_len: payload.len() as u32 };
    let crc = header.crc32(&out[FrameHeader::LEN..]);
    out[..FrameHeader::LEN].copy_from_slice(&header.encode(crc));
}

/// Appends the payload, compressed, and yields the flag that says so.
fn lz4(payload: &[u8], out: &mut Vec<u8>) -> Option<u8> {
    let at = out.len();
    out.resize(at + lz4_flex::block::get_maximum_output_size(payload.len()), 0);
    let len = lz4_flex::block::compress_into(payload, &mut out[at..]).ok()?;
    out.truncate(at + len);
    Some(COMPRESSED)
}

fn deflate(payload: &[u8], out: &mut Vec<u8>) -> Option<u8> {
    let mut deflated = DeflateEncoder::new(out, Compression::default());
    deflated.write_all(payload).ok()?;
    deflated.try_finish().ok()?;
    Some(DEFLATED)
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
pub(crate) fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
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
