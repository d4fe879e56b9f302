//! `tcp`: tcp.connect, tcp.accept, failures with their errno, retransmissions, resets, and tcp.limited: what kept
//! connections from sending, as TCP itself has timed it.
//!
//! Hooks: tp_btf inet_sock_set_state, tcp_retransmit_skb, tcp_retransmit_synack, tcp_send_reset, tcp_receive_reset; else
//! the same by raw_tp.
//! Needs: Linux 5.5. Yields: events; exact counts beside them.
//! Cost: nothing on a packet's way; one hash entry for each connection being opened.

use aya_ebpf::{
    helpers::bpf_jiffies64,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use nettrace_common::{
    Counter, Loss,
    config::flag,
    probes::tcp::{Again, TcpEvent, TcpEventKind, chrono},
    wire::{Direction, Flow, Kind},
};

use crate::{
    emit::{header, now_ns, reserve, submit},
    iface::Place,
    kernel::{self, AF_INET, AF_INET6, Access, Probed, TCP, Typed, cfg_find, cfg_get, sock_flow},
    maps::{CONNECTS, count, count_by, lost},
};

const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;

/// What an event says beyond its socket.
struct Event {
    kind: TcpEventKind,
    duration_ns: u64,
    errno: u32,
    old: u8,
    new: u8,
    segments: u32,
    again: Again,
    limits: Limits,
}

/// How long a connection was busy sending, and what kept it from sending, us.
#[derive(Clone, Copy, Default)]
struct Limits {
    busy: u32,
    rwnd: u32,
    sndbuf: u32,
}

impl Event {
    #[inline(always)]
    fn of(kind: TcpEventKind) -> Self {
        Self {
            kind,
            duration_ns: 0,
            errno: 0,
            old: 0,
            new: 0,
            segments: 0,
            again: Again::Probe,
            limits: Limits { busy: 0, rwnd: 0, sndbuf: 0 },
        }
    }
}

/// A socket changes its state.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn tcp_state(ctx: BtfTracePointContext) -> i32 {
    if !kernel::empty() {
        state::<Typed>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    }
    0
}

/// The same by raw tracepoint.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn tcp_state_raw(ctx: RawTracePointContext) -> i32 {
    if !kernel::empty() {
        state::<Probed>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    }
    0
}

#[inline(always)]
fn state<A: Access>(sk: *const u8, old: i32, new: i32) {
    // Most changes of state tell nothing here, and need no look at whose socket it is.
    let opens = new == SYN_SENT || old == SYN_SENT || (old == SYN_RECV && new == ESTABLISHED);
    let ends = new == CLOSE && old != LISTEN && old != SYN_RECV && old != CLOSE;
    if !(opens || ends) {
        return;
    }
    let protocol: u16 = A::get(sk, cfg_get!(offsets.sk_protocol));
    if protocol as u8 != TCP || !wanted::<A>(sk) {
        return;
    }
    if new == SYN_SENT {
        if CONNECTS.insert(&A::key(sk), &now_ns(), 0).is_err() {
            lost(Loss::MapFull);
        }
        return;
    }
    let mut event = Event::of(TcpEventKind::Closed);
    event.old = old as u8;
    event.new = new as u8;
    if old == SYN_SENT {
        event.duration_ns = since_syn::<A>(sk);
        if new == ESTABLISHED {
            event.kind = TcpEventKind::Connected;
            count(Counter::TcpConnect);
        } else if new == CLOSE {
            event.kind = TcpEventKind::ConnectFailed;
            event.errno = A::get::<i32>(sk, cfg_get!(offsets.sk_err)).unsigned_abs();
            count(Counter::TcpConnectFailed);
        } else {
            return;
        }
    } else if old == SYN_RECV && new == ESTABLISHED {
        event.kind = TcpEventKind::Accepted;
        // TCP measured the handshake: SYN answered -> acknowledged is its first round trip.
        event.duration_ns = u64::from(kernel::srtt_us(sk)) * 1000;
        count(Counter::TcpAccept);
    } else if protocol == u16::from(TCP) {
        // The lower byte of IPPROTO_MPTCP is that of TCP, and its sockets are no `tcp_sock`.
        event.limits = limits(sk);
    }
    send::<A>(sk, &event);
}

