//! Windows, and what is told of the agent, into series.

use super::{
    buckets::Exemplar,
    store::{OTHER, Store},
    table::Id,
};
use crate::{
    agent::{ChangeRow, Status},
    export::OtlpStats,
    recommend::Finding,
    snapshot::{ConntrackCounts, Count, Dns, Hist, Ip, SignalData, Snapshot, Tcp},
};
use nettrace_common::Signal;

/// Changes that are told, the latest ones.
const CHANGES: usize = 50;

pub(super) fn window(store: &mut Store, window: &Snapshot) {
    store.pass(window.meta.duration_ns);
    store.add(Id::Observed, &[], window.meta.duration_ns);
    for signal in Signal::ALL {
        // That of DNS is told by resolver.
        if signal != Signal::DnsLatency {
            scopes(store, signal, window);
        }
    }
    dns(store, &window.dns, window.signal(Signal::DnsLatency));
    exemplars(store, window);
    tcp(store, &window.tcp);
    ip(store, &window.ip);
    conntrack(store, window);
    for drop in &window.drops {
        store.add(Id::Drops, &[&drop.reason, &drop.scope], drop.count);
    }
    own(store, window);
    node(store, window);
    series(store);
}

/// One signal by interface or hook: where nothing is told apart, all is `other`; so is what the rows lack of all.
fn scopes(store: &mut Store, signal: Signal, window: &Snapshot) {
    let id = Id::of_signal(signal);
    let Some(all) = window.signal(signal) else { return };
    if id.metric().labels.is_empty() {
        store.record(id, &[], &all.hist, all.sum_ns);
        return;
    }
    let rows = window.signals.iter().filter(|row| row.signal == signal.name() && row.scope != all.scope);
    let (mut told, mut told_ns) = (Hist::new(), 0_u64);
    for row in rows {
        store.record(id, &[&row.scope], &row.hist, row.sum_ns);
        told.merge(&row.hist);
        told_ns = told_ns.saturating_add(row.sum_ns);
    }
    rest(store, id, &[OTHER], all, &told, told_ns);
}

/// Counts what rows lack of all.
fn rest(store: &mut Store, id: Id, labels: &[&str], all: &SignalData, told: &Hist, told_ns: u64) {
    if told.count() < all.hist.count() {
        store.record(id, labels, &all.hist.since(told), all.sum_ns.saturating_sub(told_ns));
    }
}

fn dns(store: &mut Store, dns: &Dns, latency: Option<&SignalData>) {
    let (mut told, mut told_ns) = (Hist::new(), 0_u64);
    let (mut transactions, mut timeouts) = (0_u64, 0_u64);
    // Their sums are exact over all only; of one they are so to the width of HdrHistogram's buckets.
    let exact = latency
        .map_or(1.0, |all| all.sum_ns as f64 / (all.hist.mean_ns() * all.hist.count() as f64).max(1.0));
    for row in &dns.servers {
        let server = if row.server.is_unspecified() { OTHER.to_owned() } else { row.server.to_string() };
        let labels: [&str; 2] = [&server, &row.transport];
        store.add(Id::DnsTransactions, &labels, row.transactions);
        store.add(Id::DnsTimeouts, &labels, row.timeouts);
        store.add(Id::DnsFailures, &labels, row.failures);
        if let Some(again) = row.asked_again {
            store.add(Id::DnsAskedAgain, &labels, again);
        }
        if !row.hist.is_empty() {
            let sum_ns = (row.hist.mean_ns() * row.hist.count() as f64 * exact) as u64;
            store.record(Id::DnsLatency, &labels, &row.hist, sum_ns);
            told.merge(&row.hist);
            told_ns = told_ns.saturating_add(sum_ns);
        }
        transactions = transactions.saturating_add(row.transactions);
        timeouts = timeouts.saturating_add(row.timeouts);
    }
    let others = [OTHER, "udp"];
    missing(store, Id::DnsTransactions, &others, dns.transactions, transactions);
    missing(store, Id::DnsTimeouts, &others, dns.timeouts, timeouts);
    if let Some(all) = latency {
        rest(store, Id::DnsLatency, &others, all, &told, told_ns);
    }
    counts(store, Id::DnsAnswers, &dns.rcodes, dns.answered);
    store.add(Id::DnsRetries, &[], dns.retries);
    store.add(Id::DnsTruncated, &[], dns.truncated);
    store.add(Id::DnsEdns, &[], dns.edns);
    store.set(Id::DnsPending, &[], dns.pending as f64);
}

