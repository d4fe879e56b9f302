//! Records in, a snapshot out. Deterministic: driven by records alone, so that a replay comes to the same result.
//!
//! Tables are bounded; what does not fit is counted as [`Loss::TableFull`] and still in the totals.

mod black_hole;
mod conntrack;
mod flow;
mod fragmenting;
mod tables;
mod tcp;

pub use flow::{address, flow_text};
pub use tables::SignalBook;

use crate::{
    decode::{Record, records},
    kernel_state::{KernelSignal, KernelState, reason_name},
    path_mtu::Learnt,
    probes::{
        PATH_MTU,
        dns::{DnsConfig, DnsTracker},
    },
    recording::WriteError,
    snapshot::{
        self, Exemplar, Hist, Interface, Ip, LossCount, Meta, Overhead, PathMtu, Probe, Ring, SignalData,
        Snapshot,
    },
};
use bytes::Bytes;
use nettrace_common::{
    Counter, Loss, SCOPE_OTHER, Signal,
    probes::{conntrack::Trouble, drop::Drop, frag::Reassembly, netfilter, ptb::PacketTooBig},
    wire::{Cause, Flow, Measure},
};
use std::{collections::BTreeMap, net::IpAddr};
use tables::{Bounded, Slowest};

/// Rows that a snapshot keeps of each table; reports show fewer.
pub const ROWS: usize = 100;
/// Exemplars kept of each signal.
pub(crate) const EXEMPLARS: usize = 20;
/// Entries of a table while aggregating.
const TABLE: usize = 8192;

/// What is known only at the end.
#[derive(Clone, Debug)]
pub struct Closing {
    /// When measuring began, CLOCK_MONOTONIC, ns.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// The kernel side's books; none when a recording was cut off before them.
    pub kernel: Option<KernelState>,
    /// For the snapshot.
    pub meta: Meta,
    /// For the snapshot.
    pub interfaces: Vec<Interface>,
    /// Names of interface scopes.
    pub scopes: BTreeMap<u16, String>,
    /// For the snapshot.
    pub probes: Vec<Probe>,
    /// For the snapshot.
    pub overhead: Overhead,
    /// Ring size, bytes.
    pub ring_bytes: u64,
    /// Frames of a recording that were corrupt or cut off.
    pub bad_frames: u64,
}

/// What aggregating came to.
pub struct Finished {
    /// For everything downstream.
    pub snapshot: Snapshot,
    /// The per-packet signals as the event lane alone tells them, by signal and scope: with every packet sampled,
    /// the same as the kernel's histograms.
    pub event_lane: BTreeMap<(u8, u16), SignalBook>,
    /// Why the recording lacks some of what is in the snapshot; none when it has all, and without a recording.
    pub unwritten: Option<WriteError>,
}

/// Takes records.
pub struct Aggregator {
    received: u64,
    bad: u64,
    latest_ns: u64,
    measures: BTreeMap<(u8, u16), SignalBook>,
    exemplars: BTreeMap<u8, Slowest<(Measure, u64)>>,
    dns: DnsTracker,
    tcp: tcp::TcpBook,
    conntrack: conntrack::ConntrackBook,
    drops: Bounded<(Flow, u32)>,
    ptb: Bounded<(IpAddr, IpAddr, u32)>,
    black_holes: black_hole::BlackHoles,
    fragmenting: fragmenting::Failures,
    fallback: Ip,
}

impl Aggregator {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(dns: DnsConfig) -> Self {
        Self {
            received: 0,
            bad: 0,
            latest_ns: 0,
            measures: BTreeMap::new(),
            exemplars: BTreeMap::new(),
            dns: DnsTracker::new(dns),
            tcp: tcp::TcpBook::new(TABLE),
            conntrack: conntrack::ConntrackBook::new(TABLE),
            drops: Bounded::new(TABLE),
            ptb: Bounded::new(TABLE),
            black_holes: black_hole::BlackHoles::new(TABLE),
            fragmenting: fragmenting::Failures::default(),
            fallback: Ip::default(),
        }
    }

    /// Takes a batch of ring bytes. Returns how many records it held.
    pub fn feed(&mut self, batch: Bytes) -> u64 {
        let before = self.received;
        for record in records(batch) {
            self.received += 1;
            match record {
                Ok(record) => self.record(record),
                Err(error) => {
                    tracing::debug!("{error}");
                    self.bad += 1;
                }
            }
        }
        self.received - before
    }

    /// Records received so far.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Time of the latest record, CLOCK_MONOTONIC, ns; 0 before the first.
    #[must_use]
    pub const fn latest_ns(&self) -> u64 {
        self.latest_ns
    }

