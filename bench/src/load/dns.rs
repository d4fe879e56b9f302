//! DNS messages (RFC 1035), as much as a load needs: queries for addresses, whether an answer is one, and a server that has an
//! address for every name.

use super::{LoadError, error::Failure, protocol::Verdict, spec::Record};

/// Names of one load: as many of the longest as fit a message between peers.
const MOST_NAMES: usize = 2000;
/// Longest name in a message, bytes (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;
const HEADER_BYTES: usize = 12;
/// Type and class after a name.
const QUESTION_TAIL: usize = 4;
/// Longest message with its length before it.
pub(super) const LONGEST_FRAME: usize = 2 + 65_535;
/// How long the server's answers may be kept, s.
const TTL_SECONDS: u32 = 30;

const QR: u8 = 0x80;
const RCODE: u8 = 0x0F;
const CLASS_IN: u16 = 1;

impl Record {
    const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }

    /// What the server has for every name: an address for documentation (RFC 5737, RFC 3849).
    const fn data(kind: u16) -> &'static [u8] {
        match kind {
            1 => &[192, 0, 2, 1],
            28 => &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            _ => &[],
        }
    }
}

/// Whether names can be asked for.
pub(super) fn check(load: &str, names: &[String]) -> Result<(), LoadError> {
    if names.is_empty() || names.len() > MOST_NAMES {
        let (load, value) = (load.to_owned(), format!("{} names", names.len()));
        return Err(LoadError::Spec { load, field: "names", value, bounds: format!("1 to {MOST_NAMES}") });
    }
    names.iter().try_for_each(|name| Question::new(load, name, Record::A).map(drop))
}

/// A query, ready to be sent but for its number.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// With the length before it, as over TCP.
    framed: Vec<u8>,
}

impl Question {
    /// For the records of a name.
    ///
    /// # Errors
    /// [`LoadError::Spec`] for what is no name.
    pub(super) fn new(load: &str, name: &str, record: Record) -> Result<Self, LoadError> {
        let bad = |bounds: &str| LoadError::Spec {
            load: load.to_owned(),
            field: "names",
            value: format!("{name:?}"),
            bounds: bounds.to_owned(),
        };
        let mut framed = vec![0; 2];
        // Number, recursion desired, one question.
        framed.extend_from_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let before = framed.len();
        for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty() || name != ".") {
            let length =
                u8::try_from(label.len()).ok().filter(|n| (1..=LONGEST_LABEL).contains(&usize::from(*n)));
            framed.push(length.ok_or_else(|| bad("labels of 1 to 63 bytes"))?);
            framed.extend_from_slice(label.as_bytes());
        }
        framed.push(0);
        if framed.len() - before > LONGEST_NAME {
            return Err(bad("names of at most 255 bytes"));
        }
        framed.extend_from_slice(&record.number().to_be_bytes());
        framed.extend_from_slice(&CLASS_IN.to_be_bytes());
        let length = (framed.len() - 2) as u16;
        framed[..2].copy_from_slice(&length.to_be_bytes());
        Ok(Self { framed })
    }

    /// Sets its number.
    pub(super) fn set_id(&mut self, id: u16) {
        self.framed[2..4].copy_from_slice(&id.to_be_bytes());
    }

    /// As a datagram.
    pub(super) fn message(&self) -> &[u8] {
        &self.framed[2..]
    }

    /// As over TCP.
    pub(super) fn framed(&self) -> &[u8] {
        &self.framed
    }
}

/// Number of a message.
pub(super) fn id(message: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*message.first_chunk()?))
}

/// Whether a message answers, and what.
#[inline(never)]
pub(super) fn verdict(message: &[u8]) -> Verdict {
    const NXDOMAIN: u8 = 3;
    match message.get(2..4) {
        Some([flags, more]) if message.len() >= HEADER_BYTES && flags & QR != 0 => match more & RCODE {
            0 | NXDOMAIN => Verdict::Answered,
            _ => Verdict::Failed(Failure::Rejected),
        },
        _ => Verdict::Failed(Failure::Malformed),
    }
}

/// Writes the answer to a query behind what `out` holds. None where it is no query with one question.
pub(super) fn answer(query: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let header: &[u8; HEADER_BYTES] = query.first_chunk()?;
    let one_question = header[4..6] == [0, 1];
    if header[2] & QR != 0 || !one_question {
        return None;
    }
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        match length {
            0 => break,
            // A pointer: nothing stands before a question that it could point to.
            n if n > LONGEST_LABEL => return None,
            n => at += n,
        }
        if at > HEADER_BYTES + LONGEST_NAME {
            return None;
        }
    }
    let tail: &[u8; QUESTION_TAIL] = query.get(at..)?.first_chunk()?;
    let data = Record::data(u16::from_be_bytes([tail[0], tail[1]]));
    out.extend_from_slice(&header[..2]);
    // An answer, with authority, recursion as it was desired and available.
    out.extend_from_slice(&[
        QR | 0x04 | (header[2] & 0x01),
        0x80,
        0,
        1,
        0,
        u8::from(!data.is_empty()),
        0,
        0,
        0,
        0,
    ]);
    out.extend_from_slice(&query[HEADER_BYTES..at + QUESTION_TAIL]);
    if !data.is_empty() {
        // The name is that of the question, at its place in the message.
        out.extend_from_slice(&[0xC0, HEADER_BYTES as u8]);
        out.extend_from_slice(tail);
        out.extend_from_slice(&TTL_SECONDS.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
    }
    Some(())
}