/// Counts by name, and what these lack of all.
fn counts(store: &mut Store, id: Id, rows: &[Count], all: u64) {
    let mut told = 0_u64;
    for row in rows {
        store.add(id, &[&row.name], row.count);
        told = told.saturating_add(row.count);
    }
    missing(store, id, &[OTHER], all, told);
}

fn missing(store: &mut Store, id: Id, labels: &[&str], all: u64, told: u64) {
    if told < all {
        store.add(id, labels, all - told);
    }
}

fn exemplars(store: &mut Store, window: &Snapshot) {
    let at = |at_ns: u64| window.meta.start_unix_ns.saturating_add(at_ns);
    for slow in &window.exemplars {
        let Some(signal) = Signal::from_name(&slow.signal) else { continue };
        let id = Id::of_signal(signal);
        let scope = [slow.scope.as_str()];
        let labels = if id.metric().labels.is_empty() { &[][..] } else { &scope[..] };
        if id.metric().labels.len() == labels.len() {
            let exemplar =
                Exemplar { flow: slow.flow.clone(), latency_ns: slow.latency_ns, at_unix_ns: at(slow.at_ns) };
            store.exemplar(id, labels, exemplar);
        }
    }
    for slow in &window.dns.slowest {
        let Some(latency_ns) = slow.latency_ns else { continue };
        let flow = format!("{} -> {} {}", slow.client, slow.server, slow.transport);
        let exemplar = Exemplar { flow, latency_ns, at_unix_ns: at(slow.at_ns) };
        store.exemplar(Id::DnsLatency, &[&slow.server.to_string(), &slow.transport], exemplar);
    }
}

fn tcp(store: &mut Store, tcp: &Tcp) {
    store.add(Id::TcpConnects, &[], tcp.connects);
    counts(store, Id::TcpConnectFailures, &tcp.failures, tcp.connect_failures);
    store.add(Id::TcpAccepts, &[], tcp.accepts);
    let told = tcp.retransmits_timeout.saturating_add(tcp.retransmits_fast);
    store.add(Id::TcpRetransmits, &["timeout"], tcp.retransmits_timeout);
    store.add(Id::TcpRetransmits, &["fast"], tcp.retransmits_fast);
    store.add(Id::TcpRetransmits, &[OTHER], tcp.retransmits.saturating_sub(told));
    store.add(Id::TcpResets, &["sent"], tcp.resets_sent);
    store.add(Id::TcpResets, &["received"], tcp.resets_received);
    // What is not known is no series.
    let known = [
        (Id::TcpSegmentsSent, tcp.segments_sent),
        (Id::TcpListenOverflows, tcp.listen_overflows),
        (Id::TcpListenDrops, tcp.listen_drops),
    ];
    for (id, count) in known {
        if let Some(count) = count {
            store.add(id, &[], count);
        }
    }
    for (name, count, _) in tcp.counters.values() {
        store.add(Id::TcpKernel, &[name], count);
    }
    let ns = |us: u64| us.saturating_mul(1_000);
    store.add(Id::TcpClosed, &[], tcp.limited.connections);
    store.add(Id::TcpBusy, &[], ns(tcp.limited.busy_us));
    store.add(Id::TcpLimited, &["sndbuf"], ns(tcp.limited.sndbuf_limited_us));
    store.add(Id::TcpLimited, &["rwnd"], ns(tcp.limited.rwnd_limited_us));
}