    fn record(&mut self, record: Record) {
        match record {
            Record::Measure(m) => self.measure(&m),
            Record::Dns(m, payload) => {
                self.latest_ns = self.latest_ns.max(m.header.ts_ns);
                self.dns.feed(&m, &payload);
            }
            Record::Tcp(e) => {
                self.latest_ns = self.latest_ns.max(e.header.ts_ns);
                self.black_holes.connection(&e);
                if let Some((signal, ns)) = self.tcp.feed(&e) {
                    self.book(signal, e.header.scope, ns);
                }
            }
            Record::Drop(d) => self.drop(&d),
            Record::Reassembly(r) => self.reassembly(&r),
            Record::PacketTooBig(p) => self.packet_too_big(&p),
            Record::Fragmenting(f) => {
                self.latest_ns = self.latest_ns.max(f.header.ts_ns);
                if let Some((signal, ns)) = self.fragmenting.feed(&f) {
                    self.book(signal, f.header.scope, ns);
                }
            }
            Record::Conntrack(t) => self.conntrack(&t),
            Record::Stuck(s) => {
                self.latest_ns = self.latest_ns.max(s.header.ts_ns);
                if !self.black_holes.feed(&s) {
                    self.bad += 1;
                }
            }
        }
    }

    fn book(&mut self, signal: Signal, scope: u16, ns: u64) {
        self.measures.entry((signal as u8, scope)).or_default().record(ns);
    }

    fn measure(&mut self, m: &Measure) {
        self.latest_ns = self.latest_ns.max(m.header.ts_ns);
        let Some(signal) = Signal::from_u8(m.signal) else {
            self.bad += 1;
            return;
        };
        self.book(signal, m.header.scope, m.latency_ns);
        if signal == Signal::TcpSrtt {
            self.tcp.srtt(&m.flow, m.latency_ns);
        }
        if m.cause == Cause::Exemplar as u8 || m.cause == Cause::Sample as u8 {
            let slowest = self.exemplars.entry(m.signal).or_insert_with(|| Slowest::new(EXEMPLARS));
            slowest.offer(m.latency_ns, (*m, self.received));
        }
    }

    fn drop(&mut self, d: &Drop) {
        self.latest_ns = self.latest_ns.max(d.header.ts_ns);
        self.drops.add((d.flow, d.reason));
    }

    fn reassembly(&mut self, r: &Reassembly) {
        self.latest_ns = self.latest_ns.max(r.header.ts_ns);
        self.fallback.reassembled += 1;
        self.book(Signal::IpReassembly, r.header.scope, r.latency_ns);
    }

    fn packet_too_big(&mut self, p: &PacketTooBig) {
        self.latest_ns = self.latest_ns.max(p.header.ts_ns);
        self.fallback.packet_too_big += 1;
        let router = address(&p.flow.saddr, p.flow.family);
        let destination = address(&p.original_daddr, p.flow.family);
        self.ptb.add((router, destination, p.mtu));
        self.black_holes.message(p);
    }

    fn conntrack(&mut self, t: &Trouble) {
        self.latest_ns = self.latest_ns.max(t.header.ts_ns);
        if !self.conntrack.feed(t) {
            self.bad += 1;
        }
    }

    /// The distributions of the event lane so far, by signal and scope.
    #[must_use]
    pub fn histograms(&self) -> BTreeMap<(u8, u16), Hist> {
        let mut all: BTreeMap<_, _> =
            self.measures.iter().map(|(key, book)| (*key, book.hist.clone())).collect();
        all.insert((Signal::DnsLatency as u8, SCOPE_OTHER), self.dns.latency().clone());
        all
    }

    /// Ends a window at `now_ns` (CLOCK_MONOTONIC) and yields what it came to, to be [finished](Self::finish). Tables begin
    /// anew; what is under way (DNS transactions that wait for their answer, flows with segments that do not get through)
    /// goes on in the next window.
    #[must_use]
    pub fn turn(&mut self, now_ns: u64) -> Self {
        let next = Self { latest_ns: self.latest_ns, ..Self::new(DnsConfig::default()) };
        let mut closed = std::mem::replace(self, next);
        let (dns, black_holes) = (closed.dns.turn(now_ns), closed.black_holes.turn(now_ns));
        self.dns = std::mem::replace(&mut closed.dns, dns);
        self.black_holes = std::mem::replace(&mut closed.black_holes, black_holes);
        closed
    }

