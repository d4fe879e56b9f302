//! The books of DNS transactions: totals and bounded tables by server, by question, and of the slowest ones.

use super::codes::{rcode_name, type_name};
use super::message::{Name, Question};
use super::track::Sighting;
use super::{DnsConfig, DnsLosses, DnsOutcome, DnsTracker, Transport};
use crate::snapshot::{Count, Dns, DnsName, DnsServer, DnsTransaction, Hist};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A name is asked again when the same client asks the same server for it within this time, ns: for so long CoreDNS' plugin
/// `cache`, of which NodeLocal DNSCache is made, keeps any answer at least (its smallest TTL is 5 s). So it would have answered
/// these, and does not ask them itself.
const AGAIN_NS: u64 = 5_000_000_000;

/// Counts by response code.
type Rcodes = BTreeMap<u16, u64>;

/// Rows that a transaction is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rows {
    server: usize,
    name: usize,
}

/// What a transaction was counted as when it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    server: IpAddr,
    transport: Transport,
    edns: bool,
    again: bool,
}

/// A transaction that ended.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    /// When the first query was seen, ns.
    pub(super) asked_ns: u64,
    /// Who asked.
    pub(super) client: SocketAddr,
    /// Who was asked.
    pub(super) server: SocketAddr,
    /// How.
    pub(super) transport: Transport,
    /// What.
    pub(super) question: Question,
    /// Queries sent again.
    pub(super) retries: u32,
    /// The answer; none when it timed out.
    pub(super) answer: Option<Answered>,
}

/// How a transaction was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    /// From the first query, ns.
    pub(super) latency_ns: u64,
    /// Response code.
    pub(super) rcode: u16,
    /// The TC bit.
    pub(super) truncated: bool,
}

/// Totals and tables.
#[derive(Clone, Debug)]
pub(super) struct Books {
    config: DnsConfig,
    /// Totals only; the tables are filled in at the end.
    totals: Dns,
    latency: Latency,
    rcodes: Rcodes,
    servers: Table<(IpAddr, Transport), ServerRow>,
    /// Where servers without a row of their own are counted, by transport.
    other_servers: [ServerRow; 2],
    names: Table<(Name, u16), NameRow>,
    other_names: NameRow,
    asked: Asked,
    slowest: Vec<Settled>,
    table_full: u64,
}

/// Rows by key, up to a bound.
#[derive(Clone, Debug)]
struct Table<K, R> {
    index: HashMap<K, usize>,
    rows: Vec<(K, R)>,
    max: usize,
}

/// Who asked which server for which name of late, and when, ns. Server and name are known by a hash of 64 bits, so that this
/// outlives the tables of a window.
#[derive(Clone, Debug)]
struct Asked {
    now: HashMap<(IpAddr, u64), u64>,
    /// Those of the [`AGAIN_NS`] before.
    before: HashMap<(IpAddr, u64), u64>,
    since_ns: u64,
    /// Room in each.
    max: usize,
}

#[derive(Clone, Debug, Default)]
struct Latency {
    hist: Hist,
    sum_ns: u64,
    max_ns: u64,
}

#[derive(Clone, Debug, Default)]
struct ServerRow {
    transactions: u64,
    asked_again: u64,
    timeouts: u64,
    failures: u64,
    hist: Hist,
}

#[derive(Clone, Debug, Default)]
struct NameRow {
    transactions: u64,
    timeouts: u64,
    rcodes: Rcodes,
    sum_ns: u64,
    max_ns: u64,
}

impl<K: Clone + Eq + Hash, R: Default> Table<K, R> {
    fn new(max: usize) -> Self {
        Self { index: HashMap::new(), rows: Vec::new(), max }
    }

    /// The row of a key, a new one if there is room; [`usize::MAX`], which no row has, if there is none.
    fn row(&mut self, key: K) -> usize {
        if let Some(&row) = self.index.get(&key) {
            return row;
        }
        if self.rows.len() >= self.max {
            return usize::MAX;
        }
        self.rows.push((key.clone(), R::default()));
        self.index.insert(key, self.rows.len() - 1);
        self.rows.len() - 1
    }
}

impl Asked {
    fn new(max: usize) -> Self {
        Self { now: HashMap::new(), before: HashMap::new(), since_ns: 0, max }
    }

    /// Whether a client asks again. What there is no room to know was not asked.
    fn again(&mut self, client: IpAddr, what: u64, at_ns: u64) -> bool {
        if at_ns.saturating_sub(self.since_ns) >= AGAIN_NS {
            self.before = std::mem::take(&mut self.now);
            self.since_ns = at_ns;
        }
        let key = (client, what);
        let last = self.now.get(&key).or_else(|| self.before.get(&key)).copied();
        if self.now.len() < self.max || self.now.contains_key(&key) {
            self.now.insert(key, at_ns);
        }
        last.is_some_and(|last| at_ns.saturating_sub(last) < AGAIN_NS)
    }
}

