//! DNS over TCP: finds the messages, each after its length (RFC 1035, section 4.2.2, RFC 7766), in segments that may
//! be repeated, out of order, captured in part, or missing.
//!
//! Each direction of a connection at each interface is a stream of its own. A stream whose start was not seen, or
//! that lost its place because a length was not captured, is taken up again at the next segment that starts with a
//! plausible message; until then its bytes are one unparsable message, never guesses. Streams, segments held for
//! their turn, and bytes kept of a message are all bounded.

use super::Vantage;
use super::message::{HEADER_BYTES, Message};
use nettrace_common::probes::dns::CAPTURE_BYTES;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
/// Segments of one stream held back because an earlier one is missing.
const MAX_HELD: usize = 8;
/// How long a segment waits for an earlier one. Reordering takes microseconds; longer means that a record was lost.
const MAX_HOLD_NS: u64 = 200_000_000;
/// A sequence number farther than this from the expected one belongs to another connection between the same ports.
const WINDOW: u32 = 1 << 20;
/// A stream without segments for so long is forgotten.
const IDLE_NS: u64 = 120_000_000_000;
/// The shortest message that a stream is taken up with again: a header and a question for the root.
const MIN_MESSAGE: usize = HEADER_BYTES + 5;

/// One direction of one connection at one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StreamKey {
    /// Where its segments are seen.
    pub(super) vantage: Vantage,
    /// Sender.
    pub(super) source: SocketAddr,
    /// Receiver.
    pub(super) destination: SocketAddr,
}

/// One segment.
#[derive(Clone, Debug)]
pub(super) struct Segment<'a> {
    /// When it was seen, ns.
    pub(super) ts_ns: u64,
    /// Sequence number of its first byte.
    pub(super) seq: u32,
    /// TCP flag byte.
    pub(super) flags: u8,
    /// Payload bytes on the wire.
    pub(super) len: u32,
    /// The first of them.
    pub(super) bytes: &'a [u8],
}

/// One message found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Framed {
    /// When its first segment was seen, ns.
    pub(super) started_ns: u64,
    /// When its last segment was seen, ns.
    pub(super) ended_ns: u64,
    /// Its length on the wire, bytes.
    pub(super) wire_len: usize,
    /// Its first bytes, at most [`CAPTURE_BYTES`].
    pub(super) bytes: Vec<u8>,
}

/// What a segment yielded.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Messages, in the order of the stream.
    pub(super) messages: Vec<Framed>,
    /// Messages, or runs of them, that were lost.
    pub(super) unparsable: u64,
    /// Streams that were given up to make room.
    pub(super) evicted: u64,
}

/// All streams.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    max: usize,
    table: HashMap<StreamKey, Stream>,
    /// Least recently used first: time of the last segment, and a number that tells streams apart.
    order: BTreeMap<(u64, u64), StreamKey>,
    serial: u64,
}

#[derive(Clone, Debug)]
struct Stream {
    used: (u64, u64),
    /// Sequence number of the next byte.
    next: u32,
    /// Nothing but the SYN was seen, so that [`Self::next`] may be one too high: it is when the record's number
    /// already stands for the byte after the SYN.
    fresh: bool,
    frame: Frame,
    held: Vec<Held>,
}

#[derive(Clone, Debug)]
struct Held {
    ts_ns: u64,
    seq: u32,
    len: u32,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Frame {
    /// The next byte starts a length.
    Between,
    /// The first byte of a length was seen.
    HalfLength { started_ns: u64, upper: u8 },
    /// Within a message.
    Body(Body),
    /// Not known where messages start; whether that was counted.
    Lost { counted: bool },
}

#[derive(Clone, Debug)]
struct Body {
    started_ns: u64,
    wire_len: usize,
    seen: usize,
    bytes: Vec<u8>,
    /// Bytes were missed, so that nothing may be appended any more.
    holed: bool,
}

impl StreamKey {
    fn reverse(self) -> Self {
        Self { vantage: self.vantage.opposite(), source: self.destination, destination: self.source }
    }
}

impl Streams {
    /// At most `max` streams.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), table: HashMap::new(), order: BTreeMap::new(), serial: 0 }
    }

