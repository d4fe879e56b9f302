//! Tables of snapshots: rows with the same key add, most stay.

use super::{
    super::{
        BlackHole, ConntrackCounts, ConntrackFlow, ConntrackTable, Count, Dns, DnsName, DnsServer,
        DnsTransaction, Drop, DropFlow, Exemplar, FragmentFailure, Hist, Ip, LossCount, PathMtu, SignalData,
        Snapshot, Tcp, TcpNamespace, TcpPeer,
    },
    OTHER, Shift,
};
use crate::{
    aggregate::{EXEMPLARS, ROWS},
    probes::dns::{DnsConfig, DnsTracker},
};
use nettrace_common::{MAX_SCOPES, Signal};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::{IpAddr, Ipv4Addr},
};

/// What a text that came of several differing ones may be long, bytes.
const JOINED_BYTES: usize = 200;

/// Adds to a count. They come from outside, and may be anything.
pub(super) const fn add(ours: &mut u64, theirs: u64) {
    *ours = ours.saturating_add(theirs);
}

/// Adds to a count that may not be known; what is known of it is told.
pub(super) fn add_known(ours: &mut Option<u64>, theirs: Option<u64>) {
    if let Some(theirs) = theirs {
        add(ours.get_or_insert(0), theirs);
    }
}

/// Texts that differ are told side by side.
pub(super) trait Joined {
    fn join(&mut self, other: &str);
}

impl Joined for String {
    fn join(&mut self, other: &str) {
        let told = self == other || self.split("; ").any(|part| part == other);
        if !told && self.len() + other.len() < JOINED_BYTES {
            if !self.is_empty() {
                self.push_str("; ");
            }
            self.push_str(other);
        }
    }
}

/// Adds rows to the rows with the same key, and others behind them.
fn add_rows<R: Clone, K: Eq + Hash>(
    ours: &mut Vec<R>,
    theirs: &[R],
    key: impl Fn(&R) -> K,
    add: impl Fn(&mut R, &R),
) {
    let mut place: HashMap<K, usize> = HashMap::with_capacity(ours.len());
    for (at, row) in ours.iter().enumerate() {
        place.entry(key(row)).or_insert(at);
    }
    for row in theirs {
        match place.get(&key(row)) {
            Some(&at) => add(&mut ours[at], row),
            None => {
                place.insert(key(row), ours.len());
                ours.push(row.clone());
            }
        }
    }
}

/// Takes the rows off that are too many, the first of them being those that stay.
fn cut<R>(rows: &mut Vec<R>, max: usize) -> Vec<R> {
    rows.split_off(max.min(rows.len()))
}

/// Takes a row out that is to be last.
fn take<R>(rows: &mut Vec<R>, is: impl Fn(&R) -> bool) -> Option<R> {
    rows.iter().position(is).map(|at| rows.remove(at))
}

/// Of each signal `all`, and as many scopes as one node has; the rest is in `other`. Where only one of the two has more scopes
/// than `all`, the other's latencies belong to `other`, so that scopes add up to all.
pub(super) fn signals(ours: &mut Vec<SignalData>, theirs: &[SignalData]) {
    let mut books: Vec<(String, Vec<SignalData>)> = Vec::new();
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut group = |row: SignalData| {
        let at = *place.entry(row.signal.clone()).or_insert_with(|| {
            books.push((row.signal.clone(), Vec::new()));
            books.len() - 1
        });
        books[at].1.push(row);
    };
    std::mem::take(ours).into_iter().for_each(&mut group);
    let mut their_rows: HashMap<&str, Vec<SignalData>> = HashMap::new();
    for row in theirs {
        their_rows.entry(row.signal.as_str()).or_default().push(row.clone());
        if !place.contains_key(&row.signal) {
            place.insert(row.signal.clone(), books.len());
            books.push((row.signal.clone(), Vec::new()));
        }
    }
    for (signal, mut rows) in books {
        let mut theirs = their_rows.remove(signal.as_str()).unwrap_or_default();
        split_scopes(&mut rows, &mut theirs);
        add_rows(&mut rows, &theirs, |r| r.scope.clone(), add_signal);
        fold_scopes(&mut rows);
        ours.append(&mut rows);
    }
    // In the order of the signal table; those that it does not have come last.
    let order = |row: &SignalData| Signal::from_name(&row.signal).map_or(u8::MAX, |s| s as u8);
    ours.sort_by_key(order);
    ours.truncate(ROWS.max(Signal::COUNT * (MAX_SCOPES as usize + 1)));
}

