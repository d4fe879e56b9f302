//! What the agent knows, for those who ask: one writer, the agent's loop, and many readers, the page and the metrics.

use super::{Counts, Status};
use crate::{
    change::{Entry, Step},
    live::Frame,
    recommend::Finding,
    snapshot::Snapshot,
};
use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{broadcast, mpsc, watch};

/// Frames of the last minutes are kept as they are, so many; at windows of 5 s, 30 minutes.
const RECENT: usize = 360;
/// Of older ones, one in so many ...
const THIN: u64 = 12;
/// ... and so many of those; at windows of 5 s, a minute each, 12 hours.
const OLD: usize = 720;
/// Frames that a slow reader may be behind before it misses some.
const BEHIND: usize = 16;

/// What the agent's loop is told: by those who ask it over HTTP, and by signals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The flight recorder is to write what it holds.
    Flight {
        /// Why.
        reason: String,
    },
    /// The configuration is to be read anew.
    Reload,
    /// The end.
    Stop,
}

/// A change that nettrace made on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangeRow {
    /// Its number.
    pub change: u64,
    /// What it is called: a finding's id, or what was typed.
    pub id: String,
    /// Why.
    pub why: String,
    /// When, Unix time, ms.
    pub at_unix_ms: u64,
    /// Whether it is in force.
    pub active: bool,
    /// What it set: `sysctl net.core.somaxconn in host: 128 -> 4096`.
    pub steps: Vec<String>,
}

impl ChangeRow {
    /// Of an entry of the journal.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let begin = &entry.begin;
        let step = |s: &Step| format!("{s}: {} -> {}", s.show(&s.before), s.show(&s.after));
        Self {
            change: begin.change,
            id: begin.id.clone(),
            why: begin.why.clone(),
            at_unix_ms: begin.at_unix_ns / 1_000_000,
            active: entry.is_active(),
            steps: begin.steps.iter().map(step).collect(),
        }
    }
}

/// What the agent knows.
#[derive(Debug)]
pub struct Hub {
    window: watch::Sender<Option<Arc<Snapshot>>>,
    feed: broadcast::Sender<Arc<Frame>>,
    frames: Mutex<Frames>,
    findings: Mutex<Arc<Vec<Finding>>>,
    changes: Mutex<Arc<Vec<ChangeRow>>>,
    status: Mutex<Arc<Status>>,
    counts: Arc<Counts>,
    requests: mpsc::Sender<Event>,
}

#[derive(Debug, Default)]
struct Frames {
    recent: VecDeque<Arc<Frame>>,
    old: VecDeque<Arc<Frame>>,
    /// Frames that became old so far.
    aged: u64,
}

impl Hub {
    /// One that knows nothing yet; what is asked of the loop goes to `requests`.
    #[must_use]
    pub fn new(status: Status, requests: mpsc::Sender<Event>) -> Arc<Self> {
        let hub = Self {
            window: watch::Sender::new(None),
            feed: broadcast::Sender::new(BEHIND),
            frames: Mutex::default(),
            findings: Mutex::default(),
            changes: Mutex::default(),
            status: Mutex::new(Arc::new(status)),
            counts: Arc::default(),
            requests,
        };
        Arc::new(hub)
    }

    /// The latest window, and those to come.
    #[must_use]
    pub fn windows(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.window.subscribe()
    }

    /// Frames to come.
    #[must_use]
    pub fn frame_feed(&self) -> broadcast::Receiver<Arc<Frame>> {
        self.feed.subscribe()
    }

    /// Frames of the last hours, oldest first; older ones are thinned.
    #[must_use]
    pub fn frames(&self) -> Vec<Arc<Frame>> {
        let frames = held(&self.frames);
        frames.old.iter().chain(&frames.recent).cloned().collect()
    }

    /// What is to be changed on the node, of the last minutes.
    #[must_use]
    pub fn findings(&self) -> Arc<Vec<Finding>> {
        held(&self.findings).clone()
    }

    /// What nettrace changed on the node, oldest first.
    #[must_use]
    pub fn changes(&self) -> Arc<Vec<ChangeRow>> {
        held(&self.changes).clone()
    }

    /// How the agent is doing.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        held(&self.status).clone()
    }

    /// What the web server does.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Asks for something. False when too much waits already, or the agent is ending.
    #[must_use]
    pub fn request(&self, request: Event) -> bool {
        self.requests.try_send(request).is_ok()
    }

    /// A window was closed.
    pub fn put_window(&self, window: Arc<Snapshot>) {
        let frame = Arc::new(Frame::of(&window));
        held(&self.frames).push(frame.clone());
        // Nobody listens: that is no error.
        let _ = self.feed.send(frame);
        self.window.send_replace(Some(window));
    }

    /// There are new findings.
    pub fn put_findings(&self, findings: Vec<Finding>) {
        *held(&self.findings) = Arc::new(findings);
    }

    /// The journal was read.
    pub fn put_changes(&self, changes: Vec<ChangeRow>) {
        *held(&self.changes) = Arc::new(changes);
    }

    /// Something about the agent changed.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(Arc::make_mut(&mut held(&self.status)));
    }
}

impl Frames {
    fn push(&mut self, frame: Arc<Frame>) {
        self.recent.push_back(frame);
        if self.recent.len() <= RECENT {
            return;
        }
        let Some(aged) = self.recent.pop_front() else { return };
        if self.aged.is_multiple_of(THIN) {
            self.old.push_back(aged);
        }
        self.aged += 1;
        if self.old.len() > OLD {
            self.old.pop_front();
        }
    }
}

/// Each value is whole at any time, so that a thread that panicked with the lock held left nothing half done.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(at_unix_ms: u64) -> Arc<Frame> {
        Arc::new(Frame { at_unix_ms, ..Frame::default() })
    }

    #[test]
    fn frames_are_thinned_with_age_and_bounded() {
        let mut frames = Frames::default();
        (0..100_000).for_each(|n| frames.push(frame(n)));
        assert_eq!((frames.recent.len(), frames.old.len()), (RECENT, OLD));
        let times: Vec<_> = frames.old.iter().chain(&frames.recent).map(|f| f.at_unix_ms).collect();
        assert!(times.is_sorted());
        assert_eq!(times.last(), Some(&99_999));
        assert!(frames.old.iter().all(|f| f.at_unix_ms % THIN == 0));
    }

    #[test]
    fn requests_beyond_the_queue_are_refused() {
        let (requests, mut asked) = mpsc::channel(8);
        let hub = Hub::new(Status::default(), requests);
        let flight = || Event::Flight { reason: "asked".to_owned() };
        assert!((0..8).all(|_| hub.request(flight())));
        assert!(!hub.request(flight()));
        assert_eq!(asked.try_recv().ok(), Some(flight()));
        assert!(hub.request(Event::Reload));
        drop(asked);
        assert!(!hub.request(flight()));
    }
}
