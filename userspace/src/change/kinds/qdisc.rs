//! The queue of what an interface sends.
//!
//! The key is an interface, for the queue at its root, or an interface and a class, `eth0:1:10`, for one that somebody put
//! below a shaper, which stays. A kernel default can be restored by taking away what is in its place; a queue without classes by its kind, handle and
//! options as the kernel told them. Any other is left as it is, and so is one with filters, or with a table of sizes. Where an interface has several queues, each gets one of the
//! new kind, below `mq`: one queue at the root would have all CPUs wait for each other.

use super::rtnl::{self, Attributes as _, Raw};
use super::{ChangeError, Kind, before_colon, no_trial};
use crate::iface::Namespace;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use std::io;

pub(super) const KIND: Kind = Kind {
    name: "qdisc",
    key: "INTERFACE[:CLASS]",
    value: "KIND",
    about: "The queue of what an interface sends; of each of its queues, where it has several: fq, fq_codel, cake, sfq, \
            pfifo_fast, prio, or pfifo with a limit (`pfifo 100`).",
    example: "qdisc:eth0=fq_codel",
    of_machine: false,
    read,
    plan,
    write,
    is_made_of,
    trial: no_trial,
    shown,
    link: before_colon,
};

/// Those that can be put in place.
const OFFERED: &[&str] = &["fq", "fq_codel", "cake", "sfq", "pfifo_fast", "prio", "pfifo"];
/// Without classes, and set again by the options that the kernel tells of them.
const RESTORABLE: &[&str] = &["fq", "fq_codel", "pfifo_fast", "pfifo", "bfifo", "cake", "sfq"];

/// `struct tcmsg`, bytes.
const TCMSG_BYTES: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_STAB: u16 = 8;
const TCA_INGRESS_BLOCK: u16 = 13;
const TCA_EGRESS_BLOCK: u16 = 14;
/// What comes with a queue beside its options: words for each.
const BESIDE: &[(u16, &str)] = &[
    (TCA_STAB, "a table of sizes"),
    (TCA_INGRESS_BLOCK, "a block of filters"),
    (TCA_EGRESS_BLOCK, "a block of filters"),
];
/// `qth_min` of `struct tc_sfq_qopt_v1`: from there on it drops early, by state that is told in the options. Bytes.
const SFQ_RED_AT: usize = 32;
/// `TC_H_ROOT`
const ROOT: u32 = 0xffff_ffff;
/// Handles of ours, so that what was begun can be told from what others set: two for each place, one for where the other is
/// there. The same handle at two places would be one queue at both.
const OURS: u32 = 0x6e00;
const OURS_MASK: u32 = 0xff00;
/// `TCA_FQ_CODEL_TARGET`, `TCA_FQ_CODEL_INTERVAL`, `TCA_FQ_CODEL_CE_THRESHOLD`
const FQ_CODEL_TIMES: &[u16] = &[1, 3, 7];
/// How a default is written.
const DEFAULT: &str = "default";
/// Bands of `prio`, and the band of each priority (pkt_sched.h, prio2band of sch_prio and pfifo_fast).
const PRIO_BANDS: u32 = 3;
const PRIO_MAP: [u8; 16] = [1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1];

/// One queue, as the kernel tells it.
#[derive(Debug)]
struct Qdisc {
    kind: String,
    handle: u32,
    parent: u32,
    options: Vec<u8>,
    /// What it has beside them.
    beside: Option<&'static str>,
}

fn what(link: &str) -> String {
    format!("the queue of {link}")
}

fn tcmsg(index: i32, handle: u32, parent: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(handle.to_ne_bytes());
    bytes.extend(parent.to_ne_bytes());
    bytes.resize(TCMSG_BYTES, 0);
    bytes
}

fn parse(raw: &Raw) -> Option<(i32, Qdisc)> {
    let at = |n: usize| raw.payload.get(n..).and_then(rtnl::word);
    let of = |kind| rtnl::attributes(&raw.payload, TCMSG_BYTES).find(|(k, _)| *k == kind).map(|(_, v)| v);
    let kind = String::from_utf8_lossy(of(TCA_KIND)?.strip_suffix(&[0])?).into_owned();
    let options = of(TCA_OPTIONS).unwrap_or_default().to_owned();
    let beside = BESIDE.iter().find(|(attribute, _)| of(*attribute).is_some()).map(|(_, what)| *what);
    Some((at(4)?.cast_signed(), Qdisc { kind, handle: at(8)?, parent: at(12)?, options, beside }))
}

