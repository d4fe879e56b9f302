//! What is there where a value was set, and whose it is.

use super::{ChangeError, Kind, Step, kinds};
use crate::rtnl;
use serde::Serialize;

/// What is found where a value was set.
pub(super) enum Found {
    /// It can be set back.
    Ours,
    /// It is back.
    Back,
    /// Nothing is there any more.
    Gone(ChangeError),
}

/// Whether a value is as it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Now {
    /// It is.
    AsSet,
    /// It is as it was before the change.
    AsBefore,
    /// It is neither.
    ChangedByOthers,
    /// What it is of is not there any more.
    Gone,
    /// It cannot be read.
    Unknown,
}

pub(super) fn kind_of(step: &Step) -> Result<&'static Kind, ChangeError> {
    kinds::find(&step.kind)
}

/// What a value is now.
pub(super) fn read(step: &Step) -> Result<String, ChangeError> {
    let kind = kind_of(step)?;
    kind.within(&step.place, || {
        same_link(kind, step)?;
        (kind.read)(&step.key)
    })
}

/// Another interface may have its name by now, or it another name: what is set there is not what was changed.
fn same_link(kind: &Kind, step: &Step) -> Result<(), ChangeError> {
    let Some((index, name)) = step.ifindex.zip((kind.link)(&step.key)) else { return Ok(()) };
    if rtnl::link(&name).is_ok_and(|link| link.index == index) {
        return Ok(());
    }
    match rtnl::name(index) {
        Ok(now) => Err(ChangeError::Renamed { what: step.to_string(), link: name, now }),
        Err(error) => Err(ChangeError::of(&format!("interface {name} that was changed"), "", error)),
    }
}

/// Whether a value is as it was set, and what it is now, or why that is not known.
#[must_use]
pub fn now_of(step: &Step) -> (Now, String) {
    match read(step) {
        Ok(now) => match told_apart(step, &now, false) {
            Ok(Found::Back) => (Now::AsBefore, step.show(&now)),
            Ok(_) => (Now::AsSet, step.show(&now)),
            Err(_) => (Now::ChangedByOthers, step.show(&now)),
        },
        Err(error) => (if error.is_gone() { Now::Gone } else { Now::Unknown }, error.to_string()),
    }
}

/// What is there where a value was set.
pub(super) fn look(step: &Step, unfinished: bool) -> Result<Found, ChangeError> {
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
pub(super) fn is_between(now: &str, before: &str, after: &str) -> bool {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (now, before, after) = (words(now), words(before), words(after));
    let each = now.iter().zip(&before).zip(&after).all(|((n, b), a)| n == b || n == a);
    now.len() > 1 && now.len() == before.len() && now.len() == after.len() && each
}