const ALL_SCOPES: &str = "all";
const OTHER_SCOPE: &str = "other";

fn split_scopes(ours: &mut Vec<SignalData>, theirs: &mut Vec<SignalData>) {
    let only_all = |rows: &[SignalData]| rows.iter().all(|r| r.scope == ALL_SCOPES);
    let alone = match (only_all(ours), only_all(theirs)) {
        (true, false) => ours,
        (false, true) => theirs,
        _ => return,
    };
    if let Some(all) = alone.first() {
        let other = SignalData { scope: OTHER_SCOPE.to_owned(), ..all.clone() };
        alone.push(other);
    }
}

fn add_signal(ours: &mut SignalData, theirs: &SignalData) {
    ours.hist.merge(&theirs.hist);
    add(&mut ours.sum_ns, theirs.sum_ns);
    ours.max_ns = ours.max_ns.max(theirs.max_ns);
}

/// `all` first and `other` second, as in any snapshot.
fn fold_scopes(rows: &mut Vec<SignalData>) {
    let place = |r: &SignalData| match r.scope.as_str() {
        ALL_SCOPES => 0,
        OTHER_SCOPE => 1,
        _ => 2,
    };
    if rows.len() <= MAX_SCOPES as usize {
        rows.sort_by_key(place);
        return;
    }
    if !rows.iter().any(|r| r.scope == OTHER_SCOPE) {
        let scope = OTHER_SCOPE.to_owned();
        rows.push(SignalData { scope, hist: Hist::new(), sum_ns: 0, max_ns: 0, ..rows[0].clone() });
    }
    rows.sort_by_key(|r| (place(r), Reverse(r.hist.count())));
    let rest = cut(rows, MAX_SCOPES as usize);
    if let Some(other) = rows.iter_mut().find(|r| r.scope == OTHER_SCOPE) {
        rest.iter().for_each(|row| add_signal(other, row));
    }
}

/// Most first; of more kinds than there are rows for, the rest is counted together.
fn counts(ours: &mut Vec<Count>, theirs: &[Count]) {
    add_rows(ours, theirs, |c| c.name.clone(), |ours, theirs| add(&mut ours.count, theirs.count));
    let other = take(ours, |c| c.name == OTHER);
    ours.sort_by(|a, b| (Reverse(a.count), &a.name).cmp(&(Reverse(b.count), &b.name)));
    let rest = cut(ours, ROWS);
    let count = rest.iter().chain(&other).fold(0, |sum: u64, c| sum.saturating_add(c.count));
    if other.is_some() || !rest.is_empty() {
        ours.push(Count { name: OTHER.to_owned(), count });
    }
}

pub(super) fn dns(ours: &mut Dns, theirs: &Dns, shift: Shift) {
    add(&mut ours.transactions, theirs.transactions);
    add(&mut ours.answered, theirs.answered);
    add(&mut ours.timeouts, theirs.timeouts);
    add(&mut ours.retries, theirs.retries);
    add(&mut ours.truncated, theirs.truncated);
    add(&mut ours.tcp, theirs.tcp);
    add(&mut ours.ipv6, theirs.ipv6);
    add(&mut ours.edns, theirs.edns);
    counts(&mut ours.rcodes, &theirs.rcodes);
    dns_servers(&mut ours.servers, &theirs.servers);
    dns_names(&mut ours.names, &theirs.names);
    let slowest = |t: &DnsTransaction| (t.latency_ns.is_some(), Reverse(t.latency_ns), t.at_ns);
    ours.slowest.iter_mut().for_each(|t| add(&mut t.at_ns, shift.ours_ns));
    ours.slowest.extend(theirs.slowest.iter().map(|t| {
        let at_ns = t.at_ns.saturating_add(shift.theirs_ns);
        DnsTransaction { at_ns, ..t.clone() }
    }));
    ours.slowest.sort_by_key(slowest);
    ours.slowest.truncate(ROWS);
}

/// Those without a row of their own are at the unspecified address, as they are in any snapshot.
fn dns_servers(ours: &mut Vec<DnsServer>, theirs: &[DnsServer]) {
    let nowhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    add_rows(ours, theirs, |s| (s.server, s.transport.clone()), add_server);
    ours.sort_by(|a, b| {
        let order = |s: &DnsServer| (s.server == nowhere, Reverse(s.transactions), s.server);
        order(a).cmp(&order(b)).then_with(|| a.transport.cmp(&b.transport))
    });
    let rest = cut(ours, ROWS);
    let others: Vec<_> = rest
        .into_iter()
        .map(|s| {
            // Of a file from elsewhere, where it may be anything.
            let transport = if s.transport == "tcp" { "tcp" } else { "udp" }.to_owned();
            DnsServer { server: nowhere, transport, ..s }
        })
        .collect();
    add_rows(ours, &others, |s| (s.server, s.transport.clone()), add_server);
}

