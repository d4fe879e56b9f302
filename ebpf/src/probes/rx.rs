//! `rx`: rx.stack, rx.socket, rx.total, and the veth and loopback end of tx.driver.
//!
//! Hooks: tp_btf netif_receive_skb, sk_data_ready, skb_copy_datagram_iovec (datagrams: see `udp`).
//! Before Linux 6.3, which brought sk_data_ready: fentry of sock_def_readable, the function that has it since.
//! Yields: histograms; a packet merged into another by GRO or by TCP counts with the other.
//! Cost: one clock reading and one slot a stage.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry},
    programs::{BtfTracePointContext, FEntryContext},
};
use nettrace_common::{Loss, Signal, config::flag, wire::Flow};

use crate::{
    budget,
    emit::{FlowOf, measure, now_ns},
    flight::{self, Flight, stage},
    iface::Place,
    kernel::{self, AF_INET, AF_INET6, TCP, Typed, UDP, cfg_get, load, load_ptr},
    maps::lost,
    probes::udp,
};

const TCP_LISTEN: u8 = 10;

/// A packet enters the stack.
#[btf_tracepoint(function = "netif_receive_skb")]
pub fn rx_receive(ctx: BtfTracePointContext) -> i32 {
    if !kernel::empty() {
        receive(ctx.arg(0));
    }
    0
}

#[inline(always)]
fn receive(skb: *const u8) {
    let Some((flight, key)) = flight::slot(skb) else { return };
    let place = Place::of_device::<Typed>(load_ptr(skb, cfg_get!(offsets.skb_dev)));
    let known = flight.key == key;
    // skb_iif is set by the first reception: a bridge, bond or VLAN device passes the same packet up again.
    let again = load::<u32>(skb, cfg_get!(offsets.skb_iif)) != 0;
    if place.ignored() || filtered(skb) {
        return flight.begin(key, &place, stage::IGNORED);
    }
    if passes(skb, flight, known, again) {
        return flight.begin(key, &place, stage::IGNORED | stage::PASSED);
    }
    let now = now_ns();
    if known && flight.has(stage::IN_DRIVER) {
        // A veth or loopback driver is done with a packet when its peer receives it.
        measure(Signal::TxDriver, &flight.place(), now - flight.sent_ns, now, FlowOf::Nothing);
    }
    let passed_up = known && flight.has(stage::RECEIVED) && again;
    flight.begin(key, &place, stage::RECEIVED);
    flight.head = kernel::skb_head(skb);
    if !passed_up {
        flight.received_ns = now;
    }
}

/// Whether the packet passes untimed: as it was sent or received before, or by choice.
#[inline(always)]
fn passes(skb: *const u8, flight: &Flight, known: bool, again: bool) -> bool {
    let sent = stage::IN_DRIVER | stage::PASSED_OUT | stage::PASSED_ON;
    let before = if again { sent | stage::RECEIVED | stage::PASSED } else { sent };
    if known && flight.has(before) { flight.has(stage::PASSED) } else { budget::passes(skb) }
}

#[inline(always)]
fn filtered(skb: *const u8) -> bool {
    if !kernel::flag_set(flag::FILTER) {
        return false;
    }
    let mut flow = Flow::default();
    kernel::skb_flow_received(skb, &mut flow);
    !kernel::filter_matches(&flow)
}

/// A socket has something to read.
#[btf_tracepoint(function = "sk_data_ready")]
pub fn rx_queued(ctx: BtfTracePointContext) -> i32 {
    if !kernel::empty() {
        queued(ctx.arg(0));
    }
    0
}

/// The same, before there was a tracepoint.
#[fentry(function = "sock_def_readable")]
pub fn rx_queued_fentry(ctx: FEntryContext) -> i32 {
    if !kernel::empty() {
        queued(ctx.arg(0));
    }
    0
}

#[inline(always)]
fn queued(sk: *const u8) {
    let family: u16 = load(sk, cfg_get!(offsets.sk_family));
    if family != AF_INET && family != AF_INET6 {
        return;
    }
    let protocol = load::<u16>(sk, cfg_get!(offsets.sk_protocol)) as u8;
    if protocol != TCP && protocol != UDP {
        return;
    }
    // The packet that made the socket readable is the last of its queue.
    let tail = load_ptr(sk, cfg_get!(offsets.sk_receive_queue_prev));
    let Some((flight, key)) = flight::slot(tail) else { return };
    if flight.key == key && flight.has(stage::PASSED) {
        if protocol == UDP && !flight.has(stage::QUEUED) {
            flight.stages |= stage::QUEUED;
            udp::push(sk, flight);
        }
        return;
    }
    if flight.key != key || !flight.has(stage::RECEIVED) || flight.has(stage::QUEUED) {
        if protocol == UDP {
            let known = flight.key == key && !flight.has(stage::RECEIVED);
            udp::pass_over(sk, known);
        } else if flight.key != key
            && load::<u32>(sk, cfg_get!(offsets.sk_receive_queue_qlen)) != 0
            && !listening(sk)
        {
            lost(Loss::Unmatched);
        }
        return;
    }
    let now = now_ns();
    flight.queued_ns = now;
    flight.stages |= stage::QUEUED;
    measure(Signal::RxStack, &flight.place(), now - flight.received_ns, now, FlowOf::Skb(tail));
    if protocol == UDP {
        flight.stages |= stage::DATAGRAM;
        udp::push(sk, flight);
    }
}

#[inline(always)]
fn listening(sk: *const u8) -> bool {
    load::<u8>(sk, cfg_get!(offsets.sk_state)) == TCP_LISTEN
}

/// A packet's bytes go to the application.
#[btf_tracepoint(function = "skb_copy_datagram_iovec")]
pub fn rx_copied(ctx: BtfTracePointContext) -> i32 {
    if !kernel::empty() {
        copied(ctx.arg(0));
    }
    0
}

#[inline(always)]
fn copied(skb: *const u8) {
    let Some((flight, key)) = flight::slot(skb) else { return };
    // An application may take a packet in pieces: the first one ends the measurement.
    let over = !flight.has(stage::RECEIVED) || flight.has(stage::COPIED | stage::DATAGRAM);
    if (flight.key == key && over) || !of_tcp(skb) {
        return;
    }
    if flight.key != key {
        return lost(Loss::Unmatched);
    }
    flight.stages |= stage::COPIED;
    delivered(flight, flight.received_ns, now_ns(), FlowOf::Skb(skb));
}

/// The last stage, for streams and datagrams.
#[inline(always)]
fn delivered(flight: &Flight, received_ns: u64, now: u64, flow: FlowOf) {
    let place = flight.place();
    if flight.has(stage::QUEUED) {
        measure(Signal::RxSocket, &place, now - flight.queued_ns, now, flow);
    }
    measure(Signal::RxTotal, &place, now - received_ns, now, flow);
}

/// Whether a TCP socket has a packet in its queue. Netlink, Unix and packet sockets copy buffers too: those never were
/// received, and may lie where a received packet lay before.
#[inline(always)]
fn of_tcp(skb: *const u8) -> bool {
    let sk = load_ptr(skb, cfg_get!(offsets.skb_sk));
    if sk.is_null() {
        return false;
    }
    let family: u16 = load(sk, cfg_get!(offsets.sk_family));
    (family == AF_INET || family == AF_INET6) && load::<u16>(sk, cfg_get!(offsets.sk_protocol)) as u8 == TCP
}
