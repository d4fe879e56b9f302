//! Bounded tables.

use crate::snapshot::Hist;
use std::{cmp::Reverse, collections::HashMap, hash::Hash};

/// One signal's distribution with its exact sum and maximum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SignalBook {
    /// Distribution, ns.
    pub hist: Hist,
    /// Sum, ns.
    pub sum_ns: u64,
    /// Maximum, ns.
    pub max_ns: u64,
}

impl SignalBook {
    /// Counts one latency, ns.
    pub fn record(&mut self, ns: u64) {
        self.hist.record(ns);
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        self.hist.merge(&other.hist);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }
}

/// Counts by key, of so many keys at the most.
pub(super) struct Bounded<K> {
    counts: HashMap<K, u64>,
    max: usize,
    overflow: u64,
}

impl<K: Eq + Hash + Clone> Bounded<K> {
    pub(super) fn new(max: usize) -> Self {
        Self { counts: HashMap::new(), max, overflow: 0 }
    }

    pub(super) fn add(&mut self, key: K) {
        if self.counts.len() >= self.max && !self.counts.contains_key(&key) {
            self.overflow += 1;
            return;
        }
        *self.counts.entry(key).or_default() += 1;
    }

    /// Events of a key.
    pub(super) fn count(&self, key: &K) -> u64 {
        self.counts.get(key).copied().unwrap_or(0)
    }

    /// Events of keys that found no room.
    pub(super) const fn overflow(&self) -> u64 {
        self.overflow
    }
}

impl<K: OrderedRow> Bounded<K> {
    /// The most frequent keys, most first; equal ones in the order of [`OrderedRow`].
    pub(super) fn into_rows(self, top: usize) -> Vec<(K, u64)> {
        let mut rows: Vec<_> = self.counts.into_iter().collect();
        rows.sort_by_cached_key(|(key, count)| (Reverse(*count), key.order()));
        rows.truncate(top);
        rows
    }
}

/// A key with an order of its own, so that rows with the same count come out the same each time.
pub(super) trait OrderedRow {
    type Order: Ord;
    fn order(&self) -> Self::Order;
}

impl OrderedRow for (nettrace_common::wire::Flow, u32) {
    type Order = ([u8; 16], [u8; 16], [u16; 2], [u8; 3], u32);
    fn order(&self) -> Self::Order {
        let f = &self.0;
        (f.saddr, f.daddr, [f.sport, f.dport], [f.protocol, f.family, f.encap], self.1)
    }
}

impl OrderedRow for (std::net::IpAddr, std::net::IpAddr, u32) {
    type Order = Self;
    fn order(&self) -> Self {
        *self
    }
}

/// The largest of all that were offered.
pub(super) struct Slowest<T> {
    kept: Vec<(u64, T)>,
    max: usize,
    floor: u64,
}

impl<T> Slowest<T> {
    pub(super) const fn new(max: usize) -> Self {
        Self { kept: Vec::new(), max, floor: 0 }
    }

    pub(super) fn offer(&mut self, value: u64, item: T) {
        if self.kept.len() >= self.max && value <= self.floor {
            return;
        }
        self.kept.push((value, item));
        // Sorting now and then costs less than a heap that must also give a stable order.
        if self.kept.len() >= 4 * self.max {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        self.kept.sort_by_key(|(value, _)| Reverse(*value));
        self.kept.truncate(self.max);
        self.floor = self.kept.last().map_or(0, |(value, _)| *value);
    }

    /// Largest first; of equal ones the first offered.
    pub(super) fn into_sorted(mut self) -> Vec<(u64, T)> {
        self.shrink();
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowest_keeps_the_largest_in_order() {
        let mut s = Slowest::new(3);
        (0..100_u64).map(|i| i * 37 % 101).for_each(|v| s.offer(v, v));
        assert_eq!(s.into_sorted(), [(100, 100), (99, 99), (98, 98)]);
    }

    #[test]
    fn a_full_table_counts_what_it_turns_away() {
        let ip = |n| (std::net::IpAddr::from([10, 0, 0, n]), std::net::IpAddr::from([0; 4]), 0);
        let mut t = Bounded::new(2);
        [1, 2, 3, 2, 3].iter().for_each(|n| t.add(ip(*n)));
        assert_eq!(t.overflow(), 2);
        assert_eq!(t.into_rows(9), [(ip(2), 2), (ip(1), 1)]);
    }
}
