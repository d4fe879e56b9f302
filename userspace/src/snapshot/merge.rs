//! Snapshots added up: the windows of one node to what a longer one had seen, and the snapshots of several nodes to one.
//!
//! Needs snapshots, in any order; yields one whose counts are the sums and whose distributions hold all latencies, so that
//! their quantiles are those of all traffic. Time and memory are bounded by one snapshot at a time: rows with the same key
//! add, and of more than [`ROWS`] those with most stay. What is cut off is in the totals, or in a row [`OTHER`] where a table
//! has no total of its own.

mod rows;
#[cfg(test)]
mod tests;

use super::{
    ConntrackEntered, Meta, Overhead, Packets, ProgramCost, Ring, Rotated, Snapshot, Tcp, TcpCounters,
};
use crate::{
    aggregate::ROWS,
    node::Node,
    snapshot::{ConntrackTrouble, TcpLimited},
};
use rows::{Joined, add, add_known};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

/// Name of the row for what has none of its own.
pub const OTHER: &str = "(other)";
/// Nodes that the name of a union tells.
const NAMES: usize = 3;

impl Snapshot {
    /// Adds a later one of the same node, as a rule the next window. Counts and distributions add up, as does the time
    /// measured; what is so at the end of a measurement (pending transactions, entries of a table, settings, probes,
    /// interfaces) is the later one's.
    ///
    /// When the clock was set back the other one is the earlier; events keep their place on the clock all the same.
    pub fn merge(&mut self, later: &Self) {
        let ends = Ends::of(later);
        self.add(later);
        ends.put(self);
        self.ip.learnt.clone_from(&later.ip.learnt);
        self.interfaces.clone_from(&later.interfaces);
        self.probes.clone_from(&later.probes);
        self.node.clone_from(&later.node);
        self.meta = Meta {
            start_unix_ns: self.meta.start_unix_ns,
            duration_ns: self.meta.duration_ns,
            lab: self.meta.lab,
            rotated: self.meta.rotated,
            ..later.meta.clone()
        };
    }

    /// Adds everything that adds up.
    fn add(&mut self, other: &Self) {
        let shift = Shift::between(&self.meta, &other.meta);
        // Shares are of each one's own time, which is needed before it adds up.
        self.overhead.add(self.meta.duration_ns, &other.overhead, other.meta.duration_ns);
        self.meta.add(&other.meta);
        self.schema = self.schema.max(other.schema);
        rows::signals(&mut self.signals, &other.signals);
        self.packets.add(&other.packets);
        rows::dns(&mut self.dns, &other.dns, shift);
        self.tcp.add(&other.tcp);
        rows::ip(&mut self.ip, &other.ip);
        rows::conntrack(&mut self.conntrack, &other.conntrack);
        if let Some(other) = &other.conntrack_entered {
            self.conntrack_entered.get_or_insert_default().add(other);
        }
        self.conntrack_trouble.add(&other.conntrack_trouble);
        rows::conntrack_flows(&mut self.conntrack_flows, &other.conntrack_flows);
        rows::drops(&mut self.drops, &other.drops);
        rows::drop_flows(&mut self.drop_flows, &other.drop_flows);
        rows::exemplars(&mut self.exemplars, &other.exemplars, shift);
        rows::losses(&mut self.losses, &other.losses);
        self.ring.add(&other.ring);
    }
}

/// One snapshot of all; none of none. Those of one node may come in any order, and between those of others. A union of several
/// nodes has the time of the one that measured longest, and nobody's settings; its namespaces and interfaces are named
/// `NODE/NAME`, its interfaces' latencies added by the interface's own name.
#[must_use]
pub fn union(snapshots: impl IntoIterator<Item = Snapshot>) -> Option<Snapshot> {
    let mut snapshots = snapshots.into_iter();
    let mut all = Union::of(snapshots.next()?);
    snapshots.for_each(|snapshot| all.take(snapshot));
    Some(all.finish())
}

/// What is so at the end of a measurement, and does not add up over time.
#[derive(Clone, Copy, Default)]
struct Ends {
    pending: u64,
    incomplete: u64,
    learnt_paths: u64,
}

impl Ends {
    const fn of(snapshot: &Snapshot) -> Self {
        Self {
            pending: snapshot.dns.pending,
            incomplete: snapshot.ip.incomplete,
            learnt_paths: snapshot.ip.learnt_paths,
        }
    }

    const fn put(self, snapshot: &mut Snapshot) {
        snapshot.dns.pending = self.pending;
        snapshot.ip.incomplete = self.incomplete;
        snapshot.ip.learnt_paths = self.learnt_paths;
    }
}

/// One node of several.
struct Member {
    /// Time measured, ns.
    duration_ns: u64,
    /// When the latest of its snapshots began, Unix time, ns: ends are that one's.
    latest_unix_ns: u64,
    ends: Ends,
    cpus: u32,
}

