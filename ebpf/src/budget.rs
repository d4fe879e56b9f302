//! The budget of the per-packet lane: of up to so many packets a second, a CPU times every one; of more, it chooses.
//!
//! A CPU that is saturated with small packets would spend a twentieth of its time on timing them, and what it learns of
//! 25,000 latencies a second it does not learn better of 200,000. The choice is made once, where a packet begins its
//! way, and holds for the whole way; it falls evenly, whatever the packet. What passes untimed is counted, and the
//! report tells its share. Events (DNS, connections, drops, fragments) are not packets' times: of them, all are kept.
//!
//! Needs: jiffies, which are read without a call. Yields: [`Budget::packets`], [`Budget::passed`].
//! Cost: two additions a packet; at most one clock reading a tick.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use nettrace_common::{Budget, config::state};

use crate::{
    emit::now_ns,
    kernel::{cfg_get, load},
    maps::{STATE, books},
};

/// How long a CPU's rate is looked at before it is judged: longer than a burst that a queue holds.
const WINDOW_NS: u64 = 10_000_000;

/// Whether a packet that begins its way is to pass untimed; counted both ways.
#[inline(always)]
pub fn passes(skb: *const u8) -> bool {
    let limit = cfg_get!(packets_per_second);
    if limit == 0 {
        return false;
    }
    let Some(books) = books() else { return false };
    let budget = &mut books.budget;
    // Not in one instruction, as other counts are: packets begin their way where softirqs are held off, so that on a CPU
    // none begins in the midst of another.
    budget.packets += 1;
    // SAFETY: the helper has no arguments.
    let tick = unsafe { bpf_jiffies64() };
    if tick != budget.tick {
        budget.tick = tick;
        judge(budget, limit);
    }
    if budget.chosen == 0 || choice(budget, skb) < budget.chosen {
        return false;
    }
    budget.passed += 1;
    true
}

/// Sets the share that is chosen by what came since the last time. A function of its own: it runs once in thousands of
/// packets.
#[inline(never)]
fn judge(budget: &mut Budget, limit: u64) {
    let now = now_ns();
    let window = now.wrapping_sub(budget.window_ns);
    if window < WINDOW_NS {
        return;
    }
    let came = budget.packets.wrapping_sub(budget.window_packets);
    budget.window_ns = now;
    budget.window_packets = budget.packets;
    let word = STATE.get(0).copied().unwrap_or(0);
    let limit = limit >> state::packet_shift(word);
    budget.chosen = share(if limit == 0 { 1 } else { limit }, window, came);
}

/// The share to choose, of 2^32, when so many packets came in a time in ns, and as many may a second; 0 for all.
#[inline(always)]
fn share(limit: u64, window_ns: u64, came: u64) -> u64 {
    const SECOND_NS: u64 = 1_000_000_000;
    // A longer time without packets says no more, and the product fits its 64 bits.
    let window_ns = if window_ns > SECOND_NS { SECOND_NS } else { window_ns };
    if came == 0 {
        return 0;
    }
    let part = limit * window_ns / came;
    if part >= SECOND_NS {
        return 0;
    }
    let share = (part << 32) / SECOND_NS;
    if share == 0 { 1 } else { share }
}

/// A number below 2^32 that is even over packets. A segment has the same one at each device that it leaves through.
#[inline(always)]
fn choice(budget: &mut Budget, skb: *const u8) -> u64 {
    let departs: u64 = load(skb, cfg_get!(offsets.skb_tstamp));
    if departs != 0 {
        return departs.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    }
    // Knuth's linear congruential generator (MMIX); its upper half is even enough.
    budget.turn = budget.turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    budget.turn >> 32
}
