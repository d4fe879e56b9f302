//! The last seconds of the event lane.
//!
//! Needs each batch that the collector copies out of the ring, with the time of the copy; yields those since any time that is
//! still held. One thread pushes, another asks; a lock is held for as long as it takes to move a pointer, or to clone as many as
//! there are.

use bytes::Bytes;
use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a batch takes beside its bytes: its place in the queue, and the counter of its references.
const BATCH_BYTES: u64 = 64;

/// How much is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// No longer than this.
    pub time: Duration,
    /// No more than this, bytes.
    pub bytes: u64,
}

/// What is held, and what was let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// Batches held.
    pub batches: u64,
    /// Bytes held, what each batch takes beside its own included.
    pub bytes: u64,
    /// Time of the oldest batch held, CLOCK_MONOTONIC, ns; none when nothing is held.
    pub from_ns: Option<u64>,
    /// Batches that were let go before their time, because there was no room.
    pub let_go_batches: u64,
    /// Their bytes.
    pub let_go_bytes: u64,
}

/// A handle of it; all clones are the same.
#[derive(Clone, Debug)]
pub struct Memory {
    options: MemoryOptions,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// Oldest first.
    batches: VecDeque<(u64, Bytes)>,
    bytes: u64,
    let_go_batches: u64,
    let_go_bytes: u64,
}

impl Held {
    fn pop(&mut self) -> Option<(u64, Bytes)> {
        let (ts_ns, batch) = self.batches.pop_front()?;
        self.bytes -= size(&batch);
        Some((ts_ns, batch))
    }
}

impl Memory {
    /// One that holds nothing yet.
    #[must_use]
    pub fn new(options: MemoryOptions) -> Self {
        Self { options, held: Arc::default() }
    }

    /// Takes a batch that was copied out of the ring at this time, CLOCK_MONOTONIC, ns.
    pub fn push(&self, ts_ns: u64, batch: Bytes) {
        let mut held = self.lock();
        held.bytes += size(&batch);
        held.batches.push_back((ts_ns, batch));
        let time_ns = u64::try_from(self.options.time.as_nanos()).unwrap_or(u64::MAX);
        let from_ns = ts_ns.saturating_sub(time_ns);
        while held.batches.front().is_some_and(|(ts_ns, _)| *ts_ns < from_ns) {
            held.pop();
        }
        while held.bytes > self.options.bytes {
            let Some((_, batch)) = held.pop() else { break };
            held.let_go_batches += 1;
            held.let_go_bytes += batch.len() as u64;
        }
    }

    /// The batches that were copied at this time or later, oldest first: records in them may be a look of the collector older.
    #[must_use]
    pub fn since(&self, ns: u64) -> Vec<Bytes> {
        let held = self.lock();
        let first = held.batches.partition_point(|(ts_ns, _)| *ts_ns < ns);
        held.batches.range(first..).map(|(_, batch)| batch.clone()).collect()
    }

    /// What is held, and what was let go.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        let held = self.lock();
        MemoryStats {
            batches: held.batches.len() as u64,
            bytes: held.bytes,
            from_ns: held.batches.front().map(|(ts_ns, _)| *ts_ns),
            let_go_batches: held.let_go_batches,
            let_go_bytes: held.let_go_bytes,
        }
    }

    /// How much it holds at most.
    #[must_use]
    pub const fn options(&self) -> MemoryOptions {
        self.options
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(batch: &Bytes) -> u64 {
    batch.len() as u64 + BATCH_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    fn memory(seconds: u64, bytes: u64) -> Memory {
        Memory::new(MemoryOptions { time: Duration::from_secs(seconds), bytes })
    }

    #[test]
    fn what_is_older_than_asked_goes_without_being_counted() {
        let memory = memory(10, 1 << 20);
        (0..60).for_each(|s| memory.push(s * S, Bytes::from(vec![s as u8])));
        assert_eq!(memory.since(0).len(), 11);
        assert_eq!(memory.since(55 * S), (55..60).map(|s| Bytes::from(vec![s])).collect::<Vec<_>>());
        assert!(memory.since(60 * S).is_empty());
        let stats = memory.stats();
        assert_eq!((stats.from_ns, stats.batches, stats.let_go_batches), (Some(49 * S), 11, 0));
    }

    #[test]
    fn what_does_not_fit_goes_and_is_counted() {
        let memory = memory(1000, 10 * (100 + BATCH_BYTES));
        (0..25).for_each(|s| memory.push(s * S, Bytes::from(vec![0; 100])));
        let stats = memory.stats();
        assert_eq!((stats.batches, stats.let_go_batches, stats.let_go_bytes), (10, 15, 1500));
        // One that alone is too large goes, too, and takes the others with it.
        memory.push(25 * S, Bytes::from(vec![0; 10_000]));
        let stats = memory.stats();
        assert_eq!((stats.batches, stats.bytes, stats.let_go_batches), (0, 0, 26));
    }

    #[test]
    fn batches_are_not_copied() {
        let memory = memory(10, 1 << 20);
        let batch = Bytes::from(vec![7; 1000]);
        memory.push(0, batch.clone());
        assert_eq!(memory.since(0)[0].as_ptr(), batch.as_ptr());
    }

    proptest! {
        #[test]
        fn bounds_hold_and_books_balance(
            pushes in prop::collection::vec((0_u64..3 * S, 0_usize..400), 0..200),
            seconds in 0_u64..20,
            bytes in 0_u64..5_000,
        ) {
            let memory = memory(seconds, bytes);
            let (mut now, mut total) = (0, 0);
            for (step, len) in pushes {
                now += step;
                total += 1;
                memory.push(now, Bytes::from(vec![1; len]));
                let stats = memory.stats();
                prop_assert!(stats.bytes <= bytes);
                prop_assert!(stats.from_ns.is_none_or(|from| from + seconds * S >= now));
                let held: u64 = memory.since(0).iter().map(size).sum();
                prop_assert_eq!(held, stats.bytes);
                prop_assert!(stats.batches + stats.let_go_batches <= total);
            }
        }
    }
}