fn add_server(ours: &mut DnsServer, theirs: &DnsServer) {
    // What is not known of some of them is not known of all.
    ours.asked_again = ours.asked_again.zip(theirs.asked_again).map(|(a, b)| a.saturating_add(b));
    add(&mut ours.transactions, theirs.transactions);
    add(&mut ours.timeouts, theirs.timeouts);
    add(&mut ours.failures, theirs.failures);
    ours.hist.merge(&theirs.hist);
}

/// As many as a capture lists; the rest is in its row for others.
fn dns_names(ours: &mut Vec<DnsName>, theirs: &[DnsName]) {
    let is_other = |n: &DnsName| n.name == DnsTracker::OTHER && n.qtype == "-";
    add_rows(ours, theirs, |n| (n.name.clone(), n.qtype.clone()), add_name);
    let other = take(ours, is_other);
    ours.sort_by(|a, b| {
        (Reverse(a.transactions), &a.name, &a.qtype).cmp(&(Reverse(b.transactions), &b.name, &b.qtype))
    });
    let rest = cut(ours, DnsConfig::default().listed_names);
    let others = other.into_iter().chain(rest).reduce(|mut sum, row| {
        add_name(&mut sum, &row);
        sum
    });
    ours.extend(others.map(|row| DnsName {
        name: DnsTracker::OTHER.to_owned(),
        qtype: "-".to_owned(),
        ..row
    }));
}

fn add_name(ours: &mut DnsName, theirs: &DnsName) {
    let answered = |n: &DnsName| n.rcodes.iter().fold(0, |sum: u64, c| sum.saturating_add(c.count));
    let sum = |n: &DnsName| u128::from(n.mean_ns) * u128::from(answered(n));
    let (sum_ns, of) = (sum(ours) + sum(theirs), u128::from(answered(ours)) + u128::from(answered(theirs)));
    ours.mean_ns = sum_ns.checked_div(of).and_then(|mean| u64::try_from(mean).ok()).unwrap_or(0);
    ours.max_ns = ours.max_ns.max(theirs.max_ns);
    add(&mut ours.transactions, theirs.transactions);
    add(&mut ours.timeouts, theirs.timeouts);
    counts(&mut ours.rcodes, &theirs.rcodes);
}

pub(super) fn tcp(ours: &mut Tcp, theirs: &Tcp) {
    counts(&mut ours.failures, &theirs.failures);
    add_rows(&mut ours.namespaces, &theirs.namespaces, |n| n.netns.clone(), add_namespace);
    if ours.namespaces.len() > ROWS {
        let most = |n: &TcpNamespace| Reverse(n.listen_drops.saturating_add(n.listen_overflows));
        ours.namespaces.sort_by_key(most);
        ours.namespaces.truncate(ROWS);
    }
    add_rows(&mut ours.peers, &theirs.peers, |p| p.peer, add_peer);
    let events = |p: &TcpPeer| {
        [p.connections, p.failures, p.retransmits, p.resets].into_iter().fold(0, u64::saturating_add)
    };
    ours.peers.sort_by_key(|p| (Reverse(events(p)), p.peer));
    ours.peers.truncate(ROWS);
}

fn add_namespace(ours: &mut TcpNamespace, theirs: &TcpNamespace) {
    add(&mut ours.listen_overflows, theirs.listen_overflows);
    add(&mut ours.listen_drops, theirs.listen_drops);
    ours.counters.add(&theirs.counters);
}

fn add_peer(ours: &mut TcpPeer, theirs: &TcpPeer) {
    add(&mut ours.connections, theirs.connections);
    add(&mut ours.failures, theirs.failures);
    add(&mut ours.failures_at_once, theirs.failures_at_once);
    add(&mut ours.retransmits, theirs.retransmits);
    add(&mut ours.resets, theirs.resets);
    add(&mut ours.sndbuf_limited_us, theirs.sndbuf_limited_us);
    add(&mut ours.rwnd_limited_us, theirs.rwnd_limited_us);
    ours.srtt.merge(&theirs.srtt);
}

