//! What the kernel side knows at the end: histograms, counts, losses, drops. Read once, after everything is
//! detached; a recording keeps it, so that a replay reports the same.

use crate::{
    iface::lock,
    load::Loaded,
    node::Node,
    path_mtu::Learnt,
    snapshot::{ConntrackTable, Hist, Packets, TcpCounters, TcpNamespace},
    symbols::Symbols,
};
use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, MapError, PerCpuArray, PerCpuHashMap},
};
use nettrace_common::{
    Books, Counter, Loss, Signal,
    hist::{BUCKETS, HIGHEST_NS, KernelHist},
    probes::{
        drop::DropKey,
        frag::{FragKey, FragState},
    },
};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

/// One in-kernel histogram, all CPUs together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelSignal {
    /// A [`Signal`].
    pub signal: u8,
    /// Interface scope.
    pub scope: u16,
    /// Its distribution.
    pub hist: Hist,
    /// Exact sum, ns.
    pub sum_ns: u64,
    /// Exact maximum, ns.
    pub max_ns: u64,
}

impl KernelSignal {
    /// What came since; none when nothing did. The maximum is exact where it is the largest of all so far, and the upper end of
    /// its bucket otherwise.
    fn since(&self, before: &[Self]) -> Option<Self> {
        let Some(before) = before.iter().find(|b| (b.signal, b.scope) == (self.signal, self.scope)) else {
            return Some(Self { max_ns: largest(self.max_ns, &self.hist), ..self.clone() });
        };
        let hist = self.hist.since(&before.hist);
        if hist.is_empty() {
            return None;
        }
        let max_ns = largest(self.max_ns, &hist);
        Some(Self { hist, sum_ns: self.sum_ns.saturating_sub(before.sum_ns), max_ns, ..*self })
    }
}

/// The maximum of what a histogram has: a latency may come between the reading of its buckets and that of the maximum, which then
/// belongs to the next window. Above the histogram's range only the maximum tells.
fn largest(max_ns: u64, hist: &Hist) -> u64 {
    let top_ns = hist.max_ns();
    if top_ns >= HIGHEST_NS { max_ns } else { max_ns.min(top_ns) }
}

impl KernelDrop {
    /// What came since; none when nothing did.
    fn since(&self, before: &[Self]) -> Option<Self> {
        let is_same =
            |b: &&Self| (b.scope, &b.reason, &b.location) == (self.scope, &self.reason, &self.location);
        let earlier = before.iter().find(is_same).map_or(0, |b| b.count);
        let count = self.count.saturating_sub(earlier);
        (count > 0).then(|| Self { count, ..self.clone() })
    }
}

/// Drops of one reason at one place in one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelDrop {
    /// Reason's name.
    pub reason: String,
    /// Function.
    pub location: String,
    /// Interface scope.
    pub scope: u16,
    /// Packets.
    pub count: u64,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelState {
    /// Histograms that counted anything.
    pub signals: Vec<KernelSignal>,
    /// By [`Counter`].
    pub counters: Vec<u64>,
    /// Packets, and how many of them passed untimed.
    #[serde(default)]
    pub packets: Packets,
    /// By [`Loss`], the kernel's.
    pub losses: Vec<u64>,
    /// Drops.
    pub drops: Vec<KernelDrop>,
    /// Names of drop reasons, for the events.
    pub reasons: std::collections::BTreeMap<u32, String>,
    /// Datagrams of which fragments are missing.
    pub incomplete: u64,
    /// Accept queues that were full (TcpExtListenOverflows); none when it could not be read.
    pub listen_overflows: Option<u64>,
    /// SYN that listeners dropped (TcpExtListenDrops); none when it could not be read.
    pub listen_drops: Option<u64>,
    /// TCP's other counters.
    #[serde(default)]
    pub tcp: TcpCounters,
    /// TCP's counters by network namespace.
    #[serde(default)]
    pub tcp_namespaces: Vec<TcpNamespace>,
    /// Connection tracking, by network namespace.
    #[serde(default)]
    pub conntrack: Vec<ConntrackTable>,
    /// What the node is set to.
    #[serde(default)]
    pub node: Node,
    /// Path MTUs that the kernel learnt.
    #[serde(default)]
    pub learnt: Learnt,
    /// Segments sent, without those sent again (TcpOutSegs); none when it could not be read, and with a filter.
    pub segments_sent: Option<u64>,
}

