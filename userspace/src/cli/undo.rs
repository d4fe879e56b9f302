//! `rollback`, `keep`, `changes`, `status` and the guard: what was changed, and back.

use super::{
    Exit,
    commands::{Failure, print, say},
};
use crate::change::{
    ChangeError, Engine, Entry, Journal, JournalError, Now, Recovered, State, StateDir, Step, Undone, now_of,
    watch,
};
use crate::report::units;
use anyhow::{Context as _, anyhow};
use serde::Serialize;
use std::{io, path::Path, time::Duration};

/// Takes back what an earlier process left unfinished, or whose time is up, and says so.
pub(super) fn recover(dir: &StateDir) -> Result<(), Failure> {
    if !dir.has_journal() {
        return Ok(());
    }
    let due = Journal::look(dir)?.iter().any(Entry::is_due);
    if due { tell(&Engine::open(dir)?.1) } else { Ok(()) }
}

/// Says what was taken back. What could not be is a failure.
pub(super) fn tell(recovered: &[Recovered]) -> Result<(), Failure> {
    let failed = tell_all(recovered);
    failed.map_or(Ok(()), |why| {
        Err(Failure::usage(anyhow!("{why}; `nettrace rollback` takes changes back one by one")))
    })
}

/// Says what was taken back, and what could not be; one of these.
fn tell_all(recovered: &[Recovered]) -> Option<String> {
    let mut failed = None;
    for Recovered { change, id, outcome } in recovered {
        match outcome {
            Ok(undone) => say(&format!(
                "change {change}, {id}, was left unfinished or its time is up: taken back{}",
                summary(undone)
            )),
            Err(error) => {
                let why = format!("change {change}, {id}, has to be taken back and cannot be: {error}");
                say(&why);
                failed.get_or_insert(format!("change {change} has to be taken back first"));
            }
        }
    }
    failed
}

fn summary(undone: &Undone) -> String {
    let Undone { restored, already, gone } = undone;
    let mut parts = Vec::new();
    for (what, word) in [(restored, "set back"), (already, "as before already"), (gone, "gone")] {
        if !what.is_empty() {
            parts.push(format!("{word}: {}", what.join(", ")));
        }
    }
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
}

/// `nettrace rollback`.
pub(super) fn rollback(
    state_dir: Option<&Path>,
    asked: &[String],
    all: bool,
    force: bool,
) -> Result<Exit, Failure> {
    let dir = StateDir::new(state_dir);
    if !dir.has_journal() {
        return none_yet(&dir, asked);
    }
    let (mut engine, recovered) = Engine::open(&dir)?;
    tell_all(&recovered);
    let active: Vec<_> = engine.entries().iter().filter(|e| e.is_active()).cloned().collect();
    let changes = if all {
        active.iter().rev().map(|e| e.begin.change).collect()
    } else {
        numbers(engine.entries(), asked)?
    };
    if changes.is_empty() {
        if recovered.is_empty() {
            say("nothing was left unfinished");
        }
        if !active.is_empty() && !all {
            say(&format!("in force: {}; name one, or --all", list(&active)));
        }
        return Ok(Exit::Ok);
    }
    for change in changes {
        let undone = engine.undo(change, "asked for", force).map_err(|error| left(&engine, change, error))?;
        let nothing = undone == Undone::default();
        say(&format!(
            "change {change}: {}{}",
            if nothing { "was taken back before" } else { "taken back" },
            summary(&undone)
        ));
    }
    Ok(Exit::Ok)
}

/// An error with what is left to be done.
fn left(engine: &Engine, change: u64, error: ChangeError) -> Failure {
    let steps = engine.left_of(change);
    if steps.is_empty() {
        return error.into();
    }
    Failure::from(error)
        .with(format!("change {change} is not taken back; left to do:\n  {}\n", steps.join("\n  ")))
}

fn list(entries: &[Entry]) -> String {
    entries.iter().map(|e| format!("{} ({})", e.begin.change, e.begin.id)).collect::<Vec<_>>().join(", ")
}

fn none_yet(dir: &StateDir, asked: &[String]) -> Result<Exit, Failure> {
    if asked.is_empty() {
        say(&format!("nothing was ever changed ({} is not there)", dir.path().display()));
        return Ok(Exit::Ok);
    }
    Err(Failure::usage(anyhow!("there is no change {}: nothing was ever changed", asked.join(", "))))
}

