//! Finds the whole frames in the bytes of a segment, whatever else is among them.
//!
//! Needs the bytes; yields the entries, how many places are damaged, and where the last whole frame ends. It trusts nothing: a
//! frame counts only when both of its checksums are right. Where a header cannot be trusted, the next frame is searched for
//! byte by byte, so that damage costs the frames that it touches and no others.

use super::format::{ENTRY, Entry, EntryHead, INDEX, SegmentHeader, Summary, Tail};
use crate::recording::format::{DEFLATED, FrameHeader, sums_agree};
use flate2::read::DeflateDecoder;
use std::io::Read as _;

/// What a segment holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    pub(super) entries: Vec<Entry>,
    /// Places where one frame or several are damaged, with whole ones behind them.
    pub(super) damaged: u32,
    /// Where the last whole entry ends, bytes: what is behind it was never finished.
    pub(super) end: u64,
}

impl Scanned {
    pub(super) fn summary(&self) -> Summary {
        Summary::of(&self.entries, self.damaged)
    }
}

/// A frame that begins somewhere.
enum At {
    /// A snapshot.
    Entry(EntryHead, usize),
    /// The index.
    Index,
    /// A frame whose length can be trusted and whose payload cannot.
    Damaged(usize),
    /// Nothing that can be trusted.
    Nothing,
}

/// Reads a segment from its beginning.
pub(super) fn scan(bytes: &[u8]) -> Scanned {
    let mut found = Scanned { end: SegmentHeader::LEN as u64, ..Scanned::default() };
    let mut at = SegmentHeader::LEN;
    // Damage since the last whole frame: with none behind it, it is the end that was never written.
    let mut since = 0;
    while at < bytes.len() {
        match frame_at(bytes, at) {
            At::Entry(head, len) => {
                found.damaged += since;
                since = 0;
                found.entries.push(Entry { offset: at as u64, len: len as u32, head });
                at += len;
                found.end = at as u64;
            }
            // Behind it is the tail, and nothing else.
            At::Index => break,
            At::Damaged(len) => {
                since += 1;
                at += len;
            }
            At::Nothing => {
                let next = (at + 1..bytes.len()).find(|at| matches!(frame_at(bytes, *at), At::Entry(..)));
                let Some(next) = next else { break };
                since += 1;
                at = next;
            }
        }
    }
    found
}

/// The entries of a segment that ends with its index; none when it does not, and then it is to be read as a whole.
pub(super) fn by_index(
    bytes_at: impl Fn(u64, usize) -> Option<Vec<u8>>,
    size: u64,
) -> Option<(Tail, Vec<Entry>)> {
    let tail = tail(&bytes_at, size)?;
    let len = size.checked_sub(tail.index + Tail::LEN as u64)?;
    let frame = bytes_at(tail.index, usize::try_from(len).ok()?)?;
    let (header, payload) = whole(&frame, 0)?;
    if header.kind != INDEX || FrameHeader::LEN + payload.len() != frame.len() {
        return None;
    }
    let entries = Entry::decode_all(&header.unpack(payload.to_vec())?)?;
    // In order, between the header and the index.
    let mut end = SegmentHeader::LEN as u64;
    for entry in &entries {
        let fits = entry.offset >= end && entry.len as usize > FrameHeader::LEN;
        end = entry.offset.checked_add(u64::from(entry.len)).filter(|end| fits && *end <= tail.index)?;
    }
    (entries.len() == tail.summary.entries as usize).then_some((tail, entries))
}

/// The tail of a segment of this size, if it has one.
pub(super) fn tail(bytes_at: &impl Fn(u64, usize) -> Option<Vec<u8>>, size: u64) -> Option<Tail> {
    let bytes = bytes_at(size.checked_sub(Tail::LEN as u64)?, Tail::LEN)?;
    let tail = Tail::decode(bytes.as_slice().try_into().ok()?)?;
    let room = size - Tail::LEN as u64;
    (tail.index >= SegmentHeader::LEN as u64 && tail.index < room).then_some(tail)
}

/// The payload of the entry whose frame these bytes are: its head, and the snapshot's JSON.
pub(super) fn unpack_entry(frame: &[u8]) -> Option<(EntryHead, Vec<u8>)> {
    let (header, stored) = whole(frame, 0)?;
    if header.kind != ENTRY {
        return None;
    }
    let mut payload = header.unpack(stored.to_vec())?;
    let head = EntryHead::decode(&payload)?;
    payload.drain(..EntryHead::LEN);
    Some((head, payload))
}

fn frame_at(bytes: &[u8], at: usize) -> At {
    let Some(header) = header_at(bytes, at) else { return At::Nothing };
    let len = FrameHeader::LEN + header.len as usize;
    let Some((_, stored)) = whole(bytes, at) else { return At::Damaged(len) };
    if header.kind == INDEX {
        return At::Index;
    }
    // Only the beginning of it is needed, and it was checked.
    let mut head = [0; EntryHead::LEN];
    let read = if header.flags & DEFLATED == 0 {
        stored.get(..EntryHead::LEN).map(|stored| head.copy_from_slice(stored)).is_some()
    } else {
        DeflateDecoder::new(stored).read_exact(&mut head).is_ok()
    };
    match EntryHead::decode(&head) {
        Some(head) if read => At::Entry(head, len),
        _ => At::Damaged(len),
    }
}

/// A header of ours that can be trusted, of a frame that fits into the bytes.
fn header_at(bytes: &[u8], at: usize) -> Option<FrameHeader> {
    let rest = bytes.get(at..)?;
    let first: &[u8; FrameHeader::LEN] = rest.first_chunk()?;
    // Cheap, and wrong nearly everywhere but at a frame.
    if !matches!(first[4], ENTRY | INDEX) || first[5] & !DEFLATED != 0 {
        return None;
    }
    let (header, _) = FrameHeader::decode(first)?;
    let fits = rest.len() - FrameHeader::LEN >= header.len as usize;
    (fits && header.lengths_fit()).then_some(header)
}

/// A frame whose checksums are right, and what is stored of its payload.
fn whole(bytes: &[u8], at: usize) -> Option<(FrameHeader, &[u8])> {
    let header = header_at(bytes, at)?;
    let rest = bytes.get(at..)?;
    let (_, crc) = FrameHeader::decode(rest.first_chunk()?)?;
    let stored = rest.get(FrameHeader::LEN..)?.get(..header.len as usize)?;
    sums_agree(header.crc32(stored), crc).then_some((header, stored))
}
