//! `udp`: the way of a datagram from its socket's queue to the application.
//!
//! Hooks: tp_btf sk_data_ready (in `rx`), sock_recv_length. Before Linux 6.3, which brought the latter: fexit of inet_recvmsg
//! and inet6_recvmsg, which it is called behind.
//! No tracepoint of a UDP read names the packet, but a UDP socket is a queue: the times of what went in are kept in order
//! by socket, and a read takes the oldest.
//! Yields: rx.socket and rx.total of datagrams.
//! Cost: one clock reading and one slot a read.

use aya_ebpf::{
    macros::{btf_tracepoint, fexit},
    programs::{BtfTracePointContext, FExitContext},
};
use nettrace_common::{Loss, Signal};

use crate::{
    emit::{FlowOf, measure, now_ns},
    flight::{Flight, stage},
    iface::Place,
    kernel::{self, AF_INET, AF_INET6, Typed, UDP, cfg_get, load},
    maps::{UDP_QUEUES, lost},
};

/// Sockets whose queues are kept; a power of two.
pub const UDP_SLOTS: u32 = 256;
/// Datagrams kept of one socket; a power of two. Those of a longer queue count as evicted.
const DEPTH: u32 = 1024;

/// [`Queued::received_ns`] of a datagram that is not to be measured.
const IGNORED: u64 = 0;
/// [`Queued::received_ns`] of a datagram whose reception is not known.
const UNKNOWN: u64 = 1;

/// Times of one datagram.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Queued {
    /// Received, ns; or [`IGNORED`], or [`UNKNOWN`].
    received_ns: u64,
    /// Queued, ns after it was received.
    stack_ns: u32,
    /// Its number in the socket's queue.
    number: u32,
}

/// The datagrams waiting at one socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UdpQueue {
    key: u64,
    /// Number of the oldest.
    head: u32,
    /// Number of the next to come.
    tail: u32,
    netns: u32,
    ifindex: u32,
    scope: u16,
    /// Whether something may wait that is not in these books.
    unsure: u16,
    /// Datagrams before the oldest, of which nothing is known.
    ahead: u32,
    ring: [Queued; DEPTH as usize],
}

#[inline(always)]
fn slot(sk: *const u8) -> Option<(&'static mut UdpQueue, u64)> {
    let key = kernel::key(sk);
    let index = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u32 & (UDP_SLOTS - 1);
    // SAFETY: the value lives as long as the map; two CPUs that push to one socket at once may lose an entry, which
    // its read then counts as unmatched.
    UDP_QUEUES.get_ptr_mut(index).map(|p| (unsafe { &mut *p }, key))
}

/// Notes a datagram that was queued, to be timed or to pass.
#[inline(always)]
pub fn push(sk: *const u8, flight: &Flight) {
    let Some((queue, key)) = slot(sk) else { return };
    if queue.key != key {
        if queue.head != queue.tail {
            lost(Loss::Evicted);
        }
        queue.key = key;
        queue.head = 0;
        queue.tail = 0;
        queue.unsure = 1;
    }
    if queue.head == queue.tail {
        // Those that were not measured, or came before the start, are read before this one.
        queue.ahead = if queue.unsure == 0 { 0 } else { waiting(sk).saturating_sub(1) };
        queue.unsure = 0;
    }
    queue.netns = flight.netns;
    queue.ifindex = flight.ifindex;
    queue.scope = flight.scope;
    if flight.has(stage::PASSED) {
        return append(queue, IGNORED, 0);
    }
    let stack_ns = (flight.queued_ns - flight.received_ns).min(u64::from(u32::MAX)) as u32;
    append(queue, flight.received_ns, stack_ns);
}

/// Keeps the place of a datagram that is not measured, so that its read does not take another's times. `known` tells
/// those that are not to be measured from those whose start was not seen.
#[inline(always)]
pub fn pass_over(sk: *const u8, known: bool) {
    let Some((queue, key)) = slot(sk) else { return };
    if queue.key != key {
        return;
    }
    // With nothing measured in the queue there is nothing to keep in order.
    if queue.head == queue.tail {
        queue.unsure = 1;
        return;
    }
    let kept = queue.tail.wrapping_sub(queue.head).wrapping_add(queue.ahead);
    if kept < waiting(sk) {
        append(queue, if known { IGNORED } else { UNKNOWN }, 0);
    }
}