/// Messages with their lengths before them, as they come (RFC 7766).
pub(super) struct Framed {
    bytes: Vec<u8>,
    len: usize,
}

impl Default for Framed {
    fn default() -> Self {
        Self { bytes: vec![0; LONGEST_FRAME], len: 0 }
    }
}

impl Framed {
    /// Forgets what it holds.
    pub(super) const fn reset(&mut self) {
        self.len = 0;
    }

    /// Takes what was received. Yields how much of it belongs to the first message, and the message if it is whole.
    #[inline(never)]
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Option<&[u8]>) {
        let mut used = 0;
        loop {
            let whole = match self.bytes[..self.len].first_chunk() {
                None => 2,
                Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
            };
            let here = (whole - self.len).min(bytes.len() - used);
            self.bytes[self.len..self.len + here].copy_from_slice(&bytes[used..used + here]);
            self.len += here;
            used += here;
            if self.len < whole {
                return (used, None);
            }
            // The length alone is whole only if it says that nothing follows.
            let message_bytes = usize::from(u16::from_be_bytes([self.bytes[0], self.bytes[1]]));
            if self.len == 2 + message_bytes {
                self.len = 0;
                return (used, Some(&self.bytes[2..2 + message_bytes]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, record: Record) -> Question {
        let mut question = Question::new("test", name, record).unwrap();
        question.set_id(0x1234);
        question
    }

    #[test]
    fn a_query_is_written_as_rfc_1035_has_it() {
        let question = query("a.example.", Record::Aaaa);
        let expected =
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x1c\x00\x01";
        assert_eq!(question.message(), expected);
        assert_eq!(question.framed()[..2], (expected.len() as u16).to_be_bytes());
        assert_eq!(query(".", Record::A).message()[HEADER_BYTES..], [0, 0, 1, 0, 1]);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "a..b", &"x".repeat(64), &"abcdefg.".repeat(40)] {
            assert!(matches!(check("test", &[name.to_owned()]), Err(LoadError::Spec { .. })), "{name}");
        }
        assert!(check("test", &[]).is_err());
    }

    #[test]
    fn every_name_has_an_address() {
        for (record, data) in [(Record::A, 4), (Record::Aaaa, 16)] {
            let question = query("www.example", record);
            let mut answer_bytes = Vec::new();
            answer(question.message(), &mut answer_bytes).unwrap();
            assert_eq!((id(&answer_bytes), verdict(&answer_bytes)), (Some(0x1234), Verdict::Answered));
            assert_eq!(answer_bytes.len(), question.message().len() + 12 + data);
        }
    }

    #[test]
    fn what_is_no_query_has_no_answer() {
        let good = query("www.example", Record::A).message().to_vec();
        for end in 0..good.len() {
            assert_eq!(answer(&good[..end], &mut Vec::new()), None, "{end}");
        }
        let mut pointer = good.clone();
        pointer[HEADER_BYTES] = 0xC0;
        assert_eq!(answer(&pointer, &mut Vec::new()), None);
        let mut response = good;
        response[2] |= QR;
        assert_eq!(answer(&response, &mut Vec::new()), None);
    }

    #[test]
    fn codes_are_told_apart() {
        let with = |flags: [u8; 2]| {
            let mut message = [0; HEADER_BYTES];
            message[2..4].copy_from_slice(&flags);
            verdict(&message)
        };
        assert_eq!(with([QR, 0]), Verdict::Answered);
        assert_eq!(with([QR, 3]), Verdict::Answered);
        assert_eq!(with([QR, 2]), Verdict::Failed(Failure::Rejected));
        assert_eq!(with([0, 0]), Verdict::Failed(Failure::Malformed));
        assert_eq!(verdict(&[0; 3]), Verdict::Failed(Failure::Malformed));
    }

    #[test]
    fn messages_are_found_wherever_they_are_cut() {
        let stream =
            [query("a.example", Record::A).framed(), &[0, 0], query("b.example", Record::A).framed()]
                .concat();
        for cut in 0..=stream.len() {
            let (mut framed, mut lengths) = (Framed::default(), Vec::new());
            for mut piece in [&stream[..cut], &stream[cut..]] {
                while !piece.is_empty() {
                    let (used, message) = framed.feed(piece);
                    lengths.extend(message.map(<[u8]>::len));
                    piece = &piece[used..];
                }
            }
            assert_eq!(lengths, [27, 0, 27], "cut at {cut}");
        }
    }
}
