//! `softirq`: rx.softirq, how long a raised NET_RX softirq waits for its CPU.
//!
//! Hooks: tp_btf softirq_raise, softirq_entry, else raw_tp; no kernel structure is read. Needs: Linux 5.5. Yields: a histogram over all interfaces.
//! Cost: one clock reading each, for NET_RX only.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use nettrace_common::Signal;

use crate::{
    emit::{FlowOf, measure, now_ns},
    iface::Place,
    kernel,
    maps::books,
};

const NET_RX_SOFTIRQ: u32 = 3;

/// A softirq becomes pending.
#[btf_tracepoint(function = "softirq_raise")]
pub fn softirq_raise(ctx: BtfTracePointContext) -> i32 {
    raised(ctx.arg(0))
}

/// The same by raw tracepoint.
#[raw_tracepoint(tracepoint = "softirq_raise")]
pub fn softirq_raise_raw(ctx: RawTracePointContext) -> i32 {
    raised(ctx.arg(0))
}

#[inline(always)]
fn raised(softirq: u32) -> i32 {
    if kernel::empty() || softirq != NET_RX_SOFTIRQ {
        return 0;
    }
    if let Some(books) = books() {
        // Raised again while pending: it waits since the first time.
        if books.net_rx_raised_ns == 0 {
            books.net_rx_raised_ns = now_ns();
        }
    }
    0
}

/// A softirq runs.
#[btf_tracepoint(function = "softirq_entry")]
pub fn softirq_entry(ctx: BtfTracePointContext) -> i32 {
    runs(ctx.arg(0))
}

/// The same by raw tracepoint.
#[raw_tracepoint(tracepoint = "softirq_entry")]
pub fn softirq_entry_raw(ctx: RawTracePointContext) -> i32 {
    runs(ctx.arg(0))
}

#[inline(always)]
fn runs(softirq: u32) -> i32 {
    if kernel::empty() || softirq != NET_RX_SOFTIRQ {
        return 0;
    }
    let Some(books) = books() else { return 0 };
    let raised = books.net_rx_raised_ns;
    if raised != 0 {
        books.net_rx_raised_ns = 0;
        let now = now_ns();
        let place = Place { netns: 0, ifindex: 0, scope: nettrace_common::SCOPE_OTHER };
        measure(Signal::RxSoftirq, &place, now - raised, now, FlowOf::Nothing);
    }
    0
}