/// A map cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not in the object.
    #[error("kernel map {0} is not in the object")]
    Missing(&'static str),
    /// The kernel refused.
    #[error("cannot read kernel map {0}: {1}")]
    Read(&'static str, MapError),
}

impl KernelState {
    /// Count of a counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).copied().unwrap_or(0)
    }

    /// What came since `before`, an earlier reading of the same maps. What is no count there is as it is now, and what is read
    /// besides the maps is left to who reads it.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let less = |now: &[u64], before: &[u64]| {
            let earlier = |n: usize| before.get(n).copied().unwrap_or(0);
            now.iter().enumerate().map(|(n, now)| now.saturating_sub(earlier(n))).collect()
        };
        Self {
            signals: self.signals.iter().filter_map(|now| now.since(&before.signals)).collect(),
            counters: less(&self.counters, &before.counters),
            packets: Packets {
                begun: self.packets.begun.saturating_sub(before.packets.begun),
                untimed: self.packets.untimed.saturating_sub(before.packets.untimed),
                ..self.packets
            },
            losses: less(&self.losses, &before.losses),
            drops: self.drops.iter().filter_map(|now| now.since(&before.drops)).collect(),
            reasons: self.reasons.clone(),
            incomplete: self.incomplete,
            ..Self::default()
        }
    }

    /// With what the kernel counts besides our programs, as `counted` has it.
    #[must_use]
    pub(crate) fn with_counted(self, counted: Self) -> Self {
        Self {
            packets: Packets { budget_per_cpu_per_s: counted.packets.budget_per_cpu_per_s, ..self.packets },
            conntrack: counted.conntrack,
            listen_overflows: counted.listen_overflows,
            listen_drops: counted.listen_drops,
            segments_sent: counted.segments_sent,
            tcp: counted.tcp,
            tcp_namespaces: counted.tcp_namespaces,
            ..self
        }
    }

    /// Count of a loss.
    #[must_use]
    pub fn loss(&self, loss: Loss) -> u64 {
        self.losses.get(loss as usize).copied().unwrap_or(0)
    }
}

/// Reads every map.
///
/// # Errors
/// When a map is missing or the kernel refuses to read it.
pub fn read(loaded: &Loaded) -> Result<KernelState, StateError> {
    let ebpf = &loaded.ebpf;
    let mut state = KernelState { signals: signals(loaded, |_, _| true)?, ..KernelState::default() };
    let books: PerCpuArray<_, Books> = open(ebpf, "BOOKS", PerCpuArray::try_from)?;
    state.counters = vec![0; Counter::COUNT];
    for cpu in books.get(&0, 0).map_err(|e| StateError::Read("BOOKS", e))?.iter() {
        state.counters.iter_mut().zip(cpu.counters).for_each(|(sum, n)| *sum += n);
        state.packets.begun += cpu.budget.packets;
        state.packets.untimed += cpu.budget.passed;
    }
    state.losses = losses(ebpf)?.to_vec();
    let frags: BpfHashMap<_, FragKey, FragState> = open(ebpf, "FRAGS", BpfHashMap::try_from)?;
    state.incomplete = frags.keys().filter(Result::is_ok).count() as u64;
    state.reasons = loaded.reasons.clone();
    state.drops = drops(ebpf, &state.reasons, &loaded.symbols)?;
    Ok(state)
}