pub(super) fn ip(ours: &mut Ip, theirs: &Ip) {
    add(&mut ours.fragments_in_v4, theirs.fragments_in_v4);
    add(&mut ours.fragments_in_v6, theirs.fragments_in_v6);
    add(&mut ours.fragments_out_v4, theirs.fragments_out_v4);
    add(&mut ours.fragments_out_v6, theirs.fragments_out_v6);
    add(&mut ours.reassembled, theirs.reassembled);
    add(&mut ours.packet_too_big, theirs.packet_too_big);
    let count = |ours: &mut PathMtu, theirs: &PathMtu| add(&mut ours.count, theirs.count);
    add_rows(&mut ours.ptb, &theirs.ptb, |p| (p.router, p.destination, p.mtu), count);
    ours.ptb.sort_by_key(|p| (Reverse(p.count), p.router, p.destination, p.mtu));
    ours.ptb.truncate(ROWS);
    let count = |ours: &mut FragmentFailure, theirs: &FragmentFailure| add(&mut ours.count, theirs.count);
    add_rows(&mut ours.failures, &theirs.failures, |f| (f.work.clone(), f.reason.clone()), count);
    ours.failures.sort_by_key(|f| Reverse(f.count));
    ours.failures.truncate(ROWS);
    add_rows(&mut ours.black_holes, &theirs.black_holes, |h| h.peer, add_black_hole);
    ours.black_holes.sort_by_key(|h| (Reverse(h.again), h.peer));
    ours.black_holes.truncate(ROWS);
}

/// Flows last longer than windows, and are the same ones as a rule: at least as many as either saw.
fn add_black_hole(ours: &mut BlackHole, theirs: &BlackHole) {
    ours.flows = ours.flows.max(theirs.flows);
    ours.lost_bytes = ours.lost_bytes.min(theirs.lost_bytes);
    let passes = ours.passes_bytes.max(theirs.passes_bytes);
    // A path may have become wider in between. That longer packets pass now does not make the loss of then undone.
    ours.passes_bytes = passes.map(|passes| passes.min(ours.lost_bytes.saturating_sub(1)));
    add(&mut ours.again, theirs.again);
    add(&mut ours.messages, theirs.messages);
    ours.alive |= theirs.alive;
}

/// By namespace; entries and limits are the other's, where it knows them.
pub(super) fn conntrack(ours: &mut Vec<ConntrackTable>, theirs: &[ConntrackTable]) {
    add_rows(
        ours,
        theirs,
        |t| t.netns.clone(),
        |ours, theirs| {
            ours.entries = theirs.entries.or(ours.entries);
            ours.max = theirs.max.or(ours.max);
            ours.buckets = theirs.buckets.or(ours.buckets);
            add_rows(&mut ours.cpus, &theirs.cpus, |c| c.cpu, add_counts);
            ours.cpus.sort_by_key(|c| c.cpu);
        },
    );
    if ours.len() <= ROWS {
        return;
    }
    let rest = take(ours, |t| t.netns == OTHER);
    ours.sort_by(|a, b| b.used_share().unwrap_or(0.0).total_cmp(&a.used_share().unwrap_or(0.0)));
    let mut sum = ConntrackCounts::default();
    rest.into_iter().chain(cut(ours, ROWS)).for_each(|table| add_counts(&mut sum, &table.total()));
    ours.push(ConntrackTable { netns: OTHER.to_owned(), cpus: vec![sum], ..ConntrackTable::default() });
}

fn add_counts(ours: &mut ConntrackCounts, theirs: &ConntrackCounts) {
    let mut theirs = *theirs;
    for (_, field) in ConntrackCounts::FIELDS {
        add_known(field(ours), *field(&mut theirs));
    }
}

pub(super) fn conntrack_flows(ours: &mut Vec<ConntrackFlow>, theirs: &[ConntrackFlow]) {
    let count = |ours: &mut ConntrackFlow, theirs: &ConntrackFlow| add(&mut ours.count, theirs.count);
    add_rows(ours, theirs, |f| (f.flow.clone(), f.what.clone()), count);
    ours.sort_by(|a, b| (Reverse(a.count), &a.flow).cmp(&(Reverse(b.count), &b.flow)));
    ours.truncate(ROWS);
}

