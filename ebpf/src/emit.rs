//! The event lane: records into the ring buffer. Nobody is woken: user space looks every few milliseconds, because
//! a wake-up per event costs more than the event.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    maps::ring_buf::RingBufEntry,
};
use nettrace_common::{
    Counter, Loss, Signal,
    config::state,
    wire::{Cause, Direction, Flow, Header, Kind, Measure},
};

use crate::{
    hist,
    iface::Place,
    kernel::{Typed, cfg_get, cfg_read, load, skb_flow, sock_flow},
    maps::{EVENTS, STATE, books, count, lost},
};

/// CLOCK_MONOTONIC, ns.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Room for a record, or a counted loss. What the caller does not write is left from earlier records: it must write
/// every member.
#[inline(always)]
pub fn reserve<T: 'static>() -> Option<RingBufEntry<T>> {
    count(Counter::Emitted);
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        lost(Loss::RingFull);
    }
    entry
}

/// Sends a record.
#[inline(always)]
pub fn submit<T>(entry: RingBufEntry<T>) {
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// A record's header.
#[inline(always)]
pub fn header<T>(kind: Kind, direction: Direction, place: &Place, ts_ns: u64) -> Header {
    Header {
        ts_ns,
        kind: kind as u8,
        direction: direction as u8,
        len: size_of::<T>() as u16,
        ifindex: place.ifindex,
        netns: place.netns,
        scope: place.scope,
        // SAFETY: the helper has no arguments.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
    }
}

/// Where a measured packet's flow can be read.
#[derive(Clone, Copy)]
pub enum FlowOf {
    /// A packet with its network header set.
    Skb(*const u8),
    /// A socket, its protocol, and the bytes that were moved, where that is known.
    Sock(*const u8, u8, u32),
    /// Nowhere.
    Nothing,
}

/// Records one latency: always into the histogram, and into the ring when it is slow or its turn to be a sample.
#[inline(always)]
pub fn measure(signal: Signal, place: &Place, ns: u64, now: u64, flow: FlowOf) {
    // An end before its start: another CPU has taken the packet's slot between the two readings.
    if ns > i64::MAX as u64 {
        return lost(Loss::Unmatched);
    }
    hist::record(signal, place.scope, ns);
    if let Some(cause) = wanted(signal, ns) {
        let none = core::ptr::null();
        let (skb, sk, protocol, bytes) = match flow {
            FlowOf::Skb(skb) => (skb, none, 0, 0),
            FlowOf::Sock(sk, protocol, bytes) => (none, sk, protocol, bytes),
            FlowOf::Nothing => (none, none, 0, 0),
        };
        let told = Told { latency_ns: ns, now_ns: now, place: *place, bytes, signal, cause, protocol };
        send_measure(&told, skb, sk);
    }
}

/// What a record tells of a latency.
struct Told {
    latency_ns: u64,
    now_ns: u64,
    place: Place,
    /// Bytes that were moved, where the socket tells.
    bytes: u32,
    signal: Signal,
    cause: Cause,
    /// Of the socket.
    protocol: u8,
}

/// Whether a latency is to be sent, and why.
#[inline(always)]
pub fn wanted(signal: Signal, ns: u64) -> Option<Cause> {
    if sampled() {
        return Some(Cause::Sample);
    }
    let threshold = cfg_read!(exemplar_ns[signal as usize]);
    (ns >= threshold && is_enough(ns, threshold)).then_some(Cause::Exemplar)
}

/// Whether a latency is above its threshold as user space has raised it since. A function of its own: few packets are slow.
#[inline(never)]
fn is_enough(ns: u64, threshold: u64) -> bool {
    let word = STATE.get(0).copied().unwrap_or(0);
    ns >> state::exemplar_shift(word) >= threshold
}

#[inline(always)]
fn sampled() -> bool {
    let every = cfg_get!(sample_every);
    if every < 2 {
        return every == 1;
    }
    let Some(b) = books() else { return false };
    b.unsampled += 1;
    if b.unsampled < every {
        return false;
    }
    b.unsampled = 0;
    true
}

/// A function of its own: it is called for few packets, and its code would lie in the way of all others. Packet and
/// socket, of which one at the most is not null, are arguments, because of what is kept on the stack the verifiers
/// before 6.3 do not know which of the two it is.
#[inline(never)]
fn send_measure(told: &Told, skb: *const u8, sk: *const u8) {
    let Some(mut entry) = reserve::<Measure>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record; every member is written.
    unsafe {
        (*record).header = header::<Measure>(Kind::Measure, Direction::None, &told.place, told.now_ns);
        (*record).flow = Flow::default();
        (*record).latency_ns = told.latency_ns;
        (*record).bytes = told.bytes;
        (*record).signal = told.signal as u8;
        (*record).cause = told.cause as u8;
        (*record).pad = [0; 2];
        if !skb.is_null() {
            skb_flow::<Typed>(skb, &mut (*record).flow);
            (*record).bytes = load(skb, cfg_get!(offsets.skb_len));
        } else if !sk.is_null() {
            sock_flow::<Typed>(sk, told.protocol, &mut (*record).flow);
        }
    }
    submit(entry);
}
