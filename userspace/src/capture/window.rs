//! Windows: a capture that runs on, told in pieces. Each is a snapshot of its own time alone, so that tables never fill up
//! however long the capture runs, and sums over windows are what one long capture would have counted.
//!
//! Needs a running [`Capture`]; yields a [`Window`] each time that one ends.

use super::{
    Capture, CaptureError, EndFrame, TcpCounts, conntrack_way, count_tcp, in_use, monotonic_ns, unix_ns,
};
use crate::{
    aggregate::Closing,
    attach,
    conntrack::Reading,
    iface::{Namespace, lock},
    kernel_state::{self, KernelState},
    node::{Before, Node},
    path_mtu::Learnt,
    probes::{PATH_MTU, TCP_COUNTERS},
    snapshot::{Probe, Snapshot},
};
use nettrace_common::{Counter, Loss, Signal};
use std::sync::Arc;

/// What is known when a window begins.
#[derive(Default)]
pub(super) struct Turn {
    /// The kernel side's books as they were.
    pub(super) kernel: KernelState,
    /// What the node was last seen to be set to; none before it was looked at.
    pub(super) node: Option<Seen>,
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

/// A window that ended.
#[derive(Debug)]
pub struct Window {
    /// What was seen in it.
    pub snapshot: Snapshot,
    /// When it ended, CLOCK_MONOTONIC, ns.
    pub end_ns: u64,
}

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
    pub fn window(&mut self) -> Result<Window, CaptureError> {
        let absolute = kernel_state::read(&lock(&self.loaded))?;
        let closed = self.collector.turn().ok_or(CaptureError::Collector)?;
        let end_ns = monotonic_ns();
        let mut kernel = absolute.since(&self.turn.kernel);
        let (tcp, conntrack) = self.read_counters(&mut kernel);
        // Records that are under way are told of in the next window, with what became of them.
        let told = closed.received() + kernel.loss(Loss::RingFull);
        self.turn.kernel = told_of(absolute, &self.turn.kernel, told);
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
        let dear = |p: &&mut Probe| self.limits.without_dear && p.source.is_some() && is_dear(&p.name);
        probes.iter_mut().filter(dear).for_each(|p| p.reason = Some(RESTS.to_owned()));
        let end = EndFrame { end_ns, kernel, meta, interfaces, scopes, probes, overhead };
        let closing = Closing::of(end, start_ns, u64::from(self.options.programs.ring_bytes));
        Ok(Window { snapshot: closed.finish(closing).snapshot, end_ns })
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

/// Whether a probe's hooks are attached for a share of the time.
fn is_dear(probe: &str) -> bool {
    let signals = [Signal::RxSoftirq, Signal::NfHook, Signal::CtIn, Signal::CtConfirm];
    signals.iter().any(|signal| signal.name() == probe)
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