impl NameRow {
    fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.timeouts += other.timeouts;
        for (rcode, n) in &other.rcodes {
            *self.rcodes.entry(*rcode).or_default() += n;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    fn list(self, name: String, qtype: String) -> DnsName {
        let answered: u64 = self.rcodes.values().sum();
        DnsName {
            name,
            qtype,
            transactions: self.transactions,
            timeouts: self.timeouts,
            rcodes: list_rcodes(&self.rcodes),
            mean_ns: self.sum_ns.checked_div(answered).unwrap_or(0),
            max_ns: self.max_ns,
        }
    }
}

impl ServerRow {
    fn list(self, server: IpAddr, transport: Transport) -> DnsServer {
        let Self { transactions, asked_again, timeouts, failures, hist } = self;
        let (transport, asked_again) = (transport.name().to_owned(), Some(asked_again));
        DnsServer { server, transport, transactions, asked_again, timeouts, failures, hist }
    }
}

impl Settled {
    /// Unanswered ones first, then by latency; what comes after makes the order a total one.
    fn rank(&self) -> impl Ord + '_ {
        let latency_ns = self.answer.map_or(u64::MAX, |a| a.latency_ns);
        (
            self.answer.is_some(),
            Reverse((latency_ns, self.retries)),
            (self.asked_ns, self.client, self.server, self.transport),
            (&self.question.name, self.question.qtype),
        )
    }

    fn list(self, start_ns: u64) -> DnsTransaction {
        DnsTransaction {
            at_ns: self.asked_ns.saturating_sub(start_ns),
            client: self.client.ip(),
            server: self.server.ip(),
            transport: self.transport.name().to_owned(),
            name: self.question.name.to_string(),
            qtype: type_name(self.question.qtype).into_owned(),
            rcode: self.answer.map(|a| rcode_name(a.rcode).into_owned()),
            latency_ns: self.answer.map(|a| a.latency_ns),
            retries: self.retries,
        }
    }
}

impl Books {
    /// Of the transactions that were answered so far, ns.
    pub(super) const fn latency(&self) -> &Hist {
        &self.latency.hist
    }

    /// Empty ones.
    pub(super) fn new(config: DnsConfig) -> Self {
        Self {
            config,
            totals: Dns::default(),
            latency: Latency::default(),
            rcodes: Rcodes::new(),
            servers: Table::new(config.max_servers),
            other_servers: Default::default(),
            names: Table::new(config.max_names),
            other_names: NameRow::default(),
            asked: Asked::new(config.max_names),
            slowest: Vec::new(),
            table_full: 0,
        }
    }

    /// Counts a transaction that begins.
    pub(super) fn begin(&mut self, seen: &Sighting, question: &Question, edns: bool) -> (Rows, Begun) {
        let rows = Rows {
            server: self.servers.row((seen.destination.ip(), seen.transport)),
            name: self.names.row((question.name.clone(), question.qtype)),
        };
        self.table_full += u64::from(rows.server == usize::MAX) + u64::from(rows.name == usize::MAX);
        let has_room = rows.server != usize::MAX && rows.name != usize::MAX;
        let again = has_room && {
            let what = hash(&(seen.destination.ip(), seen.transport, question));
            self.asked.again(seen.source.ip(), what, seen.ts_ns)
        };
        let begun = Begun { server: seen.destination.ip(), transport: seen.transport, edns, again };
        (self.count(rows, begun), begun)
    }

    /// Counts it in these rows.
    fn count(&mut self, rows: Rows, begun: Begun) -> Rows {
        let Begun { server, transport, edns, again } = begun;
        self.totals.transactions += 1;
        self.totals.tcp += u64::from(transport == Transport::Tcp);
        self.totals.ipv6 += u64::from(server.is_ipv6());
        self.totals.edns += u64::from(edns);
        let row = self.server_row(rows, transport);
        row.transactions += 1;
        row.asked_again += u64::from(again);
        self.name_row(rows).transactions += 1;
        rows
    }

    /// Takes over a transaction that waits, from the books of an earlier window, which forget that it began.
    pub(super) fn take_over(
        &mut self,
        earlier: &mut Self,
        old: Rows,
        begun: Begun,
        question: &Question,
    ) -> Rows {
        let Begun { server, transport, edns, again } = begun;
        earlier.totals.transactions -= 1;
        earlier.totals.tcp -= u64::from(transport == Transport::Tcp);
        earlier.totals.ipv6 -= u64::from(server.is_ipv6());
        earlier.totals.edns -= u64::from(edns);
        let row = earlier.server_row(old, transport);
        row.transactions -= 1;
        row.asked_again -= u64::from(again);
        earlier.name_row(old).transactions -= 1;
        let rows = Rows {
            server: self.servers.row((server, transport)),
            name: self.names.row((question.name.clone(), question.qtype)),
        };
        self.count(rows, begun)
    }

    /// Closes these books for a window, and yields those of the window; who asked of late is still known.
    pub(super) fn turn(&mut self) -> Self {
        let asked = std::mem::replace(&mut self.asked, Asked::new(0));
        let next = Self { asked, ..Self::new(self.config) };
        std::mem::replace(self, next)
    }

