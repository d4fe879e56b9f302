//! Changes of this node's settings that can be taken back: planned, journaled, made, read back, undone.
//!
//! Needs: root, and a directory for the journal. Yields: settings that are either as they were or as they were asked for,
//! whatever happens in between. The way of a change: a [`Request`] is looked at ([`plan()`]) and becomes a [`Plan`], with the
//! value that is there now; the [`Engine`] writes it to the [`Journal`] and has it on disk before anything is touched, sets
//! one value after the other, reads each back, and then marks it done. What is not marked done is taken back by whoever opens
//! the journal next. [`KINDS`] is the one table of what can be changed.

mod atomic;
mod engine;
mod error;
mod fault;
mod found;
mod guard;
mod journal;
mod kinds;
mod lock;
mod owner;
mod place;
mod plan;
mod record;
mod sockopt;
mod state;
mod switch;

pub use engine::{Engine, Recovered, Undone};
pub use error::ChangeError;
pub use found::{Now, now_of};
pub use guard::{start as start_guard, watch};
pub use journal::{Journal, JournalError};
pub use kinds::{KINDS, Kind, Setting, offered};
pub use lock::LockError;
pub use place::Place;
pub use plan::{Plan, Request, plan};
pub use record::{Begin, Entry, State, Step, Until};
pub use state::StateDir;
pub use switch::Switch;

/// A plan that needs no privilege: of a file.
#[cfg(test)]
pub(crate) fn test_plan(file: &std::path::Path, text: &str) -> Plan {
    let key = file.display().to_string();
    let step = Step {
        place: Place::find("host").unwrap(),
        kind: "file".to_owned(),
        before: format!("text:{}", std::fs::read_to_string(file).unwrap()),
        after: format!("text:{text}"),
        key,
        owners: Vec::new(),
        ifindex: None,
    };
    Plan::of("test", "a test", vec![step])
}

/// The word nearest to one that was mistyped, if one is near.
#[must_use]
pub fn nearest<'a>(typed: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below it two words have little in common.
    const NEAR: f64 = 0.7;
    let scored = words.map(|word| (strsim::jaro_winkler(typed, word), word));
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score >= NEAR).map(|(_, word)| word)
}
