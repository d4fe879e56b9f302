//! The MTU of a route, below that of its interface.

use super::rtnl::{self, Attributes as _, Raw};
use super::{ChangeError, Kind, as_written, no_link, no_trial, number, plain};
use ipnet::IpNet;
use rtnetlink::packet_core::NLM_F_REPLACE;
use std::{io, net::IpAddr};

pub(super) const KIND: Kind = Kind {
    name: "route-mtu",
    key: "PREFIX",
    value: "BYTES|none",
    about: "The MTU of a route of the main table, for destinations behind a narrow path.",
    example: "route-mtu:10.8.0.0/16=1400",
    of_machine: false,
    read,
    plan,
    write,
    is_made_of: as_written,
    trial: no_trial,
    shown: plain,
    link: no_link,
};

/// `struct rtmsg`, bytes.
const RTMSG_BYTES: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTAX_LOCK: u16 = 1;
const RTAX_MTU: u16 = 2;
const MAIN: u32 = 254;
/// `RTPROT_RA`: of a router's advertisement, with a time to live that a request cannot set.
const RTPROT_RA: u8 = 9;
/// `RTM_F_CLONED`: an entry of a cache.
const CLONED: u32 = 0x200;
/// `RTNH_F_ONLINK`: of the flags the only one that is somebody's wish.
const ONLINK: u32 = 4;
/// How no MTU is written.
const NONE: &str = "none";
/// Least that a path must carry, bytes: RFC 791, and RFC 8200.
const LEAST: [u32; 2] = [68, 1280];

fn prefix(key: &str) -> Result<IpNet, ChangeError> {
    let bad = || ChangeError::Value {
        what: "a route".to_owned(),
        value: key.to_owned(),
        why: "it must be a prefix such as 10.8.0.0/16 or fd00::/64, or `default`, or `default6`".to_owned(),
    };
    match key {
        "default" => IpNet::new(IpAddr::from([0; 4]), 0).map_err(|_| bad()),
        "default6" => IpNet::new(IpAddr::from([0_u16; 8]), 0).map_err(|_| bad()),
        text => match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
            (Ok(net), _) => Ok(net.trunc()),
            (_, Ok(address)) => Ok(address.into()),
            _ => Err(bad()),
        },
    }
}

fn what(key: &str) -> String {
    format!("the route to {key}")
}

