//! One capture from start to snapshot: everything attached, everything collected, nothing left behind.
//!
//! Order matters at the end: programs are detached first, then the ring is emptied, then the kernel's books are read,
//! so that they balance: emitted = received + lost.

mod collector;
mod duty;
mod netstat;
mod overhead;
mod replay;
mod window;

pub use replay::{ReplayError, Replayed, replay};
pub use window::{Limits, NodeReader, Seen, Stretch};

use crate::{
    aggregate::{Aggregator, Closing, Finished},
    attach::{self, Attached, Wanted},
    btf,
    conntrack::{Reading, Way},
    flight::{Memory, MemoryOptions},
    iface::{Namespace, Selection, Table, TableError, WatchError, Watcher, lock},
    kernel_state::{self, KernelState, StateError},
    load::{self, LoadError, Loaded, ProgramOptions},
    node::{self, Node},
    probes::dns::DnsConfig,
    probes::{self, CONNTRACK, Forced},
    recording::{WriteError, Writer, WriterOptions},
    ring::{RingError, RingReader},
    snapshot::{Hist, Interface, Meta, Probe, TcpCounters},
};
use aya::maps::{Array, Map, MapError};
use collector::{Collected, Collector};
use duty::Duty;
use netstat::TcpCounts;
use nettrace_common::{Loss, SCOPE_OTHER, Signal};
use overhead::Meter;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use window::Turn;

/// Index of the loss that tells of a queue which no hook looks at yet.
const UNHOOKED: usize = Loss::Unhooked as usize;

/// What is to be captured.
#[derive(Clone, Debug)]
pub struct Options {
    /// For the kernel programs.
    pub programs: ProgramOptions,
    /// Namespaces whose interfaces are looked at.
    pub namespaces: Vec<Namespace>,
    /// Which of their interfaces.
    pub selection: Selection,
    /// Signals by name or group; empty for all.
    pub signals: Vec<String>,
    /// Rungs of the ladder that signals are to be measured from, instead of the best one.
    pub sources: Vec<Forced>,
    /// Whether hooks that are dear stay attached all the time, rather than a share of it.
    pub always: bool,
    /// When a DNS query has waited long enough.
    pub dns_timeout: Duration,
    /// The filter as typed, for the report.
    pub filter_text: Option<String>,
    /// Whether the traffic is the built-in lab's, for the report.
    pub lab: bool,
    /// Where every record goes too.
    pub record: Option<(PathBuf, WriterOptions)>,
    /// How much of the event lane is held for the flight recorder; none for nothing.
    pub flight: Option<MemoryOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            programs: ProgramOptions::default(),
            namespaces: vec![Namespace::host()],
            selection: Selection::default(),
            signals: Vec::new(),
            sources: Vec::new(),
            always: false,
            dns_timeout: Duration::from_secs(5),
            filter_text: None,
            lab: false,
            record: None,
            flight: None,
        }
    }
}

/// Why a capture cannot start or end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The kernel object.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Nothing could be attached at all.
    #[error("no probe could be attached: {0}")]
    NoProbe(String),
    /// A namespace.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// No interface matches `--iface`.
    #[error("no interface matches {0} (up, and not excluded)")]
    NoInterface(String),
    /// The interface table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A map.
    #[error("kernel map {0}: {1}")]
    Map(&'static str, MapError),
    /// A map is not in the object.
    #[error("kernel map {0} is not in the object")]
    NoMap(&'static str),
    /// The kernel's books.
    #[error(transparent)]
    State(#[from] StateError),
    /// The recording.
    #[error(transparent)]
    Record(#[from] WriteError),
    /// A thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A thread ended by itself, or is so far behind that it does not answer.
    #[error("the collector thread does not answer")]
    Collector,
}

impl CaptureError {
    /// Whether it is for the user to put right (exit code 2) rather than a failure while running.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Load(_) | Self::NoInterface(_) | Self::Watch(_) | Self::NoProbe(_) | Self::Record(_)
        )
    }
}

/// First frame of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartFrame {
    /// When measuring began, CLOCK_MONOTONIC, ns.
    pub start_ns: u64,
    /// What a query's timeout is, ns.
    pub dns_timeout_ns: u64,
    /// Node, kernel, filter; `duration_ns` is not known yet.
    pub meta: Meta,
    /// Interfaces there were.
    pub interfaces: Vec<Interface>,
    /// Names of their scopes.
    pub scopes: BTreeMap<u16, String>,
    /// What was attached.
    pub probes: Vec<Probe>,
    /// Ring size, bytes.
    pub ring_bytes: u64,
}

