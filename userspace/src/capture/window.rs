//! Windows: a capture that runs on, told in pieces. Each is a snapshot of its own time alone, so that tables never fill up
//! however long the capture runs, and sums over windows are what one long capture would have counted.
//!
//! Needs a running [`Capture`]; yields a [`Snapshot`] each time that one ends.

use super::{
    Capture, CaptureError, EndFrame, StartFrame, TcpCounts, conntrack_way, count_tcp, in_use, monotonic_ns,
    nanos, rows, unix_ns,
};
use crate::{
    aggregate::Closing,
    attach,
    conntrack::Reading,
    iface::{Namespace, lock},
    kernel_state::{self, KernelState},
    node::{Before, Node},
    path_mtu::Learnt,
    probes::{self, PATH_MTU, TCP_COUNTERS},
    snapshot::{Meta, Overhead, Probe, Snapshot},
};
use bytes::Bytes;
use nettrace_common::{Counter, Loss};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// What is known when a window begins.
#[derive(Default)]
pub(super) struct Turn {
    /// The kernel side's books as they were.
    pub(super) kernel: KernelState,
    /// The same at earlier ends of windows, oldest first, for the flight recorder.
    anchors: VecDeque<Anchor>,
    /// What the node was last seen to be set to; none before it was looked at.
    pub(super) node: Option<Seen>,
}

/// The kernel side's books at the end of an earlier window.
struct Anchor {
    /// CLOCK_MONOTONIC, ns.
    at_ns: u64,
    /// Unix time, ns.
    at_unix_ns: u64,
    kernel: KernelState,
}

/// Readings of the books that are held within the time of the flight recorder: the time that a file covers is longer than was
/// asked for by one part in so many.
const ANCHORS: u64 = 4;

/// The time before the end of the latest window, as a recording has it.
#[derive(Debug)]
pub struct Stretch {
    /// First frame.
    pub start: StartFrame,
    /// Last frame.
    pub end: EndFrame,
    /// Records in between.
    pub batches: Vec<Bytes>,
}

/// What the node was seen to be set to.
#[derive(Clone, Debug)]
pub struct Seen {
    node: Arc<Node>,
    learnt: Arc<Learnt>,
}

/// How much less is measured, so that measuring costs less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Packets are kept from 2^this times their threshold on; 63 for none.
    pub exemplar_shift: u32,
    /// The budget of packets that are timed is divided by 2^this.
    pub packet_shift: u32,
    /// Whether hooks that are dear (those attached for a share of the time) stay away.
    pub without_dear: bool,
}

/// What is said of probes whose hooks stay away.
const RESTS: &str = "switched off for the budget";

/// Looks at what the node is set to, now and then, beside the capture: that takes a while.
#[derive(Debug)]
pub struct NodeReader {
    namespaces: Vec<Namespace>,
    /// Whether path MTUs are asked for.
    learns: bool,
    before: Before,
}

impl NodeReader {
    /// What the node is set to now, with what its counters came to since the last time.
    #[must_use]
    pub fn read(&mut self) -> Seen {
        let before = std::mem::replace(&mut self.before, Before::read(&self.namespaces));
        let node = Node::read(&self.namespaces, &before);
        let learnt = if self.learns { Learnt::read(&self.namespaces) } else { Learnt::default() };
        Seen { node: Arc::new(node), learnt: Arc::new(learnt) }
    }
}

impl Seen {
    /// The node itself.
    pub(super) fn node(self) -> Node {
        Arc::unwrap_or_clone(self.node)
    }
}

impl Closing {
    /// A live capture's.
    pub(super) fn of(end: EndFrame, start_ns: u64, ring_bytes: u64) -> Self {
        let EndFrame { end_ns, kernel, meta, interfaces, scopes, probes, overhead } = end;
        let kernel = Some(kernel);
        Self {
            start_ns,
            end_ns,
            kernel,
            meta,
            interfaces,
            scopes,
            probes,
            overhead,
            ring_bytes,
            bad_frames: 0,
        }
    }
}