/// Interface, and the place at it: its root, or a class `MAJOR:MINOR`, in hexadecimal.
fn place(key: &str) -> Result<(&str, u32), ChangeError> {
    let Some((link, class)) = key.split_once(':') else { return Ok((key, ROOT)) };
    let number = |text: &str| u32::from_str_radix(text, 16).ok().filter(|n| *n <= 0xffff);
    let parent = class.split_once(':').and_then(|(major, minor)| Some(number(major)? << 16 | number(minor)?));
    let form = || ChangeError::Form { found: format!("qdisc:{key}"), expected: KIND.syntax() };
    parent.map(|parent| (link, parent)).ok_or_else(form)
}

/// All queues of an interface.
fn all(link: &str) -> Result<Vec<Qdisc>, ChangeError> {
    let index = super::link(link)?.index;
    let dumped = super::dump("list queues", libc::RTM_GETQDISC, tcmsg(index, 0, 0))?;
    // Kernels give those of all interfaces.
    Ok(dumped.iter().filter_map(parse).filter(|(of, _)| *of == index).map(|(_, qdisc)| qdisc).collect())
}

/// The one at a place, and those right below it.
fn root_and_leaves(key: &str) -> Result<(Qdisc, Vec<Qdisc>), ChangeError> {
    let (link, place) = place(key)?;
    let (mut roots, rest): (Vec<_>, Vec<_>) = all(link)?.into_iter().partition(|q| q.parent == place);
    // The kernel does not tell of what a class has by default.
    let missing = || ChangeError::Missing {
        what: what(key),
        error: io::Error::other("nobody put a queue there, and what the kernel did could not be put back"),
    };
    let root = roots.pop().ok_or_else(missing)?;
    let below = |q: &Qdisc| q.parent >> 16 == root.handle >> 16;
    let leaves = rest.into_iter().filter(below).collect();
    Ok((root, leaves))
}

