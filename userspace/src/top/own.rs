//! Frames of a capture of this process's own.
//!
//! Needs a capture that runs; yields [`Update`]s from a thread of its own: a frame for each window, and now and then what is
//! to be changed, of the last minutes.

use super::{Feed, Update};
use crate::{
    agent::NodeWatch,
    capture::{Capture, CaptureError},
    live::Frame,
    recommend::{self, Finding, Profile},
    snapshot::Snapshot,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    time::{Duration, Instant},
};

/// How often the capture's books are looked after, and whether it is to end.
const TICK: Duration = Duration::from_millis(50);
/// Advice is of so many parts of the time, each as long as the time between two of them.
const PARTS: usize = 10;
const ADVICE_EVERY: Duration = Duration::from_secs(30);
/// The first comes sooner, so that there is something to see.
const FIRST_ADVICE: Duration = Duration::from_secs(6);

/// Lets a capture run, and closes a window every `interval`. `beside` is kept until the capture has ended: a lab.
///
/// # Errors
/// When the thread cannot be started.
pub fn measure(
    capture: Capture,
    interval: Duration,
    beside: impl Send + 'static,
) -> Result<Feed, CaptureError> {
    let (updates, feed) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = stop.clone();
    let work = move || {
        let ended = windows(capture, interval, &updates, &theirs);
        drop(beside);
        ended
    };
    let thread =
        std::thread::Builder::new().name("windows".to_owned()).spawn(work).map_err(CaptureError::Thread)?;
    Ok(Feed::new(feed, move || stop.store(true, Ordering::Relaxed), thread))
}

/// Until it is to stop, or nobody listens.
fn windows(
    mut capture: Capture,
    interval: Duration,
    updates: &Sender<Update>,
    stop: &AtomicBool,
) -> Result<(), CaptureError> {
    let mut advisor = Advisor::new(Instant::now());
    let mut node = NodeWatch::start(capture.node_reader());
    let mut next = Instant::now() + interval;
    let mut listened_to = true;
    while listened_to && !stop.load(Ordering::Relaxed) {
        capture.tick();
        let now = Instant::now();
        if now < next {
            std::thread::sleep(TICK.min(next - now));
            continue;
        }
        // After a machine that slept, one window, not all that were missed.
        next = (next + interval).max(now);
        if let Some(seen) = node.look() {
            capture.put_node(seen);
        }
        let update = match capture.window() {
            Ok(snapshot) => {
                let frame = Update::Frame(Box::new(Frame::of(&snapshot)));
                advisor.add(snapshot);
                frame
            }
            Err(error) => Update::Lost(error.to_string()),
        };
        listened_to = updates.send(update).is_ok();
        if let Some(findings) = advisor.advise(Instant::now()) {
            listened_to = updates.send(Update::Findings(findings)).is_ok();
        }
    }
    capture.stop().map(drop)
}

/// What is to be changed, of the last minutes.
struct Advisor {
    /// Oldest first; the last one grows.
    parts: VecDeque<Snapshot>,
    due: Instant,
}

impl Advisor {
    fn new(now: Instant) -> Self {
        Self { parts: VecDeque::new(), due: now + FIRST_ADVICE }
    }

    fn add(&mut self, window: Snapshot) {
        match self.parts.back_mut() {
            Some(part) if u128::from(part.meta.duration_ns) < ADVICE_EVERY.as_nanos() => part.merge(&window),
            _ => self.parts.push_back(window),
        }
        if self.parts.len() > PARTS {
            self.parts.pop_front();
        }
    }

    /// When it is time again.
    fn advise(&mut self, now: Instant) -> Option<Vec<Finding>> {
        if now < self.due {
            return None;
        }
        let mut parts = self.parts.iter();
        let mut all = parts.next()?.clone();
        parts.for_each(|later| all.merge(later));
        self.due = now + ADVICE_EVERY;
        Some(recommend::advise(&all, Profile::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;

    #[test]
    fn advice_is_of_the_last_minutes() {
        let start = Instant::now();
        let mut advisor = Advisor::new(start);
        assert_eq!(advisor.advise(start + FIRST_ADVICE), None, "nothing was measured");
        let mut window = sample::rich();
        window.meta.duration_ns = 10_000_000_000;
        for _ in 0..100 {
            advisor.add(window.clone());
        }
        assert_eq!(advisor.parts.len(), PARTS);
        assert_eq!(advisor.parts[0].meta.duration_ns, 30_000_000_000, "three windows are a part");
        assert_eq!(advisor.parts[0].dns.transactions, 3 * window.dns.transactions);
        assert_eq!(advisor.advise(start), None, "it is not time yet");
        let findings = advisor.advise(start + FIRST_ADVICE).unwrap();
        assert_eq!(findings.len(), recommend::ids().count());
        assert_eq!(advisor.advise(start + FIRST_ADVICE), None);
        assert!(advisor.advise(start + FIRST_ADVICE + ADVICE_EVERY).is_some());
    }
}
