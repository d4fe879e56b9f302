//! The demonstration: everything that nettrace measures, at a rate that leaves the machine idle for the most part.

use super::{Family, Path, packets_of_datagram, tcp, udp};
use crate::lab::dns::{self, DnsServer, DnsTotals};
use crate::lab::{Lab, LabError, Role};
use serde::{Deserialize, Serialize};
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two rounds of each part.
const PAUSE: Duration = Duration::from_millis(50);
const BULK_BYTES: u64 = 1 << 20;
/// Payload of the datagrams that go in fragments, bytes.
const FRAGMENTED_BYTES: u16 = 4000;
const FRAGMENTED_COUNT: u32 = 3;
const HTTP_CONNECTS: u32 = 10;
const REFUSED_CONNECTS: u32 = 1;
const TIMED_OUT_CONNECTS: u32 = 2;
/// How long a connect takes to time out; a demonstration that is shorter goes without.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// One part of the demonstration, once.
type Round = fn(&Lab) -> Result<TrafficTotals, LabError>;

/// Exactly what traffic was made, over all address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficTotals {
    /// TCP connections that were established, those of DNS not counted.
    pub tcp_connections: u64,
    /// Requests that were answered over TCP.
    pub tcp_requests: u64,
    /// TCP payload from client to server, bytes.
    pub tcp_request_bytes: u64,
    /// TCP payload from server to client, bytes.
    pub tcp_response_bytes: u64,
    /// Connections that were refused.
    pub tcp_refused: u64,
    /// Connections that timed out.
    pub tcp_timed_out: u64,
    /// UDP requests, those of DNS not counted.
    pub udp_requests: u64,
    /// UDP responses that the client received.
    pub udp_responses: u64,
    /// Datagrams that went in fragments.
    pub fragmented_datagrams: u64,
    /// Fragments that they became at the sender.
    pub fragments: u64,
    /// Those datagrams that arrived whole.
    pub reassembled_datagrams: u64,
    /// DNS transactions as planned.
    pub dns: DnsTotals,
    /// DNS transactions as the client saw them.
    pub dns_observed: DnsTotals,
}

impl TrafficTotals {
    fn add_exchange(&mut self, done: &tcp::Exchanged) {
        self.tcp_connections += done.connections;
        self.tcp_requests += done.requests;
        self.tcp_request_bytes += done.request_bytes;
        self.tcp_response_bytes += done.response_bytes;
    }
}

impl std::ops::AddAssign for TrafficTotals {
    fn add_assign(&mut self, other: Self) {
        self.tcp_connections += other.tcp_connections;
        self.tcp_requests += other.tcp_requests;
        self.tcp_request_bytes += other.tcp_request_bytes;
        self.tcp_response_bytes += other.tcp_response_bytes;
        self.tcp_refused += other.tcp_refused;
        self.tcp_timed_out += other.tcp_timed_out;
        self.udp_requests += other.udp_requests;
        self.udp_responses += other.udp_responses;
        self.fragmented_datagrams += other.fragmented_datagrams;
        self.fragments += other.fragments;
        self.reassembled_datagrams += other.reassembled_datagrams;
        self.dns += other.dns;
        self.dns_observed += other.dns_observed;
    }
}

/// Runs the parts side by side until the time is over; each finishes the round that it is in.
pub(in crate::lab) fn run(lab: &Lab, duration: Duration) -> Result<TrafficTotals, LabError> {
    let deadline = Instant::now() + duration;
    let _dns = DnsServer::start(lab.pod(Role::Dns))?;
    let parts: [Round; 3] = [tcp_round, udp_round, dns_round];
    thread::scope(|scope| {
        let mut threads: Vec<_> =
            parts.into_iter().map(|round| scope.spawn(move || repeat(lab, deadline, round))).collect();
        if duration >= CONNECT_TIMEOUT {
            threads.push(scope.spawn(|| timed_out(lab)));
        }
        let mut totals = TrafficTotals::default();
        for thread in threads {
            totals += thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        }
        Ok(totals)
    })
}

/// At least one round, then more until the deadline.
fn repeat(lab: &Lab, deadline: Instant, round: Round) -> Result<TrafficTotals, LabError> {
    let mut totals = TrafficTotals::default();
    loop {
        totals += round(lab)?;
        if Instant::now() + PAUSE >= deadline {
            return Ok(totals);
        }
        thread::sleep(PAUSE);
    }
}

fn to_server(lab: &Lab, family: Family) -> Result<Path<'_>, LabError> {
    lab.path(Role::Client, Role::Server, family)
}

fn tcp_round(lab: &Lab) -> Result<TrafficTotals, LabError> {
    let mut totals = TrafficTotals::default();
    for &family in lab.families() {
        let path = to_server(lab, family)?;
        totals.add_exchange(&tcp::request_response(&path, &tcp::RequestResponse::default())?);
        totals.add_exchange(&tcp::http_gets(&path, HTTP_CONNECTS)?);
        totals.add_exchange(&tcp::bulk(&path, BULK_BYTES, 0)?);
        let failed = tcp::refused(&path, REFUSED_CONNECTS)?;
        totals.tcp_refused += failed.refused;
    }
    Ok(totals)
}

fn timed_out(lab: &Lab) -> Result<TrafficTotals, LabError> {
    let failed = tcp::timed_out(&to_server(lab, Family::V4)?, TIMED_OUT_CONNECTS)?;
    Ok(TrafficTotals { tcp_timed_out: failed.timed_out, ..TrafficTotals::default() })
}

fn udp_round(lab: &Lab) -> Result<TrafficTotals, LabError> {
    let mut totals = TrafficTotals::default();
    for &family in lab.families() {
        let path = to_server(lab, family)?;
        let done = udp::request_response(&path, &udp::RequestResponse::default())?;
        totals.udp_requests += done.sent;
        totals.udp_responses += done.answered;
        let fragmented = udp::Datagrams {
            count: FRAGMENTED_COUNT,
            bytes: FRAGMENTED_BYTES.into(),
            ..udp::Datagrams::default()
        };
        let delivery = udp::datagrams(&path, &fragmented)?;
        let each = packets_of_datagram(family, path.from().eth0.mtu, FRAGMENTED_BYTES.into());
        if each > 1 {
            totals.fragmented_datagrams += delivery.sent;
            totals.fragments += delivery.sent * u64::from(each);
            totals.reassembled_datagrams += delivery.received;
        }
    }
    Ok(totals)
}

fn dns_round(lab: &Lab) -> Result<TrafficTotals, LabError> {
    let mix = dns::mix(lab, 1)?;
    Ok(TrafficTotals { dns: mix.expected, dns_observed: mix.observed, ..TrafficTotals::default() })
}