/// The one route of a prefix.
fn route(key: &str) -> Result<Raw, ChangeError> {
    let net = prefix(key)?;
    let (family, bytes) = match net.addr() {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let is_it = |raw: &Raw| {
        let of = |kind| rtnl::attributes(&raw.payload, RTMSG_BYTES).find(|(k, _)| *k == kind).map(|(_, v)| v);
        let table = of(RTA_TABLE).and_then(rtnl::word).or(raw.payload.get(4).map(|t| u32::from(*t)));
        let to = of(RTA_DST).map_or(net.prefix_len() == 0, |value| value == bytes);
        let cached = raw.payload.get(8..).and_then(rtnl::word).is_none_or(|flags| flags & CLONED != 0);
        raw.payload.get(1) == Some(&net.prefix_len()) && to && table == Some(MAIN) && !cached
    };
    let mut found = super::dump("list routes", libc::RTM_GETROUTE, head(family))?;
    found.retain(is_it);
    match (found.pop(), found.len()) {
        (Some(route), 0) => Ok(route),
        (Some(_), more) => Err(ChangeError::Unrestorable {
            what: what(key),
            why: format!("there are {} of them, and which is meant is not known", more + 1),
        }),
        (None, _) => Err(ChangeError::Missing { what: what(key), error: io::ErrorKind::NotFound.into() }),
    }
}

/// `struct rtmsg` of all routes of a family.
pub(super) fn head(family: libc::c_int) -> Vec<u8> {
    let mut head = vec![0; RTMSG_BYTES];
    head[0] = family as u8;
    head
}

/// The interface that a route goes through.
pub(super) fn link(route: &Raw) -> Option<i32> {
    let (_, index) = rtnl::attributes(&route.payload, RTMSG_BYTES).find(|(kind, _)| *kind == RTA_OIF)?;
    rtnl::word(index).map(u32::cast_signed)
}

/// The MTU that a route has of its own.
pub(super) fn mtu(route: &Raw) -> Option<u32> {
    metric(&metrics(route), RTAX_MTU)
}

/// Metrics of a route, in the kernel's order.
fn metrics(route: &Raw) -> Vec<(u16, Vec<u8>)> {
    let of = rtnl::attributes(&route.payload, RTMSG_BYTES).find(|(kind, _)| *kind == RTA_METRICS);
    let (_, bytes) = of.unwrap_or_default();
    rtnl::attributes(bytes, 0).map(|(kind, value)| (kind, value.to_owned())).collect()
}

fn metric(metrics: &[(u16, Vec<u8>)], wanted: u16) -> Option<u32> {
    metrics.iter().find(|(kind, _)| *kind == wanted).and_then(|(_, value)| rtnl::word(value))
}

fn read(key: &str) -> Result<String, ChangeError> {
    let metrics = metrics(&route(key)?);
    let lock = metric(&metrics, RTAX_LOCK).is_some_and(|locked| locked & (1 << RTAX_MTU) != 0);
    Ok(match metric(&metrics, RTAX_MTU) {
        Some(mtu) if lock => format!("{mtu} lock"),
        Some(mtu) => mtu.to_string(),
        None => NONE.to_owned(),
    })
}

fn plan(key: &str, wanted: &str, now: &str) -> Result<String, ChangeError> {
    let route = route(key)?;
    let no = |why: &str| Err(ChangeError::Unrestorable { what: what(key), why: why.to_owned() });
    let is_v6 = route.payload.first() == Some(&(libc::AF_INET6 as u8));
    if route.payload.get(5) == Some(&RTPROT_RA) {
        return no("a router advertised it, for a time that cannot be set again");
    }
    if is_v6 && rtnl::attributes(&route.payload, RTMSG_BYTES).any(|(kind, _)| kind == RTA_MULTIPATH) {
        return no("it has several next hops, which IPv6 replaces one by one");
    }
    if is_v6 && expires(&route) {
        return no("it has a time to live, which would begin anew");
    }
    if now.ends_with("lock") {
        return no("its MTU is locked by who set it");
    }
    if wanted == NONE {
        return Ok(NONE.to_owned());
    }
    let least = LEAST[usize::from(is_v6)];
    Ok(number(&format!("the MTU of {}", what(key)), wanted, least, 65535)?.to_string())
}

/// Whether a route has an end (`rta_expires` of `struct rta_cacheinfo`).
fn expires(route: &Raw) -> bool {
    let cache = rtnl::attributes(&route.payload, RTMSG_BYTES).find(|(kind, _)| *kind == RTA_CACHEINFO);
    cache.and_then(|(_, bytes)| rtnl::word(bytes.get(8..)?)).is_some_and(|expires| expires != 0)
}

/// The route as it is, with another MTU.
fn write(key: &str, _: &str, value: &str) -> Result<(), ChangeError> {
    let route = route(key)?;
    let mut metrics = metrics(&route);
    metrics.retain(|(kind, _)| *kind != RTAX_MTU);
    if let Ok(mtu) = value.parse::<u32>() {
        let at = metrics.iter().position(|(kind, _)| *kind > RTAX_MTU).unwrap_or(metrics.len());
        metrics.insert(at, (RTAX_MTU, mtu.to_ne_bytes().to_vec()));
    }
    let mut payload = route.payload.get(..RTMSG_BYTES).unwrap_or_default().to_vec();
    let flags = payload.get(8..).and_then(rtnl::word).unwrap_or(0) & ONLINK;
    payload[8..12].copy_from_slice(&flags.to_ne_bytes());
    for (kind, bytes) in rtnl::attributes(&route.payload, RTMSG_BYTES) {
        if !matches!(kind, RTA_METRICS | RTA_CACHEINFO) {
            payload.attribute(kind, bytes);
        }
    }
    if !metrics.is_empty() {
        let mut nested = Vec::new();
        metrics.iter().for_each(|(kind, bytes)| nested.attribute(*kind, bytes));
        payload.attribute(RTA_METRICS, &nested);
    }
    rtnl::request(libc::RTM_NEWROUTE, NLM_F_REPLACE, payload)
        .map_err(|error| ChangeError::of_write(&what(key), value, error))
}
