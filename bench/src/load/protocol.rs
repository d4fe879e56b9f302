//! What is said over a connection: how a request is written, where an answer ends, and what the server makes of it.
//!
//! Both sides take bytes as they come, in pieces or several messages at once, and hold what they need of the last piece.
//!
//! What a message of known length takes is some instructions, which a call would double: it is inlined always, and what is parsed
//! is not.

use super::{
    LoadError,
    dns::{self, Question},
    error::Failure,
    http,
    spec::{Dns, Kind, Load},
};
use std::sync::Arc;

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should.
    Answered,
    /// It was answered, but not with what was asked for. Only after [`Failure::Rejected`] can the connection be used again.
    Failed(Failure),
}

/// Messages of known length, one after the other in a stream.
pub(super) struct Fixed {
    bytes: usize,
    /// Of the present one.
    left: usize,
}

impl Fixed {
    fn new(bytes: u32) -> Self {
        let bytes = bytes as usize;
        Self { bytes, left: bytes }
    }

    /// Takes what was received. Yields how much of it belongs to the present message, and whether that is whole.
    #[inline]
    fn feed(&mut self, bytes: &[u8]) -> (usize, bool) {
        let used = bytes.len().min(self.left);
        self.left -= used;
        let whole = self.left == 0;
        if whole {
            self.left = self.bytes;
        }
        (used, whole)
    }

    const fn reset(&mut self) {
        self.left = self.bytes;
    }
}

/// The client's requests over a stream.
pub(super) enum Requests {
    /// The same each time.
    Fixed(Arc<[u8]>),
    /// DNS over TCP: one name after the other.
    Dns { questions: Vec<Question>, now: usize },
}

impl Requests {
    /// Of a load over TCP.
    pub(super) fn of(load: &Load) -> Result<Self, LoadError> {
        let bytes = load.request_bytes as usize;
        Ok(match &load.kind {
            Kind::HttpRr | Kind::HttpCrr => {
                Self::Fixed(http::request(bytes, load.kind.connects_each()).into())
            }
            Kind::Dns(dns) => Self::Dns { questions: questions(&load.name, dns)?, now: 0 },
            _ => Self::Fixed(vec![b'q'; bytes].into()),
        })
    }

    /// Makes the request of a number the present one.
    pub(super) fn prepare(&mut self, number: u64) {
        if let Self::Dns { questions, now } = self {
            *now = usize::try_from(number % questions.len() as u64).unwrap_or(0);
            questions[*now].set_id(number as u16);
        }
    }

    /// The present request.
    pub(super) fn present(&self) -> &[u8] {
        match self {
            Self::Fixed(request) => request,
            Self::Dns { questions, now } => questions[*now].framed(),
        }
    }
}

/// The client's answers over a stream, as they come.
pub(super) enum Reader {
    /// Messages of known length.
    Fixed(Fixed),
    /// HTTP/1.1.
    Http(http::Response),
    /// DNS over TCP.
    Dns(dns::Framed),
}

impl Reader {
    /// Of a load over TCP.
    pub(super) fn of(load: &Load) -> Self {
        match &load.kind {
            Kind::HttpRr | Kind::HttpCrr => Self::Http(http::Response::default()),
            Kind::Dns(_) => Self::Dns(dns::Framed::default()),
            _ => Self::Fixed(Fixed::new(load.response_bytes)),
        }
    }

    /// Takes what was received. Yields how much of it belongs to the first answer, and how that went if it is whole.
    #[inline(always)]
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Option<Verdict>) {
        match self {
            Self::Fixed(message) => {
                let (used, whole) = message.feed(bytes);
                (used, whole.then_some(Verdict::Answered))
            }
            Self::Http(response) => response.feed(bytes),
            Self::Dns(message) => {
                let (used, message) = message.feed(bytes);
                (used, message.map(dns::verdict))
            }
        }
    }

    /// The connection is closed by the server: how that ends the answer, if it may.
    pub(super) fn closed(&mut self) -> Option<Verdict> {
        match self {
            Self::Http(response) => response.closed(),
            Self::Fixed(_) | Self::Dns(_) => None,
        }
    }

    /// A new connection begins.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Fixed(message) => message.reset(),
            Self::Http(response) => response.reset(),
            Self::Dns(message) => message.reset(),
        }
    }
}

/// The client's side of datagrams.
pub(super) enum Caller {
    /// Payload of known length, which begins with the number of the request, as much of it as fits.
    Fixed { request: Vec<u8>, marked: usize },
    /// DNS.
    Dns { questions: Vec<Question>, now: usize },
}

/// Bytes of a datagram that hold its number.
pub(super) const MARK_BYTES: usize = 2;

/// Writes as much of a mark as there is room for. Copies of a length that is not known beforehand would be calls, which is why
/// the lengths are written out.
#[inline]
pub(super) fn put_mark(to: &mut [u8], mark: [u8; MARK_BYTES]) {
    match to {
        [] => {}
        [first] => *first = mark[0],
        [first, second, ..] => [*first, *second] = mark,
    }
}

