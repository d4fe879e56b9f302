//! DNS in the lab: a server whose names say what it is to do, a client that tells what happened to each query, and a
//! mix of queries of every kind with known counts.

mod client;
mod message;
mod server;

pub use client::{Client, Outcome, Query};
pub use message::{
    Message, MessageError, NOERROR, NXDOMAIN, Question, SERVFAIL, TYPE_A, TYPE_AAAA, decode, encode_query,
    encode_response,
};
pub use server::{Answered, DnsServer, MAX_DELAY, MAX_RECORDS, PORT, ServerLog, Transport};

use super::{Family, Lab, LabError, Role};
use serde::{Deserialize, Serialize};
use std::panic::resume_unwind;
use std::time::Duration;

/// Counts of transactions: as planned by the [`mix`], as felt by its client, or as nettrace should report them.
///
/// A transaction is one query and its copies, by client address, port and id, and its answer. A query that is asked
/// over TCP because its answer over UDP was truncated is a transaction of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsTotals {
    /// All of them: answered and timed out.
    pub transactions: u64,
    /// Those with an answer.
    pub answered: u64,
    /// Those without.
    pub timeouts: u64,
    /// Copies of a query beyond the first.
    pub retries: u64,
    /// Answers with NOERROR, truncated ones too.
    pub noerror: u64,
    /// Answers with NXDOMAIN.
    pub nxdomain: u64,
    /// Answers with SERVFAIL.
    pub servfail: u64,
    /// Answers with the TC bit.
    pub truncated: u64,
    /// Transactions over TCP.
    pub tcp: u64,
    /// Transactions over IPv6.
    pub ipv6: u64,
    /// Transactions whose query had an OPT record.
    pub edns: u64,
}

impl DnsTotals {
    fn fields(&mut self) -> [&mut u64; 11] {
        [
            &mut self.transactions,
            &mut self.answered,
            &mut self.timeouts,
            &mut self.retries,
            &mut self.noerror,
            &mut self.nxdomain,
            &mut self.servfail,
            &mut self.truncated,
            &mut self.tcp,
            &mut self.ipv6,
            &mut self.edns,
        ]
    }

    /// Adds one transaction.
    pub fn add(&mut self, outcome: &Outcome) {
        self.transactions += 1;
        self.retries += u64::from(outcome.copies.saturating_sub(1));
        self.truncated += u64::from(outcome.truncated);
        self.tcp += u64::from(outcome.transport == Transport::Tcp);
        self.ipv6 += u64::from(outcome.server.is_ipv6());
        self.edns += u64::from(outcome.query.edns.is_some());
        match outcome.rcode {
            None => self.timeouts += 1,
            Some(rcode) => {
                self.answered += 1;
                self.noerror += u64::from(rcode == NOERROR);
                self.nxdomain += u64::from(rcode == NXDOMAIN);
                self.servfail += u64::from(rcode == SERVFAIL);
            }
        }
    }
}

impl std::ops::AddAssign for DnsTotals {
    fn add_assign(&mut self, mut other: Self) {
        for (sum, part) in self.fields().into_iter().zip(other.fields()) {
            *sum += *part;
        }
    }
}

/// What a [`mix`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MixResult {
    /// What was planned; on a machine that keeps up, what anyone should have seen.
    pub expected: DnsTotals,
    /// What the client saw.
    pub observed: DnsTotals,
    /// Each transaction as the client saw it.
    pub outcomes: Vec<Outcome>,
}

/// Runs `rounds` of queries of every kind from the client pod to the DNS pod, over each address family, both families
/// at once. A [`DnsServer`] must run in the DNS pod. A round takes about a third of a second.
///
/// # Errors
/// [`LabError::Socket`] when a socket call fails.
pub fn mix(lab: &Lab, rounds: u32) -> Result<MixResult, LabError> {
    let netns = &lab.pod(Role::Client).netns;
    let families = lab.families();
    let mut result = MixResult::default();
    let parts = netns.run(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                families.iter().map(|&family| scope.spawn(move || family_mix(lab, family, rounds))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>, LabError>>()
        })
    })??;
    for (expected, outcomes) in parts {
        result.expected += expected;
        outcomes.iter().for_each(|outcome| result.observed.add(outcome));
        result.outcomes.extend(outcomes);
    }
    Ok(result)
}

