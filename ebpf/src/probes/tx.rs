//! `tx`: tx.stack, tx.qdisc, tx.driver, fwd.host; and tcp.srtt, read where a segment leaves.
//!
//! Hooks: tp_btf net_dev_queue, net_dev_start_xmit, consume_skb.
//! Needs: Linux 5.5; tx.stack needs TCP's departure stamp in `skb->tstamp` (4.20), and sees no other protocol.
//! Yields: histograms, by the device the packet leaves through.
//! Cost: one clock reading and one slot a stage; consume_skb only a slot unless the packet is known. A device without
//! a queue (veth, loopback, bridges, tunnels) gets its packet at once: there `tx_queue` does what else `tx_xmit` does,
//! with the same clock reading, and `tx_xmit` is attached only where some device has a queue.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use nettrace_common::{
    Loss, Signal,
    config::{flag, state},
    wire::Flow,
};

use crate::{
    budget,
    emit::{FlowOf, measure, now_ns},
    flight::{self, Flight, stage},
    iface::Place,
    kernel::{self, TCP, Typed, cfg_find, cfg_get, load, load_ptr},
    maps::{STATE, lost},
};

/// A packet enters the qdisc.
#[btf_tracepoint(function = "net_dev_queue")]
pub fn tx_queue(ctx: BtfTracePointContext) -> i32 {
    if !kernel::empty() {
        queue(ctx.arg(0));
    }
    0
}

#[inline(always)]
fn queue(skb: *const u8) {
    let Some((flight, key)) = flight::slot(skb) else { return };
    let device = load_ptr(skb, cfg_get!(offsets.skb_dev));
    let place = Place::of_device::<Typed>(device);
    let local = load::<u32>(skb, cfg_get!(offsets.skb_iif)) == 0;
    // A packet keeps its slot from its reception, or from the device stacked above this one.
    let kept = flight.key == key
        && if local { flight.has(stage::IN_QDISC | stage::IN_DRIVER) } else { came_in(flight, skb) };
    let mut stages = if kept { flight.stages & (stage::RECEIVED | stage::LEFT) } else { 0 };
    if place.ignored() || (!kept && filtered(skb)) {
        return flight.begin(key, &place, stage::IGNORED);
    }
    // Below a device at which it passed, a packet passes too, and is not counted again.
    if local && flight.key == key && flight.has(stage::PASSED_OUT) && flight.ifindex != place.ifindex {
        return flight.begin(key, &place, stage::IGNORED | stage::PASSED | stage::PASSED_ON);
    }
    let passes = if kept { flight.has(stage::PASSED) } else { budget::passes(skb) };
    if passes {
        return flight.begin(key, &place, stage::IGNORED | stage::PASSED | stage::PASSED_OUT);
    }
    if kept && flight.has(stage::IGNORED) {
        return flight.begin(key, &place, stage::IGNORED);
    }
    let now = now_ns();
    if local && stages & stage::LEFT == 0 {
        stages |= stage::LEFT;
        left(skb, &place, now);
    }
    if has_queue(device) {
        stages |= stage::IN_QDISC;
        if STATE.get(0).is_some_and(|on| on & state::XMIT == 0) {
            lost(Loss::Unhooked);
        }
    } else {
        stages |= stage::IN_DRIVER;
    }
    flight.begin(key, &place, stages);
    flight.sent_ns = now;
    if stages & (stage::IN_DRIVER | stage::RECEIVED) == stage::IN_DRIVER | stage::RECEIVED {
        forwarded(flight, skb, now);
    }
}

/// Whether a device has a queue at all: `__dev_queue_xmit` asks the same, and hands the packet to the driver at once
/// where there is no way to enqueue.
#[inline(always)]
fn has_queue(device: *const u8) -> bool {
    let (Some(qdisc_at), Some(enqueue_at)) = (cfg_find!(offsets.dev_qdisc), cfg_find!(offsets.qdisc_enqueue))
    else {
        return true;
    };
    if device.is_null() {
        return true;
    }
    let qdisc = load_ptr(device, qdisc_at);
    qdisc.is_null() || load::<u64>(qdisc, enqueue_at) != 0
}

/// Whether this very packet was received, and not only one at the same address.
#[inline(always)]
fn came_in(flight: &Flight, skb: *const u8) -> bool {
    flight.has(stage::RECEIVED | stage::IGNORED)
        && !flight.has(stage::QUEUED)
        && (flight.has(stage::IGNORED) || flight.head == kernel::skb_head(skb))
}