#[inline(always)]
fn append(queue: &mut UdpQueue, received_ns: u64, stack_ns: u32) {
    let number = queue.tail;
    queue.tail = number.wrapping_add(1);
    queue.ring[(number & (DEPTH - 1)) as usize] = Queued { received_ns, stack_ns, number };
}

/// A read from a socket returns.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn rx_read(ctx: BtfTracePointContext) -> i32 {
    if !kernel::empty() {
        read(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    }
    0
}

/// The same, before there was a tracepoint: `int inet_recvmsg(struct socket *, struct msghdr *, size_t, int flags)`.
#[fexit(function = "inet_recvmsg")]
pub fn rx_read_inet(ctx: FExitContext) -> i32 {
    read_exit(&ctx)
}

/// The same for IPv6 sockets.
#[fexit(function = "inet6_recvmsg")]
pub fn rx_read_inet6(ctx: FExitContext) -> i32 {
    read_exit(&ctx)
}

#[inline(always)]
fn read_exit(ctx: &FExitContext) -> i32 {
    if !kernel::empty() {
        let sk = kernel::load_ptr(ctx.arg(0), cfg_get!(offsets.socket_sk));
        // The slot behind the arguments has what the function returned, on every kernel.
        read(sk, ctx.arg(4), ctx.arg(3));
    }
    0
}

const MSG_PEEK: i32 = 2;
const MSG_ERRQUEUE: i32 = 0x2000;

#[inline(always)]
fn read(sk: *const u8, ret: i32, flags: i32) {
    if ret < 0 || flags & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
        return;
    }
    let family: u16 = load(sk, cfg_get!(offsets.sk_family));
    if (family != AF_INET && family != AF_INET6)
        || load::<u16>(sk, cfg_get!(offsets.sk_protocol)) as u8 != UDP
    {
        return;
    }
    let Some((queue, key)) = slot(sk) else { return };
    if queue.key != key || queue.head == queue.tail {
        return unmatched(sk);
    }
    if queue.ahead != 0 {
        queue.ahead -= 1;
        return unmatched(sk);
    }
    let number = queue.head;
    queue.head = number.wrapping_add(1);
    let entry = queue.ring[(number & (DEPTH - 1)) as usize];
    if may_be_stale(queue.tail.wrapping_sub(queue.head), number) && waiting(sk) == 0 {
        // Whatever was not read by now never will be: dropped for its checksum, or its entry came late.
        queue.head = queue.tail;
    }
    if entry.number != number {
        return lost(Loss::Evicted);
    }
    match entry.received_ns {
        IGNORED => return,
        UNKNOWN => return unmatched(sk),
        _ => {}
    }
    let now = now_ns();
    let place = Place { netns: queue.netns, ifindex: queue.ifindex, scope: queue.scope };
    let flow = FlowOf::Sock(sk, UDP, ret as u32);
    let total = now - entry.received_ns;
    measure(Signal::RxSocket, &place, total.saturating_sub(u64::from(entry.stack_ns)), now, flow);
    measure(Signal::RxTotal, &place, total, now, flow);
}

/// Whether to see if entries are left that have no datagram. How many wait is dear to read: with a long queue it is
/// looked up for one read in sixteen, so that no more than so many take another's times.
#[inline(always)]
fn may_be_stale(left: u32, number: u32) -> bool {
    left != 0 && (left <= 8 || number & 15 == 0)
}

/// A read of a datagram that was not seen to be received: a loss, unless it was not to be measured.
#[inline(always)]
fn unmatched(sk: *const u8) {
    if !Place::of_sock::<Typed>(sk).ignored() && !kernel::flag_set(nettrace_common::config::flag::FILTER) {
        lost(Loss::Unmatched);
    }
}

/// Datagrams that wait at the socket.
#[inline(always)]
fn waiting(sk: *const u8) -> u32 {
    let new = load::<u32>(sk, cfg_get!(offsets.sk_receive_queue_qlen));
    let taken = kernel::read::<u32>(kernel::address(sk), cfg_get!(offsets.up_reader_queue_qlen));
    new.saturating_add(taken)
}