/// Numbers of changes, the newest first: a finding's id stands for all that are in force of it.
fn numbers(entries: &[Entry], asked: &[String]) -> Result<Vec<u64>, Failure> {
    let mut found = Vec::new();
    for word in asked {
        let of_it = |e: &&Entry| match word.parse::<u64>() {
            Ok(number) => e.begin.change == number,
            Err(_) => e.begin.id == *word && e.is_active(),
        };
        let before = found.len();
        found.extend(entries.iter().filter(of_it).map(|e| e.begin.change));
        if found.len() == before {
            let active: Vec<_> = entries.iter().filter(|e| e.is_active()).cloned().collect();
            let hint = if active.is_empty() {
                "nothing is in force".to_owned()
            } else {
                format!("in force: {}", list(&active))
            };
            return Err(Failure::usage(anyhow!("there is no change {word} in force; {hint}")));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.dedup();
    Ok(found)
}

/// `nettrace keep`.
pub(super) fn keep(state_dir: Option<&Path>, asked: &[String]) -> Result<Exit, Failure> {
    let dir = StateDir::new(state_dir);
    if !dir.has_journal() {
        return none_yet(&dir, asked);
    }
    let (mut engine, recovered) = Engine::open(&dir)?;
    tell_all(&recovered);
    let limited = |e: &&Entry| e.is_active() && e.begin.until.is_some();
    let changes = match asked {
        [] => engine.entries().iter().filter(limited).map(|e| e.begin.change).collect(),
        asked => numbers(engine.entries(), asked)?,
    };
    if changes.is_empty() {
        say("no change has a time limit");
    }
    for change in changes {
        engine.keep(change)?;
        say(&format!("change {change} stays; `nettrace rollback {change}` takes it back"));
    }
    Ok(Exit::Ok)
}

/// `nettrace guard`: what is taken back is in the journal; there is nobody to be told.
pub(super) fn guard(state_dir: Option<&Path>) -> Result<Exit, Failure> {
    watch(&StateDir::new(state_dir), |_| {})?;
    Ok(Exit::Ok)
}

/// `nettrace changes`: the journal.
pub(super) fn changes(state_dir: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let entries = Journal::look(&StateDir::new(state_dir))?;
    if json {
        return write_json(&entries);
    }
    if entries.is_empty() {
        say("nothing was ever changed");
    }
    print(|out| entries.iter().try_for_each(|entry| write_entry(out, entry)))
}

fn write_json(value: &impl Serialize) -> Result<Exit, Failure> {
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    print(|out| writeln!(out, "{text}"))
}

fn write_entry(out: &mut dyn io::Write, entry: &Entry) -> io::Result<()> {
    let state = match &entry.state {
        State::Unfinished => "not finished: the next command takes it back".to_owned(),
        State::Done => match &entry.begin.until {
            None => "in force".to_owned(),
            Some(until) => until.left_ns().map_or_else(
                || "its time is up: the next command takes it back".to_owned(),
                |ns| format!("in force for {} s more", Duration::from_nanos(ns).as_secs()),
            ),
        },
        State::Undone { why, .. } => format!("taken back: {why}"),
    };
    writeln!(
        out,
        "{:>4}  {}  {}: {state}",
        entry.begin.change,
        units::utc(entry.begin.at_unix_ns),
        entry.begin.id
    )?;
    for step in &entry.begin.steps {
        writeln!(out, "      {step}: {} -> {}", step.show(&step.before), step.show(&step.after))?;
    }
    Ok(())
}

/// A value that is in force, and what it is now.
#[derive(Serialize)]
struct InForce<'a> {
    change: u64,
    id: &'a str,
    what: String,
    before: &'a str,
    set: &'a str,
    /// None where it cannot be told.
    now: Option<String>,
    /// Why it cannot be told.
    error: Option<String>,
    state: Now,
    left_s: Option<u64>,
}

/// `nettrace status`: what is in force, and whether it is still so. Exit code 0 when all is as it was set.
pub(super) fn status(state_dir: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let entries = Journal::look(&StateDir::new(state_dir))?;
    let active: Vec<_> = entries.iter().filter(|e| e.is_active()).collect();
    // Of values that were changed more than once, the newest change tells.
    let is_newest = |e: &Entry, step: &Step| {
        let mut newer = active.iter().filter(|other| other.begin.change > e.begin.change);
        !newer.any(|other| other.begin.steps.iter().any(|s| s.is_of(step)))
    };
    let steps = active.iter().flat_map(|e| e.begin.steps.iter().map(move |step| (*e, step)));
    let values: Vec<_> =
        steps.filter(|(e, step)| is_newest(e, step)).map(|(e, step)| in_force(e, step)).collect();
    if json {
        write_json(&values)?;
    } else if values.is_empty() {
        say("nothing is changed");
    } else {
        print(|out| values.iter().try_for_each(|value| write_in_force(out, value)))?;
    }
    Ok(if values.iter().all(|v| v.state == Now::AsSet) { Exit::Ok } else { Exit::Failed })
}

fn in_force<'a>(entry: &'a Entry, step: &'a Step) -> InForce<'a> {
    let (state, told) = if entry.begin.is_over(step) {
        (Now::Gone, "with the machine's restart".to_owned())
    } else {
        now_of(step)
    };
    let (now, error) = match state {
        Now::Gone | Now::Unknown => (None, Some(told)),
        Now::AsSet | Now::AsBefore | Now::ChangedByOthers => (Some(told), None),
    };
    InForce {
        change: entry.begin.change,
        id: &entry.begin.id,
        what: step.to_string(),
        before: &step.before,
        set: &step.after,
        now,
        error,
        state,
        left_s: entry.begin.until.as_ref().map(|u| Duration::from_nanos(u.left_ns().unwrap_or(0)).as_secs()),
    }
}

fn write_in_force(out: &mut dyn io::Write, value: &InForce<'_>) -> io::Result<()> {
    let told = value.now.as_deref().or(value.error.as_deref()).unwrap_or_default();
    let state = match value.state {
        Now::AsSet => format!("{told}, as it was set"),
        Now::AsBefore => format!("{told}, as it was before the change: somebody set it back"),
        Now::Gone => format!("not there any more: {told}"),
        Now::ChangedByOthers => format!("{told}, which somebody else set"),
        Now::Unknown => format!("not known: {told}"),
    };
    let limit = value.left_s.map(|s| format!("; {s} s left")).unwrap_or_default();
    writeln!(out, "{:>4}  {}  {}: {state}{limit}", value.change, value.id, value.what)
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        ChangeError::from(error).into()
    }
}
