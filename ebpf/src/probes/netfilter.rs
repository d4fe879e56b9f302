//! `netfilter`: nf.hook, what the rules at each netfilter hook take of a packet's time; ct.in and ct.confirm, what
//! connection tracking takes of it.
//!
//! Hooks: fentry and fexit, else kprobe and kretprobe, of nf_hook_slow, nf_conntrack_in and __nf_conntrack_confirm. The
//! latter two are in a module on most kernels, where only kprobes reach.
//! Needs: nothing that moves but the members of `nf_hook_state`, and of `nf_conn` to tell translated connections. Yields:
//! histograms; nf.hook by hook; counts of new connections.
//! Cost: two programs and two clock readings for each hook that a packet passes, so they are attached for a share of the
//! time. nf_hook_slow contains nf_conntrack_in and __nf_conntrack_confirm, and so does nf.hook.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use nettrace_common::{
    Counter, SCOPE_IGNORED, SCOPE_OTHER, Signal, config::flag, probes::netfilter, wire::Flow,
};

use crate::{
    iface::Place,
    kernel::{self, Access, Probed, Typed, cfg_find, cfg_get},
    maps::count,
    span,
};

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// Low bits of `sk_buff._nfct`, which say how the packet belongs to its connection (`NFCT_INFOMASK`).
const NFCT_INFO: u64 = 7;
/// Of `nf_conn.status`.
const IPS_SRC_NAT: u64 = 1 << 4;
const IPS_DST_NAT: u64 = 1 << 5;

/// A packet comes to a netfilter hook that has something to do:
/// `int nf_hook_slow(struct sk_buff *, struct nf_hook_state *, const struct nf_hook_entries *, unsigned int)`.
#[fentry(function = "nf_hook_slow")]
pub fn nf_hook_begin(ctx: FEntryContext) -> i32 {
    hook_begins::<Typed>(ctx.arg(0), ctx.arg(1));
    0
}

/// It is through, or was dropped.
#[fexit(function = "nf_hook_slow")]
pub fn nf_hook_end(ctx: FExitContext) -> i32 {
    // The slot behind the arguments has what the function returned, on every kernel.
    ends(Signal::NfHook, through(ctx.arg(4)))
}

/// The same by kprobe.
#[kprobe]
pub fn nf_hook_begin_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(state)) = (ctx.arg(0), ctx.arg(1)) {
        hook_begins::<Probed>(skb, state);
    }
    0
}

/// The same by kretprobe.
#[kretprobe]
pub fn nf_hook_end_kprobe(ctx: RetProbeContext) -> u32 {
    ends(Signal::NfHook, through(ctx.ret())) as u32
}

/// A packet is looked up: `unsigned int nf_conntrack_in(struct sk_buff *, const struct nf_hook_state *)`.
#[fentry(function = "nf_conntrack_in")]
pub fn ct_in_begin(ctx: FEntryContext) -> i32 {
    lookup_begins::<Typed>(ctx.arg(0), ctx.arg(1));
    0
}

/// It belongs to a connection now, or to none.
#[fexit(function = "nf_conntrack_in")]
pub fn ct_in_end(_: FExitContext) -> i32 {
    ends(Signal::CtIn, true)
}

/// The same by kprobe.
#[kprobe]
pub fn ct_in_begin_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(state)) = (ctx.arg(0), ctx.arg(1)) {
        lookup_begins::<Probed>(skb, state);
    }
    0
}

/// The same by kretprobe.
#[kretprobe]
pub fn ct_in_end_kprobe(_: RetProbeContext) -> u32 {
    ends(Signal::CtIn, true) as u32
}

/// A connection's first packet enters it into the table: `int __nf_conntrack_confirm(struct sk_buff *)`.
#[fentry(function = "__nf_conntrack_confirm")]
pub fn ct_confirm_begin(ctx: FEntryContext) -> i32 {
    confirm_begins::<Typed>(ctx.arg(0));
    0
}

