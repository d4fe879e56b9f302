//! Frames of a capture of this process's own.
//!
//! Needs a capture that runs; yields [`Update`]s from a thread of its own: a frame for each window, and now and then what is
//! to be changed, of the last minutes.

use super::{Feed, Update};
use crate::{
    agent::{Advisor, NodeWatch},
    capture::{Capture, CaptureError},
    live::Frame,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    time::{Duration, Instant},
};

/// How often the capture's books are looked after, and whether it is to end.
const TICK: Duration = Duration::from_millis(50);
/// Advice is of so long.
const ADVICE: Duration = Duration::from_secs(300);

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
    let mut advisor = Advisor::new(Instant::now(), ADVICE);
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
                advisor.add(&snapshot);
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
