//! Options of the resolver, in a resolv.conf that nobody else writes.

use super::{super::atomic, ChangeError, Kind, as_written, no_link, no_trial, number};
use std::{fs, path::Path};

pub(super) const KIND: Kind = Kind {
    name: "resolv",
    key: "OPTION",
    value: "NUMBER|on|off",
    about: "An option of the host's /etc/resolv.conf, where that is a file that no program writes: ndots, timeout, attempts; \
            single-request, single-request-reopen, use-vc.",
    example: "resolv:ndots=2",
    of_machine: true,
    read,
    plan,
    write,
    is_made_of: as_written,
    trial: no_trial,
    shown,
    link: no_link,
};

pub(super) const FILE: &str = "/etc/resolv.conf";
/// Options with a number, and the most that glibc takes (resolv.h: RES_MAXNDOTS, RES_MAXRETRANS, RES_MAXRETRY).
const NUMBERS: &[(&str, u32)] = &[("ndots", 15), ("timeout", 30), ("attempts", 5)];
/// Options that are there or not.
const FLAGS: &[&str] = &["single-request", "single-request-reopen", "use-vc"];
/// Those who write the file say so in it.
const WRITERS: &[&str] = &[
    "systemd-resolved",
    "NetworkManager",
    "resolvconf",
    "dhclient",
    "dhcpcd",
    "netconfig",
    "cloud-init",
    "connman",
];

fn text() -> Result<String, ChangeError> {
    fs::read_to_string(FILE).map_err(|error| match owner() {
        Some(owner) => foreign("its options", "", &owner),
        None => ChangeError::of(FILE, "", error),
    })
}

fn foreign(option: &str, wanted: &str, owner: &str) -> ChangeError {
    ChangeError::Value {
        what: format!("{option} in {FILE}"),
        value: wanted.to_owned(),
        why: format!("it belongs to {owner}, who would overwrite it: change the option there"),
    }
}

/// The whole file: what is restored is every byte of it.
fn read(_: &str) -> Result<String, ChangeError> {
    text()
}

/// Whose file it is, when it is not the administrator's.
pub(in crate::change) fn owner() -> Option<String> {
    if fs::symlink_metadata(FILE).is_ok_and(|m| m.file_type().is_symlink()) {
        let to = fs::read_link(FILE).map(|to| to.display().to_string()).unwrap_or_default();
        return Some(format!("whoever writes {to}, to which {FILE} is a link"));
    }
    let text = fs::read_to_string(FILE).ok()?;
    let comments = text.lines().filter(|l| l.starts_with(['#', ';'])).collect::<Vec<_>>().join("\n");
    WRITERS.iter().find(|name| comments.contains(**name)).map(|name| (*name).to_owned())
}

fn plan(option: &str, wanted: &str, now: &str) -> Result<String, ChangeError> {
    if let Some(owner) = owner() {
        return Err(foreign(option, wanted, &owner));
    }
    let what = format!("{option} in {FILE}");
    let word = match NUMBERS.iter().find(|(name, _)| *name == option) {
        Some((_, most)) => Some(format!("{option}:{}", number(&what, wanted, 0, *most)?)),
        None if FLAGS.contains(&option) => match wanted {
            "on" => Some(option.to_owned()),
            "off" => None,
            _ => {
                return Err(ChangeError::Value {
                    what,
                    value: wanted.to_owned(),
                    why: "it is on or off".to_owned(),
                });
            }
        },
        None => return Err(ChangeError::Form { found: format!("resolv:{option}"), expected: KIND.syntax() }),
    };
    Ok(with(now, option, word.as_deref()))
}

/// The file with an option set, or not; the last `options` line has the last word, and all of them are one list.
fn with(text: &str, option: &str, word: Option<&str>) -> String {
    let is_it = |w: &str| w.split(':').next() == Some(option);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_options = |line: &str| line.split_whitespace().next() == Some("options");
    for line in lines.iter_mut().filter(|line| is_options(line)) {
        if line.split_whitespace().any(is_it) {
            *line = line.split_whitespace().filter(|w| !is_it(w)).collect::<Vec<_>>().join(" ");
        }
    }
    lines.retain(|line| line != "options");
    if let Some(word) = word {
        match lines.iter_mut().rev().find(|line| is_options(line)) {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(format!("options {word}")),
        }
    }
    lines.join("\n") + "\n"
}

fn write(_: &str, _: &str, value: &str) -> Result<(), ChangeError> {
    atomic::replace(Path::new(FILE), value.as_bytes(), 0o644)
        .map_err(|error| ChangeError::of_write(FILE, "", error))
}

fn shown(value: &str) -> String {
    let options = value.lines().filter(|line| line.starts_with("options"));
    let shown: Vec<_> = options.collect();
    if shown.is_empty() { "no options".to_owned() } else { shown.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::with;

    #[test]
    fn an_option_is_set_once_and_the_rest_stays() {
        let text = "# mine\nnameserver 10.0.0.10\noptions ndots:5 timeout:1\n";
        assert_eq!(
            with(text, "ndots", Some("ndots:2")),
            "# mine\nnameserver 10.0.0.10\noptions timeout:1 ndots:2\n"
        );
        assert_eq!(with("nameserver ::1\n", "use-vc", Some("use-vc")), "nameserver ::1\noptions use-vc\n");
        assert_eq!(with("options use-vc\n", "use-vc", None), "\n");
        assert_eq!(
            with("options single-request-reopen\n", "single-request", None),
            "options single-request-reopen\n"
        );
    }
}