/// What one kind of query in the mix adds to the counts, but for `ipv6`.
struct Kind {
    label: &'static str,
    qtype: u16,
    edns: Option<u16>,
    adds: DnsTotals,
}

const ONE: DnsTotals = DnsTotals {
    transactions: 1,
    answered: 1,
    timeouts: 0,
    retries: 0,
    noerror: 0,
    nxdomain: 0,
    servfail: 0,
    truncated: 0,
    tcp: 0,
    ipv6: 0,
    edns: 0,
};
/// Queries that share a TCP connection in each round.
const PIPELINED: u64 = 3;
/// The time after which the client sends a copy of a query that the server is known to ignore.
const RETRY_AFTER: Duration = Duration::from_millis(100);

const KINDS: [Kind; 8] = [
    Kind { label: "www", qtype: TYPE_A, edns: None, adds: DnsTotals { noerror: 1, ..ONE } },
    Kind { label: "api", qtype: TYPE_AAAA, edns: Some(1232), adds: DnsTotals { noerror: 1, edns: 1, ..ONE } },
    Kind { label: "nx", qtype: TYPE_A, edns: None, adds: DnsTotals { nxdomain: 1, ..ONE } },
    Kind { label: "fail", qtype: TYPE_A, edns: None, adds: DnsTotals { servfail: 1, ..ONE } },
    Kind { label: "delay5ms", qtype: TYPE_A, edns: None, adds: DnsTotals { noerror: 1, ..ONE } },
    Kind { label: "retry", qtype: TYPE_A, edns: None, adds: DnsTotals { noerror: 1, retries: 1, ..ONE } },
    Kind {
        label: "drop",
        qtype: TYPE_A,
        edns: None,
        adds: DnsTotals { answered: 0, timeouts: 1, retries: 1, ..ONE },
    },
    // Once truncated over UDP, once whole over TCP.
    Kind {
        label: "big",
        qtype: TYPE_A,
        edns: None,
        adds: DnsTotals { transactions: 2, answered: 2, noerror: 2, truncated: 1, tcp: 1, ..ONE },
    },
];

fn family_mix(lab: &Lab, family: Family, rounds: u32) -> Result<(DnsTotals, Vec<Outcome>), LabError> {
    let client = Client::new(DnsServer::address(lab.pod(Role::Dns), family)?);
    let impatient = Client { retry_after: RETRY_AFTER, copies: 2, ..client };
    let hopeless = Client { timeout: RETRY_AFTER, ..impatient };
    let mut expected = DnsTotals::default();
    let mut outcomes = Vec::new();
    for round in 0..rounds {
        for kind in &KINDS {
            let name = format!("{}-{round}.default.svc.cluster.local", kind.label);
            let query = Query { edns: kind.edns, ..Query::new(&name, kind.qtype) };
            let client = match kind.label {
                "retry" => &impatient,
                "drop" => &hopeless,
                _ => &client,
            };
            outcomes.extend(client.resolve(&query)?);
            expected += kind.adds;
        }
        let names = (0..PIPELINED).map(|n| Query::new(&format!("tcp{n}-{round}.example.test"), TYPE_A));
        outcomes.extend(client.pipeline(&names.collect::<Vec<_>>())?);
        let each = PIPELINED;
        expected += DnsTotals {
            transactions: each,
            answered: each,
            noerror: each,
            tcp: each,
            ..DnsTotals::default()
        };
    }
    if family == Family::V6 {
        expected.ipv6 = expected.transactions;
    }
    Ok((expected, outcomes))
}