/// The mark that these bytes begin with, as much of it as there is.
#[inline]
pub(super) fn mark_of(bytes: &[u8]) -> [u8; MARK_BYTES] {
    match *bytes {
        [] => [0, 0],
        [first] => [first, 0],
        [first, second, ..] => [first, second],
    }
}

impl Caller {
    /// Of a load by UDP.
    pub(super) fn of(load: &Load) -> Result<Self, LoadError> {
        Ok(match &load.kind {
            Kind::Dns(dns) => Self::Dns { questions: questions(&load.name, dns)?, now: 0 },
            _ => Self::Fixed {
                request: vec![b'q'; load.request_bytes as usize],
                marked: MARK_BYTES.min(load.request_bytes as usize).min(load.response_bytes as usize),
            },
        })
    }

    /// How many requests can be told apart.
    pub(super) const fn ids(&self) -> u64 {
        match self {
            Self::Fixed { marked, .. } => 1 << (8 * *marked),
            Self::Dns { .. } => 1 << 16,
        }
    }

    /// Writes the request of a number.
    pub(super) fn prepare(&mut self, number: u64) -> &[u8] {
        match self {
            Self::Fixed { request, marked } => {
                put_mark(&mut request[..*marked], (number as u16).to_le_bytes());
                request
            }
            Self::Dns { questions, now } => {
                *now = usize::try_from(number % questions.len() as u64).unwrap_or(0);
                questions[*now].set_id(number as u16);
                questions[*now].message()
            }
        }
    }

    /// The number of the request that a datagram answers, as much of it as was sent, and how that went.
    pub(super) fn read(&self, datagram: &[u8]) -> Option<(u64, Verdict)> {
        match self {
            Self::Fixed { marked, .. } => {
                let number = u16::from_le_bytes(mark_of(datagram.get(..*marked)?));
                Some((number.into(), Verdict::Answered))
            }
            Self::Dns { .. } => Some((dns::id(datagram)?.into(), dns::verdict(datagram))),
        }
    }
}

fn questions(load: &str, dns: &Dns) -> Result<Vec<Question>, LoadError> {
    dns.names.iter().map(|name| Question::new(load, name, dns.record)).collect()
}

/// The server's side of a stream.
pub(super) enum Answerer {
    /// Messages of known length.
    Fixed { request: Fixed, response: Arc<[u8]>, closes: bool },
    /// HTTP/1.1.
    Http { head: http::Head, response: Arc<[u8]>, closes: bool },
    /// DNS over TCP.
    Dns { message: dns::Framed, response: Vec<u8> },
}

impl Answerer {
    /// Of a load over TCP that is answered.
    pub(super) fn of(load: &Load) -> Self {
        let closes = load.kind.connects_each() && !load.each.client_closes;
        match load.kind {
            Kind::HttpRr | Kind::HttpCrr => Self::Http {
                head: http::Head::default(),
                response: http::response(load.response_bytes as usize, closes).into(),
                closes,
            },
            Kind::Dns(_) => Self::Dns {
                message: dns::Framed::default(),
                response: Vec::with_capacity(dns::LONGEST_FRAME),
            },
            _ => Self::Fixed {
                request: Fixed::new(load.request_bytes),
                response: vec![b'r'; load.response_bytes as usize].into(),
                closes,
            },
        }
    }

    /// Takes what was received. Yields how much of it belongs to the first request, and whether that is whole; an error when
    /// it cannot be one.
    #[inline(always)]
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), Failure> {
        match self {
            Self::Fixed { request, .. } => Ok(request.feed(bytes)),
            Self::Http { head, .. } => head.feed(bytes).map(|(used, head)| (used, head.is_some())),
            Self::Dns { message, response } => answer_framed(message, response, bytes),
        }
    }

    /// The answer to the request that was whole.
    pub(super) fn response(&self) -> &[u8] {
        match self {
            Self::Fixed { response, .. } | Self::Http { response, .. } => response,
            Self::Dns { response, .. } => response,
        }
    }

    /// Whether the connection is closed with the answer.
    pub(super) const fn closes(&self) -> bool {
        match self {
            Self::Fixed { closes, .. } | Self::Http { closes, .. } => *closes,
            Self::Dns { .. } => false,
        }
    }

    /// A new connection begins.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Fixed { request, .. } => request.reset(),
            Self::Http { head, .. } => head.reset(),
            Self::Dns { message, .. } => message.reset(),
        }
    }
}

/// Writes the framed answer to a query over TCP when all of that came.
fn answer_framed(
    message: &mut dns::Framed,
    response: &mut Vec<u8>,
    bytes: &[u8],
) -> Result<(usize, bool), Failure> {
    let (used, query) = message.feed(bytes);
    let Some(query) = query else { return Ok((used, false)) };
    response.clear();
    response.extend_from_slice(&[0, 0]);
    dns::answer(query, response).ok_or(Failure::Malformed)?;
    let length = u16::try_from(response.len() - 2).map_err(|_| Failure::Malformed)?;
    response[..2].copy_from_slice(&length.to_be_bytes());
    Ok((used, true))
}
