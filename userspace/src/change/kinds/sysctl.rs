//! Settings below `/proc/sys/net`, of the network namespace.

use super::{ChangeError, Kind, no_trial};
use std::{fs, path::PathBuf};

pub(super) const KIND: Kind = Kind {
    name: "sysctl",
    key: "NAME",
    value: "VALUE",
    about: "A setting of the kernel's network stack, as sysctl(8) names it.",
    example: "sysctl:net.core.somaxconn=4096",
    of_machine: false,
    read,
    plan,
    write,
    is_made_of,
    trial: no_trial,
    shown,
    link: link_of,
};

/// Setting these sets others, too, which would not be set back: each has its reason in the kernel.
const CASCADES: &[(&str, &str)] = &[
    ("net.ipv4.neigh.default.", "interfaces that are added later take it, and keep it"),
    ("net.ipv6.neigh.default.", "interfaces that are added later take it, and keep it"),
    (
        "net.ipv4.ip_forward",
        "it sets net.ipv4.conf.*.forwarding of all interfaces, and more (inet_forward_change)",
    ),
    ("net.ipv4.conf.all.", "some of these set those of all interfaces"),
    ("net.ipv4.conf.default.", "interfaces that are added later take it, and keep it"),
    (
        "net.ipv6.conf.all.",
        "some of these set those of all interfaces (addrconf_fixup_forwarding, dev_disable_change)",
    ),
    ("net.ipv6.conf.default.", "interfaces that are added later take it, and keep it"),
];

/// The same of settings of one interface, and of keys, by the last part of their names.
const CASCADING_ENDS: &[(&str, &str)] = &[
    (".disable_ipv6", "the interface loses its IPv6 addresses and routes, which do not come back"),
    (".forwarding", "it removes routes that routers advertised, or switches LRO off, for good"),
    (".addr_gen_mode", "it makes and removes link-local addresses"),
    (".stable_secret", "it can be set once"),
    (".tcp_fastopen_key", "a key that was never set cannot be unset"),
];

/// The hash table has whole pages of heads (nf_ct_alloc_hashtable), and pages have at most 64 KiB, of 8 bytes each.
const MOST_ROUNDED: u64 = 8192;
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";

/// A name as the kernel has it, however it is typed.
pub(super) fn canonical(name: &str) -> String {
    path(name).map_or_else(|_| name.to_owned(), |path| path.display().to_string())
}

/// Where a setting is. As in sysctl(8): when the first separator is a dot, dots and slashes are swapped, so that names of
/// interfaces can have dots.
fn path(name: &str) -> Result<PathBuf, ChangeError> {
    let bad = |why: &str| ChangeError::Value {
        what: "the name of a kernel setting".to_owned(),
        value: name.to_owned(),
        why: why.to_owned(),
    };
    let dots = name.find(['.', '/']).is_some_and(|at| name.as_bytes().get(at) == Some(&b'.'));
    let swap = |c| match c {
        '.' if dots => '/',
        '/' if dots => '.',
        other => other,
    };
    let relative: String = name.chars().map(swap).collect();
    let parts = || relative.split('/');
    if parts().any(|part| matches!(part, "" | "." | "..")) || relative.chars().any(char::is_control) {
        return Err(bad("it must be a name such as net.core.somaxconn"));
    }
    if parts().next() != Some("net") || parts().count() < 2 {
        return Err(bad("nettrace changes only what is below net."));
    }
    let dotted = relative.replace('/', ".");
    if let Some((_, why)) = CASCADES.iter().find(|(prefix, _)| dotted.starts_with(prefix)) {
        return Err(ChangeError::Unrestorable { what: name.to_owned(), why: (*why).to_owned() });
    }
    if let Some((_, why)) = CASCADING_ENDS.iter().find(|(end, _)| dotted.ends_with(end)) {
        return Err(ChangeError::Unrestorable { what: name.to_owned(), why: (*why).to_owned() });
    }
    Ok(PathBuf::from("/proc/sys").join(relative))
}

/// Of settings of one interface, its name.
fn link_of(name: &str) -> Option<String> {
    let path = path(name).ok()?;
    let mut parts = path.strip_prefix("/proc/sys/net").ok()?.iter().filter_map(|part| part.to_str());
    let (_, group, link) = (parts.next()?, parts.next()?, parts.next()?);
    let is_link = matches!(group, "conf" | "neigh") && !matches!(link, "all" | "default");
    (is_link && parts.next().is_some()).then(|| link.to_owned())
}

fn read(name: &str) -> Result<String, ChangeError> {
    let text = fs::read(path(name)?).map_err(|error| ChangeError::of(name, "", error))?;
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\n').to_owned())
}

/// As many numbers as are there now; separated as they are.
fn plan(name: &str, wanted: &str, now: &str) -> Result<String, ChangeError> {
    let words: Vec<_> = wanted.split_whitespace().collect();
    let numbers = |text: &str| text.split_whitespace().all(|word| word.parse::<i64>().is_ok());
    let there = now.split_whitespace().count();
    if there > 0 && numbers(now) && (!numbers(wanted) || words.len() != there) {
        let expected = if there == 1 { "one number".to_owned() } else { format!("{there} numbers") };
        let why = format!("it is `{now}` now: {expected}");
        return Err(ChangeError::Value { what: name.to_owned(), value: wanted.to_owned(), why });
    }
    Ok(words.join(if now.contains('\t') { "\t" } else { " " }))
}

fn write(name: &str, _: &str, value: &str) -> Result<(), ChangeError> {
    fs::write(path(name)?, format!("{value}\n")).map_err(|error| ChangeError::of_write(name, value, error))
}

/// Whether two values have the same words.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

fn shown(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_made_of(name: &str, written: &str, found: &str) -> bool {
    let (Ok(written), Ok(found)) = (written.parse::<u64>(), found.parse::<u64>()) else { return false };
    name == BUCKETS && found >= written && found - written < MOST_ROUNDED
}
