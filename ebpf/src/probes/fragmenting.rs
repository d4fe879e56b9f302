//! `fragmenting`: ip.fragmenting, the time to cut a datagram and hand on its fragments; ip.defragmenting, the time to put
//! one together when its last missing fragment has come; and why either fails.
//!
//! Hooks: fentry and fexit, else kprobe and kretprobe, of ip_do_fragment, ip6_fragment, ip_defrag and ipv6_frag_rcv.
//! Needs: nothing that moves. Yields: an event a datagram. IPv6 fragments that connection tracking gathers
//! (nf_ct_frag6_gather) are not timed.
//! Cost: nothing for packets that are not fragmented; two clock readings and two hash operations for those that are.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id},
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use nettrace_common::{
    Loss,
    config::flag,
    probes::fragmenting::{Begun, Fragmenting, Work, Worker},
    wire::{Direction, Flow, Kind},
};

use crate::{
    emit::{header, now_ns, reserve, submit},
    iface::Place,
    kernel::{self, Access, Probed, Typed, cfg_get},
    maps::{FRAGMENTING, lost},
};

/// A function that has taken a fragment and waits for more of them.
const EINPROGRESS: i32 = -115;

/// The four programs of a function: at its entry and at its return, by fentry and by kprobe.
macro_rules! programs {
    ($function:literal, $work:expr, skb: $skb:literal of $arguments:literal,
     $begin:ident $end:ident $begin_kprobe:ident $end_kprobe:ident) => {
        #[doc = concat!("`", $function, "` begins.")]
        #[fentry(function = $function)]
        pub fn $begin(ctx: FEntryContext) -> i32 {
            begins::<Typed>($work, ctx.arg($skb));
            0
        }

        #[doc = concat!("`", $function, "` is done.")]
        #[fexit(function = $function)]
        pub fn $end(ctx: FExitContext) -> i32 {
            // The slot behind the arguments has what the function returned, on every kernel.
            ends($work, ctx.arg($arguments));
            0
        }

        #[doc = concat!("`", $function, "` begins, by kprobe.")]
        #[kprobe]
        pub fn $begin_kprobe(ctx: ProbeContext) -> u32 {
            if let Some(skb) = ctx.arg($skb) {
                begins::<Probed>($work, skb);
            }
            0
        }

        #[doc = concat!("`", $function, "` is done, by kretprobe.")]
        #[kretprobe]
        pub fn $end_kprobe(ctx: RetProbeContext) -> u32 {
            ends($work, ctx.ret());
            0
        }
    };
}

// int ip_do_fragment(struct net *, struct sock *, struct sk_buff *, int (*output)(...))
programs!("ip_do_fragment", Work::Cut, skb: 2 of 4, cut_begin cut_end cut_begin_kprobe cut_end_kprobe);
// int ip6_fragment(struct net *, struct sock *, struct sk_buff *, int (*output)(...))
programs!("ip6_fragment", Work::Cut, skb: 2 of 4, cut6_begin cut6_end cut6_begin_kprobe cut6_end_kprobe);
// int ip_defrag(struct net *, struct sk_buff *, u32)
programs!("ip_defrag", Work::Join, skb: 1 of 3, join_begin join_end join_begin_kprobe join_end_kprobe);
// int ipv6_frag_rcv(struct sk_buff *)
programs!("ipv6_frag_rcv", Work::Join, skb: 0 of 1, join6_begin join6_end join6_begin_kprobe join6_end_kprobe);

/// Who runs the program: the task, or where none does, because an interrupt came to an idle CPU, the CPU.
#[inline(always)]
fn worker(work: Work) -> Worker {
    const IDLE: u64 = 1 << 63;
    let task = bpf_get_current_pid_tgid();
    // SAFETY: the helper has no arguments.
    let task = if task == 0 { IDLE | u64::from(unsafe { bpf_get_smp_processor_id() }) } else { task };
    Worker { task, work: work as u64 }
}

#[inline(always)]
fn begins<A: Access>(work: Work, skb: *const u8) {
    if kernel::empty() {
        return;
    }
    let dev = A::ptr(skb, cfg_get!(offsets.skb_dev));
    let place = Place::of_device::<A>(dev);
    if place.ignored() {
        return;
    }
    let mut flow = Flow::default();
    kernel::skb_flow::<A>(skb, &mut flow);
    if kernel::flag_set(flag::FILTER) && !kernel::filter_matches(&flow) {
        return;
    }
    let Place { netns, ifindex, scope } = place;
    let begun = Begun { flow, since_ns: now_ns(), netns, ifindex, scope: u32::from(scope), pad: 0 };
    let worker = worker(work);
    if FRAGMENTING.get_ptr(&worker).is_some() {
        // An interrupt does the same as what it interrupts.
        lost(Loss::Evicted);
    }
    if FRAGMENTING.insert(&worker, &begun, 0).is_err() {
        lost(Loss::MapFull);
    }
}

#[inline(always)]
fn ends(work: Work, result: i32) {
    if kernel::empty() {
        return;
    }
    let worker = worker(work);
    // What is not there began before this was attached, or is not to be measured.
    // SAFETY: the value is read at once; only this worker touches its entry.
    let Some(begun) = (unsafe { FRAGMENTING.get(&worker) }).copied() else { return };
    let _ = FRAGMENTING.remove(&worker);
    if result == EINPROGRESS {
        return;
    }
    let now = now_ns();
    let place = Place { netns: begun.netns, ifindex: begun.ifindex, scope: begun.scope as u16 };
    let direction = if matches!(work, Work::Cut) { Direction::Out } else { Direction::In };
    let Some(mut entry) = reserve::<Fragmenting>() else { return };
    // SAFETY: the reservation is as large as the record, which is written as a whole.
    unsafe {
        *entry.as_mut_ptr() = Fragmenting {
            header: header::<Fragmenting>(Kind::Fragmenting, direction, &place, now),
            flow: begun.flow,
            latency_ns: now - begun.since_ns,
            result,
            work: work as u8,
            pad: [0; 3],
        };
    }
    submit(entry);
}
