//! What an answer is made of: bytes that are there, or pieces as they come.
//!
//! Needs bytes, or a task that sends them; yields a body for hyper. A task waits while the client is behind, and learns from
//! a closed channel that it left.

use super::Refusal;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body as HttpBody, Frame, SizeHint},
    header::{self, HeaderValue},
};
use std::{
    convert::Infallible,
    io::Write as _,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::sync::mpsc;

/// Pieces that may be on their way to a client.
const PIECES: usize = 2;
/// What is shorter is not worth compressing, bytes.
const WORTH: usize = 1_400;

/// An answer's body.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it; none when it was taken.
    Whole(Option<Bytes>),
    /// As it comes.
    Pieces(mpsc::Receiver<Bytes>),
}

impl Body {
    /// One that comes in pieces, and where they are put in.
    pub(super) fn pieces() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(PIECES);
        (sender, Self::Pieces(receiver))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            Self::Whole(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()),
            Self::Pieces(receiver) => ready!(receiver.poll_recv(cx)),
        };
        Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// An answer with these bytes.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Some(bytes.into())));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, content_type);
    response
}

/// A sentence, with its line end.
pub(super) fn text(status: StatusCode, text: &str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// A value as JSON.
pub(super) fn json(value: &impl serde::Serialize) -> Result<Response<Body>, Refused> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Refused::new(Refusal::Unavailable, StatusCode::INTERNAL_SERVER_ERROR, error))?;
    Ok(whole(StatusCode::OK, "application/json", bytes))
}

/// Sets a header.
pub(super) fn set(response: &mut Response<Body>, name: header::HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

/// Why a request is not served, and what the client is told.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: Refusal,
    status: StatusCode,
    text: String,
}

impl Refused {
    pub(super) fn new(why: Refusal, status: StatusCode, text: impl ToString) -> Self {
        Self { why, status, text: text.to_string() }
    }

    pub(super) fn answer(&self) -> Response<Body> {
        let mut response = text(self.status, &self.text);
        match self.why {
            Refusal::Token => set(&mut response, header::WWW_AUTHENTICATE, "Bearer realm=\"nettrace\""),
            // A client that does not listen has to connect again, where places are counted.
            Refusal::Rate => {
                set(&mut response, header::RETRY_AFTER, "1");
                set(&mut response, header::CONNECTION, "close");
            }
            Refusal::Streams => set(&mut response, header::RETRY_AFTER, "10"),
            Refusal::BodySize | Refusal::Timeout => set(&mut response, header::CONNECTION, "close"),
            _ => {}
        }
        response
    }
}

/// Whether a client takes gzip (RFC 9110, 12.5.3).
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepts = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').map(str::trim).any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = weight.trim();
            let refused = weight.strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0_f32);
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
    };
    headers.get_all(header::ACCEPT_ENCODING).iter().any(accepts)
}

/// Bytes, compressed.
pub(super) fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Compresses an answer that is there and long enough to gain by it.
pub(super) fn compressed(mut response: Response<Body>) -> Response<Body> {
    let Body::Whole(Some(bytes)) = response.body() else { return response };
    if bytes.len() < WORTH || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let Ok(packed) = gzip(bytes) else { return response };
    *response.body_mut() = Body::Whole(Some(packed.into()));
    set(&mut response, header::CONTENT_ENCODING, "gzip");
    set(&mut response, header::VARY, "accept-encoding");
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn gzip_is_taken_when_it_is_named_and_not_refused() {
        for (accept, takes) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("deflate", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
            assert_eq!(takes_gzip(&headers), takes, "{accept}");
        }
    }

    #[test]
    fn long_answers_shrink_and_come_out_the_same() {
        let long = "where time goes ".repeat(1_000);
        let packed = compressed(text(StatusCode::OK, &long));
        let Body::Whole(Some(bytes)) = packed.body() else { panic!("it is whole") };
        assert!(bytes.len() < long.len() / 10);
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut plain).unwrap();
        assert_eq!(plain.trim_end(), long.trim_end());
        let short = compressed(text(StatusCode::OK, "ok"));
        assert!(!short.headers().contains_key(header::CONTENT_ENCODING));
    }
}
