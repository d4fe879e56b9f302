//! Rings and interrupt coalescing of hardware.

use super::{ChangeError, Kind, as_written, before_colon, no_trial, number, plain};
use crate::ethtool::{
    COALESCING_WORDS, Ethtool, GET_COALESCING, GET_RINGS, RINGS_WORDS, SET_COALESCING, SET_RINGS, request,
};
use std::io;

pub(super) const RING: Kind = Kind {
    name: "ring",
    key: "INTERFACE:rx|tx",
    value: "PACKETS",
    about: "Packets that fit between an interface's driver and its hardware.",
    example: "ring:eth0:rx=4096",
    of_machine: false,
    read: read_ring,
    plan: plan_ring,
    write: write_ring,
    is_made_of: as_written,
    trial: no_trial,
    shown: plain,
    link: before_colon,
};

pub(super) const COALESCE: Kind = Kind {
    name: "coalesce",
    key: "INTERFACE:WHAT",
    value: "NUMBER",
    about: "How long an interface may hold an interrupt back: rx-usecs, tx-usecs (us), rx-frames, tx-frames (packets), adaptive-rx, \
            adaptive-tx (1 or 0).",
    example: "coalesce:eth0:rx-usecs=8",
    of_machine: false,
    read: read_coalescing,
    plan: plan_coalescing,
    write: write_coalescing,
    is_made_of: as_written,
    trial: no_trial,
    shown: plain,
    link: before_colon,
};

/// Words of `struct ethtool_ringparam`: what there can be at most, and what there is.
const RINGS: &[(&str, usize, usize)] = &[("rx", 1, 5), ("tx", 4, 8)];
/// Words of `struct ethtool_coalesce`, and the most that makes sense.
const COALESCING: &[(&str, usize, u32)] = &[
    ("rx-usecs", 1, 1_000_000),
    ("rx-frames", 2, 65_535),
    ("tx-usecs", 5, 1_000_000),
    ("tx-frames", 6, 65_535),
    ("adaptive-rx", 10, 1),
    ("adaptive-tx", 11, 1),
];

/// Interface and the rest; names of interfaces have no colons.
fn parts(key: &str, kind: &Kind) -> Result<(String, String), ChangeError> {
    let form = || ChangeError::Form { found: format!("{}:{key}", kind.name), expected: kind.syntax() };
    key.split_once(':').map(|(link, what)| (link.to_owned(), what.to_owned())).ok_or_else(form)
}

fn ask<const WORDS: usize>(
    what: &str,
    link: &str,
    mut words: [u32; WORDS],
) -> Result<[u32; WORDS], ChangeError> {
    let asked = Ethtool::open().and_then(|ethtool| ethtool.ask(link, &mut words));
    asked.map(|()| words).map_err(|error| match error.raw_os_error() {
        // A driver that is being reset says the same as an interface that is gone.
        Some(libc::ENODEV) if super::link(link).is_ok() => ChangeError::System {
            what: what.to_owned(),
            error: io::Error::other("the driver is being reset"),
        },
        _ => ChangeError::of(what, "", error),
    })
}

fn ring(key: &str) -> Result<(String, (usize, usize)), ChangeError> {
    let (link, side) = parts(key, &RING)?;
    let form = || ChangeError::Form { found: format!("ring:{key}"), expected: RING.syntax() };
    let (_, most, is) = RINGS.iter().find(|(name, ..)| *name == side).ok_or_else(form)?;
    Ok((link, (*most, *is)))
}

fn read_ring(key: &str) -> Result<String, ChangeError> {
    let (link, (_, is)) = ring(key)?;
    Ok(ask(&format!("ring {key}"), &link, request::<RINGS_WORDS>(GET_RINGS))?[is].to_string())
}

fn plan_ring(key: &str, wanted: &str, _: &str) -> Result<String, ChangeError> {
    let (link, (most, _)) = ring(key)?;
    let most = ask(&format!("ring {key}"), &link, request::<RINGS_WORDS>(GET_RINGS))?[most];
    Ok(number(&format!("the ring {key}"), wanted, 1, most)?.to_string())
}

fn write_ring(key: &str, _: &str, value: &str) -> Result<(), ChangeError> {
    let (link, (_, is)) = ring(key)?;
    let mut words = ask(&format!("ring {key}"), &link, request::<RINGS_WORDS>(GET_RINGS))?;
    words[0] = SET_RINGS;
    words[is] = number(&format!("the ring {key}"), value, 0, u32::MAX)?;
    set(key, &link, value, words)
}

fn coalescing(key: &str) -> Result<(String, usize, u32), ChangeError> {
    let (link, what) = parts(key, &COALESCE)?;
    let form = || ChangeError::Form { found: format!("coalesce:{key}"), expected: COALESCE.syntax() };
    let (_, word, most) = COALESCING.iter().find(|(name, ..)| *name == what).ok_or_else(form)?;
    Ok((link, *word, *most))
}

fn read_coalescing(key: &str) -> Result<String, ChangeError> {
    let (link, word, _) = coalescing(key)?;
    Ok(ask(&format!("coalesce {key}"), &link, request::<COALESCING_WORDS>(GET_COALESCING))?[word].to_string())
}

fn plan_coalescing(key: &str, wanted: &str, _: &str) -> Result<String, ChangeError> {
    let (_, _, most) = coalescing(key)?;
    Ok(number(&format!("coalescing {key}"), wanted, 0, most)?.to_string())
}

fn write_coalescing(key: &str, _: &str, value: &str) -> Result<(), ChangeError> {
    let (link, word, most) = coalescing(key)?;
    let mut words = ask(&format!("coalesce {key}"), &link, request::<COALESCING_WORDS>(GET_COALESCING))?;
    words[0] = SET_COALESCING;
    words[word] = number(&format!("coalescing {key}"), value, 0, most)?;
    set(key, &link, value, words)
}

fn set<const WORDS: usize>(
    what: &str,
    link: &str,
    value: &str,
    mut words: [u32; WORDS],
) -> Result<(), ChangeError> {
    let asked = Ethtool::open().and_then(|ethtool| ethtool.ask(link, &mut words));
    asked.map_err(|error| ChangeError::of_write(what, value, error))
}
