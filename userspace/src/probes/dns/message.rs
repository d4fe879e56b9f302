//! DNS messages (RFC 1035, section 4), parsed from as much of them as was captured.
//!
//! Needs the first bytes of a message and its length on the wire; yields what a transaction is made of: id, flags,
//! response code, questions, and whether EDNS was in use. Work and memory are bounded by the bytes given: names are
//! at most 255 bytes, compression pointers only lead backwards, and at most [`MAX_QUESTIONS`] questions are kept.

use super::codes::TYPE_OPT;
use std::fmt;

/// Bytes of the fixed header, RFC 1035, section 4.1.1.
pub const HEADER_BYTES: usize = 12;
/// Longest name on the wire, the root's zero byte included, RFC 1035, section 2.3.4.
pub const MAX_NAME_BYTES: usize = 255;
/// Questions that are kept of one message. Servers answer messages with one only.
pub const MAX_QUESTIONS: usize = 4;
/// Compression pointers followed in one name: one per label that a name can have.
const MAX_POINTERS: usize = 127;

/// A domain name, lower case, since names compare without regard to case (RFC 4343) and resolvers randomise it.
///
/// Displays without the trailing dot, the root as `.`; dots and backslashes within labels are escaped with a
/// backslash, bytes outside printable ASCII as `\DDD` (RFC 4343, section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(
    /// Labels as on the wire, each after its length byte, without the root's zero byte.
    Box<[u8]>,
);

/// One entry of the question section, RFC 1035, section 4.1.2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Name asked for.
    pub name: Name,
    /// Type asked for, see [`super::codes::type_name`].
    pub qtype: u16,
    /// Class asked for: 1 is the Internet.
    pub qclass: u16,
}

/// What is read of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Transaction id.
    pub id: u16,
    /// The QR bit: an answer, not a query.
    pub response: bool,
    /// Kind of query: 0 is a standard one.
    pub opcode: u8,
    /// The TC bit: the answer did not fit.
    pub truncated: bool,
    /// Response code, with the upper bits from the OPT record where that was captured.
    pub rcode: u16,
    /// Whether an OPT record was seen. One that lies beyond the captured bytes is not.
    pub edns: bool,
    /// The first [`MAX_QUESTIONS`] questions.
    pub questions: Vec<Question>,
}

/// Why bytes are not a DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It ends too early.
    #[error("message ends at byte {0}, within its header or question")]
    Cut(usize),
    /// A label's upper bits are neither those of a length nor of a pointer.
    #[error("label of a reserved kind at byte {0}")]
    LabelKind(usize),
    /// A compression pointer that leads into the header, forward, or through too many others.
    #[error("compression pointer at byte {0} does not lead to an earlier name")]
    Pointer(usize),
    /// A name longer than [`MAX_NAME_BYTES`].
    #[error("name at byte {0} is longer than 255 bytes")]
    NameTooLong(usize),
}

impl Message {
    /// Reads a message of `wire_len` bytes from its first ones.
    ///
    /// The records after the questions are only walked in search of OPT: where they are cut off or malformed, the
    /// walk ends there.
    ///
    /// # Errors
    /// When the header or the first question is incomplete or malformed, or a later one is although it was captured.
    pub fn parse(bytes: &[u8], wire_len: usize) -> Result<Self, MessageError> {
        let header = bytes.get(..HEADER_BYTES).ok_or(MessageError::Cut(bytes.len()))?;
        let mut message = Self {
            id: be16(header, 0),
            response: header[2] & 0x80 != 0,
            opcode: header[2] >> 3 & 0xF,
            truncated: header[2] & 0x02 != 0,
            rcode: u16::from(header[3] & 0xF),
            edns: false,
            questions: Vec::new(),
        };
        let mut at = HEADER_BYTES;
        for n in 0..be16(header, 4) {
            let (question, next) = match read_question(bytes, at) {
                Ok(read) => read,
                Err(MessageError::Cut(_)) if n > 0 && bytes.len() < wire_len => return Ok(message),
                Err(e) => return Err(e),
            };
            if message.questions.len() < MAX_QUESTIONS {
                message.questions.push(question);
            }
            at = next;
        }
        let before = u32::from(be16(header, 6)) + u32::from(be16(header, 8));
        if let Some(upper) = extended_rcode(bytes, at, before, u32::from(be16(header, 10))) {
            message.edns = true;
            message.rcode |= u16::from(upper) << 4;
        }
        Ok(message)
    }
}