    /// Takes a segment, and yields the messages that it completes.
    pub(super) fn feed(&mut self, key: StreamKey, segment: &Segment<'_>) -> Found {
        let mut found = Found::default();
        self.forget_idle(segment.ts_ns, &mut found);
        if segment.flags & RST != 0 {
            self.remove(&key, &mut found);
            self.remove(&key.reverse(), &mut found);
            return found;
        }
        if segment.flags & SYN != 0 {
            self.remove(&key, &mut found);
        } else if segment.len == 0 && !self.table.contains_key(&key) {
            return found;
        }
        let used = (segment.ts_ns, self.serial);
        self.serial += 1;
        if !self.table.contains_key(&key) && self.table.len() >= self.max {
            self.evict(&mut found);
        }
        let stream = self.table.entry(key).or_insert_with(|| Stream::new(used, segment));
        self.order.remove(&stream.used);
        stream.used = used;
        self.order.insert(used, key);
        stream.feed(segment, &mut found);
        if segment.flags & FIN != 0 {
            stream.release(&mut found);
            self.remove(&key, &mut found);
        }
        found
    }

    fn remove(&mut self, key: &StreamKey, found: &mut Found) {
        if let Some(stream) = self.table.remove(key) {
            self.order.remove(&stream.used);
            found.unparsable += u64::from(stream.is_unfinished());
        }
    }

    fn evict(&mut self, found: &mut Found) {
        if let Some((_, oldest)) = self.order.pop_first() {
            self.remove(&oldest, found);
            found.evicted += 1;
        }
    }

    fn forget_idle(&mut self, now_ns: u64, found: &mut Found) {
        while let Some((&(used_ns, _), &key)) = self.order.first_key_value() {
            if now_ns.saturating_sub(used_ns) < IDLE_NS {
                break;
            }
            self.remove(&key, found);
        }
    }
}

impl Stream {
    /// A stream that starts with this segment: in its place after a SYN, else lost.
    fn new(used: (u64, u64), first: &Segment<'_>) -> Self {
        let fresh = first.flags & SYN != 0;
        let frame = if fresh { Frame::Between } else { Frame::Lost { counted: false } };
        Self { used, next: first.seq, fresh, frame, held: Vec::new() }
    }

    fn is_unfinished(&self) -> bool {
        !self.held.is_empty() || matches!(self.frame, Frame::HalfLength { .. } | Frame::Body(_))
    }

    fn feed(&mut self, segment: &Segment<'_>, found: &mut Found) {
        let &Segment { ts_ns, seq, flags, len, bytes } = segment;
        if flags & SYN != 0 {
            // TCP Fast Open (RFC 7413) sends data with the SYN, which itself takes one sequence number.
            self.consume(ts_ns, seq, len, bytes, found);
            self.next = seq.wrapping_add(len).wrapping_add(1);
            return;
        }
        if len == 0 {
            return;
        }
        if self.fresh && seq == self.next.wrapping_sub(1) {
            self.next = seq;
        }
        self.fresh = false;
        let ahead = seq.wrapping_sub(self.next);
        if ahead.min(self.next.wrapping_sub(seq)) > WINDOW {
            found.unparsable += u64::from(self.is_unfinished());
            *self = Self::new(self.used, segment);
        } else if ahead != 0 && ahead <= WINDOW {
            self.hold(Held { ts_ns, seq, len, bytes: bytes.to_vec() }, found);
            return;
        }
        self.consume(ts_ns, seq, len, bytes, found);
        self.drain(found);
    }

    fn hold(&mut self, segment: Held, found: &mut Found) {
        let late = self.held.first().is_some_and(|h| segment.ts_ns.saturating_sub(h.ts_ns) > MAX_HOLD_NS);
        if !self.held.iter().any(|h| h.seq == segment.seq && h.len == segment.len) {
            self.held.push(segment);
        }
        if late || self.held.len() > MAX_HELD {
            self.release(found);
        }
    }

    /// Takes held segments whose turn has come.
    fn drain(&mut self, found: &mut Found) {
        while let Some(at) = self.held.iter().position(|h| !is_ahead(h.seq, self.next)) {
            let h = self.held.remove(at);
            self.consume(h.ts_ns, h.seq, h.len, &h.bytes, found);
        }
    }

    /// Takes all held segments; what is missing before one of them is given up.
    fn release(&mut self, found: &mut Found) {
        self.drain(found);
        while let Some(at) = (0..self.held.len()).min_by_key(|&i| self.held[i].seq.wrapping_sub(self.next)) {
            let h = self.held.remove(at);
            self.skip(h.ts_ns, h.seq.wrapping_sub(self.next) as usize, found);
            self.next = h.seq;
            self.consume(h.ts_ns, h.seq, h.len, &h.bytes, found);
            self.drain(found);
        }
    }

