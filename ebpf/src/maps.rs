//! All maps, and the per-CPU books: counts and losses.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use core::arch::asm;
use nettrace_common::{
    Books, Counter, Loss, MAX_SCOPES, Signal,
    config::{IFACE_SLOTS, IfaceSlot},
    hist::KernelHist,
    probes::{
        black_hole::PeerKey,
        drop::DropKey,
        frag::{FragKey, FragState},
        fragmenting::{Begun, Worker},
    },
};

use crate::{
    flight::{Flight, SLOTS},
    probes::{
        conntrack::Open,
        rtt::{RTT_SLOTS, RttSlot},
        udp::{UDP_SLOTS, UdpQueue},
    },
    span::Spans,
};

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
#[map]
pub static HIST: PerCpuArray<KernelHist> =
    PerCpuArray::with_max_entries(MAX_SCOPES * Signal::IN_KERNEL as u32, 0);
#[map]
pub static BOOKS: PerCpuArray<Books> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static IFACES: Array<IfaceSlot> = Array::with_max_entries(IFACE_SLOTS, 0);
/// Mappable not to be mapped, but because the kernel begins such an array on a page: no slot lies across two lines.
#[map]
pub static FLIGHTS: Array<Flight> = Array::with_max_entries(SLOTS, BPF_F_MMAPABLE);
/// What user space tells while a capture runs: one word, see [`nettrace_common::config::state`].
#[map]
pub static STATE: Array<u32> = Array::with_max_entries(1, 0);
#[map]
pub static UDP_QUEUES: Array<UdpQueue> = Array::with_max_entries(UDP_SLOTS, 0);
#[map]
pub static CONNECTS: HashMap<u64, u64> = HashMap::with_max_entries(16384, 0);
#[map]
pub static DROPS: PerCpuHashMap<DropKey, u64> = PerCpuHashMap::with_max_entries(4096, 0);
#[map]
pub static FRAGS: LruHashMap<FragKey, FragState> = LruHashMap::with_max_entries(4096, 0);
/// Datagrams that are being cut or put together.
#[map]
pub static FRAGMENTING: LruHashMap<Worker, Begun> = LruHashMap::with_max_entries(1024, 0);
#[map]
pub static CONNTRACK: PerCpuArray<Open> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static SPANS: PerCpuArray<Spans> = PerCpuArray::with_max_entries(1, 0);
/// The longest packet to each receiver that was acknowledged, bytes.
#[map]
pub static PASSED: LruHashMap<PeerKey, u32> = LruHashMap::with_max_entries(4096, 0);
#[map]
pub static RTTS: Array<RttSlot> = Array::with_max_entries(RTT_SLOTS, BPF_F_MMAPABLE);

/// This CPU's books. There always are some; the verifier wants it asked.
#[inline(always)]
pub fn books() -> Option<&'static mut Books> {
    // SAFETY: the value lives as long as the map, and this CPU alone writes it. Counts that programs in interrupts and
    // the programs that they interrupt share are added to by `add`.
    BOOKS.get_ptr_mut(0).map(|p| unsafe { &mut *p })
}

/// Adds in a single instruction: between a load and a store, an interrupt on this CPU might count many, all of
/// which the store would undo.
#[inline(always)]
fn add(to: &mut u64, n: u64) {
    // SAFETY: a reference is valid and aligned, and one 8-byte word is all that is written. `AtomicU64` has no
    // `fetch_add` on this target.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) to, in(reg) n, options(nostack)) };
}

/// Counts one.
#[inline(always)]
pub fn count(what: Counter) {
    count_by(what, 1);
}

/// Counts several.
#[inline(always)]
pub fn count_by(what: Counter, n: u64) {
    if let Some(b) = books() {
        add(&mut b.counters[what as usize], n);
    }
}

/// Counts one loss.
#[inline(always)]
pub fn lost(why: Loss) {
    if let Some(b) = books() {
        add(&mut b.losses[why as usize], 1);
    }
}