/// A union that grows.
struct Union {
    all: Snapshot,
    nodes: BTreeMap<String, Member>,
}

impl Union {
    fn of(first: Snapshot) -> Self {
        let mut nodes = BTreeMap::new();
        nodes.insert(first.meta.hostname.clone(), Member::of(&first));
        Self { all: first, nodes }
    }

    fn take(&mut self, mut next: Snapshot) {
        let name = next.meta.hostname.clone();
        if self.nodes.len() == 1 && self.nodes.contains_key(&name) {
            self.take_of_the_only_one(next);
            return;
        }
        if self.nodes.len() == 1 {
            let first = std::mem::take(&mut self.all.meta.hostname);
            rows::qualify(&mut self.all, &first);
            self.all.node = Node::default();
        }
        rows::qualify(&mut next, &name);
        let member = self.nodes.get_mut(&name);
        let is_latest = member.as_ref().is_none_or(|m| next.meta.start_unix_ns >= m.latest_unix_ns);
        match member {
            Some(member) => member.add(&next),
            None => drop(self.nodes.insert(name.clone(), Member::of(&next))),
        }
        if is_latest {
            self.all.add(&next);
            rows::ends_of_one(&mut self.all, &next, &name);
        } else {
            rows::forget_ends(&mut next);
            self.all.add(&next);
        }
    }

    fn take_of_the_only_one(&mut self, mut next: Snapshot) {
        let Some(member) = self.nodes.get_mut(&next.meta.hostname) else { return };
        let is_latest = next.meta.start_unix_ns >= member.latest_unix_ns;
        member.add(&next);
        if !is_latest {
            // What is so at the end stays.
            std::mem::swap(&mut self.all, &mut next);
        }
        self.all.merge(&next);
    }

    fn finish(mut self) -> Snapshot {
        if self.nodes.len() == 1 {
            return self.all;
        }
        let mut ends = Ends::default();
        let (mut longest_ns, mut cpus) = (0, 0_u32);
        for member in self.nodes.values() {
            add(&mut ends.pending, member.ends.pending);
            add(&mut ends.incomplete, member.ends.incomplete);
            add(&mut ends.learnt_paths, member.ends.learnt_paths);
            longest_ns = member.duration_ns.max(longest_ns);
            cpus = cpus.saturating_add(member.cpus);
        }
        ends.put(&mut self.all);
        let meta = &mut self.all.meta;
        self.all.overhead.kernel_cpu_share *= ratio(meta.duration_ns, longest_ns);
        (meta.duration_ns, meta.cpus) = (longest_ns, cpus);
        let mut names: Vec<_> = self.nodes.keys().take(NAMES).map(String::as_str).collect();
        let more = format!("and {} more", self.nodes.len().saturating_sub(NAMES));
        if self.nodes.len() > NAMES {
            names.push(&more);
        }
        meta.hostname = names.join(", ");
        self.all
    }
}

impl Member {
    fn of(snapshot: &Snapshot) -> Self {
        Self {
            duration_ns: snapshot.meta.duration_ns,
            latest_unix_ns: snapshot.meta.start_unix_ns,
            ends: Ends::of(snapshot),
            cpus: snapshot.meta.cpus,
        }
    }

    fn add(&mut self, next: &Snapshot) {
        add(&mut self.duration_ns, next.meta.duration_ns);
        if next.meta.start_unix_ns >= self.latest_unix_ns {
            self.latest_unix_ns = next.meta.start_unix_ns;
            (self.ends, self.cpus) = (Ends::of(next), next.meta.cpus);
        }
    }
}

/// How much later events are told from the start of both than from their own snapshot's, ns.
#[derive(Clone, Copy)]
struct Shift {
    ours_ns: u64,
    theirs_ns: u64,
}

impl Shift {
    const fn between(ours: &Meta, theirs: &Meta) -> Self {
        Self {
            ours_ns: ours.start_unix_ns.saturating_sub(theirs.start_unix_ns),
            theirs_ns: theirs.start_unix_ns.saturating_sub(ours.start_unix_ns),
        }
    }
}

impl Meta {
    fn add(&mut self, other: &Self) {
        self.start_unix_ns = self.start_unix_ns.min(other.start_unix_ns);
        add(&mut self.duration_ns, other.duration_ns);
        self.lab |= other.lab;
        if let Some(other) = other.rotated {
            let rotated = self.rotated.get_or_insert(Rotated { files: 0, size_bytes: 0 });
            rotated.files = rotated.files.saturating_add(other.files);
            add(&mut rotated.size_bytes, other.size_bytes);
        }
        for (ours, theirs) in [
            (&mut self.version, &other.version),
            (&mut self.kernel, &other.kernel),
            (&mut self.arch, &other.arch),
        ] {
            ours.join(theirs);
        }
        if self.filter != other.filter {
            let all = || "all traffic".to_owned();
            let ours = self.filter.get_or_insert_with(all);
            ours.join(&other.filter.clone().unwrap_or_else(all));
        }
    }
}