/// What TCP has timed of a connection, as tcp_get_info_chrono_stats adds it up for TCP_INFO; zeroes on a kernel that does
/// not time it.
#[inline(always)]
fn limits(sk: *const u8) -> Limits {
    let none = Limits::default();
    let Some(stat) = cfg_find!(offsets.tp_chrono_stat) else { return none };
    let Some(start) = cfg_find!(offsets.tp_chrono_start) else { return none };
    let Some(kind) = cfg_find!(offsets.tp_chrono_type) else { return none };
    // A helper, because the verifier knows the argument as a `sock`, which is shorter.
    let tp = kernel::address(sk);
    let ticks: [u32; 3] = kernel::read(tp, stat);
    let byte: u8 = kernel::read(tp, kind);
    let kind = (u64::from(byte) & cfg_get!(offsets.tp_chrono_type_mask))
        >> (cfg_get!(offsets.tp_chrono_type_shift) & 7);
    // SAFETY: a plain helper call.
    let now = unsafe { bpf_jiffies64() } as u32;
    let running = now.wrapping_sub(kernel::read::<u32>(tp, start));
    let of = |at: usize| {
        let running = if kind == at as u64 + 1 { u64::from(running) } else { 0 };
        u64::from(ticks[at]) + running
    };
    let (rwnd, sndbuf) = (of(chrono::RWND_LIMITED), of(chrono::SNDBUF_LIMITED));
    Limits { busy: micros(of(chrono::BUSY) + rwnd + sndbuf), rwnd: micros(rwnd), sndbuf: micros(sndbuf) }
}

/// Jiffies as microseconds, as many as a `u32` holds.
#[inline(always)]
fn micros(ticks: u64) -> u32 {
    let us = ticks * cfg_get!(tick_us);
    if us > u64::from(u32::MAX) { u32::MAX } else { us as u32 }
}

/// Whether the socket is to be measured.
#[inline(always)]
fn wanted<A: Access>(sk: *const u8) -> bool {
    let family: u16 = A::get(sk, cfg_get!(offsets.sk_family));
    if (family != AF_INET && family != AF_INET6) || Place::of_sock::<A>(sk).ignored() {
        return false;
    }
    if !kernel::flag_set(flag::FILTER) {
        return true;
    }
    let mut flow = Flow::default();
    sock_flow::<A>(sk, TCP, &mut flow);
    kernel::filter_matches(&flow)
}

/// Time since the SYN; 0 when it was sent before measuring began.
#[inline(always)]
fn since_syn<A: Access>(sk: *const u8) -> u64 {
    let key = A::key(sk);
    // SAFETY: the value is read at once; only this socket's own events touch its entry.
    let Some(start) = (unsafe { CONNECTS.get(&key) }).copied() else {
        lost(Loss::Unmatched);
        return 0;
    };
    let _ = CONNECTS.remove(&key);
    now_ns() - start
}

#[inline(always)]
fn send<A: Access>(sk: *const u8, event: &Event) {
    let Some(mut entry) = reserve::<TcpEvent>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record; every member is written.
    unsafe {
        (*record).header = header::<TcpEvent>(Kind::Tcp, Direction::None, &Place::of_sock::<A>(sk), now_ns());
        (*record).flow = Flow::default();
        sock_flow::<A>(sk, TCP, &mut (*record).flow);
        (*record).duration_ns = event.duration_ns;
        (*record).srtt_us = kernel::srtt_us(sk);
        (*record).errno = event.errno;
        (*record).event = event.kind as u8;
        (*record).old_state = event.old;
        (*record).new_state = event.new;
        (*record).again = event.again as u8;
        (*record).segments = event.segments;
        (*record).busy_us = event.limits.busy;
        (*record).rwnd_limited_us = event.limits.rwnd;
        (*record).sndbuf_limited_us = event.limits.sndbuf;
        (*record).pad = 0;
    }
    submit(entry);
}

/// Segments are sent again.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit(ctx: BtfTracePointContext) -> i32 {
    // Not read where there is none: the verifier refuses an argument too many.
    let error: i32 = if kernel::flag_set(flag::RETRANSMIT_ERROR) { ctx.arg(2) } else { 0 };
    retransmit::<Typed>(ctx.arg(0), ctx.arg(1), error)
}

/// The same by raw tracepoint.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn tcp_retransmit_raw(ctx: RawTracePointContext) -> i32 {
    let error: i32 = if kernel::flag_set(flag::RETRANSMIT_ERROR) { ctx.arg(2) } else { 0 };
    retransmit::<Probed>(ctx.arg(0), ctx.arg(1), error)
}

#[inline(always)]
fn retransmit<A: Access>(sk: *const u8, skb: *const u8, error: i32) -> i32 {
    // An attempt that failed sent nothing.
    if kernel::empty() || error != 0 || !wanted::<A>(sk) {
        return 0;
    }
    let mut event = Event::of(TcpEventKind::Retransmit);
    event.old = A::get(sk, cfg_get!(offsets.sk_state));
    event.new = event.old;
    event.segments = segments(skb);
    event.again = why_again(sk);
    sent_again(event.again, event.segments);
    send::<A>(sk, &event);
    0
}

/// Why a socket sends again.
#[inline(always)]
fn why_again(sk: *const u8) -> Again {
    let Some(at) = cfg_find!(offsets.icsk_ca_state) else { return Again::Probe };
    // A helper, because the verifier knows the argument as a `sock`, which is shorter.
    let byte: u8 = kernel::read(kernel::address(sk), at);
    Again::of_state((u64::from(byte) & cfg_get!(offsets.icsk_ca_state_mask)) as u8)
}