impl Name {
    /// Reads the name at a byte; yields the byte after it too.
    fn read(bytes: &[u8], start: usize) -> Result<(Self, usize), MessageError> {
        let mut wire = Vec::new();
        let mut at = start;
        // A pointer must lead before everything read so far, so a name cannot lead back into itself.
        let mut floor = start;
        let mut after = None;
        let mut pointers = 0;
        loop {
            let cut = MessageError::Cut(bytes.len());
            let len = *bytes.get(at).ok_or(cut)?;
            match len >> 6 {
                0 if len == 0 => break,
                0 => {
                    let end = at + 1 + usize::from(len);
                    let label = bytes.get(at + 1..end).ok_or(cut)?;
                    if wire.len() + 1 + label.len() + 1 > MAX_NAME_BYTES {
                        return Err(MessageError::NameTooLong(start));
                    }
                    wire.push(len);
                    wire.extend(label.iter().map(u8::to_ascii_lowercase));
                    at = end;
                }
                3 => {
                    let low = *bytes.get(at + 1).ok_or(cut)?;
                    let target = usize::from(len & 0x3F) << 8 | usize::from(low);
                    pointers += 1;
                    if !(HEADER_BYTES..floor).contains(&target) || pointers > MAX_POINTERS {
                        return Err(MessageError::Pointer(at));
                    }
                    after.get_or_insert(at + 2);
                    floor = target;
                    at = target;
                }
                _ => return Err(MessageError::LabelKind(at)),
            }
        }
        Ok((Self(wire.into()), after.unwrap_or(at + 1)))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(".");
        }
        let mut rest = &*self.0;
        while let Some((&len, tail)) = rest.split_first() {
            if rest.len() < self.0.len() {
                f.write_str(".")?;
            }
            let (label, next) = tail.split_at(usize::from(len).min(tail.len()));
            for &byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                    0x21..=0x7E => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            rest = next;
        }
        Ok(())
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn read_question(bytes: &[u8], at: usize) -> Result<(Question, usize), MessageError> {
    let (name, at) = Name::read(bytes, at)?;
    let fixed = bytes.get(at..at + 4).ok_or(MessageError::Cut(bytes.len()))?;
    Ok((Question { name, qtype: be16(fixed, 0), qclass: be16(fixed, 2) }, at + 4))
}

/// Upper eight bits of the response code, from the OPT record (RFC 6891, section 6.1.3) among the `additional` records
/// after the `before` ones of the other sections; none where there is none or the walk does not get there.
fn extended_rcode(bytes: &[u8], mut at: usize, before: u32, additional: u32) -> Option<u8> {
    for n in 0..before + additional {
        at = skip_name(bytes, at)?;
        let fixed = bytes.get(at..at + 10)?;
        if n >= before && be16(fixed, 0) == TYPE_OPT {
            return Some(fixed[4]);
        }
        at += 10 + usize::from(be16(fixed, 8));
    }
    None
}

/// The byte after the name at a byte.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let len = *bytes.get(at)?;
        match len >> 6 {
            0 if len == 0 => return Some(at + 1),
            0 => at += 1 + usize::from(len),
            3 => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, query, with_opt};
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<Message, MessageError> {
        Message::parse(bytes, bytes.len())
    }

