//! Making changes and taking them back, with the journal first.
//!
//! The order of a change: record of what is about to be done, on disk; one value after the other, each read back; record that
//! it is done, on disk. Taking back goes the other way round, and may be begun again as often as it is interrupted: a value
//! that is back already is left alone. So whatever is not marked done is as it was after the next [`Engine::open`].

use super::{
    Begin, ChangeError, Entry, Journal, Kind, Plan, State, StateDir, Step, Until, fault, kinds,
    lock::Lock,
    record::{boot, now_unix_ns},
};
use std::time::Duration;

/// How long another one may take for its change before this one gives up.
const WAIT: Duration = Duration::from_secs(10);

/// The journal and the lock, held as long as something is being changed.
pub struct Engine {
    journal: Journal,
    _lock: Lock,
}

/// What opening the journal took back.
#[derive(Debug)]
pub struct Recovered {
    /// The change's number.
    pub change: u64,
    /// What it is called.
    pub id: String,
    /// How it went.
    pub outcome: Result<Undone, ChangeError>,
}

/// What taking a change back did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Values that were set back.
    pub restored: Vec<String>,
    /// Values that were back already.
    pub already: Vec<String>,
    /// What is not there any more, and why.
    pub gone: Vec<String>,
}

/// What is found where a value was set.
enum Found {
    /// It can be set back.
    Ours,
    /// It is back.
    Back,
    /// Nothing is there any more.
    Gone(ChangeError),
}

impl Engine {
    /// Takes the lock, opens the journal, and takes back what was not finished or whose time is up.
    ///
    /// # Errors
    /// When another one holds the lock for too long, or the journal cannot be read, or is damaged.
    pub fn open(dir: &StateDir) -> Result<(Self, Vec<Recovered>), ChangeError> {
        dir.create()?;
        let lock = Lock::take(dir, WAIT)?;
        let mut engine = Self { journal: Journal::open(dir)?, _lock: lock };
        let due: Vec<_> = engine.journal.entries().iter().rev().filter(|e| e.is_due()).cloned().collect();
        let mut recovered = Vec::new();
        for entry in due {
            let why =
                if entry.state == State::Unfinished { "it was not finished" } else { "its time was up" };
            let Begin { change, id, .. } = entry.begin;
            recovered.push(Recovered { change, id, outcome: engine.undo(change, why, false) });
        }
        Ok((engine, recovered))
    }

    /// All changes, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.journal.entries()
    }

    /// Makes a change; its number.
    ///
    /// # Errors
    /// When it cannot be made whole. Everything is as it was then, but for [`ChangeError::Stuck`].
    pub fn apply(&mut self, plan: &Plan, until: Option<Until>) -> Result<u64, ChangeError> {
        plan.check()?;
        let change = self.journal.next();
        self.journal.begin(Begin {
            change,
            id: plan.id.clone(),
            why: plan.why.clone(),
            at_unix_ns: now_unix_ns(),
            boot: boot(),
            steps: plan.steps.clone(),
            until,
        })?;
        let made = plan.steps.iter().enumerate().try_for_each(|(n, step)| self.make(change, n, step));
        let done = made.and_then(|()| Ok(self.journal.done(change)?));
        done.map(|()| change).map_err(|failure| self.back_out(change, failure))
    }

    /// Sets one value and reads it back.
    fn make(&mut self, change: u64, n: usize, step: &Step) -> Result<(), ChangeError> {
        let kind = kind_of(step)?;
        fault::point();
        let now = read(step)?;
        if !kind.is_same(&step.before, &now) {
            return Err(ChangeError::Meanwhile { what: step.to_string(), now });
        }
        kind.within(&step.place, || (kind.write)(&step.key, &step.before, &step.after))?;
        fault::point();
        let now = read(step)?;
        if !kind.is_same(&step.after, &now) {
            if !(kind.is_made_of)(&step.key, &step.after, &now) {
                let error = std::io::Error::other(format!("it is `{now}` afterwards"));
                return Err(ChangeError::Refused {
                    what: step.to_string(),
                    value: step.after.clone(),
                    error,
                });
            }
            self.journal.found(change, n, now)?;
        }
        kind.within(&step.place, || (kind.trial)(&step.key, &step.before, &step.after))
    }

    /// After a failure; what is to be told of it.
    fn back_out(&mut self, change: u64, failure: ChangeError) -> ChangeError {
        match self.undo(change, &format!("it failed: {failure}"), false) {
            // A journal that cannot be written to any more is no matter when the values are back.
            Ok(_) | Err(ChangeError::Journal(_)) => failure,
            Err(undo) => ChangeError::Stuck {
                failure: failure.to_string(),
                undo: undo.to_string(),
                steps: self.left_of(change),
            },
        }
    }

    /// What of a change is still set, as what is to be done by hand.
    #[must_use]
    pub fn left_of(&self, change: u64) -> Vec<String> {
        let entry = self.journal.entries().iter().find(|e| e.begin.change == change);
        let steps = entry.map_or(&[][..], |e| &e.begin.steps).iter().rev();
        let is_set = |step: &&Step| !matches!(look(step, false), Ok(Found::Back | Found::Gone(_)));
        steps.filter(is_set).map(|s| format!("set {s} back to `{}`", s.before)).collect()
    }

    /// Takes a change back.
    ///
    /// # Errors
    /// When there is none of that number, a value is not what was set (and not `force`), or the kernel refuses. What could be
    /// set back is; to be told of the rest, call it again.
    pub fn undo(&mut self, change: u64, why: &str, force: bool) -> Result<Undone, ChangeError> {
        let entries = self.journal.entries();
        let entry = entries.iter().find(|e| e.begin.change == change).ok_or(ChangeError::NoChange(change))?;
        if !entry.is_active() {
            return Ok(Undone::default());
        }
        let steps = entry.begin.steps.clone();
        let unfinished = entry.state == State::Unfinished;
        for step in &steps {
            // Taken back out of order, a value would come back that no change is known for.
            if let Some(later) = self.later(change, step) {
                return Err(ChangeError::Later { what: step.to_string(), later });
            }
        }
        // First all are looked at: a conflict must not leave half of a change.
        for step in steps.iter().rev().filter(|_| !force) {
            look(step, unfinished)?;
        }
        let mut undone = Undone::default();
        for step in steps.iter().rev() {
            fault::point();
            restore(step, unfinished, force, &mut undone)?;
            fault::point();
        }
        self.journal.undone(change, why)?;
        Ok(undone)
    }

    /// The latest change of the same value that is in force.
    fn later(&self, change: u64, step: &Step) -> Option<u64> {
        let newer = self.journal.entries().iter().filter(|e| e.begin.change > change && e.is_active());
        newer.filter(|e| e.begin.steps.iter().any(|s| s.is_of(step))).map(|e| e.begin.change).max()
    }

    /// Takes the time limit off a change: it stays.
    ///
    /// # Errors
    /// When there is none of that number that is in force, or the journal cannot be written.
    pub fn keep(&mut self, change: u64) -> Result<(), ChangeError> {
        let is_it = |e: &&Entry| e.begin.change == change && e.is_active();
        self.journal.entries().iter().find(is_it).ok_or(ChangeError::NoChange(change))?;
        Ok(self.journal.kept(change)?)
    }
}

