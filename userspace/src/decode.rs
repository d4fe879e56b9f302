//! From a batch of ring bytes to records, in place: payloads are slices of the batch.

use crate::ring::{DISCARDED, RECORD_HEADER, step};
use bytes::{Buf, Bytes};
use nettrace_common::{
    probes::{
        black_hole::Stuck, conntrack::Trouble, dns::DnsMessage, drop::Drop, frag::Reassembly,
        fragmenting::Fragmenting, ptb::PacketTooBig, tcp::TcpEvent,
    },
    wire::{Header, Kind, Measure, Record as Wire},
};

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// One latency of one packet.
    Measure(Measure),
    /// A DNS message and its captured payload.
    Dns(DnsMessage, Bytes),
    /// An event of a TCP connection.
    Tcp(TcpEvent),
    /// A dropped packet.
    Drop(Drop),
    /// A datagram put together.
    Reassembly(Reassembly),
    /// A path that is too narrow.
    PacketTooBig(PacketTooBig),
    /// A datagram cut or put together.
    Fragmenting(Fragmenting),
    /// A packet that connection tracking had trouble with.
    Conntrack(Trouble),
    /// A segment that does not get through.
    Stuck(Stuck),
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its kind, or than it says itself.
    #[error("record of kind {kind} has {have} bytes, needs {need}")]
    Short {
        /// Its kind.
        kind: u8,
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// A kind that is not known.
    #[error("record of unknown kind {0}")]
    Kind(u8),
    /// The batch ends within a record.
    #[error("batch ends within a record: {have} of {need} bytes")]
    CutOff {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
}

/// The records of a batch. After an error the next record follows, unless the batch is cut off.
pub struct Records {
    batch: Bytes,
}

/// Walks a batch.
#[must_use]
pub fn records(batch: Bytes) -> Records {
    Records { batch }
}

impl Iterator for Records {
    type Item = Result<Record, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.batch.is_empty() {
                return None;
            }
            let have = self.batch.len();
            if have < RECORD_HEADER {
                self.batch.clear();
                return Some(Err(DecodeError::CutOff { have, need: RECORD_HEADER }));
            }
            let word = (&self.batch[..4]).get_u32_ne();
            let need = step(word);
            if have < need {
                self.batch.clear();
                return Some(Err(DecodeError::CutOff { have, need }));
            }
            let mut record = self.batch.split_to(need);
            if word & DISCARDED == 0 {
                record.advance(RECORD_HEADER);
                return Some(decode(&record));
            }
        }
    }
}

/// One record's bytes.
fn decode(bytes: &Bytes) -> Result<Record, DecodeError> {
    let header: Header = prefix(bytes, 0)?;
    let kind = Kind::from_u8(header.kind).ok_or(DecodeError::Kind(header.kind))?;
    let need = usize::from(header.len);
    if bytes.len() < need {
        return Err(DecodeError::Short { kind: header.kind, have: bytes.len(), need });
    }
    let bytes = bytes.slice(..need);
    Ok(match kind {
        Kind::Measure => Record::Measure(prefix(&bytes, header.kind)?),
        Kind::Tcp => Record::Tcp(prefix(&bytes, header.kind)?),
        Kind::Drop => Record::Drop(prefix(&bytes, header.kind)?),
        Kind::Reassembly => Record::Reassembly(prefix(&bytes, header.kind)?),
        Kind::PacketTooBig => Record::PacketTooBig(prefix(&bytes, header.kind)?),
        Kind::Fragmenting => Record::Fragmenting(prefix(&bytes, header.kind)?),
        Kind::Conntrack => Record::Conntrack(prefix(&bytes, header.kind)?),
        Kind::Stuck => Record::Stuck(prefix(&bytes, header.kind)?),
        Kind::Dns => {
            let message: DnsMessage = prefix(&bytes, header.kind)?;
            let start = size_of::<DnsMessage>();
            let end = start + usize::from(message.captured);
            if bytes.len() < end {
                return Err(DecodeError::Short { kind: header.kind, have: bytes.len(), need: end });
            }
            Record::Dns(message, bytes.slice(start..end))
        }
    })
}

/// The wire struct at the start of a record.
fn prefix<T: Wire>(bytes: &Bytes, kind: u8) -> Result<T, DecodeError> {
    let need = size_of::<T>();
    if bytes.len() < need {
        return Err(DecodeError::Short { kind, have: bytes.len(), need });
    }
    // SAFETY: there are enough bytes, and `Wire` promises that any of them make a valid value.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Wire;

    /// As the kernel lays a record into the ring.
    pub(crate) fn framed(record: &[u8], flags: u32) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(record.len() as u32 | flags).to_ne_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(record);
        out.resize(out.len().next_multiple_of(8), 0xee);
        out
    }

    /// A record's bytes.
    pub(crate) fn bytes_of<T: Wire>(value: &T) -> Vec<u8> {
        // SAFETY: `Wire` types have no padding.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{bytes_of, framed},
        *,
    };
    use proptest::prelude::*;

    fn header(kind: Kind, len: usize) -> Header {
        Header { kind: kind as u8, len: len as u16, ts_ns: 7, ..Header::default() }
    }

    fn dns(payload: &[u8], captured: u16) -> Vec<u8> {
        let len = size_of::<DnsMessage>() + payload.len();
        let mut bytes =
            bytes_of(&DnsMessage { header: header(Kind::Dns, len), captured, ..DnsMessage::default() });
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn a_batch_gives_its_records_in_order_without_the_discarded() {
        let drop = Drop { header: header(Kind::Drop, 80), reason: 12, ..Drop::default() };
        let mut batch = framed(&bytes_of(&drop), 0);
        batch.extend(framed(&bytes_of(&drop), DISCARDED));
        batch.extend(framed(&dns(b"hello", 5), 0));
        let got: Vec<_> = records(batch.into()).collect();
        assert_eq!(got.len(), 2);
        assert_eq!(got[0], Ok(Record::Drop(drop)));
        assert!(matches!(&got[1], Ok(Record::Dns(_, payload)) if payload.as_ref() == b"hello"));
    }

    #[test]
    fn a_bad_record_does_not_take_the_next_one_with_it() {
        let mut batch = framed(&[99; 40], 0);
        batch.extend(framed(&dns(b"abc", 200), 0));
        batch.extend(framed(&dns(b"abc", 3), 0));
        let got: Vec<_> = records(batch.into()).collect();
        assert_eq!(got[0], Err(DecodeError::Kind(99)));
        assert_eq!(got[1], Err(DecodeError::Short { kind: 2, have: 83, need: 280 }));
        assert!(got[2].is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let count = records(bytes.into()).count();
            prop_assert!(count <= 2000 / RECORD_HEADER + 1);
        }
    }
}
