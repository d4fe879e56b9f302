//! HTTP/1.1 (RFC 9112), as much as a load needs: one fixed request, and answers of any server that says how long they are.

use super::{error::Failure, protocol::Verdict};

/// Longest head of a message, bytes: longer ones are not taken.
const LONGEST_HEAD: usize = 8192;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A request of a length, or of as much as it takes.
pub(super) fn request(bytes: usize, closes: bool) -> Vec<u8> {
    let connection = if closes { "close" } else { "keep-alive" };
    let head = format!("GET / HTTP/1.1\r\nHost: nettrace\r\nConnection: {connection}\r\n");
    padded(head, "X-Padding: ", bytes).into_bytes()
}

/// A response with a body of a length.
pub(super) fn response(body_bytes: usize, closes: bool) -> Vec<u8> {
    let connection = if closes { "close" } else { "keep-alive" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {body_bytes}\r\nConnection: {connection}\r\n\r\n"
    );
    let mut response = head.into_bytes();
    response.resize(response.len() + body_bytes, b'r');
    response
}

/// The head's end, after a field that fills it up where there is room for one.
fn padded(mut head: String, field: &str, bytes: usize) -> String {
    const LINE_END: &str = "\r\n";
    let least = head.len() + field.len() + 2 * LINE_END.len();
    if let Some(padding) = bytes.min(LONGEST_HEAD).checked_sub(least) {
        head.push_str(field);
        head.extend(std::iter::repeat_n('x', padding));
        head.push_str(LINE_END);
    }
    head.push_str(LINE_END);
    head
}

/// A head, as it comes.
pub(super) struct Head {
    bytes: Box<[u8; LONGEST_HEAD]>,
    len: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self { bytes: Box::new([0; LONGEST_HEAD]), len: 0 }
    }
}

impl Head {
    /// Forgets what it holds.
    pub(super) const fn reset(&mut self) {
        self.len = 0;
    }

    /// Takes what was received. Yields how much of it belongs to the head, and the head if that is whole, which ends it.
    ///
    /// # Errors
    /// When it is too long.
    #[inline(never)]
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<&[u8]>), Failure> {
        let before = self.len;
        let taken = bytes.len().min(LONGEST_HEAD - before);
        self.bytes[before..before + taken].copy_from_slice(&bytes[..taken]);
        // The end may lie across two pieces.
        let from = before.saturating_sub(END_OF_HEAD.len() - 1);
        let end = self.bytes[from..before + taken].windows(END_OF_HEAD.len()).position(|w| w == END_OF_HEAD);
        match end {
            Some(at) => {
                let len = from + at + END_OF_HEAD.len();
                self.len = 0;
                Ok((len - before, Some(&self.bytes[..len])))
            }
            None if before + taken == LONGEST_HEAD => Err(Failure::Malformed),
            None => {
                self.len += taken;
                Ok((taken, None))
            }
        }
    }
}

/// What a head says of what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// So many bytes.
    Bytes(u64),
    /// Until the connection is closed.
    UntilClosed,
}

/// A response, as it comes.
#[derive(Default)]
pub(super) struct Response {
    head: Head,
    body: Option<(Verdict, Body)>,
}

impl Response {
    /// Forgets what it holds.
    pub(super) const fn reset(&mut self) {
        self.head.reset();
        self.body = None;
    }

    /// Takes what was received. Yields how much of it belongs to the response, and how that went if it is whole.
    #[inline(never)]
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Option<Verdict>) {
        let mut used = 0;
        let (verdict, body) = match self.body {
            Some(body) => body,
            None => match self.head.feed(bytes) {
                Err(failure) => return (bytes.len(), Some(Verdict::Failed(failure))),
                Ok((n, None)) => return (n, None),
                Ok((n, Some(head))) => {
                    used = n;
                    match parse(head) {
                        Some(parsed) => *self.body.insert(parsed),
                        None => return (bytes.len(), Some(Verdict::Failed(Failure::Malformed))),
                    }
                }
            },
        };
        match body {
            Body::UntilClosed => (bytes.len(), None),
            Body::Bytes(left) => {
                let here = left.min((bytes.len() - used) as u64);
                used += usize::try_from(here).unwrap_or(0);
                if left > here {
                    self.body = Some((verdict, Body::Bytes(left - here)));
                    return (used, None);
                }
                self.body = None;
                (used, Some(verdict))
            }
        }
    }

    /// The server closed the connection: how that ends the response, if it may.
    pub(super) fn closed(&mut self) -> Option<Verdict> {
        match self.body.take() {
            Some((verdict, Body::UntilClosed)) => Some(verdict),
            _ => None,
        }
    }
}

/// Status and length; none of what is no response, or one in pieces (`Transfer-Encoding`), which is not taken.
fn parse(head: &[u8]) -> Option<(Verdict, Body)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.splitn(3, ' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status: u16 = words.next()?.parse().ok()?;
    let mut body = Body::UntilClosed;
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            body = Body::Bytes(value.trim().parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
    }
    if matches!(status, 204 | 304) {
        body = Body::Bytes(0);
    }
    let verdict = if status < 400 { Verdict::Answered } else { Verdict::Failed(Failure::Rejected) };
    Some((verdict, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";

    #[test]
    fn responses_are_found_wherever_they_are_cut() {
        let twice = [OK, OK].concat();
        for cut in 0..twice.len() {
            let mut response = Response::default();
            let mut answers = 0;
            for mut piece in [&twice[..cut], &twice[cut..]] {
                while !piece.is_empty() {
                    let (used, whole) = response.feed(piece);
                    answers += usize::from(whole == Some(Verdict::Answered));
                    piece = &piece[used..];
                }
            }
            assert_eq!(answers, 2, "cut at {cut}");
        }
    }

    #[test]
    fn what_the_server_refuses_is_told_from_what_is_no_http() {
        let said = |text: &str| Response::default().feed(text.as_bytes()).1;
        let refused = said("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(refused, Some(Verdict::Failed(Failure::Rejected)));
        let malformed = Some(Verdict::Failed(Failure::Malformed));
        assert_eq!(said("SSH-2.0-OpenSSH\r\n\r\n"), malformed);
        assert_eq!(said("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), malformed);
        assert_eq!(said("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"), malformed);
        assert_eq!(said(&"x".repeat(LONGEST_HEAD)), malformed);
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        let mut response = Response::default();
        assert_eq!(response.feed(b"HTTP/1.0 200 OK\r\n\r\nsome").1, None);
        assert_eq!(response.closed(), Some(Verdict::Answered));
        assert_eq!(Response::default().closed(), None);
    }

    #[test]
    fn requests_are_as_long_as_they_are_to_be() {
        for bytes in [100, 200, 1000] {
            assert_eq!(request(bytes, false).len(), bytes);
        }
        let least = request(0, true);
        assert!(least.ends_with(END_OF_HEAD) && least.len() < 80, "{}", least.len());
        let mut head = Head::default();
        assert_eq!(head.feed(&least).unwrap().0, least.len());
    }
}