impl Capture {
    /// Path MTUs that the kernel learnt, at the end: as they were last looked at, where they were.
    pub(super) fn learnt(&self) -> Learnt {
        match &self.turn.node {
            Some(seen) => (*seen.learnt).clone(),
            None if in_use(&self.attached.probes, PATH_MTU) => Learnt::read(&self.options.namespaces),
            None => Learnt::default(),
        }
    }

    /// Looks at the node for the windows to come; to be used on another thread.
    #[must_use]
    pub fn node_reader(&self) -> NodeReader {
        NodeReader {
            namespaces: self.options.namespaces.clone(),
            learns: in_use(&self.attached.probes, PATH_MTU),
            before: Before::read(&self.options.namespaces),
        }
    }

    /// What the node is set to, for this window and those to come.
    pub fn put_node(&mut self, seen: Seen) {
        self.turn.node = Some(seen);
    }

    /// Measures less, or all again.
    ///
    /// # Errors
    /// When the kernel side cannot be told.
    pub fn limit(&mut self, limits: Limits) -> Result<(), CaptureError> {
        let told = lock(&self.loaded).tell_limits(limits.exemplar_shift, limits.packet_shift);
        told.map_err(|error| CaptureError::Map("STATE", error))?;
        self.duty.rest(limits.without_dear);
        self.limits = limits;
        Ok(())
    }

    /// Ends a window, and begins the next one. Distributions of [`Capture::histograms`] that ride the event lane begin anew.
    ///
    /// # Errors
    /// When the kernel's books cannot be read, or the collector is gone. Of a window that could not be ended nothing is lost:
    /// it goes on.
    pub fn window(&mut self) -> Result<Snapshot, CaptureError> {
        let absolute = kernel_state::read(&lock(&self.loaded))?;
        let closed = self.collector.turn().ok_or(CaptureError::Collector)?;
        let end_ns = monotonic_ns();
        let mut kernel = absolute.since(&self.turn.kernel);
        let (tcp, conntrack) = self.read_counters(&mut kernel);
        // Records that are under way are told of in the next window, with what became of them.
        let told = closed.received() + kernel.loss(Loss::RingFull);
        let before = std::mem::take(&mut self.turn.kernel);
        self.turn.kernel = told_of(absolute, &before, told);
        self.anchor(before);
        set(&mut kernel.counters, told);
        (self.tcp, self.conntrack) = (tcp, conntrack);
        if let Some(Seen { node, learnt }) = &self.turn.node {
            kernel.node = (**node).clone();
            kernel.learnt = (**learnt).clone();
        }
        let overhead = {
            let loaded = lock(&self.loaded);
            attach::mark_failed(&loaded, &mut self.attached.probes);
            self.meter.turn(&loaded.ebpf)
        };
        let (interfaces, scopes) = lock(&self.table).turn();
        let mut meta = self.meta.clone();
        meta.duration_ns = end_ns - self.start_ns;
        let start_ns = std::mem::replace(&mut self.start_ns, end_ns);
        self.meta.start_unix_ns = unix_ns();
        let mut probes = self.attached.probes.clone();
        let dear =
            |p: &&mut Probe| self.limits.without_dear && p.source.is_some() && probes::is_shared(&p.name);
        probes.iter_mut().filter(dear).for_each(|p| p.reason = Some(RESTS.to_owned()));
        let end = EndFrame { end_ns, kernel, meta, interfaces, scopes, probes, overhead };
        let closing = Closing::of(end, start_ns, u64::from(self.options.programs.ring_bytes));
        Ok(closed.finish(closing).snapshot)
    }

