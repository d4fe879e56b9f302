//! `conntrack`: ct.clash, packets that came to enter a connection which another packet had entered meanwhile; ct.full,
//! packets dropped because there was no room for their connection.
//!
//! Hooks: kprobe and kretprobe of nf_ct_resolve_clash; kretprobe of early_drop, and tp_btf kfree_skb, else raw_tp. Both
//! functions run only when there is trouble, are kept out of line, and are in a module on most kernels.
//! Needs: nf_ct_resolve_clash by that name, which came with 5.7. Yields: exact counts, an event a packet with its flow.
//! Cost: nothing for a packet that meets no trouble; one lookup for one that is dropped.
//!
//! No function that runs for a full table alone has the packet in its hands. But one for which no room was made is dropped
//! by the same task with nothing in between, so early_drop leaves a mark, and the next drop of its task takes it.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, kprobe, kretprobe, raw_tracepoint},
    programs::{BtfTracePointContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use nettrace_common::{
    Loss,
    config::flag,
    probes::conntrack::{Trouble, What},
    wire::{Direction, Flow, Kind},
};

use crate::{
    emit::{header, now_ns, reserve, submit},
    iface::Place,
    kernel::{self, Access, Probed, Typed, cfg_get},
    maps::{CONNTRACK, count, lost},
};

/// `NF_ACCEPT`
const ACCEPT: i32 = 1;
/// Packets whose fate may be open on one CPU at once: an interrupt comes between the look for room and the drop.
const MARKS: usize = 2;
/// A mark that is older is not of a packet: user space may enter connections, too. Before the drop the kernel writes to its
/// log, which may be a slow line.
const STALE_NS: u64 = 100_000_000;

/// What has begun on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Open {
    /// The clash that is being looked at. Interrupts that handle packets are off meanwhile, so that there is one at most.
    clash: Clash,
    /// Packets for which there was no room, and that have not been dropped yet.
    full: [Mark; MARKS],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Clash {
    /// Whose packet.
    flow: Flow,
    /// Process and thread.
    task: u64,
    netns: u32,
    ifindex: u32,
    scope: u32,
    /// A [`State`].
    state: u32,
}

/// How it is with the one clash.
#[repr(u32)]
enum State {
    /// There is none.
    None = 0,
    /// Its end is to be told.
    Told = 1,
    /// Its end is not to be told.
    Ignored = 2,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Mark {
    /// Process and thread.
    task: u64,
    /// When, ns; 0 when there is none.
    since_ns: u64,
}

/// A packet's connection is there already:
/// `int nf_ct_resolve_clash(struct sk_buff *, struct nf_conntrack_tuple_hash *, u32)`.
#[kprobe]
pub fn ct_clash_begin(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0)
        && !kernel::empty()
    {
        clash_begins(skb);
    }
    0
}

/// It was let through, or is dropped now.
#[kretprobe]
pub fn ct_clash_end(ctx: RetProbeContext) -> u32 {
    if !kernel::empty() {
        clash_ends(ctx.ret());
    }
    0
}

/// The table is full, and room was looked for: `bool early_drop(struct net *, unsigned int)`.
#[kretprobe]
pub fn ct_full_end(ctx: RetProbeContext) -> u32 {
    let made_room: u64 = ctx.ret();
    if made_room & 0xff == 0 && !kernel::empty() {
        mark();
    }
    0
}

/// A packet is dropped, maybe because the table was full.
#[btf_tracepoint(function = "kfree_skb")]
pub fn ct_full_dropped(ctx: BtfTracePointContext) -> i32 {
    dropped::<Typed>(ctx.arg(0))
}

/// The same by raw tracepoint.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn ct_full_dropped_raw(ctx: RawTracePointContext) -> i32 {
    dropped::<Probed>(ctx.arg(0))
}

#[inline(always)]
fn dropped<A: Access>(skb: *const u8) -> i32 {
    if !kernel::empty() && marked() {
        full::<A>(skb);
    }
    0
}

