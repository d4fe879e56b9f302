//! Windows on their way to disk: those of an interval are merged, and written by a thread of its own, so that a slow disk holds
//! nobody up.

use super::{HistoryStatus, Hub, work::millis};
use crate::{
    history::{self, HistoryConfig, HistoryError, Store},
    snapshot::Snapshot,
};
use std::{
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

/// Snapshots that wait for the disk. What comes beyond is not kept, and counted.
const WAITING: usize = 4;

/// Keeps the history.
#[derive(Debug)]
pub(super) struct Archive {
    interval_ms: u64,
    merged: Option<Snapshot>,
    /// None once it ends.
    sender: Option<SyncSender<Box<Snapshot>>>,
    thread: Option<JoinHandle<()>>,
}

impl Archive {
    /// Opens the store.
    ///
    /// # Errors
    /// When it cannot be opened, or no thread can be started.
    pub(super) fn start(config: &HistoryConfig, hub: Arc<Hub>) -> Result<Self, HistoryError> {
        let store = Store::open(config)?;
        hub.update(|status| {
            status.history.dir = Some(store.dir().to_owned());
            tell(&mut status.history, &store.stats());
        });
        let (sender, snapshots) = sync_channel::<Box<Snapshot>>(WAITING);
        let writing = move || write(store, &hub, &snapshots);
        let thread = std::thread::Builder::new().name("history".to_owned()).spawn(writing);
        let thread =
            thread.map_err(|e| HistoryError::file("start the thread that writes", &config.dir, e))?;
        let interval_ms = millis(config.interval);
        Ok(Self { interval_ms, merged: None, sender: Some(sender), thread: Some(thread) })
    }

    /// Adds a window; with the last of an interval, all of them go to the disk.
    pub(super) fn add(&mut self, window: &Snapshot, hub: &Hub) {
        match &mut self.merged {
            Some(merged) => merged.merge(window),
            None => self.merged = Some(window.clone()),
        }
        // Windows are not exact to the millisecond: half of one is near enough.
        let whole_ms = self.merged.as_ref().map_or(0, |m| m.meta.duration_ns / 1_000_000);
        if whole_ms + window.meta.duration_ns / 2_000_000 >= self.interval_ms {
            self.flush(hub);
        }
    }

    fn flush(&mut self, hub: &Hub) {
        let (Some(merged), Some(sender)) = (self.merged.take(), &self.sender) else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sender.try_send(Box::new(merged))
        {
            failed(hub, "the disk is slower than snapshots come".to_owned());
        }
    }
}

/// What is not whole yet is written, and the thread waited for.
impl Drop for Archive {
    fn drop(&mut self) {
        if let (Some(merged), Some(sender)) = (self.merged.take(), &self.sender) {
            // The thread is gone only when it panicked.
            let _ = sender.send(Box::new(merged));
        }
        self.sender = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the history panicked");
        }
    }
}

fn write(mut store: Store, hub: &Hub, snapshots: &std::sync::mpsc::Receiver<Box<Snapshot>>) {
    for snapshot in snapshots {
        if let Err(error) = store.append(&snapshot) {
            failed(hub, error.to_string());
            continue;
        }
        let stats = store.stats();
        hub.update(|status| {
            let history = &mut status.history;
            if history.error.take().is_some() {
                tracing::info!("the history is written again");
            }
            history.written += 1;
            tell(history, &stats);
        });
    }
}

/// What is on disk.
fn tell(history: &mut HistoryStatus, stats: &history::Stats) {
    history.size_bytes = stats.size_bytes;
    history.dropped = stats.dropped_frames;
    history.damaged = stats.damaged;
    history.clock_steps = stats.clock_steps;
}

/// Said once, until it is another reason or it goes well again.
fn failed(hub: &Hub, why: String) {
    hub.update(|status| {
        let history = &mut status.history;
        history.failed += 1;
        if history.error.as_ref() != Some(&why) {
            tracing::error!("a snapshot is not in the history: {why}");
        }
        history.error = Some(why);
    });
}
