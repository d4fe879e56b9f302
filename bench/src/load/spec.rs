//! What a load is: one typed description, the same on the command line, in a file, between peers and in results.
//!
//! Needs numbers that [`super::args`] has made sense of, or a peer sent; [`Profile::check`] says whether they can be. Yields
//! what both ends act on.

use super::LoadError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Connections of one part: each has a thread at both ends.
pub const MOST_CONNECTIONS: u32 = 1024;
/// Parts of a profile.
pub const MOST_PARTS: usize = 16;
/// Bytes of one message over TCP.
const MOST_STREAM_BYTES: u32 = 16 << 20;
/// Bytes of one datagram: what IPv4 leaves for UDP's payload (RFC 768, RFC 791).
const MOST_DATAGRAM_BYTES: u32 = 65_507;
/// Requests, datagrams or chunks a second, of one part.
const MOST_PER_SECOND: f64 = 10_000_000.0;
/// Length of any of the times.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long a server does nothing at a time: nobody can stop it meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Connections that a burst opens at once, and that are on their way at once.
pub(super) const MOST_IN_FLIGHT: u32 = 16_384;

/// Loads that run at the same time, each with a server of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// For reports.
    pub name: String,
    /// The loads.
    pub parts: Vec<Load>,
}

/// One load: who asks what how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Names this load among those of its profile.
    pub name: String,
    /// What is asked.
    pub kind: Kind,
    /// How many connections (streams, sockets) there are at once. Those that are opened for one request each: how many
    /// threads open them.
    pub connections: u32,
    /// Payload of a request, of a datagram of a flood, or of one write of a stream, bytes.
    pub request_bytes: u32,
    /// Payload of a response, bytes; for HTTP that of its body, for DNS it follows from the question.
    pub response_bytes: u32,
    /// When the next one is sent.
    pub pace: Pace,
    /// How long.
    pub times: Times,
    /// Connections that wait to be accepted: the second argument of `listen(2)`, which `net.core.somaxconn` bounds.
    pub backlog: u32,
    /// Threads of the server; 0 for as many as the load takes.
    pub server_threads: u32,
    /// Connections on their way at once from one thread, where each request has its own and the loop is open.
    pub in_flight: u32,
    /// How connections that are opened for one request each begin and end.
    pub each: Each,
    /// Of everything that is left to chance. The same seed yields the same schedule.
    pub seed: u64,
    /// What the server does besides answering.
    pub service: Service,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A request and its response over TCP connections that stay.
    TcpRr,
    /// A new TCP connection for each request and response. The server closes it, so that TIME_WAIT is not the client's.
    TcpCrr,
    /// As much as goes one way over TCP.
    TcpStream,
    /// A request and its response by UDP.
    UdpRr,
    /// A request and its response by UDP, from a new socket each time, which takes the local ports in turn: a new flow for
    /// whatever keeps track of them, if it forgets the old ones in the time that it takes to come round.
    UdpNew,
    /// Datagrams one way; what arrives counts.
    UdpFlood,
    /// DNS queries (RFC 1035).
    Dns(Dns),
    /// HTTP/1.1 (RFC 9112) over connections that stay.
    HttpRr,
    /// HTTP/1.1, a new connection for each request (`Connection: close`).
    HttpCrr,
}

/// Connections that are opened for one request each, in a closed loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Each {
    /// The client sends the request with its SYN where both kernels let it (TCP Fast Open, RFC 7413): `net.ipv4.tcp_fastopen`
    /// has to have 1 at the client, and 0x402 at the server, whose listener does not ask for it by itself.
    pub fast_open: bool,
    /// The client closes first, as most do, and keeps TIME_WAIT; else the server does, so that the client keeps its ports.
    pub client_closes: bool,
}

/// Queries to a name server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// UDP, or one TCP connection that stays.
    pub transport: Transport,
    /// The names, asked one after the other.
    pub names: Vec<String>,
    /// What is asked of them.
    pub record: Record,
}

/// What DNS goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Datagrams.
    #[default]
    Udp,
    /// Messages with their length before them (RFC 7766).
    Tcp,
}

/// Type of a DNS record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// IPv4 address.
    #[default]
    A,
    /// IPv6 address.
    Aaaa,
}

/// When the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// When the last is answered; one way: as fast as it goes.
    Closed,
    /// On a schedule that asks for no answer. Latency counts from the scheduled time.
    Open {
        /// Requests, datagrams or writes a second, of all connections together.
        rate_per_second: f64,
        /// How they come.
        arrivals: Arrivals,
    },
}