/// `default KIND`, `HANDLE: KIND OPTIONS`, or of several queues `default mq of KIND, KIND, ...` and `HANDLE: mq of KIND
/// OPTIONS, KIND OPTIONS, ...`.
fn read(link: &str) -> Result<String, ChangeError> {
    let (root, mut leaves) = root_and_leaves(link)?;
    leaves.sort_by_key(|leaf| leaf.parent);
    if root.handle == 0 {
        let of: Vec<_> = leaves.iter().map(|leaf| leaf.kind.as_str()).collect();
        let of = if of.is_empty() { String::new() } else { format!(" of {}", of.join(", ")) };
        return Ok(format!("{DEFAULT} {}{of}", root.kind));
    }
    let handle = root.handle >> 16;
    if root.kind != "mq" {
        return Ok(format!("{handle:x}: {} {}", root.kind, hex(&root.options)));
    }
    let leaves: Vec<_> = leaves.iter().map(|leaf| format!("{} {}", leaf.kind, hex(&leaf.options))).collect();
    Ok(format!("{handle:x}: mq of {}", leaves.join(", ")))
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() { "-".to_owned() } else { bytes.iter().map(|b| format!("{b:02x}")).collect() }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if hex == "-" {
        return Some(Vec::new());
    }
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn plan(link: &str, wanted: &str, now: &str) -> Result<String, ChangeError> {
    let refuse = |why: String| ChangeError::Value { what: what(link), value: wanted.to_owned(), why };
    let (kind, limit) = wanted.split_once(' ').unwrap_or((wanted, ""));
    if !OFFERED.contains(&kind) {
        return Err(refuse(format!("it must be one of {}", OFFERED.join(", "))));
    }
    match (kind, limit) {
        ("pfifo", limit) => {
            super::number("the limit of pfifo", limit, 1, u32::MAX / 2)?;
        }
        (_, "") => {}
        _ => return Err(refuse(format!("{kind} is taken as it is, without options"))),
    }
    restorable(link, now)?;
    if !super::link(link_of(link)?)?.up {
        return Err(refuse("the interface is down, and gets its queue when it comes up".to_owned()));
    }
    let (root, leaves) = root_and_leaves(link)?;
    if let Some(why) = beside(link, &root, &leaves)? {
        return Err(ChangeError::Unrestorable { what: what(link), why });
    }
    let is_mq = root.kind == "mq";
    let is_so = |q: &Qdisc| q.kind == kind && kind != "pfifo";
    // The same kind already, by default or by somebody's choice.
    if is_so(&root) || is_mq && leaves.iter().all(is_so) {
        return Ok(now.to_owned());
    }
    let own = own_handle(place(link)?.1);
    let handle = if now.starts_with(&format!("{own:x}: ")) { own + 1 } else { own };
    if all(link_of(link)?)?.iter().any(|q| q.handle >> 16 == handle) {
        return Err(refuse(format!(
            "a queue with the handle {handle:x}: is there already, at another place"
        )));
    }
    let options = hex(&options_of(kind, limit));
    Ok(if is_mq {
        format!("{handle:x}: mq of {kind} {options}")
    } else {
        format!("{handle:x}: {kind} {options}")
    })
}

/// The first of ours for a place.
const fn own_handle(place: u32) -> u32 {
    let slot = if place == ROOT { 0 } else { 1 + (place & 0xffff) % 127 };
    OURS + slot * 2
}

fn link_of(key: &str) -> Result<&str, ChangeError> {
    place(key).map(|(link, _)| link)
}

/// Options that a kind cannot do without.
fn options_of(kind: &str, limit: &str) -> Vec<u8> {
    match kind {
        "prio" => [&PRIO_BANDS.to_ne_bytes()[..], &PRIO_MAP].concat(),
        "pfifo" => limit.parse::<u32>().unwrap_or(1000).to_ne_bytes().to_vec(),
        _ => Vec::new(),
    }
}

/// What of a queue and those below it would not come back.
fn beside(key: &str, root: &Qdisc, leaves: &[Qdisc]) -> Result<Option<String>, ChangeError> {
    let index = super::link(link_of(key)?)?.index;
    for queue in std::iter::once(root).chain(leaves) {
        if let Some(what) = queue.beside {
            return Ok(Some(format!("it has {what}")));
        }
        let early = queue.options.get(SFQ_RED_AT..).and_then(rtnl::word);
        if queue.kind == "sfq" && early.is_some_and(|bytes| bytes != 0) {
            return Ok(Some("it drops early, of which the kernel does not tell everything".to_owned()));
        }
        // Of those without a handle only the root can have filters: it is asked for by none.
        if queue.handle == 0 && queue.parent != ROOT {
            continue;
        }
        let filters = super::dump("list filters", libc::RTM_GETTFILTER, tcmsg(index, 0, queue.handle))?;
        if filters.iter().any(|filter| filter.kind == libc::RTM_NEWTFILTER) {
            return Ok(Some("it has filters, which would go with it".to_owned()));
        }
    }
    Ok(None)
}

/// Of defaults, the kind that the kernel would not make again by now.
fn stale(value: &str) -> Option<(String, String)> {
    let kinds = value.strip_prefix(DEFAULT)?.trim();
    let kinds = kinds.strip_prefix("mq of ").unwrap_or(kinds);
    let now = default_kind()?;
    // Some interfaces have none, whatever the default is.
    let stale = kinds.split(", ").find(|kind| !matches!(*kind, "noqueue" | "noop" | "mq") && *kind != now)?;
    Some((stale.to_owned(), now))
}

/// What the kernel gives interfaces by default; none where it does not tell, which it does not in other namespaces than the
/// first.
fn default_kind() -> Option<String> {
    let own = Namespace { name: "own".to_owned(), path: Some("/proc/self/ns/net".into()), wire: false };
    let read = own.within(|| std::fs::read_to_string("/proc/sys/net/core/default_qdisc"));
    Some(read.ok()?.ok()?.trim().to_owned())
}

/// Whether what is there can be put back exactly.
fn restorable(link: &str, now: &str) -> Result<(), ChangeError> {
    let no = |why: String| Err(ChangeError::Unrestorable { what: what(link), why });
    if let Some((kind, default)) = stale(now) {
        return no(format!("it is {kind} by default, and the default has become {default} since"));
    }
    let mut words = now.split_whitespace();
    match (words.next(), words.next()) {
        // Taking one away from a class leaves the class without any, and all its packets lost.
        (Some(DEFAULT), _) if link.contains(':') => no("nobody put a queue there".to_owned()),
        (Some(DEFAULT), Some("noop")) => no("the interface is down".to_owned()),
        (Some(DEFAULT), _) => Ok(()),
        (_, Some(kind)) if RESTORABLE.contains(&kind) => Ok(()),
        (_, Some(kind)) => {
            no(format!("{kind} may have classes and filters, of which the kernel does not tell everything"))
        }
        _ => no(format!("`{now}` is not understood")),
    }
}

fn write(key: &str, _: &str, value: &str) -> Result<(), ChangeError> {
    let (link, place) = place(key)?;
    let failed = |error| ChangeError::of_write(&what(link), &shown(value), error);
    let index = super::link(link)?.index;
    if let Some((kind, default)) = stale(value) {
        return Err(ChangeError::Refused {
            what: what(link),
            value: shown(value),
            error: io::Error::other(format!(
                "net.core.default_qdisc is {default} by now; set it to {kind} for as long as this takes"
            )),
        });
    }
    if value.starts_with(DEFAULT) {
        return rtnl::request(libc::RTM_DELQDISC, 0, tcmsg(index, 0, place)).map_err(failed);
    }
    let (handle, kind, options) =
        taken_apart(value).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
    let handle = handle << 16;
    let set = |parent, handle, kind: &str, options: &[u8]| {
        let mut payload = tcmsg(index, handle, parent);
        payload.attribute(TCA_KIND, &[kind.as_bytes(), &[0]].concat());
        if !options.is_empty() {
            payload.attribute(TCA_OPTIONS, &as_set(kind, options));
        }
        rtnl::request(libc::RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, payload)
    };
    let Some(kind) = kind.strip_prefix("mq of ") else {
        return set(place, handle, kind, &options).map_err(failed);
    };
    set(place, handle, "mq", &[]).map_err(failed)?;
    // Each of the queues that are in use; `mq` has just given them what it gives by default.
    let (_, leaves) = root_and_leaves(key)?;
    leaves.iter().try_for_each(|leaf| set(leaf.parent, 0, kind, &options)).map_err(failed)
}

/// Options as they have to be set to be told as they are. Times of codel are kept in units of 1024 ns, and rounded down both
/// when they are set and when they are told (codel_set_params, fq_codel_dump): one more comes back as it was.
fn as_set(kind: &str, options: &[u8]) -> Vec<u8> {
    let mut set = Vec::new();
    for (attribute, value) in rtnl::attributes(options, 0) {
        match rtnl::word(value) {
            Some(us) if kind == "fq_codel" && FQ_CODEL_TIMES.contains(&attribute) => {
                set.attribute(attribute, &us.saturating_add(1).to_ne_bytes());
            }
            _ => set.attribute(attribute, value),
        }
    }
    if kind == "fq_codel" { set } else { options.to_owned() }
}

/// Handle, kind and options.
fn taken_apart(value: &str) -> Option<(u32, &str, Vec<u8>)> {
    let (handle, rest) = value.split_once(": ")?;
    let (kind, options) = rest.rsplit_once(' ')?;
    Some((u32::from_str_radix(handle, 16).ok()?, kind, bytes(options)?))
}

/// What is set tells its handle and kind; the kernel adds options, and of several queues it may have got to some only.
fn is_made_of(_: &str, written: &str, found: &str) -> bool {
    let Some((handle, rest)) = written.split_once(": ") else { return false };
    let ours = u32::from_str_radix(handle, 16).is_ok_and(|handle| handle & OURS_MASK == OURS);
    let kind = rest.split_whitespace().next().unwrap_or_default();
    let same =
        found.split_once(": ").is_some_and(|(h, r)| h == handle && r.split_whitespace().next() == Some(kind));
    ours && same
}

/// Without the options' bytes.
fn shown(value: &str) -> String {
    let (rest, mark) = match value.strip_prefix(DEFAULT) {
        Some(rest) => (rest.trim_start(), " (default)"),
        None => (value.split_once(": ").map_or(value, |(_, rest)| rest), ""),
    };
    if let Some(leaves) = rest.strip_prefix("mq of ") {
        let mut kinds: Vec<_> = leaves.split(", ").filter_map(|leaf| leaf.split(' ').next()).collect();
        kinds.dedup();
        return format!("mq of {}{mark}", kinds.join(", "));
    }
    let mut words = rest.split_whitespace();
    match (words.next(), words.next()) {
        (Some("pfifo"), Some(options)) => format!("pfifo{}", limit_of(options)),
        (Some(kind), _) => format!("{kind}{mark}"),
        _ => rest.to_owned(),
    }
}

fn limit_of(options: &str) -> String {
    let limit = bytes(options).and_then(|bytes| rtnl::word(&bytes));
    limit.map_or_else(String::new, |packets| format!(" {packets}"))
}