#[inline(always)]
fn clash_begins(skb: *const u8) {
    let Some(open) = CONNTRACK.get_ptr_mut(0) else { return };
    // SAFETY: the value lives as long as the map, and nothing else on this CPU writes it meanwhile.
    let clash = unsafe { &mut (*open).clash };
    let place = Place::of_device::<Probed>(Probed::ptr(skb, cfg_get!(offsets.skb_dev)));
    let mut flow = Flow::default();
    kernel::skb_flow::<Probed>(skb, &mut flow);
    let wanted = !place.ignored() && (!kernel::flag_set(flag::FILTER) || kernel::filter_matches(&flow));
    clash.flow = flow;
    clash.task = bpf_get_current_pid_tgid();
    clash.netns = place.netns;
    clash.ifindex = place.ifindex;
    clash.scope = u32::from(place.scope);
    clash.state = if wanted { State::Told } else { State::Ignored } as u32;
}

#[inline(always)]
fn clash_ends(verdict: i32) {
    let Some(open) = CONNTRACK.get_ptr_mut(0) else { return };
    // SAFETY: as above.
    let clash = unsafe { &mut (*open).clash };
    let state = clash.state;
    clash.state = State::None as u32;
    if state == State::None as u32 || clash.task != bpf_get_current_pid_tgid() {
        return lost(Loss::Unmatched);
    }
    if state == State::Told as u32 {
        let place = Place { netns: clash.netns, ifindex: clash.ifindex, scope: clash.scope as u16 };
        let what = if verdict == ACCEPT { What::Resolved } else { What::Clash };
        tell(what, &place, &clash.flow);
    }
}

/// Leaves a mark where there is none; one that is left over by now was of no packet.
#[inline(always)]
fn mark() {
    let Some(open) = CONNTRACK.get_ptr_mut(0) else { return };
    let now = now_ns();
    for n in 0..MARKS {
        // SAFETY: the value lives as long as the map, and only this CPU writes it; what interrupts leaves no mark behind.
        let mark = unsafe { &mut (*open).full[n] };
        if mark.since_ns == 0 || now - mark.since_ns > STALE_NS {
            if mark.since_ns != 0 {
                lost(Loss::Unmatched);
            }
            mark.task = bpf_get_current_pid_tgid();
            mark.since_ns = now;
            return;
        }
    }
    lost(Loss::Unmatched);
}

/// Takes the latest mark of this task, if there is one.
#[inline(always)]
fn marked() -> bool {
    let Some(open) = CONNTRACK.get_ptr_mut(0) else { return false };
    for n in (0..MARKS).rev() {
        // SAFETY: as above.
        let mark = unsafe { &mut (*open).full[n] };
        if mark.since_ns == 0 || mark.task != bpf_get_current_pid_tgid() {
            continue;
        }
        let fresh = now_ns() - mark.since_ns <= STALE_NS;
        mark.since_ns = 0;
        if fresh {
            return true;
        }
        lost(Loss::Unmatched);
    }
    false
}

#[inline(always)]
fn full<A: Access>(skb: *const u8) {
    let place = Place::of_packet::<A>(skb);
    if place.ignored() {
        return;
    }
    let mut flow = Flow::default();
    kernel::skb_flow::<A>(skb, &mut flow);
    if kernel::flag_set(flag::FILTER) && !kernel::filter_matches(&flow) {
        return;
    }
    tell(What::Full, &place, &flow);
}

#[inline(always)]
fn tell(what: What, place: &Place, flow: &Flow) {
    count(what.counter());
    let Some(mut entry) = reserve::<Trouble>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record; every member is written.
    unsafe {
        (*record).header = header::<Trouble>(Kind::Conntrack, Direction::None, place, now_ns());
        (*record).flow = *flow;
        (*record).what = what as u8;
        (*record).pad = [0; 7];
    }
    submit(entry);
}