#[inline(always)]
fn sent_again(why: Again, segments: u32) {
    let segments = u64::from(segments);
    count_by(Counter::TcpRetransmit, segments);
    match why {
        Again::Timeout => count_by(Counter::TcpRetransmitTimeout, segments),
        Again::Fast => count_by(Counter::TcpRetransmitFast, segments),
        Again::Probe => {}
    }
}

/// Segments that an skb in TCP's send queue holds, as TcpRetransSegs counts them.
#[inline(always)]
fn segments(skb: *const u8) -> u32 {
    let cb = cfg_get!(offsets.skb_cb) + cfg_get!(offsets.cb_gso_segs);
    match kernel::read::<u16>(kernel::address(skb), cb) {
        0 => 1,
        segments => u32::from(segments),
    }
}

/// SYN-ACK is sent again. The request is no whole socket, but its addresses lie where those of one do.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    if !kernel::empty() {
        synack::<Typed>(ctx.arg(0), ctx.arg(1));
    }
    0
}

/// The same by raw tracepoint.
#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
pub fn tcp_retransmit_synack_raw(ctx: RawTracePointContext) -> i32 {
    if !kernel::empty() {
        synack::<Probed>(ctx.arg(0), ctx.arg(1));
    }
    0
}

#[inline(always)]
fn synack<A: Access>(listener: *const u8, request: *const u8) {
    let place = Place::of_sock::<A>(listener);
    if place.ignored() {
        return;
    }
    let mut flow = Flow::default();
    sock_flow::<A>(request, TCP, &mut flow);
    if kernel::flag_set(flag::FILTER) && !kernel::filter_matches(&flow) {
        return;
    }
    sent_again(Again::Timeout, 1);
    let Some(mut entry) = reserve::<TcpEvent>() else { return };
    // SAFETY: the reservation is as large as the record, which is written as a whole.
    unsafe {
        *entry.as_mut_ptr() = TcpEvent {
            header: header::<TcpEvent>(Kind::Tcp, Direction::None, &place, now_ns()),
            flow,
            event: TcpEventKind::Retransmit as u8,
            old_state: SYN_RECV as u8,
            new_state: SYN_RECV as u8,
            segments: 1,
            again: Again::Timeout as u8,
            ..TcpEvent::default()
        };
    }
    submit(entry);
}

/// RST is received.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_reset_in(ctx: BtfTracePointContext) -> i32 {
    reset_in::<Typed>(ctx.arg(0))
}

/// The same by raw tracepoint.
#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn tcp_reset_in_raw(ctx: RawTracePointContext) -> i32 {
    reset_in::<Probed>(ctx.arg(0))
}

#[inline(always)]
fn reset_in<A: Access>(sk: *const u8) -> i32 {
    if !kernel::empty() && wanted::<A>(sk) {
        count(Counter::TcpResetReceived);
        send::<A>(sk, &Event::of(TcpEventKind::ResetReceived));
    }
    0
}

/// RST is sent: for a connection, or, without a socket, in answer to a packet.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_reset_out(ctx: BtfTracePointContext) -> i32 {
    if !kernel::empty() {
        reset_out::<Typed>(ctx.arg(0), ctx.arg(1));
    }
    0
}

/// The same by raw tracepoint.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn tcp_reset_out_raw(ctx: RawTracePointContext) -> i32 {
    if !kernel::empty() {
        reset_out::<Probed>(ctx.arg(0), ctx.arg(1));
    }
    0
}

#[inline(always)]
fn reset_out<A: Access>(sk: *const u8, skb: *const u8) {
    if !sk.is_null() {
        if wanted::<A>(sk) && A::get::<u8>(sk, cfg_get!(offsets.sk_state)) != LISTEN as u8 {
            count(Counter::TcpResetSent);
            send::<A>(sk, &Event::of(TcpEventKind::ResetSent));
            return;
        }
        if Place::of_sock::<A>(sk).ignored() {
            return;
        }
    }
    if skb.is_null() {
        return;
    }
    answer::<A>(skb);
}

/// A reset that answers a packet: the flow is that of the answer.
#[inline(always)]
fn answer<A: Access>(skb: *const u8) {
    let mut got = Flow::default();
    kernel::skb_flow::<A>(skb, &mut got);
    let place = Place::of_device::<A>(A::ptr(skb, cfg_get!(offsets.skb_dev)));
    if place.ignored() || (kernel::flag_set(flag::FILTER) && !kernel::filter_matches(&got)) {
        return;
    }
    count(Counter::TcpResetSent);
    let Some(mut entry) = reserve::<TcpEvent>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record; every member is written.
    unsafe {
        *record = TcpEvent {
            header: header::<TcpEvent>(Kind::Tcp, Direction::None, &place, now_ns()),
            event: TcpEventKind::ResetSent as u8,
            ..TcpEvent::default()
        };
        (*record).flow =
            Flow { saddr: got.daddr, daddr: got.saddr, sport: got.dport, dport: got.sport, ..got };
    }
    submit(entry);
}
