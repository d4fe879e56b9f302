//! What can be changed: [`KINDS`], the one table. Another kind is a row here and a file beside the others.

mod ethtool;
mod file;
mod mtu;
mod ping;
mod qdisc;
mod resolv;
mod route;
mod rps;
mod sysctl;
pub(super) mod tuned;

use super::{ChangeError, Place, Step};
use crate::rtnl::{self, Link, Raw};
use std::path::PathBuf;

/// One kind of change. Its functions run in the network namespace that is to be changed, on a thread of their own.
pub struct Kind {
    /// Its name, as it is typed.
    pub name: &'static str,
    /// What its key is, in capitals.
    pub key: &'static str,
    /// What its value is, in capitals.
    pub value: &'static str,
    /// What it changes.
    pub about: &'static str,
    /// One that can be typed.
    pub example: &'static str,
    /// Whether it is the machine's, and not a network namespace's.
    pub(crate) of_machine: bool,
    /// What is there now, exactly, in a form of the kind's own.
    pub(super) read: fn(&str) -> Result<String, ChangeError>,
    /// Key, value as typed, and what is there now, to what will be there. Refuses what makes no sense or could not be restored.
    pub(super) plan: fn(&str, &str, &str) -> Result<String, ChangeError>,
    /// Key, what is there, and what is to be there: sets it, in one step as far as the kernel can.
    pub(super) write: fn(&str, &str, &str) -> Result<(), ChangeError>,
    /// Key, what was written, and what is there: whether the kernel makes that of it.
    pub(super) is_made_of: fn(&str, &str, &str) -> bool,
    /// Key, what was there and what is there now: whether it works. When not, all is taken back.
    pub(super) trial: fn(&str, &str, &str) -> Result<(), ChangeError>,
    /// A value as people read it.
    pub(super) shown: fn(&str) -> String,
    /// The interface that a key is of.
    pub(super) link: fn(&str) -> Option<String>,
}

impl Kind {
    /// Whether two values are one: the kernel separates numbers by tabs, people by spaces.
    pub(super) fn is_same(&self, one: &str, other: &str) -> bool {
        one == other || (self.name == sysctl::KIND.name && sysctl::is_same(one, other))
    }

    /// What a key is of: two keys of one resource are one value.
    pub(super) fn resource(&self, key: &str) -> String {
        match self.name {
            name if name == resolv::KIND.name => String::new(),
            name if name == sysctl::KIND.name => sysctl::canonical(key),
            _ => key.to_owned(),
        }
    }

    /// The file that a key is of.
    pub(super) fn file(&self, key: &str) -> Option<PathBuf> {
        match self.name {
            name if name == resolv::KIND.name => Some(resolv::FILE.into()),
            name if name == file::KIND.name => Some(key.into()),
            _ => None,
        }
    }

    /// Does something where the kind's values are: the machine's are anywhere.
    pub(super) fn within<T: Send>(
        &self,
        place: &Place,
        what: impl FnOnce() -> Result<T, ChangeError> + Send,
    ) -> Result<T, ChangeError> {
        if self.of_machine { what() } else { place.within(what) }
    }
}

/// All kinds.
pub const KINDS: &[Kind] = &[
    sysctl::KIND,
    qdisc::KIND,
    mtu::KIND,
    route::KIND,
    ethtool::RING,
    ethtool::COALESCE,
    rps::KIND,
    tuned::KIND,
    resolv::KIND,
    file::KIND,
];

/// One that `apply` does not offer by name: nettrace writes only files of its own.
const INNER: &str = file::KIND.name;

/// `KIND:KEY=VALUE`, taken apart.
pub struct Setting {
    /// Its kind.
    pub kind: &'static Kind,
    /// What is to be set.
    pub key: String,
    /// To what.
    pub value: String,
}