/// Last frame of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndFrame {
    /// When measuring ended, CLOCK_MONOTONIC, ns.
    pub end_ns: u64,
    /// The kernel side's books.
    pub kernel: KernelState,
    /// Now with its duration.
    pub meta: Meta,
    /// Interfaces, also those that came later.
    pub interfaces: Vec<Interface>,
    /// Names of their scopes.
    pub scopes: BTreeMap<u16, String>,
    /// What was attached, and what could not be.
    pub probes: Vec<Probe>,
    /// What measuring cost.
    pub overhead: crate::snapshot::Overhead,
}

/// Distributions at one time of a capture.
#[derive(Clone, Debug, Default)]
pub struct Histograms {
    all: BTreeMap<(u8, u16), Hist>,
    scopes: BTreeMap<u16, String>,
}

impl Histograms {
    /// What a signal counted since `before`, ns; of one scope, or of all.
    #[must_use]
    pub fn since(&self, before: &Self, signal: Signal, scope: Option<&str>) -> Hist {
        let mut sum = Hist::new();
        let is_scope =
            |n: &u16| scope.is_none_or(|name| self.scopes.get(n).is_some_and(|known| known == name));
        for (key, now) in self.all.iter().filter(|((s, n), _)| *s == signal as u8 && is_scope(n)) {
            match before.all.get(key) {
                Some(before) => sum.merge(&now.since(before)),
                None => sum.merge(now),
            }
        }
        sum
    }
}

/// A capture that runs.
pub struct Capture {
    loaded: Arc<Mutex<Loaded>>,
    table: Arc<Mutex<Table>>,
    watchers: Vec<Watcher>,
    attached: Attached,
    collector: Collector,
    meter: Meter,
    duty: Duty,
    tcp: TcpCounts,
    before: node::Before,
    conntrack: Option<(Way, Reading)>,
    flight: Option<Memory>,
    options: Options,
    meta: Meta,
    /// When the window began, CLOCK_MONOTONIC, ns.
    start_ns: u64,
    turn: Turn,
    limits: Limits,
}

impl Capture {
    /// Loads, attaches and begins to collect.
    ///
    /// # Errors
    /// When the object cannot be loaded, no probe can be attached, an interface or namespace that was asked for is
    /// not there, or the recording cannot be created. Nothing stays attached then.
    pub fn start(options: Options) -> Result<Self, CaptureError> {
        let selected = probes::select(&options.signals);
        let wire = options.programs.wire & probes::at_interfaces(&selected);
        let (mut loaded, types) = load::load(&ProgramOptions { wire, ..options.programs.clone() })?;
        if types.btf.is_none() {
            tracing::warn!("{}: what reads kernel structures is off", btf::NONE);
        }
        let ring = ring(&mut loaded, options.programs.ring_bytes)?;
        let table = Arc::new(Mutex::new(Table::new(iface_map(&mut loaded)?, loaded.scopes)));
        let wanted = Wanted { selected: &selected, forced: &options.sources, xdp: options.selection.xdp };
        let mut attached = attach::programs_ready(&mut loaded, &types, wanted);
        // There only when the object was built with `--kernel-log`.
        let kernel_log = aya_log::EbpfLogger::init(&mut loaded.ebpf).ok();
        let loaded = Arc::new(Mutex::new(loaded));
        let watchers = watch(&options, &table, &loaded, attached.wire)?;
        attached.any().map_err(CaptureError::NoProbe)?;
        let meta = meta(&options);
        let start_ns = monotonic_ns();
        let aggregator = Aggregator::new(dns_config(options.dns_timeout));
        let writer = match &options.record {
            Some((path, limits)) => Some(Writer::create(path, *limits)?),
            None => None,
        };
        let (interfaces, scopes) = rows(&table);
        let start = StartFrame {
            start_ns,
            dns_timeout_ns: nanos(options.dns_timeout),
            meta: meta.clone(),
            interfaces,
            scopes,
            probes: attached.probes.clone(),
            ring_bytes: u64::from(options.programs.ring_bytes),
        };
        let tcp = TcpCounts::read(&options.namespaces, options.programs.others);
        let before = node::Before::read(&options.namespaces);
        let conntrack =
            conntrack_way(&attached.probes).map(|way| (way, Reading::of(&options.namespaces, way)));
        let flight = options.flight.map(Memory::new);
        let collector = Collector::start(ring, kernel_log, aggregator, writer, flight.clone(), &start)
            .map_err(CaptureError::Thread)?;
        if options.always {
            attach::need(&mut lock(&loaded));
        }
        // Last, so that nothing is counted that happened while others were being attached.
        attach::attach(&mut lock(&loaded), &types, wanted, &mut attached);
        let meter = Meter::start();
        let duty = Duty::start(&mut lock(&loaded), &types, wanted, &mut attached, !options.always);
        drop(types);
        Ok(Self {
            loaded,
            table,
            watchers,
            attached,
            collector,
            meter,
            duty,
            tcp,
            before,
            conntrack,
            flight,
            options,
            meta,
            start_ns,
            turn: Turn::default(),
            limits: Limits::default(),
        })
    }