fn ip(store: &mut Store, ip: &Ip) {
    store.add(Id::Fragments, &["in", "ipv4"], ip.fragments_in_v4);
    store.add(Id::Fragments, &["in", "ipv6"], ip.fragments_in_v6);
    store.add(Id::Fragments, &["out", "ipv4"], ip.fragments_out_v4);
    store.add(Id::Fragments, &["out", "ipv6"], ip.fragments_out_v6);
    store.add(Id::Reassembled, &[], ip.reassembled);
    store.set(Id::Incomplete, &[], ip.incomplete as f64);
    store.add(Id::PacketTooBig, &[], ip.packet_too_big);
    for failure in &ip.failures {
        let work = if failure.work == "cut" { "cut" } else { "join" };
        store.add(Id::FragmentFailures, &[&failure.reason, work], failure.count);
    }
    store.set(Id::BlackHoles, &[], ip.black_holes.len() as f64);
    let again = ip.black_holes.iter().fold(0, |sum: u64, hole| sum.saturating_add(hole.again));
    store.add(Id::BlackHoleRetransmits, &[], again);
    store.set(Id::LearntPaths, &[], ip.learnt_paths as f64);
}

fn conntrack(store: &mut Store, window: &Snapshot) {
    store.clear(Id::ConntrackEntries);
    store.clear(Id::ConntrackMax);
    for table in &window.conntrack {
        for (id, value) in [(Id::ConntrackEntries, table.entries), (Id::ConntrackMax, table.max)] {
            if let Some(value) = value {
                store.set(id, &[&table.netns], value as f64);
            }
        }
        let mut total = table.total();
        for (name, field) in ConntrackCounts::FIELDS {
            if let Some(count) = *field(&mut total) {
                store.add(Id::ConntrackEvents, &[&table.netns, name], count);
            }
        }
    }
    let trouble = &window.conntrack_trouble;
    store.add(Id::ConntrackTrouble, &["clash_resolved"], trouble.clashes_resolved);
    store.add(Id::ConntrackTrouble, &["clash_dropped"], trouble.clashes_dropped);
    store.add(Id::ConntrackTrouble, &["table_full"], trouble.table_full);
    if let Some(entered) = &window.conntrack_entered {
        store.add(Id::ConntrackEntered, &["all"], entered.connections);
        store.add(Id::ConntrackEntered, &["source"], entered.source_nat);
        store.add(Id::ConntrackEntered, &["destination"], entered.destination_nat);
    }
}

/// What was lost, and what it cost.
fn own(store: &mut Store, window: &Snapshot) {
    store.add(Id::Packets, &["true"], window.packets.begun.saturating_sub(window.packets.untimed));
    store.add(Id::Packets, &["false"], window.packets.untimed);
    for loss in &window.losses {
        store.add(Id::Losses, &[&loss.side, &loss.reason], loss.count);
    }
    store.add(Id::RingRecords, &["received"], window.ring.received);
    store.add(Id::RingRecords, &["lost"], window.ring.lost);
    store.set(Id::RingSize, &[], window.ring.size_bytes as f64);
    let cost = &window.overhead;
    store.add(Id::Cpu, &["user"], cost.user_cpu_ns);
    store.add(Id::Cpu, &["system"], cost.system_cpu_ns);
    store.add(Id::Cpu, &["kernel_programs"], (cost.kernel_cpu_share * window.meta.duration_ns as f64) as u64);
    store.set(Id::ResidentMemory, &[], cost.max_rss_bytes as f64);
    store.set(Id::MapMemory, &[], cost.map_bytes as f64);
}

/// What it runs on, and with what.
fn node(store: &mut Store, window: &Snapshot) {
    let meta = &window.meta;
    for id in [Id::BuildInfo, Id::KernelInfo, Id::NodeInfo, Id::ProbeInfo] {
        store.clear(id);
    }
    store.set(Id::BuildInfo, &[&meta.version], 1.0);
    store.set(Id::KernelInfo, &[&meta.kernel, &meta.arch], 1.0);
    store.set(Id::NodeInfo, &[&meta.hostname, meta.filter.as_deref().unwrap_or_default()], 1.0);
    for probe in &window.probes {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        store.set(Id::ProbeInfo, &[&probe.name, &text(&probe.source), &text(&probe.reason)], 1.0);
    }
    let on = window.probes.iter().filter(|p| p.source.is_some()).count();
    store.set(Id::Probes, &["on"], on as f64);
    store.set(Id::Probes, &["off"], (window.probes.len() - on) as f64);
    let [mut measured, mut failed, mut gone] = [0_u32; 3];
    for interface in &window.interfaces {
        if interface.gone {
            gone += 1;
        } else if interface.attached.is_empty() {
            failed += 1;
        } else {
            measured += 1;
        }
    }
    for (state, count) in [("measured", measured), ("failed", failed), ("gone", gone)] {
        store.set(Id::Interfaces, &[state], f64::from(count));
    }
}