    /// Closes the books.
    #[must_use]
    pub fn finish(self, closing: Closing) -> Finished {
        let Self {
            received,
            bad,
            mut measures,
            exemplars,
            dns,
            tcp,
            conntrack,
            drops,
            ptb,
            black_holes,
            fragmenting,
            fallback,
            ..
        } = self;
        let kernel = closing.kernel.clone().unwrap_or_default();
        let dns = dns.finish(closing.end_ns, closing.start_ns, ROWS);
        if !dns.latency.is_empty() {
            let book =
                SignalBook { hist: dns.latency, sum_ns: dns.latency_sum_ns, max_ns: dns.latency_max_ns };
            measures.insert((Signal::DnsLatency as u8, SCOPE_OTHER), book);
        }
        let table_full = tcp.overflow()
            + conntrack.overflow()
            + drops.overflow()
            + ptb.overflow()
            + black_holes.overflow();
        let (conntrack_trouble, conntrack_flows) = conntrack.finish(closing.kernel.as_ref());
        let mut user =
            vec![(Loss::BadRecord, bad), (Loss::BadFrame, closing.bad_frames), (Loss::TableFull, table_full)];
        user.extend(dns.losses.by_reason());
        let name =
            |scope: u16| closing.scopes.get(&scope).cloned().unwrap_or_else(|| format!("scope {scope}"));
        let snapshot = Snapshot {
            schema: snapshot::SCHEMA_VERSION,
            signals: signals(closing.kernel.as_ref(), &measures, &name),
            packets: kernel.packets,
            dns: dns.dns,
            tcp: tcp.finish(closing.kernel.as_ref()),
            ip: Ip {
                failures: fragmenting.into_rows(ROWS),
                ..ip(closing.kernel.as_ref(), fallback, ptb, black_holes)
            },
            conntrack: kernel.conntrack.clone(),
            conntrack_entered: closing.kernel.as_ref().and_then(conntrack::entered),
            conntrack_trouble,
            conntrack_flows,
            drops: drop_rows(&kernel, &name),
            drop_flows: drop_flows(drops, &kernel),
            exemplars: exemplar_rows(exemplars, closing.start_ns, &name),
            losses: losses(&kernel, &user),
            ring: Ring {
                emitted: if closing.kernel.is_some() { kernel.counter(Counter::Emitted) } else { received },
                received,
                lost: kernel.loss(Loss::RingFull),
                size_bytes: closing.ring_bytes,
            },
            meta: closing.meta,
            interfaces: closing.interfaces,
            probes: probes(closing.probes, &kernel.learnt),
            overhead: closing.overhead,
            node: kernel.node.clone(),
        };
        Finished { snapshot, event_lane: measures, unwritten: None }
    }
}

/// The kernel's histograms for its signals, the event lane's for the others; each by scope and over all.
fn signals(
    kernel: Option<&KernelState>,
    measures: &BTreeMap<(u8, u16), SignalBook>,
    name: &impl Fn(u16) -> String,
) -> Vec<SignalData> {
    let mut by_scope: BTreeMap<(u8, u16), SignalBook> = BTreeMap::new();
    for ((signal, scope), book) in measures {
        if kernel.is_none() || usize::from(*signal) >= Signal::IN_KERNEL {
            by_scope.insert((*signal, *scope), book.clone());
        }
    }
    for KernelSignal { signal, scope, hist, sum_ns, max_ns } in kernel.map_or(&[][..], |k| &k.signals) {
        let book = SignalBook { hist: hist.clone(), sum_ns: *sum_ns, max_ns: *max_ns };
        by_scope.insert((*signal, *scope), book);
    }
    let mut rows = Vec::new();
    for signal in Signal::ALL {
        let scoped: Vec<_> = by_scope.iter().filter(|((s, _), _)| *s == signal as u8).collect();
        if scoped.is_empty() {
            continue;
        }
        let mut all = SignalBook::default();
        scoped.iter().for_each(|(_, book)| all.merge(book));
        rows.push(row(signal, "all".to_owned(), all));
        // What belongs to no interface is all in `other`: a second row would only repeat the first.
        if scoped.iter().all(|((_, scope), _)| *scope == SCOPE_OTHER) {
            continue;
        }
        rows.extend(
            scoped
                .into_iter()
                .map(|((_, scope), book)| row(signal, place(signal, *scope, name), book.clone())),
        );
    }
    rows
}

/// The name of a scope; that of nf.hook is a hook.
fn place(signal: Signal, scope: u16, name: &impl Fn(u16) -> String) -> String {
    let hook = if signal == Signal::NfHook { netfilter::hook_of(scope) } else { None };
    hook.map_or_else(|| name(scope), str::to_owned)
}

