//! DNS messages (RFC 1035, RFC 6891), as far as the lab's server and client speak them: one question, addresses as
//! answers, names in answers compressed, an OPT record if wanted.

use std::net::IpAddr;

/// Type A.
pub const TYPE_A: u16 = 1;
/// Type AAAA.
pub const TYPE_AAAA: u16 = 28;
/// Type OPT, of EDNS.
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Response codes.
pub const NOERROR: u8 = 0;
/// The server could not answer.
pub const SERVFAIL: u8 = 2;
/// There is no such name.
pub const NXDOMAIN: u8 = 3;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_AUTHORITATIVE: u16 = 0x0400;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
const HEADER_BYTES: usize = 12;
/// The question's name, which begins right behind the header, as a compression pointer.
const POINTER_TO_QUESTION: u16 = 0xc000 | HEADER_BYTES as u16;
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;
/// Time to live of every answer, s.
const TTL: u32 = 30;

/// Why a message cannot be built or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A part goes beyond the end of the message.
    #[error("the DNS message ends at byte {0}, within a field")]
    Short(usize),
    /// A label of none or more than 63 bytes, a pointer where none may be, or a name of more than 255 bytes.
    #[error("not a DNS name: {0:?}")]
    Name(String),
    /// A number of questions other than one.
    #[error("a DNS message with {0} questions")]
    Questions(u16),
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Name, without the trailing dot.
    pub name: String,
    /// Type: [`TYPE_A`], [`TYPE_AAAA`] or another number.
    pub qtype: u16,
}

/// A message, as far as the lab looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Pairs answers with queries.
    pub id: u16,
    /// An answer rather than a query.
    pub response: bool,
    /// The answer did not fit.
    pub truncated: bool,
    /// Response code.
    pub rcode: u8,
    /// The question.
    pub question: Question,
    /// Number of answer records.
    pub answers: u16,
    /// Number of additional records; the lab's own messages have none but OPT.
    pub additional: u16,
}

/// Builds a query; with `edns`, an OPT record that offers so many bytes for a UDP answer.
///
/// # Errors
/// [`MessageError::Name`] when the name is none.
pub fn encode_query(id: u16, question: &Question, edns: Option<u16>) -> Result<Vec<u8>, MessageError> {
    let mut out = Vec::with_capacity(64);
    put_header(&mut out, id, FLAG_RECURSION_DESIRED, [1, 0, 0, edns.is_some().into()]);
    put_question(&mut out, question)?;
    if let Some(bytes) = edns {
        out.push(0);
        put_all(&mut out, &[TYPE_OPT, bytes, 0, 0, 0]);
    }
    Ok(out)
}

/// Builds the answer to a query; addresses that are not of the asked type are left out.
///
/// # Errors
/// [`MessageError::Name`] when the name is none.
pub fn encode_response(
    query: &Message,
    rcode: u8,
    truncated: bool,
    answers: &[IpAddr],
) -> Result<Vec<u8>, MessageError> {
    let wanted = |address: &&IpAddr| match query.question.qtype {
        TYPE_A => address.is_ipv4(),
        TYPE_AAAA => address.is_ipv6(),
        _ => false,
    };
    let answers: Vec<_> = answers.iter().filter(wanted).collect();
    let count = u16::try_from(answers.len()).unwrap_or(u16::MAX);
    let flags = FLAG_RESPONSE
        | FLAG_AUTHORITATIVE
        | FLAG_RECURSION_DESIRED
        | FLAG_RECURSION_AVAILABLE
        | if truncated { FLAG_TRUNCATED } else { 0 }
        | u16::from(rcode & 0x0f);
    let mut out = Vec::with_capacity(512);
    put_header(&mut out, query.id, flags, [1, count, 0, 0]);
    put_question(&mut out, &query.question)?;
    for address in answers.into_iter().take(count.into()) {
        put_all(&mut out, &[POINTER_TO_QUESTION, query.question.qtype, CLASS_IN]);
        out.extend(TTL.to_be_bytes());
        match address {
            IpAddr::V4(address) => put_data(&mut out, &address.octets()),
            IpAddr::V6(address) => put_data(&mut out, &address.octets()),
        }
    }
    Ok(out)
}