/// It is in the table, or lost its race.
#[fexit(function = "__nf_conntrack_confirm")]
pub fn ct_confirm_end(_: FExitContext) -> i32 {
    ends(Signal::CtConfirm, true)
}

/// The same by kprobe.
#[kprobe]
pub fn ct_confirm_begin_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        confirm_begins::<Probed>(skb);
    }
    0
}

/// The same by kretprobe.
#[kretprobe]
pub fn ct_confirm_end_kprobe(_: RetProbeContext) -> u32 {
    ends(Signal::CtConfirm, true) as u32
}

/// Whether a packet went on from its hook, or was dropped there. One that was stolen (0) may have gone its whole way inside
/// the hook: br_netfilter and IPVS do that.
#[inline(always)]
fn through(verdict: i32) -> bool {
    verdict != 0
}

#[inline(always)]
fn ends(signal: Signal, counts: bool) -> i32 {
    if !kernel::empty() {
        span::end(signal, counts);
    }
    0
}

#[inline(always)]
fn hook_begins<A: Access>(skb: *const u8, state: *const u8) {
    if kernel::empty() {
        return;
    }
    let hook: u8 = A::get(state, cfg_get!(offsets.nf_hook));
    let scope = if wanted::<A>(skb, state) { netfilter::scope_of(hook) } else { SCOPE_IGNORED };
    span::begin(Signal::NfHook, scope);
}

#[inline(always)]
fn lookup_begins<A: Access>(skb: *const u8, state: *const u8) {
    if kernel::empty() {
        return;
    }
    let scope = if wanted::<A>(skb, state) { SCOPE_OTHER } else { SCOPE_IGNORED };
    span::begin(Signal::CtIn, scope);
}

#[inline(always)]
fn confirm_begins<A: Access>(skb: *const u8) {
    if kernel::empty() {
        return;
    }
    let dev = A::ptr(skb, cfg_get!(offsets.skb_dev));
    let net = A::ptr(dev, cfg_get!(offsets.dev_net));
    let scope =
        if Place::of_net::<A>(net).ignored() || filtered::<A>(skb) { SCOPE_IGNORED } else { SCOPE_OTHER };
    if scope != SCOPE_IGNORED {
        translated::<A>(skb);
    }
    span::begin(Signal::CtConfirm, scope);
}

/// Counts a new connection, and whether its addresses are translated: that is settled before it is entered.
#[inline(always)]
fn translated<A: Access>(skb: *const u8) {
    count(Counter::ConntrackEntered);
    let (Some(nfct_at), Some(status_at)) = (cfg_find!(offsets.skb_nfct), cfg_find!(offsets.ct_status)) else {
        return;
    };
    let connection = A::get::<u64>(skb, nfct_at) & !NFCT_INFO;
    // The kernel hands out a number here, no pointer that the verifier knows.
    let status: u64 = Probed::get(connection as *const u8, status_at);
    if status & IPS_SRC_NAT != 0 {
        count(Counter::ConntrackSourceNat);
    }
    if status & IPS_DST_NAT != 0 {
        count(Counter::ConntrackDestinationNat);
    }
}

/// Whether a packet at a hook is to be measured: of IP, in a namespace that is looked at, and passed by the filter.
#[inline(always)]
fn wanted<A: Access>(skb: *const u8, state: *const u8) -> bool {
    let family: u8 = A::get(state, cfg_get!(offsets.nf_pf));
    if family != NFPROTO_IPV4 && family != NFPROTO_IPV6 {
        return false;
    }
    !Place::of_net::<A>(A::ptr(state, cfg_get!(offsets.nf_net))).ignored() && !filtered::<A>(skb)
}

#[inline(always)]
fn filtered<A: Access>(skb: *const u8) -> bool {
    if !kernel::flag_set(flag::FILTER) {
        return false;
    }
    let mut flow = Flow::default();
    kernel::skb_flow::<A>(skb, &mut flow);
    !kernel::filter_matches(&flow)
}
