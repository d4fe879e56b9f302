//! The flight recorder in the agent: looks at each window for a cause, and has what is in memory written by a thread, with the
//! windows around it.

use super::Hub;
use crate::{
    capture::{Capture, Stretch},
    flight::{self, FlightConfig, Memory, Triggers},
    snapshot::{Cause, Snapshot},
};
use std::{collections::VecDeque, sync::Arc, thread::JoinHandle};

/// Windows kept for a file, whatever the configuration says.
const MOST_WINDOWS: usize = 64;

/// The recorder.
#[derive(Debug)]
pub(super) struct Recorder {
    config: FlightConfig,
    triggers: Triggers,
    windows: VecDeque<Arc<Snapshot>>,
    /// A file that is being written.
    writing: Option<JoinHandle<()>>,
}

impl Recorder {
    pub(super) fn new(config: &FlightConfig, hub: &Hub) -> Self {
        let seconds = config.enabled.then_some(config.seconds.as_secs());
        hub.update(|status| status.flight.seconds = seconds);
        Self {
            config: config.clone(),
            triggers: Triggers::new(config),
            windows: VecDeque::new(),
            writing: None,
        }
    }

    pub(super) fn follow(&mut self, config: &FlightConfig) {
        self.config = config.clone();
        self.triggers.reload(config);
    }

    /// Looks at a window.
    pub(super) fn window(&mut self, hub: &Arc<Hub>, capture: Option<&Capture>, window: &Arc<Snapshot>) {
        self.windows.push_back(window.clone());
        while self.windows.len() > self.config.windows.min(MOST_WINDOWS) {
            self.windows.pop_front();
        }
        if !self.config.enabled {
            return;
        }
        let cause = self.triggers.look(window);
        let suppressed = self.triggers.stats().suppressed;
        let held = capture.and_then(Capture::flight).map(Memory::stats);
        hub.update(|status| {
            status.flight.suppressed = suppressed;
            if let Some(held) = held {
                (status.flight.held_bytes, status.flight.let_go) = (held.bytes, held.let_go_batches);
            }
        });
        if let (Some(cause), Some(capture)) = (cause, capture) {
            self.write(hub, capture, cause);
        }
    }

    /// Somebody asks for a file.
    pub(super) fn asked(&mut self, hub: &Arc<Hub>, capture: &Capture, reason: &str) {
        match self.triggers.asked(reason) {
            Ok(cause) => self.write(hub, capture, cause),
            Err(limited) => {
                tracing::warn!("{limited}");
                let suppressed = self.triggers.stats().suppressed;
                hub.update(|status| status.flight.suppressed = suppressed);
            }
        }
    }

    fn write(&mut self, hub: &Arc<Hub>, capture: &Capture, cause: Cause) {
        // The loop waits for no disk: a cause that comes while a file is being written is told, and has none.
        if self.writing.as_ref().is_some_and(|thread| !thread.is_finished()) {
            let why = format!("{cause}: the file before is still being written");
            tracing::error!("the flight recorder does not write: {why}");
            hub.update(|status| status.flight.error = Some(why));
            return;
        }
        let Some(Stretch { start, end, batches }) = capture.stretch(self.config.seconds) else {
            tracing::warn!("the flight recorder is off: nothing was kept");
            return;
        };
        tracing::warn!("the flight recorder writes: {cause}");
        let (config, hub, windows) = (self.config.clone(), hub.clone(), Vec::from(self.windows.clone()));
        let writing = move || {
            let written = flight::write(&config.dir, &config, cause, &start, &batches, &end, &windows);
            hub.update(|status| match written {
                Ok(path) => {
                    status.flight.written += 1;
                    (status.flight.last, status.flight.error) = (Some(path), None);
                }
                Err(error) => {
                    tracing::error!("the flight recorder could not write: {error}");
                    status.flight.error = Some(error.to_string());
                }
            });
        };
        self.wait();
        match std::thread::Builder::new().name("flight".to_owned()).spawn(writing) {
            Ok(thread) => self.writing = Some(thread),
            Err(error) => tracing::error!("the flight recorder could not write: {error}"),
        }
    }

    fn wait(&mut self) {
        if self.writing.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the flight recorder panicked");
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.wait();
    }
}