    /// Counts a query that was sent again.
    pub(super) fn retry(&mut self) {
        self.totals.retries += 1;
    }

    /// Counts a loss for want of room.
    pub(super) fn table_full(&mut self) {
        self.table_full += 1;
    }

    /// Counts the end of a transaction.
    pub(super) fn settle(&mut self, rows: Rows, settled: Settled) {
        match settled.answer {
            None => {
                self.totals.timeouts += 1;
                self.server_row(rows, settled.transport).timeouts += 1;
                self.name_row(rows).timeouts += 1;
            }
            Some(Answered { latency_ns, rcode, truncated }) => {
                self.totals.answered += 1;
                self.totals.truncated += u64::from(truncated);
                self.latency.hist.record(latency_ns);
                self.latency.sum_ns = self.latency.sum_ns.saturating_add(latency_ns);
                self.latency.max_ns = self.latency.max_ns.max(latency_ns);
                *self.rcodes.entry(rcode).or_default() += 1;
                let server = self.server_row(rows, settled.transport);
                server.hist.record(latency_ns);
                server.failures += u64::from(!matches!(rcode, 0 | 3));
                let name = self.name_row(rows);
                *name.rcodes.entry(rcode).or_default() += 1;
                name.sum_ns = name.sum_ns.saturating_add(latency_ns);
                name.max_ns = name.max_ns.max(latency_ns);
            }
        }
        self.slowest.push(settled);
        if self.slowest.len() > 2 * self.config.max_slowest {
            self.trim_slowest(self.config.max_slowest);
        }
    }

    /// Lists everything; `pending` transactions were not settled.
    pub(super) fn finish(mut self, pending: u64, start_ns: u64, top_n: usize) -> DnsOutcome {
        self.trim_slowest(top_n.min(self.config.max_slowest));
        let mut dns = self.totals;
        dns.pending = pending;
        dns.rcodes = list_rcodes(&self.rcodes);
        dns.slowest = self.slowest.into_iter().map(|s| s.list(start_ns)).collect();
        dns.servers = list_servers(self.servers, self.other_servers);
        dns.names = list_names(self.names, self.other_names, self.config.listed_names);
        DnsOutcome {
            dns,
            latency: self.latency.hist,
            latency_sum_ns: self.latency.sum_ns,
            latency_max_ns: self.latency.max_ns,
            losses: DnsLosses { table_full: self.table_full, ..DnsLosses::default() },
        }
    }

    fn server_row(&mut self, rows: Rows, transport: Transport) -> &mut ServerRow {
        match self.servers.rows.get_mut(rows.server) {
            Some((_, row)) => row,
            None => &mut self.other_servers[transport as usize],
        }
    }

    fn name_row(&mut self, rows: Rows) -> &mut NameRow {
        match self.names.rows.get_mut(rows.name) {
            Some((_, row)) => row,
            None => &mut self.other_names,
        }
    }

    fn trim_slowest(&mut self, keep: usize) {
        self.slowest.sort_unstable_by(|a, b| a.rank().cmp(&b.rank()));
        self.slowest.truncate(keep);
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

fn list_rcodes(rcodes: &Rcodes) -> Vec<Count> {
    let mut list: Vec<_> =
        rcodes.iter().map(|(r, n)| Count { name: rcode_name(*r).into_owned(), count: *n }).collect();
    list.sort_by(|a, b| (Reverse(a.count), &a.name).cmp(&(Reverse(b.count), &b.name)));
    list
}

/// Most transactions first; those of servers without a row of their own last, under the unspecified address.
fn list_servers(table: Table<(IpAddr, Transport), ServerRow>, others: [ServerRow; 2]) -> Vec<DnsServer> {
    let mut rows = table.rows;
    rows.sort_by_key(|(key, row)| (Reverse(row.transactions), *key));
    let nowhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let others = [Transport::Udp, Transport::Tcp].into_iter().zip(others);
    let others =
        others.map(|(transport, row)| ((nowhere, transport), row)).filter(|(_, r)| r.transactions > 0);
    rows.into_iter().chain(others).map(|((server, transport), row)| row.list(server, transport)).collect()
}

/// The `listed` ones with most transactions, most first; all others in one row at the end.
fn list_names(table: Table<(Name, u16), NameRow>, mut others: NameRow, listed: usize) -> Vec<DnsName> {
    let mut rows = table.rows;
    rows.sort_by_cached_key(|((name, qtype), row)| (Reverse(row.transactions), name.to_string(), *qtype));
    for (_, row) in rows.drain(listed.min(rows.len())..) {
        others.add(&row);
    }
    let mut list: Vec<_> = rows
        .into_iter()
        .map(|((name, qtype), row)| row.list(name.to_string(), type_name(qtype).into_owned()))
        .collect();
    if others.transactions > 0 {
        list.push(others.list(DnsTracker::OTHER.to_owned(), "-".to_owned()));
    }
    list
}