/// How requests of an open loop come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// The same time between any two.
    Constant,
    /// As independent clients come: exponentially distributed times between them.
    Poisson,
    /// So many at once, and then none until their time is over.
    Burst(u32),
}

/// How long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// Load before measuring begins.
    pub warm_up: Duration,
    /// Measuring.
    pub measure: Duration,
    /// How long an answer may take before it counts as an error, and how long after its end a late schedule may go on.
    pub limit: Duration,
}

impl Times {
    /// From the first request to the last answer at the latest.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.warm_up + self.measure + 2 * self.limit
    }
}

/// What a server does besides answering: known effects, to see whether a measurement finds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// It thinks so long about each request.
    pub think: Duration,
    /// Share of requests, 0 to 1, about which it thinks longer.
    pub slow_share: f64,
    /// How much longer.
    pub slow: Duration,
    /// It does nothing at all, once in so long; zero for never.
    pub stall_every: Duration,
    /// How long it does nothing then.
    pub stall: Duration,
}

impl Kind {
    /// As on the command line.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TcpRr => "tcp_rr",
            Self::TcpCrr => "tcp_crr",
            Self::TcpStream => "tcp_stream",
            Self::UdpRr => "udp_rr",
            Self::UdpNew => "udp_new",
            Self::UdpFlood => "udp_flood",
            Self::Dns(_) => "dns",
            Self::HttpRr => "http_rr",
            Self::HttpCrr => "http_crr",
        }
    }

    /// What one of it is.
    #[must_use]
    pub const fn unit(&self) -> &'static str {
        match self {
            Self::TcpStream => "write",
            Self::UdpFlood => "datagram",
            Self::Dns(_) => "query",
            Self::TcpRr | Self::TcpCrr | Self::UdpRr | Self::UdpNew | Self::HttpRr | Self::HttpCrr => {
                "transaction"
            }
        }
    }

    /// Whether nothing comes back: throughput is what the server received.
    #[must_use]
    pub const fn is_one_way(&self) -> bool {
        matches!(self, Self::TcpStream | Self::UdpFlood)
    }

    /// Whether each request has a TCP connection of its own.
    #[must_use]
    pub const fn connects_each(&self) -> bool {
        matches!(self, Self::TcpCrr | Self::HttpCrr)
    }

    /// Whether it goes by UDP.
    #[must_use]
    pub const fn is_datagram(&self) -> bool {
        matches!(
            self,
            Self::UdpRr | Self::UdpNew | Self::UdpFlood | Self::Dns(Dns { transport: Transport::Udp, .. })
        )
    }
}

impl Profile {
    /// Whether it can be run.
    ///
    /// # Errors
    /// [`LoadError::Spec`] for the first number that cannot be, with the load's name.
    pub fn check(&self) -> Result<(), LoadError> {
        if self.parts.is_empty() || self.parts.len() > MOST_PARTS {
            return Err(LoadError::Parts { profile: self.name.clone(), parts: self.parts.len() });
        }
        for (n, part) in self.parts.iter().enumerate() {
            part.check()?;
            if self.parts[..n].iter().any(|other| other.name == part.name) {
                return Err(LoadError::SameName { profile: self.name.clone(), load: part.name.clone() });
            }
        }
        Ok(())
    }

    /// From the first request to the last answer at the latest.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.parts.iter().map(|part| part.times.longest()).max().unwrap_or_default()
    }
}