/// Their number has no place of its own: of more rows than are kept, the rest is counted together.
pub(super) fn drops(ours: &mut Vec<Drop>, theirs: &[Drop]) {
    let key = |d: &Drop| (d.reason.clone(), d.location.clone(), d.scope.clone());
    add_rows(ours, theirs, key, |ours, theirs| add(&mut ours.count, theirs.count));
    let other = take(ours, |d| d.reason == OTHER && d.location == OTHER);
    ours.sort_by(|a, b| {
        (Reverse(a.count), &a.location, &a.reason).cmp(&(Reverse(b.count), &b.location, &b.reason))
    });
    let rest = cut(ours, ROWS);
    if other.is_none() && rest.is_empty() {
        return;
    }
    let count = rest.iter().chain(&other).fold(0, |sum: u64, d| sum.saturating_add(d.count));
    let [reason, location, scope] = [OTHER, OTHER, OTHER_SCOPE].map(str::to_owned);
    ours.push(Drop { reason, location, scope, count });
}

pub(super) fn drop_flows(ours: &mut Vec<DropFlow>, theirs: &[DropFlow]) {
    add_rows(
        ours,
        theirs,
        |f| f.flow.clone(),
        |ours, theirs| {
            if theirs.count > ours.count {
                ours.reason.clone_from(&theirs.reason);
            }
            add(&mut ours.count, theirs.count);
        },
    );
    ours.sort_by(|a, b| (Reverse(a.count), &a.flow).cmp(&(Reverse(b.count), &b.flow)));
    ours.truncate(ROWS);
}

/// The slowest of each signal.
pub(super) fn exemplars(ours: &mut Vec<Exemplar>, theirs: &[Exemplar], shift: Shift) {
    let mut by_signal: BTreeMap<(u8, String), Vec<Exemplar>> = BTreeMap::new();
    let mut put = |e: Exemplar, shift_ns: u64| {
        let order = Signal::from_name(&e.signal).map_or(u8::MAX, |s| s as u8);
        let at_ns = e.at_ns.saturating_add(shift_ns);
        by_signal.entry((order, e.signal.clone())).or_default().push(Exemplar { at_ns, ..e });
    };
    std::mem::take(ours).into_iter().for_each(|e| put(e, shift.ours_ns));
    theirs.iter().for_each(|e| put(e.clone(), shift.theirs_ns));
    for mut rows in by_signal.into_values().take(Signal::COUNT) {
        rows.sort_by_key(|e| (Reverse(e.latency_ns), e.at_ns));
        rows.truncate(EXEMPLARS);
        ours.append(&mut rows);
    }
}

pub(super) fn losses(ours: &mut Vec<LossCount>, theirs: &[LossCount]) {
    add_rows(ours, theirs, |l| l.reason.clone(), |ours, theirs| add(&mut ours.count, theirs.count));
    ours.truncate(ROWS);
}

/// Leaves entries and limits to a snapshot that is later.
pub(super) fn forget_ends(snapshot: &mut Snapshot) {
    for table in &mut snapshot.conntrack {
        (table.entries, table.max, table.buckets) = (None, None, None);
    }
}

/// Names of one node among several.
pub(super) fn qualify(snapshot: &mut Snapshot, node: &str) {
    let put = |name: &mut String| *name = format!("{node}/{name}");
    snapshot.interfaces.iter_mut().for_each(|i| put(&mut i.netns));
    snapshot.conntrack.iter_mut().for_each(|t| put(&mut t.netns));
    snapshot.tcp.namespaces.iter_mut().for_each(|n| put(&mut n.netns));
    snapshot.ip.learnt.iter_mut().for_each(|l| put(&mut l.netns));
}

/// Takes what one of several nodes is at the end of its measurement, with the names that it has among them.
pub(super) fn ends_of_one(all: &mut Snapshot, next: &Snapshot, node: &str) {
    let prefix = format!("{node}/");
    all.ip.learnt.retain(|l| !l.netns.starts_with(&prefix));
    all.ip.learnt.extend_from_slice(&next.ip.learnt);
    all.ip.learnt.sort_by(|a, b| (a.mtu, &a.netns, a.destination).cmp(&(b.mtu, &b.netns, b.destination)));
    all.ip.learnt.truncate(ROWS);
    all.interfaces.retain(|i| !i.netns.starts_with(&prefix));
    all.interfaces.extend_from_slice(&next.interfaces);
    all.interfaces.truncate(ROWS);
    for probe in &next.probes {
        let Some(ours) = all.probes.iter_mut().find(|p| p.name == probe.name) else {
            all.probes.push(probe.clone());
            continue;
        };
        for (ours, theirs) in [(&mut ours.source, &probe.source), (&mut ours.reason, &probe.reason)] {
            if let Some(theirs) = theirs {
                ours.get_or_insert_default().join(theirs);
            }
        }
    }
    all.probes.truncate(ROWS);
}