/// The kernel side's losses as they are now, by [`Loss`].
///
/// # Errors
/// When the map is missing or the kernel refuses to read it.
pub fn losses(ebpf: &Ebpf) -> Result<[u64; Loss::IN_KERNEL], StateError> {
    let books: PerCpuArray<_, Books> = open(ebpf, "BOOKS", PerCpuArray::try_from)?;
    let mut losses = [0; Loss::IN_KERNEL];
    for cpu in books.get(&0, 0).map_err(|e| StateError::Read("BOOKS", e))?.iter() {
        losses.iter_mut().zip(cpu.losses).for_each(|(sum, n)| *sum += n);
    }
    Ok(losses)
}

fn open<'a, T>(
    ebpf: &'a Ebpf,
    name: &'static str,
    convert: impl FnOnce(&'a aya::maps::Map) -> Result<T, MapError>,
) -> Result<T, StateError> {
    convert(ebpf.map(name).ok_or(StateError::Missing(name))?).map_err(|e| StateError::Read(name, e))
}

/// The histograms of these signals and scopes as they are now, of those that counted anything.
///
/// # Errors
/// When the map is missing or the kernel refuses to read it.
pub fn signals(
    loaded: &Loaded,
    wanted: impl Fn(Signal, u16) -> bool,
) -> Result<Vec<KernelSignal>, StateError> {
    let scopes = loaded.scopes;
    let map: PerCpuArray<_, KernelHist> = open(&loaded.ebpf, "HIST", PerCpuArray::try_from)?;
    let mut signals = Vec::new();
    let mut counts = vec![0_u64; BUCKETS];
    for scope in 0..scopes as u16 {
        let is_wanted = |s: &u8| Signal::from_u8(*s).is_some_and(|signal| wanted(signal, scope));
        for signal in (0..Signal::IN_KERNEL as u8).filter(is_wanted) {
            let index = u32::from(scope) * Signal::IN_KERNEL as u32 + u32::from(signal);
            let cpus = map.get(&index, 0).map_err(|e| StateError::Read("HIST", e))?;
            counts.fill(0);
            let (mut sum_ns, mut max_ns) = (0, 0);
            for cpu in cpus.iter() {
                counts.iter_mut().zip(&cpu.counts).for_each(|(sum, n)| *sum += n);
                sum_ns += cpu.sum_ns;
                max_ns = cpu.max_ns.max(max_ns);
            }
            let hist = Hist::from_counts(&counts);
            if !hist.is_empty() {
                signals.push(KernelSignal { signal, scope, hist, sum_ns, max_ns });
            }
        }
    }
    Ok(signals)
}

fn drops(
    ebpf: &Ebpf,
    reasons: &std::collections::BTreeMap<u32, String>,
    symbols: &Mutex<Symbols>,
) -> Result<Vec<KernelDrop>, StateError> {
    let map: PerCpuHashMap<_, DropKey, u64> = open(ebpf, "DROPS", PerCpuHashMap::try_from)?;
    let counted: Vec<_> = map.iter().filter_map(Result::ok).collect();
    if counted.is_empty() {
        return Ok(Vec::new());
    }
    let mut symbols = lock(symbols);
    symbols.learn(counted.iter().map(|(key, _)| key.location));
    let mut drops: Vec<_> = counted
        .into_iter()
        .map(|(key, cpus)| KernelDrop {
            reason: reason_name(reasons, key.reason),
            location: symbols.name(key.location),
            scope: key.scope as u16,
            count: cpus.iter().sum(),
        })
        .collect();
    drops.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.location.cmp(&b.location)));
    Ok(drops)
}

/// A drop reason's name, or its number where the kernel names none.
#[must_use]
pub fn reason_name(reasons: &std::collections::BTreeMap<u32, String>, reason: u32) -> String {
    match reasons.get(&reason) {
        Some(name) => name.clone(),
        None if reason == 0 => "not told by this kernel".to_owned(),
        None => format!("reason {reason}"),
    }
}
