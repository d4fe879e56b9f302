//! `nettrace top`: what happens now, on a terminal.
//!
//! Needs frames, of an agent ([`follow`]) or of a capture of its own ([`measure`]), and keys; yields a screen ([`run`]), or
//! for scripts text and JSON ([`plain`]). Data goes one way: [`Feed`] -> [`State`] -> `sheet`, `overview` -> `draw`. What a key
//! does is a function of a state ([`State::key`]), what is drawn one of a state and a size, so that both are tested without
//! a terminal. Text from outside passes `view::clean` where cells are made.

mod draw;
mod graph;
mod held;
mod http;
mod overview;
mod own;
pub mod plain;
mod remote;
mod screen;
mod sheet;
mod sse;
mod state;
#[cfg(test)]
mod tests;
mod theme;

pub use held::stderr;
pub use http::{Agent, ClientError, DEFAULT_URL};
pub use own::measure;
pub use remote::follow;
pub use screen::{TopError, run};
pub use state::{Source, State, Tab};
pub use theme::Theme;

use crate::{capture::CaptureError, live::Frame, recommend::Finding};
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread::JoinHandle,
    time::Duration,
};

/// What is new.
#[derive(Clone, Debug)]
pub enum Update {
    /// Frames of before, oldest first.
    History(Vec<Frame>),
    /// A window was closed.
    Frame(Box<Frame>),
    /// What is to be changed on the node, of the last minutes.
    Findings(Vec<Finding>),
    /// Nothing comes for the time being, and why. It is tried again.
    Lost(String),
}

/// Where updates come from: a thread, which ends with this.
pub struct Feed {
    updates: Receiver<Update>,
    stop: Option<Box<dyn FnOnce() + Send>>,
    thread: Option<JoinHandle<Result<(), CaptureError>>>,
}

impl Feed {
    fn new(
        updates: Receiver<Update>,
        stop: impl FnOnce() + Send + 'static,
        thread: JoinHandle<Result<(), CaptureError>>,
    ) -> Self {
        Self { updates, stop: Some(Box::new(stop)), thread: Some(thread) }
    }

    /// What is new, or comes in a time; none when nothing does.
    ///
    /// # Errors
    /// When nothing will come any more: [`Self::end`] says why.
    pub fn next(&self, within: Duration) -> Result<Option<Update>, RecvTimeoutError> {
        match self.updates.recv_timeout(within) {
            Ok(update) => Ok(Some(update)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends the thread, and with it a capture; what it ended of, if that was an error.
    ///
    /// # Errors
    /// When a capture failed.
    pub fn end(mut self) -> Result<(), CaptureError> {
        self.stop_thread()
    }

    fn stop_thread(&mut self) -> Result<(), CaptureError> {
        if let Some(stop) = self.stop.take() {
            stop();
        }
        // A panic was told by its hook.
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap_or(Err(CaptureError::Collector)))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Err(error) = self.stop_thread() {
            tracing::debug!("{error}");
        }
    }
}