/// Reads a message's header and question.
///
/// # Errors
/// [`MessageError`] for what is no message with one question.
pub fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
    let [id, flags, questions, answers, _, additional] =
        [0, 2, 4, 6, 8, 10].map(|at| bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]])));
    let short = MessageError::Short(bytes.len());
    let (Some(id), Some(flags), Some(questions), Some(answers), Some(additional)) =
        (id, flags, questions, answers, additional)
    else {
        return Err(short);
    };
    if questions != 1 {
        return Err(MessageError::Questions(questions));
    }
    let (name, end) = read_name(bytes)?;
    let qtype = bytes.get(end..end + 2).map(|b| u16::from_be_bytes([b[0], b[1]])).ok_or(short)?;
    Ok(Message {
        id,
        response: flags & FLAG_RESPONSE != 0,
        truncated: flags & FLAG_TRUNCATED != 0,
        rcode: u8::try_from(flags & 0x0f).unwrap_or_default(),
        question: Question { name, qtype },
        answers,
        additional,
    })
}

/// The question's name and where it ends.
fn read_name(bytes: &[u8]) -> Result<(String, usize), MessageError> {
    let mut name = String::new();
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*bytes.get(at).ok_or(MessageError::Short(bytes.len()))?);
        at += 1;
        if length == 0 {
            return Ok((name, at));
        }
        if length > MAX_LABEL || name.len() + length >= MAX_NAME {
            return Err(MessageError::Name(name));
        }
        let label = bytes.get(at..at + length).ok_or(MessageError::Short(bytes.len()))?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|&byte| char::from(byte)));
    }
}

fn put_header(out: &mut Vec<u8>, id: u16, flags: u16, counts: [u16; 4]) {
    put_all(out, &[id, flags]);
    put_all(out, &counts);
}

fn put_question(out: &mut Vec<u8>, question: &Question) -> Result<(), MessageError> {
    let invalid = || MessageError::Name(question.name.clone());
    if !question.name.is_ascii() || question.name.len() > MAX_NAME - 2 {
        return Err(invalid());
    }
    for label in question.name.split('.') {
        match u8::try_from(label.len()) {
            Ok(length) if length > 0 && label.len() <= MAX_LABEL => out.push(length),
            _ => return Err(invalid()),
        }
        out.extend(label.as_bytes());
    }
    out.push(0);
    put_all(out, &[question.qtype, CLASS_IN]);
    Ok(())
}

/// A record's length and data; addresses are at most 16 bytes.
fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    put_all(out, &[u16::try_from(data.len()).unwrap_or_default()]);
    out.extend(data);
}

fn put_all(out: &mut Vec<u8>, values: &[u16]) {
    out.extend(values.iter().flat_map(|value| value.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn question(name: &str) -> Question {
        Question { name: name.to_owned(), qtype: TYPE_A }
    }

    #[test]
    fn a_query_is_read_as_it_was_built() {
        let query = encode_query(7, &question("a.example.test"), Some(1232)).unwrap();
        let message = decode(&query).unwrap();
        assert_eq!((message.id, message.response, message.additional), (7, false, 1));
        assert_eq!(message.question, question("a.example.test"));
    }

    #[test]
    fn an_answer_points_to_its_question() {
        let query = decode(&encode_query(9, &question("a.test"), None).unwrap()).unwrap();
        let answers = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];
        let bytes = encode_response(&query, NOERROR, false, &answers).unwrap();
        let message = decode(&bytes).unwrap();
        assert_eq!((message.id, message.response, message.answers, message.rcode), (9, true, 1, NOERROR));
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 127, 0, 0, 1];
        assert!(bytes.ends_with(&record), "{bytes:?}");
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["", "a..b", &"x".repeat(64), &"ab.".repeat(100)] {
            assert!(matches!(encode_query(1, &question(name), None), Err(MessageError::Name(_))), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