    /// Takes a segment that starts at or before the next byte.
    fn consume(&mut self, ts_ns: u64, seq: u32, len: u32, bytes: &[u8], found: &mut Found) {
        let old = self.next.wrapping_sub(seq);
        if old >= len {
            return;
        }
        self.next = seq.wrapping_add(len);
        let bytes = &bytes[..bytes.len().min(len as usize)];
        let unseen = len as usize - bytes.len().max(old as usize);
        let bytes = bytes.get(old as usize..).unwrap_or_default();
        if let Frame::Lost { counted } = self.frame {
            if !is_plausible_start(bytes, len as usize - old as usize) {
                found.unparsable += u64::from(!counted);
                self.frame = Frame::Lost { counted: true };
                return;
            }
            self.frame = Frame::Between;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.step(ts_ns, rest, found);
        }
        self.skip(ts_ns, unseen, found);
    }

    /// Takes some of the bytes, at least one; yields the others.
    fn step<'a>(&mut self, ts_ns: u64, bytes: &'a [u8], found: &mut Found) -> &'a [u8] {
        match &mut self.frame {
            Frame::Between => {
                self.frame = Frame::HalfLength { started_ns: ts_ns, upper: bytes[0] };
                &bytes[1..]
            }
            Frame::HalfLength { started_ns, upper } => {
                let wire_len = usize::from(u16::from_be_bytes([*upper, bytes[0]]));
                if wire_len < HEADER_BYTES {
                    self.lose(found);
                    return &[];
                }
                let started_ns = *started_ns;
                self.frame =
                    Frame::Body(Body { started_ns, wire_len, seen: 0, bytes: Vec::new(), holed: false });
                &bytes[1..]
            }
            Frame::Body(body) => {
                let (own, rest) = bytes.split_at(bytes.len().min(body.wire_len - body.seen));
                if !body.holed {
                    let room = CAPTURE_BYTES - body.bytes.len();
                    body.bytes.extend(&own[..own.len().min(room)]);
                }
                body.seen += own.len();
                self.complete(ts_ns, found);
                rest
            }
            Frame::Lost { .. } => &[],
        }
    }

    /// Passes over bytes that were not captured.
    fn skip(&mut self, ts_ns: u64, unseen: usize, found: &mut Found) {
        if unseen == 0 {
            return;
        }
        if let Frame::Body(body) = &mut self.frame {
            let left = body.wire_len - body.seen;
            body.holed = true;
            body.seen += unseen.min(left);
            self.complete(ts_ns, found);
            if unseen <= left {
                return;
            }
        }
        self.lose(found);
    }

    fn complete(&mut self, ts_ns: u64, found: &mut Found) {
        if let Frame::Body(body) = &mut self.frame
            && body.seen == body.wire_len
        {
            found.messages.push(Framed {
                started_ns: body.started_ns,
                ended_ns: ts_ns,
                wire_len: body.wire_len,
                bytes: std::mem::take(&mut body.bytes),
            });
            self.frame = Frame::Between;
        }
    }

    fn lose(&mut self, found: &mut Found) {
        found.unparsable += u64::from(!matches!(self.frame, Frame::Lost { counted: true }));
        self.frame = Frame::Lost { counted: true };
    }
}

/// Whether a sequence number is after another, in the half of the circle that lies ahead (RFC 9293, section 3.4).
fn is_ahead(seq: u32, of: u32) -> bool {
    let ahead = seq.wrapping_sub(of);
    ahead != 0 && ahead < 1 << 31
}

/// Whether a segment of `len` bytes that starts with `bytes` looks as if it starts with a message: a query must be
/// in it as a whole, an answer may go on in others.
fn is_plausible_start(bytes: &[u8], len: usize) -> bool {
    let Some((prefix, body)) = bytes.split_first_chunk::<2>() else { return false };
    let wire_len = usize::from(u16::from_be_bytes(*prefix));
    if wire_len < MIN_MESSAGE {
        return false;
    }
    let body = &body[..body.len().min(wire_len)];
    let Ok(message) = Message::parse(body, wire_len) else { return false };
    let known_class = |class| matches!(class, 1 | 3 | 4 | 254 | 255);
    (message.response || wire_len + 2 <= len)
        && message.opcode <= 6
        && matches!(&message.questions[..], [q] if known_class(q.qclass))
}

#[cfg(test)]
mod tests;
