//! Server-sent events as they come in, in whatever pieces.
//!
//! Needs bytes; yields [`Event`]s. Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>, 9.2.6
//! (interpreting an event stream).

use std::{mem, time::Duration};

/// An event may be so long, bytes: a frame takes some thousand.
const MAX_EVENT: usize = 1 << 20;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its type; empty for one without.
    pub(super) kind: String,
    /// What it says; lines are joined by `\n`.
    pub(super) data: String,
}

/// More than [`MAX_EVENT`] came without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT} bytes")]
pub(super) struct TooLong;

/// What came so far of the event to come.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    kind: String,
    data: String,
    has_data: bool,
    /// The last byte was CR: an LF that follows belongs to the same line end.
    after_cr: bool,
    /// Whether a line was seen: only the first may begin with a byte order mark.
    begun: bool,
    retry: Option<Duration>,
}

impl Parser {
    /// Takes bytes; yields what they complete.
    ///
    /// # Errors
    /// When an event is too long. What comes after it cannot be understood.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_cr = mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' => events.extend(self.end_line()),
                b'\r' => {
                    self.after_cr = true;
                    events.extend(self.end_line());
                }
                byte => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > MAX_EVENT {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    /// How long the server wants its clients to wait before they come again, if it said so.
    pub(super) const fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = mem::take(&mut self.line);
        let line = if self.begun { &line[..] } else { line.strip_prefix(BOM).unwrap_or(&line) };
        self.begun = true;
        if line.is_empty() {
            return self.dispatch();
        }
        let text = String::from_utf8_lossy(line);
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            "event" => value.clone_into(&mut self.kind),
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry);
            }
            // Comments, which have no name, keep the connection alive; others are for later versions.
            _ => {}
        }
        None
    }

    /// An event without data is none.
    fn dispatch(&mut self) -> Option<Event> {
        let event = Event { kind: mem::take(&mut self.kind), data: mem::take(&mut self.data) };
        mem::take(&mut self.has_data).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(kind: &str, data: &str) -> Event {
        Event { kind: kind.to_owned(), data: data.to_owned() }
    }

    fn all(text: &str) -> Vec<Event> {
        Parser::default().feed(text.as_bytes()).unwrap()
    }

    #[test]
    fn events_are_read_as_the_specification_has_them() {
        assert_eq!(all("data: {\"a\":1}\n\n"), [event("", "{\"a\":1}")]);
        assert_eq!(
            all("\u{feff}data:one\r\n\r\ndata: two\r\rdata:  three\n\n"),
            [event("", "one"), event("", "two"), event("", " three")]
        );
        assert_eq!(all(": beat\n\n: beat\n\n"), []);
        assert_eq!(all("event: frame\nid: 7\ndata: a\ndata\ndata: b\n\n"), [event("frame", "a\n\nb")]);
        // An event without data is none, and its type is forgotten; one without an end is not complete.
        assert_eq!(all("event: x\n\ndata: y\n\ndata: z\n"), [event("", "y")]);
        assert_eq!(all("data\n\n"), [event("", "")]);
    }

    #[test]
    fn the_server_says_when_to_come_again() {
        let mut parser = Parser::default();
        parser.feed(b"retry: 1500\nretry: soon\nretry: 99999999999999999999999\n\n").unwrap();
        assert_eq!(parser.retry(), Some(Duration::from_millis(1_500)));
    }

    #[test]
    fn an_event_without_end_is_an_error() {
        let mut parser = Parser::default();
        let line = [b"data: ", &[b'x'; 1_000][..], b"\n"].concat();
        assert_eq!((0..2_000).find_map(|_| parser.feed(&line).err()), Some(TooLong));
        assert_eq!(Parser::default().feed(&vec![b'x'; MAX_EVENT + 1]), Err(TooLong));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_pieces_end(
            lines in prop::collection::vec(("(data|event|id|retry|:|more)?", ":? ?[a-zé世]{0,6}", "(\n|\r|\r\n){1,2}"), 0..12),
            cuts in prop::collection::vec(1..9_usize, 1..40),
        ) {
            let text: String = lines.into_iter().map(|(name, value, end)| name + &value + &end).collect();
            let whole = all(&text);
            let mut parser = Parser::default();
            let mut rest = text.as_bytes();
            let mut events = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                events.extend(parser.feed(piece).unwrap());
                rest = more;
            }
            prop_assert_eq!(events, whole);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Parser::default().feed(&bytes);
        }
    }
}
