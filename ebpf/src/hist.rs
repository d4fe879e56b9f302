//! The per-packet lane: one latency into this CPU's histogram, tens of nanoseconds, nothing sampled away.

use nettrace_common::{
    Loss, MAX_SCOPES, Signal,
    hist::{BUCKETS, HIGHEST_NS, bucket_of},
};

use crate::maps::{HIST, lost};

/// Counts one latency of a signal in a scope.
#[inline(always)]
pub fn record(signal: Signal, scope: u16, ns: u64) {
    let scope = u32::from(scope) & (MAX_SCOPES - 1);
    let Some(h) = HIST.get_ptr_mut(scope * Signal::IN_KERNEL as u32 + signal as u32) else { return };
    let bucket = bucket_of(ns);
    if bucket >= BUCKETS {
        return;
    }
    // SAFETY: the value lives as long as the map and is this CPU's own; `bucket` was checked against its length.
    unsafe {
        *(&raw mut (*h).counts).cast::<u64>().add(bucket) += 1;
        (*h).sum_ns += ns;
        if ns > (*h).max_ns {
            (*h).max_ns = ns;
        }
    }
    if ns > HIGHEST_NS {
        lost(Loss::Clamped);
    }
}