#[inline(always)]
fn filtered(skb: *const u8) -> bool {
    if !kernel::flag_set(flag::FILTER) {
        return false;
    }
    let mut flow = Flow::default();
    kernel::skb_flow::<Typed>(skb, &mut flow);
    !kernel::filter_matches(&flow)
}

/// A locally made packet leaves the stack: what TCP noted about it.
#[inline(always)]
fn left(skb: *const u8, place: &Place, now: u64) {
    let sk = load_ptr(skb, cfg_get!(offsets.skb_sk));
    if sk.is_null() || load::<u16>(sk, cfg_get!(offsets.sk_protocol)) as u8 != TCP {
        return;
    }
    let departed: u64 = load(skb, cfg_get!(offsets.skb_tstamp));
    // A paced segment departs in the future: the qdisc holds it, not the stack.
    if departed != 0 && monotonic(skb) && departed <= now {
        measure(Signal::TxStack, place, now - departed, now, FlowOf::Skb(skb));
    }
    // The round trip is smoothed already: one segment in eight tells all there is to tell. All bits of the clock choose,
    // because its lowest ones never change where it is coarse.
    if now.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61 == 0 && full(load(sk, cfg_get!(offsets.sk_state))) {
        let srtt_us = u64::from(kernel::srtt_us(sk));
        if srtt_us != 0 {
            measure(Signal::TcpSrtt, place, srtt_us * 1000, now, FlowOf::Sock(sk, TCP, 0));
        }
    }
}

/// Whether `skb->tstamp` is CLOCK_MONOTONIC.
#[inline(always)]
fn monotonic(skb: *const u8) -> bool {
    let Some(at) = cfg_find!(offsets.skb_tstamp_type) else { return true };
    let byte: u8 = load(skb, at);
    u64::from(byte) & cfg_get!(offsets.skb_tstamp_type_mask) == cfg_get!(offsets.skb_tstamp_type_mono)
}

/// Whether a socket in this state is a whole `tcp_sock`: not a request, not in TIME_WAIT, not a listener.
#[inline(always)]
fn full(state: u8) -> bool {
    const ESTABLISHED: u8 = 1;
    const FIN_WAIT1: u8 = 4;
    const FIN_WAIT2: u8 = 5;
    const CLOSE_WAIT: u8 = 8;
    const LAST_ACK: u8 = 9;
    matches!(state, ESTABLISHED | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT | LAST_ACK)
}

/// A packet is handed to the driver.
#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn tx_xmit(ctx: BtfTracePointContext) -> i32 {
    if !kernel::empty() {
        xmit(ctx.arg(0));
    }
    0
}

#[inline(always)]
fn xmit(skb: *const u8) {
    let Some((flight, key)) = flight::slot(skb) else { return };
    if flight.key != key {
        return unmatched(skb);
    }
    if !flight.has(stage::IN_QDISC) {
        return;
    }
    let now = now_ns();
    let place = flight.place();
    measure(Signal::TxQdisc, &place, now - flight.sent_ns, now, FlowOf::Skb(skb));
    if flight.has(stage::RECEIVED) {
        forwarded(flight, skb, now);
    }
    flight.sent_ns = now;
    flight.stages = (flight.stages & !stage::IN_QDISC) | stage::IN_DRIVER;
}

/// A packet whose start is not known: a loss, if it was to be measured.
#[inline(always)]
fn unmatched(skb: *const u8) {
    if !Place::of_device::<Typed>(load_ptr(skb, cfg_get!(offsets.skb_dev))).ignored() && !filtered(skb) {
        lost(Loss::Unmatched);
    }
}

/// A copy that a bridge floods was never received itself, and may have address and data of a packet that is gone: one
/// that seems to have been here for long is not believed.
#[inline(always)]
fn forwarded(flight: &Flight, skb: *const u8, now: u64) {
    const LONG_NS: u64 = 100_000;
    let latency = now - flight.received_ns;
    if latency > LONG_NS && kernel::skb_cloned(skb) {
        return lost(Loss::Unmatched);
    }
    measure(Signal::FwdHost, &flight.place(), latency, now, FlowOf::Skb(skb));
}

/// A packet is done with.
#[btf_tracepoint(function = "consume_skb")]
pub fn tx_consumed(ctx: BtfTracePointContext) -> i32 {
    if !kernel::empty() {
        consumed(ctx.arg(0));
    }
    0
}

#[inline(always)]
fn consumed(skb: *const u8) {
    let Some(flight) = flight::find(skb) else { return };
    if flight.has(stage::IN_DRIVER) {
        let now = now_ns();
        measure(Signal::TxDriver, &flight.place(), now - flight.sent_ns, now, FlowOf::Nothing);
    }
    flight.key = 0;
}
