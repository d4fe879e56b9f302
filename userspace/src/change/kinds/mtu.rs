//! The longest packet that an interface takes.

use super::rtnl::{self, Attributes};
use super::{ChangeError, Kind, as_written, number, ping, plain};

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
};

/// Below it an interface has no IPv6 (RFC 8200, section 5), bytes.
const LEAST_IPV6: u32 = 1280;
/// Below it, hosts need not take part in IPv4 (RFC 791), bytes.
const LEAST_IPV4: u32 = 68;
const MOST: u32 = 65535;
const IFLA_MTU: u16 = 4;

fn read(link: &str) -> Result<String, ChangeError> {
    Ok(rtnl::link(link)?.mtu.to_string())
}

fn plan(link: &str, wanted: &str, _: &str) -> Result<String, ChangeError> {
    let what = format!("the MTU of {link}");
    let there = rtnl::link(link)?;
    let bytes = number(&what, wanted, there.min_mtu.max(LEAST_IPV4), there.max_mtu.unwrap_or(MOST))?;
    let no = |why: String| Err(ChangeError::Unrestorable { what: what.clone(), why });
    if there.kind.as_deref() == Some("bridge") {
        return no("a bridge whose MTU was set no longer follows its ports".to_owned());
    }
    if let Some(upper) = rtnl::upper(there.index)? {
        return no(format!("{upper} is on top of it and follows it down, but not up again"));
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

fn write(link: &str, _: &str, bytes: &str) -> Result<(), ChangeError> {
    let what = format!("the MTU of {link}");
    let mtu = number(&what, bytes, 0, u32::MAX)?;
    let index = rtnl::link(link)?.index;
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
        let index = rtnl::link(link).map_err(|error| error.to_string())?.index;
        let neighbours = ping::neighbours(index, link)?;
        ping::all_answer(link, &neighbours, after)
    };
    tried().map_err(|why| ChangeError::Trial {
        what: format!("the MTU of {link}"),
        value: after.to_string(),
        why: format!("{why}. It is {before} again"),
    })
}
