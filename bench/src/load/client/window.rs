//! Requests of an open loop that are under way over one connection.
//!
//! Room is for as many as can be told apart, and for [`MOST`] over all connections of the load, but not less than [`LEAST`] each;
//! when all of it is taken the next request waits, and its wait is in its latency.

use super::super::{books::Books, error::Failure};

/// Requests under way over all connections of a load.
const MOST: u64 = 1 << 16;
/// Requests under way over one connection of many.
const LEAST: u64 = 1 << 10;

#[derive(Clone, Copy, Default)]
struct Slot {
    intended_ns: u64,
    sent_ns: u64,
    open: bool,
}

/// A ring of them, in the order in which they were sent.
pub(super) struct Window {
    slots: Vec<Slot>,
    /// How many can be told apart.
    ids: u64,
    /// Oldest that is under way, and the next to be sent.
    head: u64,
    tail: u64,
}

impl Window {
    /// Of one of a load's connections, of which so many requests can be told apart.
    pub(super) fn new(ids: Option<u64>, connections: u32) -> Self {
        let share = (MOST / u64::from(connections.max(1))).max(LEAST);
        let ids = ids.unwrap_or(u64::MAX).max(1);
        let room = usize::try_from(share.min(ids)).unwrap_or(1);
        Self { slots: vec![Slot::default(); room], ids, head: 0, tail: 0 }
    }

    /// Number of the next request.
    pub(super) const fn next(&self) -> u64 {
        self.tail
    }

    /// Whether one more can be sent.
    pub(super) const fn has_room(&self) -> bool {
        self.tail - self.head < self.slots.len() as u64
    }

    /// Whether none is under way.
    pub(super) const fn is_empty(&self) -> bool {
        self.tail == self.head
    }

    fn slot(&mut self, number: u64) -> &mut Slot {
        let size = self.slots.len() as u64;
        // Less than the length, which is a `usize`.
        &mut self.slots[(number % size) as usize]
    }

    /// One was sent.
    pub(super) fn push(&mut self, intended_ns: u64, sent_ns: u64) {
        *self.slot(self.tail) = Slot { intended_ns, sent_ns, open: true };
        self.tail += 1;
    }

    /// One is answered: the oldest, or that of an id. Yields when it was intended and sent; none where it is not under way.
    pub(super) fn take(&mut self, id: Option<u64>) -> Option<(u64, u64)> {
        let number = match id {
            None => self.head,
            Some(id) => {
                // Of the numbers under way, which are fewer than there are ids, the one that ends in it.
                self.head + (id % self.ids + self.ids - self.head % self.ids) % self.ids
            }
        };
        if number >= self.tail {
            return None;
        }
        let slot = self.slot(number);
        if !std::mem::take(&mut slot.open) {
            return None;
        }
        let times = (slot.intended_ns, slot.sent_ns);
        self.skip();
        Some(times)
    }

    /// Moves on to the oldest that has no answer.
    fn skip(&mut self) {
        while self.head < self.tail && !self.slot(self.head).open {
            self.head += 1;
        }
    }

    /// When the oldest is to be given up, ns.
    pub(super) fn deadline(&mut self, limit_ns: u64) -> Option<u64> {
        (!self.is_empty()).then(|| self.slot(self.head).sent_ns.saturating_add(limit_ns))
    }

    /// Gives up those that were sent before some time. Yields whether there were any.
    pub(super) fn expire(&mut self, now_ns: u64, limit_ns: u64, books: &mut Books) -> bool {
        let mut any = false;
        while self.deadline(limit_ns).is_some_and(|due_ns| due_ns <= now_ns) {
            any |= self.give_up(now_ns, Failure::TimedOut, books);
        }
        any
    }

    /// Gives the oldest up.
    pub(super) fn give_up(&mut self, now_ns: u64, failure: Failure, books: &mut Books) -> bool {
        let oldest = self.take(None);
        if let Some((intended_ns, _)) = oldest {
            books.failed(intended_ns, now_ns, failure);
        }
        oldest.is_some()
    }

    /// Gives all up.
    pub(super) fn clear(&mut self, now_ns: u64, failure: Failure, books: &mut Books) {
        while self.give_up(now_ns, failure, books) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_any_order_find_their_requests() {
        let mut window = Window::new(Some(256), 1);
        for n in 0..300 {
            // As a few are always under way.
            if !window.has_room() || n % 7 == 0 {
                while window.take(None).is_some() {}
            }
            window.push(n, n + 1000);
        }
        let under_way: Vec<u64> = (window.head..window.tail).collect();
        assert!(under_way.len() > 3, "{under_way:?}");
        for n in under_way.iter().rev() {
            assert_eq!(window.take(Some(n % 256)), Some((*n, n + 1000)));
            assert_eq!(window.take(Some(n % 256)), None, "an answer that comes twice counts once");
        }
        assert!(window.is_empty());
    }

    #[test]
    fn an_answer_to_one_that_was_given_up_is_none_to_another() {
        // Room for 1,024, and ids for 65,536: the same place, another id.
        let mut window = Window::new(Some(1 << 16), 1000);
        for n in 0..2000 {
            if !window.has_room() {
                window.take(None);
            }
            window.push(n, n);
        }
        assert_eq!(window.take(Some(976 - 1)), None);
        assert_eq!(window.take(Some(976 + 1023)), Some((1999, 1999)));
    }

    #[test]
    fn a_full_window_has_no_room() {
        let mut window = Window::new(Some(2), 1);
        window.push(0, 0);
        assert!(window.has_room());
        window.push(1, 1);
        assert!(!window.has_room());
        // The oldest is still under way: there is no room for another of its id.
        assert!(window.take(Some(1)).is_some() && !window.has_room());
        assert!(window.take(Some(0)).is_some() && window.has_room() && window.is_empty());
    }
}
