//! How long a function runs: its begin and its end are two programs, and each CPU keeps what has begun on a stack.
//!
//! Functions nest, and an interrupt nests in whatever it interrupts, so the last that began is the first that ends. Where
//! the kernel preempts, another task may come between, and a task may move: an end looks for the topmost begin of its own
//! task, and one that finds none counts as unmatched, where programs that see begins are attached.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use core::ptr::{addr_of, addr_of_mut};
use nettrace_common::{Loss, SCOPE_IGNORED, Signal, config::state};

use crate::{
    emit::{FlowOf, measure, now_ns},
    iface::Place,
    maps::{SPANS, STATE, lost},
};

/// Functions that may be running on one CPU at once; a power of two.
const DEPTH: usize = 8;
/// A begin that is older was left by an end that was not seen; less than the time for which the programs are detached.
const STALE_NS: u64 = 500_000_000;

/// A function that has begun.
#[repr(C)]
#[derive(Clone, Copy)]
struct Open {
    /// Process and thread.
    task: u64,
    /// When it began, ns.
    since_ns: u64,
    /// What is measured.
    signal: u32,
    /// Scope of the latency; 0 when it is not to be measured.
    scope: u32,
}

/// What runs on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Spans {
    depth: u64,
    open: [Open; DEPTH],
}

/// A function begins; with scope 0, one that is not to be measured, whose end is not a loss.
#[inline(always)]
pub fn begin(signal: Signal, scope: u16) {
    let Some(spans) = SPANS.get_ptr_mut(0) else { return };
    // SAFETY: the value lives as long as the map, and only this CPU writes it; the place in the array is masked. The
    // depth is written first, so that what interrupts uses the places above.
    unsafe {
        let mut depth = addr_of!((*spans).depth).read_volatile();
        if depth >= DEPTH as u64 {
            // So many do not nest: they are what ends that were not seen have left.
            lost(Loss::Evicted);
            depth = 0;
        }
        addr_of_mut!((*spans).depth).write_volatile(depth + 1);
        let open = addr_of_mut!((*spans).open).cast::<Open>().add(depth as usize & (DEPTH - 1));
        (*open).task = bpf_get_current_pid_tgid();
        (*open).signal = signal as u32;
        (*open).scope = u32::from(scope);
        (*open).since_ns = if scope == SCOPE_IGNORED { 0 } else { now_ns() };
    }
}

/// A function ends; `counts` is whether its time says anything.
#[inline(always)]
pub fn end(signal: Signal, counts: bool) {
    let now = now_ns();
    let Some(spans) = SPANS.get_ptr_mut(0) else { return };
    // SAFETY: as above.
    unsafe {
        let task = bpf_get_current_pid_tgid();
        let depth = addr_of!((*spans).depth).read_volatile();
        for down in 1..=DEPTH as u64 {
            if down > depth {
                break;
            }
            let open = addr_of!((*spans).open).cast::<Open>().add((depth - down) as usize & (DEPTH - 1));
            if (*open).task != task || (*open).signal != signal as u32 {
                continue;
            }
            let Open { since_ns, scope, .. } = *open;
            addr_of_mut!((*spans).depth).write_volatile(depth - down);
            let scope = if counts { scope as u16 } else { SCOPE_IGNORED };
            return ended(signal, scope, since_ns, now);
        }
    }
    if STATE.get(0).is_some_and(|on| on & state::BEGINS != 0) {
        lost(Loss::Unmatched);
    }
}

#[inline(always)]
fn ended(signal: Signal, scope: u16, since_ns: u64, now: u64) {
    if scope == SCOPE_IGNORED {
        return;
    }
    let ns = now - since_ns;
    if ns > STALE_NS {
        return lost(Loss::Unmatched);
    }
    measure(signal, &Place { netns: 0, ifindex: 0, scope }, ns, now, FlowOf::Nothing);
}