    /// Keeps the books as the window that ends found them, where the flight recorder may want them.
    fn anchor(&mut self, kernel: KernelState) {
        let Some(memory) = &self.flight else { return };
        let held_ns = nanos(memory.options().time);
        let anchors = &mut self.turn.anchors;
        if anchors.back().is_none_or(|last| self.start_ns - last.at_ns >= held_ns / ANCHORS) {
            anchors.push_back(Anchor { at_ns: self.start_ns, at_unix_ns: self.meta.start_unix_ns, kernel });
        }
        // The oldest that is needed is the latest that is old enough.
        while anchors.get(1).is_some_and(|second| self.start_ns - second.at_ns >= held_ns) {
            anchors.pop_front();
        }
    }

    /// At least so long before the end of the latest window; less where the capture is younger, and where the memory did not hold
    /// as much. None where nothing is held.
    #[must_use]
    pub fn stretch(&self, time: Duration) -> Option<Stretch> {
        let memory = self.flight.as_ref()?;
        let wanted_ns = self.start_ns.saturating_sub(nanos(time));
        let old_enough = |anchor: &&Anchor| anchor.at_ns <= wanted_ns;
        let anchor = self.turn.anchors.iter().rev().find(old_enough).or_else(|| self.turn.anchors.front())?;
        let (interfaces, scopes) = rows(&self.table);
        let mut meta = Meta { start_unix_ns: anchor.at_unix_ns, ..self.meta.clone() };
        let start = StartFrame {
            start_ns: anchor.at_ns,
            dns_timeout_ns: nanos(self.options.dns_timeout),
            meta: meta.clone(),
            interfaces: interfaces.clone(),
            scopes: scopes.clone(),
            probes: self.attached.probes.clone(),
            ring_bytes: u64::from(self.options.programs.ring_bytes),
        };
        meta.duration_ns = self.start_ns - anchor.at_ns;
        let mut kernel = self.turn.kernel.since(&anchor.kernel);
        kernel.packets.budget_per_cpu_per_s = self.options.programs.packets_per_second;
        if let Some(seen) = &self.turn.node {
            (kernel.node, kernel.learnt) = ((*seen.node).clone(), (*seen.learnt).clone());
        }
        let probes = self.attached.probes.clone();
        let overhead = Overhead::default();
        let end = EndFrame { end_ns: self.start_ns, kernel, meta, interfaces, scopes, probes, overhead };
        Some(Stretch { start, end, batches: memory.since(anchor.at_ns) })
    }

    /// What the kernel counts besides our programs, since the window began; and the readings for the next one.
    pub(super) fn read_counters(
        &self,
        kernel: &mut KernelState,
    ) -> (TcpCounts, Option<(crate::conntrack::Way, Reading)>) {
        let namespaces = &self.options.namespaces;
        let tcp = TcpCounts::read(namespaces, self.options.programs.others);
        // These counters know no filter, and what they would be read with does.
        let unfiltered = self.options.programs.filter.is_empty();
        let others = unfiltered && in_use(&self.attached.probes, TCP_COUNTERS);
        count_tcp(kernel, (&self.tcp, &tcp), unfiltered, others);
        kernel.packets.budget_per_cpu_per_s = self.options.programs.packets_per_second;
        let conntrack = conntrack_way(&self.attached.probes).map(|way| {
            let now = Reading::of(namespaces, way);
            if let Some((_, before)) = &self.conntrack {
                kernel.conntrack = now.clone().since(before);
            }
            (way, now)
        });
        (tcp, conntrack)
    }
}

/// The kernel's books for the next window to begin with: records that were emitted and not told of yet belong to it.
fn told_of(mut absolute: KernelState, before: &KernelState, told: u64) -> KernelState {
    let emitted = before.counter(Counter::Emitted) + told;
    set(&mut absolute.counters, emitted);
    absolute
}

fn set(counters: &mut [u64], emitted: u64) {
    if let Some(counter) = counters.get_mut(Counter::Emitted as usize) {
        *counter = emitted;
    }
}