impl Packets {
    fn add(&mut self, other: &Self) {
        self.budget_per_cpu_per_s = other.budget_per_cpu_per_s;
        add(&mut self.begun, other.begun);
        add(&mut self.untimed, other.untimed);
    }
}

impl Ring {
    fn add(&mut self, other: &Self) {
        add(&mut self.emitted, other.emitted);
        add(&mut self.received, other.received);
        add(&mut self.lost, other.lost);
        self.size_bytes = self.size_bytes.max(other.size_bytes);
    }
}

impl ConntrackEntered {
    fn add(&mut self, other: &Self) {
        add(&mut self.connections, other.connections);
        add(&mut self.source_nat, other.source_nat);
        add(&mut self.destination_nat, other.destination_nat);
    }
}

impl ConntrackTrouble {
    fn add(&mut self, other: &Self) {
        add(&mut self.clashes_resolved, other.clashes_resolved);
        add(&mut self.clashes_dropped, other.clashes_dropped);
        add(&mut self.table_full, other.table_full);
    }
}

impl TcpLimited {
    fn add(&mut self, other: &Self) {
        add(&mut self.connections, other.connections);
        add(&mut self.connections_sndbuf, other.connections_sndbuf);
        add(&mut self.connections_rwnd, other.connections_rwnd);
        add(&mut self.busy_us, other.busy_us);
        add(&mut self.rwnd_limited_us, other.rwnd_limited_us);
        add(&mut self.sndbuf_limited_us, other.sndbuf_limited_us);
    }
}

impl TcpCounters {
    fn add(&mut self, other: &Self) {
        self.add_since(*other, Self::default());
    }
}

impl Tcp {
    fn add(&mut self, other: &Self) {
        add(&mut self.connects, other.connects);
        add(&mut self.connect_failures, other.connect_failures);
        add(&mut self.accepts, other.accepts);
        add(&mut self.retransmits, other.retransmits);
        add(&mut self.retransmits_timeout, other.retransmits_timeout);
        add(&mut self.retransmits_fast, other.retransmits_fast);
        add(&mut self.resets_sent, other.resets_sent);
        add(&mut self.resets_received, other.resets_received);
        // Others are counts of trouble, of which some tell more than none. This one is what trouble is a share of: a part of
        // it would make the share too large.
        self.segments_sent = match (self.segments_sent, other.segments_sent) {
            (Some(ours), Some(theirs)) => Some(ours.saturating_add(theirs)),
            _ => None,
        };
        add_known(&mut self.listen_overflows, other.listen_overflows);
        add_known(&mut self.listen_drops, other.listen_drops);
        self.counters.add(&other.counters);
        self.limited.add(&other.limited);
        rows::tcp(self, other);
    }
}

impl Overhead {
    /// Adds another's; with the times that they were measured for, ns. Memory is that of the larger one.
    fn add(&mut self, ours_ns: u64, other: &Self, theirs_ns: u64) {
        let mean = |ours: f64, theirs: f64| {
            let (ours_ns, theirs_ns) = (ours_ns as f64, theirs_ns as f64);
            let all_ns = ours_ns + theirs_ns;
            if all_ns > 0.0 { (ours * ours_ns + theirs * theirs_ns) / all_ns } else { 0.0 }
        };
        self.stats_share = mean(self.stats_share, other.stats_share);
        self.kernel_cpu_share = mean(self.kernel_cpu_share, other.kernel_cpu_share);
        add(&mut self.user_cpu_ns, other.user_cpu_ns);
        add(&mut self.system_cpu_ns, other.system_cpu_ns);
        self.max_rss_bytes = self.max_rss_bytes.max(other.max_rss_bytes);
        self.map_bytes = self.map_bytes.max(other.map_bytes);
        let mut place: HashMap<String, usize> =
            self.programs.iter().enumerate().map(|(n, p)| (p.program.clone(), n)).collect();
        for theirs in &other.programs {
            let at = *place.entry(theirs.program.clone()).or_insert_with(|| {
                self.programs.push(ProgramCost { program: theirs.program.clone(), runs: 0, ns_per_run: 0.0 });
                self.programs.len() - 1
            });
            let ours = &mut self.programs[at];
            let ns = ours.total_ns() + theirs.total_ns();
            add(&mut ours.runs, theirs.runs);
            ours.ns_per_run = ns / ours.runs.max(1) as f64;
        }
        let dearest = |p: &ProgramCost| Reverse(p.total_ns() as u64);
        self.programs.sort_by_key(dearest);
        self.programs.truncate(ROWS);
    }
}

impl ProgramCost {
    fn total_ns(&self) -> f64 {
        self.ns_per_run * self.runs as f64
    }
}

fn ratio(of: u64, to: u64) -> f64 {
    if to == 0 { 1.0 } else { of as f64 / to as f64 }
}
