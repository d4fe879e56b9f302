//! What the service manager is told, and how often it wants to hear (sd_notify(3)). Without one, nobody is told.
//!
//! A thread of its own tells it: a manager that does not read holds up nobody else.

use sd_notify::NotifyState;
use std::{
    sync::mpsc::{SyncSender, sync_channel},
    time::{Duration, Instant},
};

/// Messages that wait for the manager. What comes beyond is not said.
const WAITING: usize = 16;

/// What is said.
#[derive(Debug)]
enum Word {
    Ready(String),
    Reloading,
    Stopping,
    Status(String),
    Alive,
}

/// Tells the service manager.
#[derive(Debug)]
pub(super) struct Notify {
    /// How often it wants a sign of life; none where it does not watch.
    every: Option<Duration>,
    last: Instant,
    /// None where no thread could be started.
    words: Option<SyncSender<Word>>,
}

impl Notify {
    pub(super) fn new() -> Self {
        // Half of the limit, as sd_watchdog_enabled(3) says.
        let every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        let (words, said) = sync_channel::<Word>(WAITING);
        let telling = move || said.iter().for_each(|word| tell(&word));
        let thread = std::thread::Builder::new().name("notify".to_owned()).spawn(telling);
        let words = thread.map(|_| words);
        let words = words.inspect_err(|error| tracing::error!("the service manager is not told: {error}"));
        Self { every, last: Instant::now(), words: words.ok() }
    }

    /// The first window is closed: what depends on the agent may start.
    pub(super) fn ready(&self, status: &str) {
        self.say(Word::Ready(status.to_owned()));
    }

    /// The configuration is being read anew; [`Notify::ready`] follows.
    pub(super) fn reloading(&self) {
        self.say(Word::Reloading);
    }

    /// The end.
    pub(super) fn stopping(&self) {
        self.say(Word::Stopping);
    }

    /// One line on how it is doing.
    pub(super) fn status(&self, status: &str) {
        self.say(Word::Status(status.to_owned()));
    }

    /// A sign of life, when it is time. To be called by the loop that must not hang.
    pub(super) fn alive(&mut self) {
        if self.every.is_some_and(|every| self.last.elapsed() >= every) {
            self.last = Instant::now();
            self.say(Word::Alive);
        }
    }

    fn say(&self, word: Word) {
        let full = self.words.as_ref().is_some_and(|words| words.try_send(word).is_err());
        if full {
            tracing::debug!("the service manager does not listen");
        }
    }
}

fn tell(word: &Word) {
    let told = match word {
        Word::Ready(status) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]),
        Word::Reloading => match NotifyState::monotonic_usec_now() {
            Ok(now) => sd_notify::notify(&[NotifyState::Reloading, now]),
            Err(_) => sd_notify::notify(&[NotifyState::Reloading]),
        },
        Word::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Word::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
        Word::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
    };
    // A manager that cannot be told does without.
    if let Err(error) = told {
        tracing::debug!("the service manager was not told: {error}");
    }
}
