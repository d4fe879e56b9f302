//! `drop`: packets that the kernel dropped, by reason and location.
//!
//! Hooks: tp_btf kfree_skb, else raw_tp. Needs: Linux 5.17 for reasons; before, the location alone.
//! Yields: exact counts by (reason, location, scope), and an event a drop with its flow.
//! Cost: nothing for a packet that is not dropped.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use nettrace_common::{
    Counter, Loss,
    config::flag,
    probes::drop::{Drop, DropKey},
    wire::{Direction, Flow, Kind},
};

use crate::{
    emit::{header, now_ns, reserve, submit},
    iface::Place,
    kernel::{self, Access, Probed, Typed, cfg_get},
    maps::{DROPS, count, lost},
};

/// A packet is dropped.
#[btf_tracepoint(function = "kfree_skb")]
pub fn drop_skb(ctx: BtfTracePointContext) -> i32 {
    // Not read where there is none: the verifier refuses an argument too many.
    let reason = if kernel::flag_set(flag::DROP_REASON) { ctx.arg(2) } else { 0 };
    dropped::<Typed>(ctx.arg(0), ctx.arg(1), reason)
}

/// The same by raw tracepoint.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn drop_skb_raw(ctx: RawTracePointContext) -> i32 {
    let reason = if kernel::flag_set(flag::DROP_REASON) { ctx.arg(2) } else { 0 };
    dropped::<Probed>(ctx.arg(0), ctx.arg(1), reason)
}

#[inline(always)]
fn dropped<A: Access>(skb: *const u8, location: u64, reason: u32) -> i32 {
    if !kernel::empty() {
        drops::<A>(skb, location, reason);
    }
    0
}

#[inline(always)]
fn drops<A: Access>(skb: *const u8, location: u64, reason: u32) {
    let dev = A::ptr(skb, cfg_get!(offsets.skb_dev));
    let protocol: u16 = A::get(skb, cfg_get!(offsets.skb_protocol));
    if dev.is_null() && protocol == 0 {
        // A message of a Unix or netlink socket, not a packet.
        return;
    }
    let place = Place::of_packet::<A>(skb);
    if place.ignored() {
        return;
    }
    let mut flow = Flow::default();
    kernel::skb_flow::<A>(skb, &mut flow);
    if kernel::flag_set(flag::FILTER) && !kernel::filter_matches(&flow) {
        return;
    }
    count(Counter::Drop);
    tally(DropKey { location, reason, scope: u32::from(place.scope) });
    if reason != 0 && u64::from(reason) == cfg_get!(purge_reason) {
        // What was left unread when its socket closed: counted, but not worth an event.
        return;
    }
    let Some(mut entry) = reserve::<Drop>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record; every member is written.
    unsafe {
        (*record).header = header::<Drop>(Kind::Drop, Direction::None, &place, now_ns());
        (*record).flow = flow;
        (*record).location = location;
        (*record).reason = reason;
        (*record).bytes = A::get(skb, cfg_get!(offsets.skb_len));
    }
    submit(entry);
}

#[inline(always)]
fn tally(key: DropKey) {
    if let Some(n) = DROPS.get_ptr_mut(&key) {
        // SAFETY: this CPU's own count.
        unsafe { *n += 1 };
    } else if DROPS.insert(&key, &1, 0).is_err() {
        lost(Loss::MapFull);
    }
}
