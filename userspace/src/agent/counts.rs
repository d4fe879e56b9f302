//! What the web server served and refused, by reason.
//!
//! Needs to be told; yields counts that only grow, for metrics and the page.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a connection was closed or a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// All connections were taken.
    Connections,
    /// All connections of this peer were taken.
    Peer,
    /// All followers of `/api/live` were there.
    Streams,
    /// Too many requests a second from this peer.
    Rate,
    /// The headers did not come in time, or the connection was idle as long.
    HeaderTimeout,
    /// Request line and headers were too long.
    HeaderSize,
    /// The body was too long.
    BodySize,
    /// It was not HTTP/1.
    Malformed,
    /// The client broke off, or the connection broke.
    Broken,
    /// The TLS handshake failed or took too long.
    Tls,
    /// No token, or a wrong one.
    Token,
    /// A `Host` that is not this server's, as when a foreign page's name was made to point here.
    Host,
    /// A page of another origin asked for something to be done.
    Origin,
    /// No such path.
    Path,
    /// Not with this method.
    Method,
    /// Parameters or a body that say nothing.
    Parameters,
    /// The answer took too long, or too many waited for one.
    Timeout,
    /// The client did not take what it asked for.
    Stalled,
    /// What was asked for is not there, or could not be made.
    Unavailable,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Connections,
        Self::Peer,
        Self::Streams,
        Self::Rate,
        Self::HeaderTimeout,
        Self::HeaderSize,
        Self::BodySize,
        Self::Malformed,
        Self::Broken,
        Self::Tls,
        Self::Token,
        Self::Host,
        Self::Origin,
        Self::Path,
        Self::Method,
        Self::Parameters,
        Self::Timeout,
        Self::Stalled,
        Self::Unavailable,
    ];

    /// As metrics label it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Peer => "connections_per_peer",
            Self::Streams => "streams",
            Self::Rate => "rate",
            Self::HeaderTimeout => "header_timeout",
            Self::HeaderSize => "header_size",
            Self::BodySize => "body_size",
            Self::Malformed => "malformed",
            Self::Broken => "broken",
            Self::Tls => "tls",
            Self::Token => "token",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Path => "path",
            Self::Method => "method",
            Self::Parameters => "parameters",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What the server did since it started.
#[derive(Debug, Default)]
pub struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// The same at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Connections taken.
    pub connections: u64,
    /// Requests whose headers were read, refused ones included.
    pub requests: u64,
    /// What was refused, by [`Refusal::name`], all of them, 0 included.
    pub refused: Vec<(&'static str, u64)>,
}

impl Counts {
    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn refuse(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    /// How often that was the reason.
    #[must_use]
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize].load(Relaxed)
    }

    /// All counts.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            connections: self.connections.load(Relaxed),
            requests: self.requests.load(Relaxed),
            refused: Refusal::ALL.iter().map(|&why| (why.name(), self.refused(why))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_name() {
        let counts = Counts::default();
        for (i, why) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, i);
            (0..=i).for_each(|_| counts.refuse(why));
        }
        let totals = counts.totals();
        let mut names: Vec<_> = totals.refused.iter().map(|(name, _)| name).collect();
        assert_eq!(totals.refused.iter().map(|(_, n)| *n).sum::<u64>(), (1..=19).sum::<u64>());
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Refusal::ALL.len());
    }
}