impl Load {
    /// Threads of the client.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.connections as usize
    }

    /// Whether it can be run.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let bad = |field, value: String, bounds: String| {
            Err(LoadError::Spec { load: self.name.clone(), field, value, bounds })
        };
        let most_bytes = if self.kind.is_datagram() { MOST_DATAGRAM_BYTES } else { MOST_STREAM_BYTES };
        // Of HTTP it is the body's, which may be empty, and DNS has its own.
        let least = match self.kind {
            Kind::Dns(_) | Kind::HttpRr | Kind::HttpCrr => 0,
            _ => 1,
        };
        for (field, value, low, high) in [
            ("connections", self.connections, 1, MOST_CONNECTIONS),
            ("request_bytes", self.request_bytes, least, most_bytes),
            (
                "response_bytes",
                self.response_bytes,
                if self.kind.is_one_way() { 0 } else { least },
                most_bytes,
            ),
            ("backlog", self.backlog, 1, 1 << 20),
            ("server_threads", self.server_threads, 0, MOST_CONNECTIONS),
            ("in_flight", self.in_flight, 1, MOST_IN_FLIGHT),
        ] {
            if !(low..=high).contains(&value) {
                return bad(field, value.to_string(), format!("{low} to {high}"));
            }
        }
        for (field, value, longest) in [
            ("warm_up", self.times.warm_up, LONGEST),
            ("measure", self.times.measure, LONGEST),
            ("limit", self.times.limit, LONGEST),
            ("think", self.service.think, LONGEST_PAUSE),
            ("slow", self.service.slow, LONGEST_PAUSE),
            ("stall_every", self.service.stall_every, LONGEST),
            ("stall", self.service.stall, LONGEST_PAUSE),
        ] {
            if value > longest {
                return bad(field, format!("{value:?}"), format!("at most {longest:?}"));
            }
        }
        for (field, value) in [("measure", self.times.measure), ("limit", self.times.limit)] {
            if value < Duration::from_millis(1) {
                return bad(field, format!("{value:?}"), "at least 1 ms".to_owned());
            }
        }
        if !(0.0..=1.0).contains(&self.service.slow_share) {
            return bad("slow_share", self.service.slow_share.to_string(), "0 to 1".to_owned());
        }
        if self.service.stall > self.service.stall_every {
            let bounds = format!("at most {:?}, the time from one to the next", self.service.stall_every);
            return bad("stall", format!("{:?}", self.service.stall), bounds);
        }
        self.check_each()?;
        self.check_pace()?;
        if let Kind::Dns(dns) = &self.kind {
            super::dns::check(&self.name, &dns.names)?;
        }
        Ok(())
    }

    fn check_each(&self) -> Result<(), LoadError> {
        let closed = matches!(self.pace, Pace::Closed);
        for (field, given, means) in [
            ("fast_open", self.each.fast_open, closed && self.kind.connects_each()),
            ("client_closes", self.each.client_closes, closed && self.kind == Kind::TcpCrr),
            ("kind", self.kind == Kind::UdpNew, closed),
        ] {
            if given && !means {
                let (load, value) = (self.name.clone(), self.kind.name().to_owned());
                let bounds = "of connections of their own, in a closed loop".to_owned();
                return Err(LoadError::Spec { load, field, value, bounds });
            }
        }
        Ok(())
    }

    fn check_pace(&self) -> Result<(), LoadError> {
        let Pace::Open { rate_per_second, arrivals } = self.pace else { return Ok(()) };
        let bad = |field, value: String, bounds: String| {
            Err(LoadError::Spec { load: self.name.clone(), field, value, bounds })
        };
        // One a day is not a load, and a rate that is no number is none either.
        if !(0.001..=MOST_PER_SECOND).contains(&rate_per_second) {
            let bounds = format!("0.001 to {MOST_PER_SECOND} a second");
            return bad("rate_per_second", rate_per_second.to_string(), bounds);
        }
        match arrivals {
            Arrivals::Burst(n) if n == 0 || n > MOST_IN_FLIGHT => {
                bad("burst", n.to_string(), format!("1 to {MOST_IN_FLIGHT}"))
            }
            Arrivals::Burst(n) if n % self.connections != 0 => {
                let bounds = format!("a multiple of the {} connections that share it", self.connections);
                bad("burst", n.to_string(), bounds)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        LoadError,
        args::{KindName, LoadArgs},
    };

    #[test]
    fn how_connections_begin_and_end_is_said_of_those_alone_that_are_opened_for_one_request() {
        let of = |kind, fast_open, client_closes, rate| {
            LoadArgs { fast_open, client_closes, rate, ..LoadArgs::of(kind) }.resolve()
        };
        for (kind, fast_open, client_closes) in [
            (KindName::TcpCrr, true, true),
            (KindName::HttpCrr, true, false),
            (KindName::UdpNew, false, false),
        ] {
            assert!(of(kind, fast_open, client_closes, None).is_ok(), "{kind:?}");
            let open = of(kind, fast_open, client_closes, Some(10.0));
            assert!(matches!(open, Err(LoadError::Spec { .. })), "{kind:?}: {open:?}");
        }
        for (kind, fast_open, client_closes) in [
            (KindName::TcpRr, true, false),
            (KindName::UdpNew, true, false),
            (KindName::HttpCrr, false, true),
            (KindName::TcpRr, false, true),
        ] {
            let refused = of(kind, fast_open, client_closes, None);
            assert!(matches!(refused, Err(LoadError::Spec { .. })), "{kind:?}: {refused:?}");
        }
    }
}
