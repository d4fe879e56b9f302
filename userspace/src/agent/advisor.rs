//! What is to be changed, of the last minutes: windows are kept in a few parts, so that what is older leaves a part at a time.

use crate::{
    recommend::{self, Finding, Profile},
    snapshot::Snapshot,
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Advice is of so many parts, and made anew once in a part.
const PARTS: u32 = 10;
/// The first comes sooner, so that there is something to see.
const FIRST: Duration = Duration::from_secs(6);

/// Makes findings of the windows of some time.
pub(crate) struct Advisor {
    /// Oldest first; the last one grows.
    parts: VecDeque<Snapshot>,
    span: Duration,
    due: Instant,
}

impl Advisor {
    /// Of the last `span` before each time.
    pub(crate) fn new(now: Instant, span: Duration) -> Self {
        Self { parts: VecDeque::new(), span, due: now + FIRST.min(span) }
    }

    /// Of another span from now on; what was kept stays.
    pub(crate) fn set_span(&mut self, now: Instant, span: Duration) {
        self.span = span;
        self.due = self.due.min(now + self.part());
    }

    /// Length of a part.
    fn part(&self) -> Duration {
        self.span / PARTS
    }

    /// One more window.
    pub(crate) fn add(&mut self, window: &Snapshot) {
        let part_ns = self.part().as_nanos();
        match self.parts.back_mut() {
            Some(part) if u128::from(part.meta.duration_ns) < part_ns => part.merge(window),
            _ => self.parts.push_back(window.clone()),
        }
        while self.parts.len() > PARTS as usize {
            self.parts.pop_front();
        }
    }

    /// Findings, when it is time for them again; none where there was no window yet.
    pub(crate) fn advise(&mut self, now: Instant) -> Option<Vec<Finding>> {
        if now < self.due {
            return None;
        }
        let mut parts = self.parts.iter();
        let mut all = parts.next()?.clone();
        parts.for_each(|later| all.merge(later));
        self.due = now + self.part();
        Some(recommend::advise(&all, Profile::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;

    const SPAN: Duration = Duration::from_secs(300);

    fn window(seconds: u64) -> Snapshot {
        let mut window = sample::rich();
        window.meta.duration_ns = seconds * 1_000_000_000;
        window
    }

    #[test]
    fn advice_is_of_the_last_minutes() {
        let start = Instant::now();
        let mut advisor = Advisor::new(start, SPAN);
        assert_eq!(advisor.advise(start + FIRST), None, "nothing was measured");
        let window = window(10);
        (0..100).for_each(|_| advisor.add(&window));
        assert_eq!(advisor.parts.len(), PARTS as usize);
        assert_eq!(advisor.parts[0].meta.duration_ns, 30_000_000_000, "three windows are a part");
        assert_eq!(advisor.parts[0].dns.transactions, 3 * window.dns.transactions);
        assert_eq!(advisor.advise(start), None, "it is not time yet");
        let findings = advisor.advise(start + FIRST).unwrap();
        assert_eq!(findings.len(), recommend::ids().count());
        assert_eq!(advisor.advise(start + FIRST), None);
        assert!(advisor.advise(start + FIRST + SPAN / PARTS).is_some());
    }

    #[test]
    fn a_shorter_time_is_told_of_sooner() {
        let start = Instant::now();
        let mut advisor = Advisor::new(start, SPAN);
        advisor.add(&window(10));
        assert!(advisor.advise(start + FIRST).is_some());
        advisor.set_span(start + FIRST, Duration::from_secs(20));
        assert_eq!(advisor.advise(start + FIRST + Duration::from_secs(1)), None);
        assert!(advisor.advise(start + FIRST + Duration::from_secs(2)).is_some());
    }
}