fn kind_of(step: &Step) -> Result<&'static Kind, ChangeError> {
    kinds::find(&step.kind)
}

/// What a value is now.
pub(super) fn read(step: &Step) -> Result<String, ChangeError> {
    let kind = kind_of(step)?;
    kind.within(&step.place, || (kind.read)(&step.key))
}

/// Whether a value is as it was set, for people and programs, and what it is now.
#[must_use]
pub fn now_of(step: &Step) -> (&'static str, Option<String>) {
    let now = match read(step) {
        Ok(now) => now,
        Err(error) => return (if error.is_gone() { "gone" } else { "changed-by-others" }, None),
    };
    let state = match told_apart(step, &now, false) {
        Ok(Found::Back) => "as-before",
        Ok(_) => "as-set",
        Err(_) => "changed-by-others",
    };
    (state, Some(now))
}

/// What is there where a value was set.
fn look(step: &Step, unfinished: bool) -> Result<Found, ChangeError> {
    match read(step) {
        Ok(now) => told_apart(step, &now, unfinished),
        Err(error) if error.is_gone() => Ok(Found::Gone(error)),
        Err(error) => Err(error),
    }
}

/// Whose a value is that was read.
fn told_apart(step: &Step, now: &str, unfinished: bool) -> Result<Found, ChangeError> {
    let kind = kind_of(step)?;
    let made = || {
        unfinished
            && ((kind.is_made_of)(&step.key, &step.after, now) || is_between(now, &step.before, &step.after))
    };
    if kind.is_same(&step.before, now) {
        Ok(Found::Back)
    } else if kind.is_same(&step.after, now) || made() {
        Ok(Found::Ours)
    } else {
        Err(ChangeError::Conflict {
            what: step.to_string(),
            set: step.show(&step.after),
            now: step.show(now),
            before: step.show(&step.before),
        })
    }
}

/// Whether each word is that of before or that of after: the kernel takes lists of numbers one by one.
fn is_between(now: &str, before: &str, after: &str) -> bool {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (now, before, after) = (words(now), words(before), words(after));
    let each = now.iter().zip(&before).zip(&after).all(|((n, b), a)| n == b || n == a);
    now.len() > 1 && now.len() == before.len() && now.len() == after.len() && each
}

fn restore(step: &Step, unfinished: bool, force: bool, undone: &mut Undone) -> Result<(), ChangeError> {
    let kind = kind_of(step)?;
    match look(step, unfinished) {
        Ok(Found::Back) => undone.already.push(step.to_string()),
        Ok(Found::Gone(error)) => undone.gone.push(error.to_string()),
        Err(error) if !(force && matches!(error, ChangeError::Conflict { .. })) => return Err(error),
        Ok(Found::Ours) | Err(_) => {
            kind.within(&step.place, || (kind.write)(&step.key, &step.after, &step.before))?;
            let now = read(step)?;
            if !kind.is_same(&step.before, &now) {
                let error = std::io::Error::other(format!("it is `{}` afterwards", step.show(&now)));
                let value = step.show(&step.before);
                return Err(ChangeError::Refused { what: step.to_string(), value, error });
            }
            undone.restored.push(step.to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