    /// A query whose question section is given raw.
    fn raw(qdcount: u16, section: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 7, 1, 0];
        bytes.extend(qdcount.to_be_bytes());
        bytes.extend([0; 6]);
        bytes.extend(section);
        bytes
    }

    #[test]
    fn query_and_answer() {
        let q = parse(&query(0x1234, "Example.COM", 28)).unwrap();
        assert_eq!(
            (q.id, q.response, q.opcode, q.truncated, q.rcode, q.edns),
            (0x1234, false, 0, false, 0, false)
        );
        assert_eq!(q.questions.len(), 1);
        assert_eq!(q.questions[0].name.to_string(), "example.com");
        assert_eq!((q.questions[0].qtype, q.questions[0].qclass), (28, 1));
        let mut bytes = answer(0x1234, "example.com", 28, 3);
        bytes[2] |= 0x02;
        let a = parse(&bytes).unwrap();
        assert!(a.response && a.truncated);
        assert_eq!(a.rcode, 3);
        assert_eq!(a.questions, q.questions);
    }

    #[test]
    fn names_are_escaped_and_the_root_is_a_dot() {
        let section = b"\x05a.\\ \xff\x01B\x00\x00\x10\x00\x01";
        let message = parse(&raw(1, section)).unwrap();
        assert_eq!(message.questions[0].name.to_string(), r"a\.\\\032\255.b");
        assert_eq!(parse(&query(1, "", 2)).unwrap().questions[0].name.to_string(), ".");
    }

    #[test]
    fn compression_leads_backwards() {
        let second = b"\x01a\x01b\x00\x00\x01\x00\x01\x01c\xc0\x0e\x00\x01\x00\x01";
        let message = parse(&raw(2, second)).unwrap();
        assert_eq!(message.questions[1].name.to_string(), "c.b");
    }

    #[test]
    fn hostile_names_are_errors() {
        let loops = b"\x01a\xc0\x0c\x00\x01\x00\x01";
        assert_eq!(parse(&raw(1, loops)), Err(MessageError::Pointer(14)));
        let itself = b"\xc0\x0c\x00\x01\x00\x01";
        assert_eq!(parse(&raw(1, itself)), Err(MessageError::Pointer(12)));
        let forward = b"\xc0\x12\x00\x01\x00\x01\x01a\x00";
        assert_eq!(parse(&raw(1, forward)), Err(MessageError::Pointer(12)));
        let into_header = b"\xc0\x00\x00\x01\x00\x01";
        assert_eq!(parse(&raw(1, into_header)), Err(MessageError::Pointer(12)));
        let back_into_the_loop = b"\x01a\x00\x00\x01\x00\x01\x01b\xc0\x13\x00\x01\x00\x01";
        assert_eq!(parse(&raw(2, back_into_the_loop)), Err(MessageError::Pointer(21)));
        let label_of_64 = [&[64][..], &[b'x'; 64], &[0, 0, 1, 0, 1]].concat();
        assert_eq!(parse(&raw(1, &label_of_64)), Err(MessageError::LabelKind(12)));
        let label = [&[63][..], &[b'x'; 63]].concat();
        let long = [&label.repeat(4)[..], &[0, 0, 1, 0, 1]].concat();
        assert_eq!(parse(&raw(1, &long)), Err(MessageError::NameTooLong(12)));
        let longest = [&label.repeat(3)[..], &[61], &[b'x'; 61], &[0, 0, 1, 0, 1]].concat();
        assert_eq!(parse(&raw(1, &longest)).unwrap().questions[0].name.to_string().len(), 253);
    }

    #[test]
    fn too_many_pointers_are_an_error() {
        // Each second question is a pointer to the one before it: a chain as long as the message allows.
        let mut section = b"\x01a\x00\x00\x01\x00\x01".to_vec();
        let mut last = 12u16;
        for _ in 0..200 {
            let here = 12 + section.len() as u16;
            section.extend((0xC000 | last).to_be_bytes());
            section.extend([0, 1, 0, 1]);
            last = here;
        }
        assert!(matches!(parse(&raw(201, &section)), Err(MessageError::Pointer(_))));
    }

    #[test]
    fn cut_off_messages() {
        let whole = query(1, "example.com", 1);
        for n in 0..whole.len() {
            assert_eq!(Message::parse(&whole[..n], whole.len()), Err(MessageError::Cut(n)));
        }
        let opt = with_opt(query(1, "example.com", 1), 0);
        assert!(parse(&opt).unwrap().edns);
        assert!(!Message::parse(&opt[..opt.len() - 2], opt.len()).unwrap().edns);
    }

    #[test]
    fn qdcount_beyond_the_message() {
        let mut many = query(1, "example.com", 1);
        many[4..6].copy_from_slice(&u16::MAX.to_be_bytes());
        assert_eq!(parse(&many), Err(MessageError::Cut(many.len())));
        assert_eq!(Message::parse(&many, 60_000).unwrap().questions.len(), 1);
        assert_eq!(
            parse(&raw(6, &b"\x00\x00\x01\x00\x01".repeat(6))).unwrap().questions.len(),
            MAX_QUESTIONS
        );
    }

    #[test]
    fn no_question_at_all() {
        let mut bytes = raw(0, &[]);
        bytes[2] = 0x81;
        bytes[3] = 1;
        let message = parse(&bytes).unwrap();
        assert!(message.questions.is_empty());
        assert_eq!(message.rcode, 1);
    }

    #[test]
    fn extended_rcode_comes_from_opt_after_other_records() {
        let mut bytes = answer(9, "example.com", 1, 0);
        // One A record whose name is a pointer to the question.
        bytes[7] = 1;
        bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x01");
        let message = parse(&with_opt(bytes, 1)).unwrap();
        assert!(message.edns);
        assert_eq!(super::super::codes::rcode_name(message.rcode), "BADVERS");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), more in 0usize..100) {
            if let Ok(message) = Message::parse(&bytes, bytes.len() + more) {
                prop_assert!(message.questions.len() <= MAX_QUESTIONS);
                for q in message.questions {
                    prop_assert!(q.name.0.len() < MAX_NAME_BYTES);
                    prop_assert!(q.name.to_string().len() <= 4 * MAX_NAME_BYTES);
                }
            }
        }

        #[test]
        fn broken_messages_never_panic(at in 0usize..40, byte: u8, cut in 0usize..60) {
            let mut bytes = with_opt(answer(1, "www.example.com", 1, 0), 0);
            bytes[at] = byte;
            bytes.truncate(cut);
            let _ = Message::parse(&bytes, 60);
        }

        #[test]
        fn names_read_back(labels in prop::collection::vec("[a-z0-9_-]{1,20}", 0..8), qtype: u16) {
            let name = labels.join(".");
            let message = parse(&query(1, &name, qtype)).unwrap();
            let shown = message.questions[0].name.to_string();
            prop_assert_eq!(shown, if name.is_empty() { ".".to_owned() } else { name });
            prop_assert_eq!(message.questions[0].qtype, qtype);
        }
    }
}