impl Kind {
    /// How it is typed: `sysctl:NAME=VALUE`.
    #[must_use]
    pub fn syntax(&self) -> String {
        let key = if self.key.is_empty() { String::new() } else { format!(":{}", self.key) };
        format!("{}{key}={}", self.name, self.value)
    }
}

/// Kinds that can be asked for by name.
pub fn offered() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| kind.name != INNER)
}

/// Takes `KIND:KEY=VALUE` apart.
///
/// # Errors
/// When it is not of that form, or there is no such kind.
pub(super) fn parse(text: &str) -> Result<Setting, ChangeError> {
    let form = || ChangeError::Form {
        found: text.to_owned(),
        expected: format!(
            "KIND:KEY=VALUE, like {}",
            offered().map(|k| k.example).collect::<Vec<_>>().join(", ")
        ),
    };
    let (what, value) = text.split_once('=').ok_or_else(form)?;
    let (name, key) = what.split_once(':').unwrap_or((what, ""));
    let kind = find(name).ok().filter(|kind| kind.name != INNER).ok_or_else(|| unknown(name))?;
    let value = value.trim();
    if kind.key.is_empty() != key.is_empty() || value.is_empty() {
        return Err(ChangeError::Form { found: text.to_owned(), expected: kind.syntax() });
    }
    Ok(Setting { kind, key: key.to_owned(), value: value.to_owned() })
}

pub(super) fn find(name: &str) -> Result<&'static Kind, ChangeError> {
    KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> ChangeError {
    let names: Vec<_> = offered().map(|kind| kind.name).collect();
    let hint = super::nearest(name, names.iter().copied());
    ChangeError::Kind {
        found: name.to_owned(),
        hint: hint.map(|near| format!(" (`{near}`?)")).unwrap_or_default(),
        kinds: names.join(", "),
    }
}

/// Where a setting is kept over a reboot, as another one; none for kinds that are not.
pub(super) fn kept_in(kind: &str, key: &str, value: &str) -> Option<Setting> {
    (kind == sysctl::KIND.name).then(|| file::of_sysctl(key, value))
}

/// Whether something that was set keeps a step's value over a restart.
pub(super) fn keeps(kind: &str, key: &str, step: &Step) -> bool {
    kind == INNER && kept_in(&step.kind, &step.key, &step.after).is_some_and(|file| file.key == key)
}

/// An interface by its name.
pub(super) fn link(name: &str) -> Result<Link, ChangeError> {
    rtnl::link(name).map_err(|error| ChangeError::of(&format!("interface {name}"), "", error))
}

/// Everything of a kind that netlink tells.
fn dump(what: &str, kind: u16, head: Vec<u8>) -> Result<Vec<Raw>, ChangeError> {
    rtnl::dump(kind, head).map_err(|error| ChangeError::System { what: what.to_owned(), error })
}

/// Keys that begin with an interface.
#[expect(clippy::unnecessary_wraps, reason = "a function of the table")]
fn before_colon(key: &str) -> Option<String> {
    Some(key.split(':').next().unwrap_or(key).to_owned())
}

/// Keys of no interface.
const fn no_link(_: &str) -> Option<String> {
    None
}

/// Most kinds' values are there as they were written.
const fn as_written(_: &str, _: &str, _: &str) -> bool {
    false
}

/// Most kinds need no trial.
#[expect(clippy::unnecessary_wraps, reason = "a function of the table")]
const fn no_trial(_: &str, _: &str, _: &str) -> Result<(), ChangeError> {
    Ok(())
}

/// Most kinds' values are people's.
fn plain(value: &str) -> String {
    value.to_owned()
}

/// A number of a range.
fn number(what: &str, value: &str, least: u32, most: u32) -> Result<u32, ChangeError> {
    let of = |why: String| ChangeError::Value { what: what.to_owned(), value: value.to_owned(), why };
    let number = value.parse().map_err(|_| of("it must be a whole number".to_owned()))?;
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(of(format!("it must be from {least} to {most}")))
}

#[cfg(test)]
mod tests;