fn series(store: &mut Store) {
    let (overflow, evicted) = store.overflow();
    store.count(Id::SeriesOverflow, &[], overflow);
    store.count(Id::SeriesEvicted, &[], evicted);
    store.set(Id::Series, &[], 0.0);
    let series = store.series();
    store.set(Id::Series, &[], series as f64);
}

pub(super) fn status(store: &mut Store, status: &Status) {
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    store.set(Id::StartTime, &[], status.since_unix_ms as f64 / 1e3);
    store.set(Id::Ready, &[], flag(status.ready));
    store.set(Id::WindowLength, &[], status.interval_ms as f64 / 1e3);
    store.count(Id::Windows, &["closed"], status.windows);
    store.count(Id::Windows, &["failed"], status.failed_windows);
    store.count(Id::Reloads, &[], status.reloads);
    store.set(Id::ConfigValid, &[], flag(status.config_error.is_none()));
    let budget = &status.budget;
    store.set(Id::BudgetStep, &[], f64::from(budget.step));
    store.count(Id::BudgetChanges, &[], budget.changes);
    store.set(Id::BudgetCpuUsed, &[], budget.used_cpu_share);
    store.set(Id::BudgetMemoryUsed, &[], budget.used_memory_bytes as f64);
    let bytes = budget.memory_bytes.map(|bytes| bytes as f64);
    for (id, limit) in [(Id::BudgetCpuLimit, budget.cpu_share), (Id::BudgetMemoryLimit, bytes)] {
        store.clear(id);
        if let Some(limit) = limit {
            store.set(id, &[], limit);
        }
    }
    store.count(Id::HistorySnapshots, &["written"], status.history.written);
    store.count(Id::HistorySnapshots, &["failed"], status.history.failed);
    store.count(Id::HistorySnapshots, &["dropped"], status.history.dropped);
    store.set(Id::HistorySize, &[], status.history.size_bytes as f64);
    store.set(Id::HistoryDamaged, &[], status.history.damaged as f64);
    store.count(Id::ClockSteps, &[], status.history.clock_steps);
    store.count(Id::FlightFiles, &["written"], status.flight.written);
    store.count(Id::FlightFiles, &["suppressed"], status.flight.suppressed);
    store.set(Id::FlightHeld, &[], status.flight.held_bytes as f64);
    store.count(Id::FlightLetGo, &[], status.flight.let_go);
    store.count(Id::HttpConnections, &[], status.web.connections);
    store.count(Id::HttpRequests, &[], status.web.requests);
    for (reason, count) in &status.web.refused {
        store.count(Id::HttpRefused, &[reason], *count);
    }
}

pub(super) fn findings(store: &mut Store, findings: &[Finding]) {
    store.clear(Id::Findings);
    for finding in findings {
        store.set(Id::Findings, &[&finding.id, finding.verdict.name()], 1.0);
    }
}

pub(super) fn changes(store: &mut Store, changes: &[ChangeRow]) {
    store.clear(Id::Changes);
    store.clear(Id::ChangeTime);
    for change in changes.iter().rev().take(CHANGES) {
        let (number, active) = (change.change.to_string(), if change.active { 1.0 } else { 0.0 });
        store.set(Id::Changes, &[&number, &change.id], active);
        store.set(Id::ChangeTime, &[&number, &change.id], change.at_unix_ms as f64 / 1e3);
    }
}

pub(super) fn otlp(store: &mut Store, stats: OtlpStats) {
    store.count(Id::OtlpExports, &["sent"], stats.sent);
    store.count(Id::OtlpExports, &["failed"], stats.failed);
    store.count(Id::OtlpExports, &["dropped"], stats.dropped);
}