    /// Records received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.collector.received()
    }

    /// What became of each probe.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        &self.attached.probes
    }

    /// The last seconds of the event lane, where they are held.
    #[must_use]
    pub const fn flight(&self) -> Option<&Memory> {
        self.flight.as_ref()
    }

    /// Interfaces as they are now.
    #[must_use]
    pub fn interfaces(&self) -> Vec<Interface> {
        lock(&self.table).interfaces()
    }

    /// The distributions of signals so far: of two of these, the difference is what came in between.
    ///
    /// # Errors
    /// When the kernel's histograms cannot be read, or the collector is gone.
    pub fn histograms(&self, wanted: impl Fn(Signal) -> bool) -> Result<Histograms, CaptureError> {
        let (_, scopes) = rows(&self.table);
        // Scopes of nf.hook are hooks.
        let in_use =
            |signal, scope| signal == Signal::NfHook || scope == SCOPE_OTHER || scopes.contains_key(&scope);
        let both = |signal, scope| wanted(signal) && in_use(signal, scope);
        let kernel = kernel_state::signals(&lock(&self.loaded), both)?;
        let mut all = self.collector.histograms().ok_or(CaptureError::Collector)?;
        // Of what the kernel counts itself, the event lane has a part only.
        all.retain(|(signal, _), _| usize::from(*signal) >= Signal::IN_KERNEL);
        all.extend(kernel.into_iter().map(|s| ((s.signal, s.scope), s.hist)));
        Ok(Histograms { all, scopes })
    }

    /// Keeps the books on cost; to be called now and then.
    pub fn tick(&mut self) {
        let mut loaded = lock(&self.loaded);
        self.duty.tick(&mut loaded);
        self.meter.tick(&loaded.ebpf);
        // Interfaces that are looked at tell of their queues themselves; of the others the kernel side does.
        if loaded.queues.waited_for() && kernel_state::losses(&loaded.ebpf).is_ok_and(|l| l[UNHOOKED] != 0) {
            attach::need(&mut loaded);
        }
    }

    /// Detaches everything and closes the books, those of the last window if there were any.
    ///
    /// # Errors
    /// When the kernel's books cannot be read; everything is detached all the same.
    pub fn stop(mut self) -> Result<Finished, CaptureError> {
        let end_ns = monotonic_ns();
        let overhead = self.meter.finish(&lock(&self.loaded).ebpf);
        let mut counted = KernelState::default();
        self.read_counters(&mut counted);
        let learnt = self.learnt();
        self.watchers.drain(..).for_each(Watcher::stop);
        self.duty.stop(&mut lock(&self.loaded));
        attach::detach(&mut lock(&self.loaded));
        let Collected { aggregator, writer, unwritten } =
            self.collector.stop().ok_or(CaptureError::Collector)?;
        let loaded = lock(&self.loaded);
        attach::mark_failed(&loaded, &mut self.attached.probes);
        let mut kernel = kernel_state::read(&loaded)?.since(&self.turn.kernel).with_counted(counted);
        kernel.learnt = learnt;
        kernel.node = match self.turn.node.take() {
            Some(seen) => seen.node(),
            None => Node::read(&self.options.namespaces, &self.before),
        };
        let mut meta = self.meta;
        meta.duration_ns = end_ns - self.start_ns;
        let (interfaces, scopes) = rows(&self.table);
        let probes = self.attached.probes;
        let end = EndFrame { end_ns, kernel, meta, interfaces, scopes, probes, overhead };
        let end_unwritten = writer.and_then(|writer| collector::write_end(writer, &end).err());
        let ring_bytes = u64::from(self.options.programs.ring_bytes);
        let finished = aggregator.finish(Closing::of(end, self.start_ns, ring_bytes));
        Ok(Finished { unwritten: unwritten.or(end_unwritten), ..finished })
    }
}