fn row(signal: Signal, scope: String, book: SignalBook) -> SignalData {
    SignalData {
        signal: signal.name().to_owned(),
        definition: signal.definition().to_owned(),
        scope,
        hist: book.hist,
        sum_ns: book.sum_ns,
        max_ns: book.max_ns,
    }
}

fn ip(
    kernel: Option<&KernelState>,
    fallback: Ip,
    ptb: Bounded<(IpAddr, IpAddr, u32)>,
    black_holes: black_hole::BlackHoles,
) -> Ip {
    let mut ip = match kernel {
        Some(k) => Ip {
            fragments_in_v4: k.counter(Counter::FragmentInV4),
            fragments_in_v6: k.counter(Counter::FragmentInV6),
            fragments_out_v4: k.counter(Counter::FragmentOutV4),
            fragments_out_v6: k.counter(Counter::FragmentOutV6),
            reassembled: k.counter(Counter::Reassembled),
            incomplete: k.incomplete,
            packet_too_big: k.counter(Counter::PacketTooBig),
            learnt: k.learnt.rows.clone(),
            learnt_paths: k.learnt.paths,
            ..Ip::default()
        },
        None => fallback,
    };
    ip.ptb = ptb
        .into_rows(ROWS)
        .into_iter()
        .map(|((router, destination, mtu), count)| PathMtu { router, destination, mtu, count })
        .collect();
    ip.black_holes = black_holes.into_rows(ROWS);
    ip
}

/// What became of the probes, with where learnt path MTUs could not be read: that is known only at the end.
fn probes(mut probes: Vec<Probe>, learnt: &Learnt) -> Vec<Probe> {
    for probe in probes.iter_mut().filter(|p| p.name == PATH_MTU && !learnt.failed.is_empty()) {
        probe.reason = Some(learnt.failed.join("; "));
        if learnt.namespaces == 0 {
            probe.source = None;
        }
    }
    probes
}

fn drop_rows(kernel: &KernelState, name: &impl Fn(u16) -> String) -> Vec<snapshot::Drop> {
    let rows = kernel.drops.iter().map(|d| snapshot::Drop {
        reason: d.reason.clone(),
        location: d.location.clone(),
        scope: name(d.scope),
        count: d.count,
    });
    rows.collect()
}

/// One row a flow, with the reason of most of its drops.
fn drop_flows(drops: Bounded<(Flow, u32)>, kernel: &KernelState) -> Vec<snapshot::DropFlow> {
    let mut flows: BTreeMap<String, (u64, u64, u32)> = BTreeMap::new();
    for ((flow, reason), count) in drops.into_rows(usize::MAX) {
        let (total, most, of) = flows.entry(flow_text(&flow)).or_default();
        *total += count;
        if count > *most {
            (*most, *of) = (count, reason);
        }
    }
    let mut rows: Vec<_> = flows
        .into_iter()
        .map(|(flow, (count, _, reason))| snapshot::DropFlow {
            flow,
            reason: reason_name(&kernel.reasons, reason),
            count,
        })
        .collect();
    rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.flow.cmp(&b.flow)));
    rows.truncate(ROWS);
    rows
}

fn exemplar_rows(
    exemplars: BTreeMap<u8, Slowest<(Measure, u64)>>,
    start_ns: u64,
    name: &impl Fn(u16) -> String,
) -> Vec<Exemplar> {
    let mut rows = Vec::new();
    for (signal, slowest) in exemplars {
        let Some(signal) = Signal::from_u8(signal) else { continue };
        rows.extend(slowest.into_sorted().into_iter().map(|(latency_ns, (m, _))| Exemplar {
            signal: signal.name().to_owned(),
            at_ns: m.header.ts_ns.saturating_sub(start_ns),
            latency_ns,
            flow: flow_text(&m.flow),
            bytes: m.bytes,
            scope: place(signal, m.header.scope, name),
        }));
    }
    rows
}

fn losses(kernel: &KernelState, user: &[(Loss, u64)]) -> Vec<LossCount> {
    let count = |loss: Loss| {
        if loss.is_kernel() {
            kernel.loss(loss)
        } else {
            user.iter().filter(|(l, _)| *l == loss).map(|(_, n)| n).sum()
        }
    };
    let rows = Loss::ALL.into_iter().map(|loss| LossCount {
        reason: loss.name().to_owned(),
        side: if loss.is_kernel() { "kernel" } else { "user" }.to_owned(),
        count: count(loss),
        meaning: loss.meaning().to_owned(),
    });
    rows.collect()
}
