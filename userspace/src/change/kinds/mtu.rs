//! The longest packet that an interface takes.

use super::rtnl::{self, Attributes as _, Link, Raw};
use super::{ChangeError, Kind, as_written, before_colon, number, ping, plain, route};

pub(super) const KIND: Kind = Kind {
    name: "mtu",
    key: "INTERFACE",
    value: "BYTES",
    about: "An interface's MTU. A larger one is tried out: neighbours have to answer pings of that size, or it is set back.",
    example: "mtu:eth0=1450",
    of_machine: false,
    read,
    plan,
    write,
    is_made_of: as_written,
    trial,
    shown: plain,
    link: before_colon,
};

/// Below it an interface has no IPv6 (RFC 8200, section 5), bytes.
const LEAST_IPV6: u32 = 1280;
/// Below it, hosts need not take part in IPv4 (RFC 791), bytes.
const LEAST_IPV4: u32 = 68;
const MOST: u32 = 65535;
const IFLA_MTU: u16 = 4;

fn read(link: &str) -> Result<String, ChangeError> {
    Ok(super::link(link)?.mtu.to_string())
}

fn plan(link: &str, wanted: &str, _: &str) -> Result<String, ChangeError> {
    let what = format!("the MTU of {link}");
    let there = super::link(link)?;
    let bytes = number(&what, wanted, there.min_mtu.max(LEAST_IPV4), there.max_mtu.unwrap_or(MOST))?;
    let no = |why: String| Err(ChangeError::Unrestorable { what: what.clone(), why });
    if there.kind.as_deref() == Some("bridge") {
        return no("a bridge whose MTU was set no longer follows its ports".to_owned());
    }
    if let Some(upper) = rtnl::upper(there.index).map_err(|error| ChangeError::of(&what, wanted, error))? {
        return no(format!("{upper} is on top of it and follows it down, but not up again"));
    }
    if let Some(why) = follower(&there, link, bytes.min(there.mtu))? {
        return no(why);
    }
    if bytes < LEAST_IPV6 && rtnl::has_ipv6(link) {
        let why =
            "below 1280 bytes an interface loses its IPv6 addresses, which would not come back".to_owned();
        return Err(ChangeError::Value { what, value: wanted.to_owned(), why });
    }
    if bytes > there.mtu {
        ping::neighbours(there.index, link).map(drop).map_err(|why| ChangeError::Value {
            what,
            value: wanted.to_owned(),
            why,
        })?;
    }
    Ok(bytes.to_string())
}

/// What of IPv6 would follow it down, and not come back as it is (addrconf_notify, rt6_mtu_change): an MTU of its own that the
/// interface has, and those of routes from the least of both MTUs on.
fn follower(there: &Link, link: &str, least: u32) -> Result<Option<String>, ChangeError> {
    let own = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{link}/mtu"));
    let own = own.ok().and_then(|text| text.trim().parse::<u32>().ok());
    if own.is_some_and(|own| own != there.mtu) {
        return Ok(Some("net.ipv6.conf has another MTU for it, which would follow".to_owned()));
    }
    let routes = super::dump("list routes of IPv6", libc::RTM_GETROUTE, route::head(libc::AF_INET6))?;
    let follows =
        |r: &&Raw| route::link(r) == Some(there.index) && route::mtu(r).is_some_and(|mtu| mtu >= least);
    let why = "a route of IPv6 through it has an MTU of its own, which would follow";
    Ok(routes.iter().find(follows).map(|_| why.to_owned()))
}

fn write(link: &str, _: &str, bytes: &str) -> Result<(), ChangeError> {
    let what = format!("the MTU of {link}");
    let mtu = number(&what, bytes, 0, u32::MAX)?;
    let index = super::link(link)?.index;
    let mut payload = rtnl::ifinfomsg(index);
    payload.attribute(IFLA_MTU, &mtu.to_ne_bytes());
    rtnl::request(libc::RTM_NEWLINK, 0, payload).map_err(|error| ChangeError::of_write(&what, bytes, error))
}

/// Neighbours that answer short pings must answer those that fill the new MTU: further on, routers tell what does not fit.
fn trial(link: &str, before: &str, after: &str) -> Result<(), ChangeError> {
    let (Ok(before), Ok(after)) = (before.parse::<u32>(), after.parse::<u32>()) else { return Ok(()) };
    if after <= before {
        return Ok(());
    }
    let tried = || {
        let index = super::link(link).map_err(|error| error.to_string())?.index;
        let neighbours = ping::neighbours(index, link)?;
        ping::all_answer(link, &neighbours, after)
    };
    tried().map_err(|why| ChangeError::Trial {
        what: format!("the MTU of {link}"),
        value: after.to_string(),
        why: format!("{why}. It is {before} again"),
    })
}