/// What TCP's own counters came to from one reading to the other.
fn count_tcp(
    kernel: &mut KernelState,
    (before, now): (&TcpCounts, &TcpCounts),
    segments: bool,
    others: bool,
) {
    let Some(sum) = now.since(before) else { return };
    kernel.listen_overflows = Some(sum.listen_overflows);
    kernel.listen_drops = Some(sum.listen_drops);
    kernel.segments_sent = segments.then_some(sum.segments_sent);
    kernel.tcp_namespaces = now.by_namespace(before);
    if others {
        kernel.tcp = sum.others;
    } else {
        kernel.tcp_namespaces.iter_mut().for_each(|n| n.counters = TcpCounters::default());
    }
}

/// The node's name.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn in_use(probes: &[Probe], name: &str) -> bool {
    probes.iter().any(|p| p.name == name && p.source.is_some())
}

/// How connection tracking's counters are read, if they are.
fn conntrack_way(probes: &[Probe]) -> Option<Way> {
    let source = probes.iter().find(|p| p.name == CONNTRACK)?.source.as_deref()?;
    Some(if source.starts_with("netlink") { Way::Netlink } else { Way::Procfs })
}

fn ring(loaded: &mut Loaded, bytes: u32) -> Result<RingReader, CaptureError> {
    match loaded.ebpf.map("EVENTS") {
        Some(Map::RingBuf(data)) => Ok(RingReader::new(data.fd().as_fd(), bytes as usize)?),
        _ => Err(CaptureError::NoMap("EVENTS")),
    }
}

fn iface_map(
    loaded: &mut Loaded,
) -> Result<Array<aya::maps::MapData, nettrace_common::config::IfaceSlot>, CaptureError> {
    let map = loaded.ebpf.take_map("IFACES").ok_or(CaptureError::NoMap("IFACES"))?;
    Array::try_from(map).map_err(|e| CaptureError::Map("IFACES", e))
}

/// A watcher for each namespace. With no program for interfaces, interfaces get their scopes all the same.
fn watch(
    options: &Options,
    table: &Arc<Mutex<Table>>,
    loaded: &Arc<Mutex<Loaded>>,
    wire: bool,
) -> Result<Vec<Watcher>, CaptureError> {
    let mut watchers = Vec::new();
    for namespace in &options.namespaces {
        let namespace = Namespace { wire: namespace.wire && wire, ..namespace.clone() };
        let watcher = Watcher::start(namespace, options.selection.clone(), table.clone(), loaded.clone())?;
        watchers.push(watcher);
    }
    if options.selection.is_explicit() && lock(table).interfaces().is_empty() {
        let globs: Vec<_> = options.selection.include.iter().map(glob::Pattern::as_str).collect();
        return Err(CaptureError::NoInterface(globs.join(", ")));
    }
    Ok(watchers)
}

/// Interfaces and the names of their scopes, as they are now.
fn rows(table: &Mutex<Table>) -> (Vec<Interface>, BTreeMap<u16, String>) {
    let table = lock(table);
    (table.interfaces(), table.scopes())
}

fn meta(options: &Options) -> Meta {
    let uname = rustix::system::uname();
    Meta {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        start_unix_ns: unix_ns(),
        duration_ns: 0,
        hostname: hostname(),
        kernel: uname.release().to_string_lossy().into_owned(),
        arch: uname.machine().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        filter: options.filter_text.clone(),
        lab: options.lab,
        rotated: None,
        flight: None,
    }
}

fn dns_config(timeout: Duration) -> DnsConfig {
    DnsConfig { timeout_ns: nanos(timeout), ..DnsConfig::default() }
}

/// Whole nanoseconds, saturating after 584 years.
pub(crate) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// The time of day, Unix time, ns.
pub(crate) fn unix_ns() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The clock of kernel records.
fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
