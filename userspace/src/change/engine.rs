//! Making changes and taking them back, with the journal first.
//!
//! The order of a change: record of what is about to be done, on disk; one value after the other, each read back; record that
//! it is done, on disk. Taking back goes the other way round, and may be begun again as often as it is interrupted: a value
//! that is back already is left alone. So whatever is not marked done is as it was after the next [`Engine::open`].

use super::{
    Begin, ChangeError, Entry, Journal, Plan, State, StateDir, Step, Until, atomic, fault,
    found::{Found, kind_of, look, read},
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
        let Some(entry) = self.journal.entries().iter().find(|e| e.begin.change == change) else {
            return Vec::new();
        };
        let is_set = |step: &&Step| {
            !entry.begin.is_over(step) && !matches!(look(step, false), Ok(Found::Back | Found::Gone(_)))
        };
        let left = entry.begin.steps.iter().rev().filter(is_set);
        left.map(|s| format!("set {s} back to `{}`", s.before)).collect()
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
        let unfinished = entry.state == State::Unfinished;
        let mut undone = Undone::default();
        let (over, steps): (Vec<_>, Vec<_>) =
            entry.begin.steps.iter().cloned().partition(|step| entry.begin.is_over(step));
        let steps =
            steps.into_iter().map(|step| entry.begin.found_again(step)).collect::<Result<Vec<_>, _>>()?;
        undone.gone.extend(over.iter().map(|step| format!("{step}, with the machine's restart")));
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
        let sets = |e: &&Entry| e.begin.steps.iter().any(|s| s.is_of(step) && !e.begin.is_over(s));
        newer.filter(sets).map(|e| e.begin.change).max()
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

fn restore(step: &Step, unfinished: bool, force: bool, undone: &mut Undone) -> Result<(), ChangeError> {
    let kind = kind_of(step)?;
    // Of a file that was begun to be written when the process was killed.
    kind.file(&step.key).iter().for_each(|path| atomic::tidy(path));
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
