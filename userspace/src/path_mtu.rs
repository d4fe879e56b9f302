//! Path MTUs that the kernel has learnt: routes that it made for one destination when it was told that packets do not fit.
//!
//! Needs: nothing. Yields: one [`LearntMtu`] a destination, of each namespace. Read once, at the end.
//! Source: net/ipv4/route.c (fib_nh_exception), net/ipv6/route.c (rt6_exception); Linux 5.2 for those of IPv4.

use crate::{
    iface::Namespace,
    netlink::{DumpError, dump},
    snapshot::LearntMtu,
};
use rtnetlink::{
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric},
    },
    sys::protocols::NETLINK_ROUTE,
};
use std::net::IpAddr;

/// Ticks of a second in what the kernel tells user space (USER_HZ).
const TICKS_PER_S: u32 = 100;
/// Rows that are kept of each namespace.
const ROWS: usize = 100;

/// Of these namespaces. One that cannot be read is left out.
#[must_use]
pub fn learnt(namespaces: &[Namespace]) -> Vec<LearntMtu> {
    let mut rows = Vec::new();
    for namespace in namespaces {
        let name = namespace.name.clone();
        match namespace.run(move || of_this(&name)) {
            Ok(Ok(mut found)) => {
                found.sort_by_key(|row| row.destination);
                found.dedup();
                found.truncate(ROWS);
                rows.append(&mut found);
            }
            Ok(Err(error)) => tracing::debug!("path MTUs of {} cannot be read: {error}", namespace.name),
            Err(error) => tracing::debug!("path MTUs of {} cannot be read: {error}", namespace.name),
        }
    }
    rows
}

/// Of the namespace that this thread is in.
fn of_this(netns: &str) -> Result<Vec<LearntMtu>, DumpError> {
    let mut rows = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        question.header.flags = RouteFlags::Cloned;
        dump(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(question), |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                rows.extend(row(netns, &route));
            }
        })?;
    }
    Ok(rows)
}

/// What a route tells, if the kernel made it because of a smaller MTU.
fn row(netns: &str, route: &RouteMessage) -> Option<LearntMtu> {
    if !route.header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let (mut destination, mut mtu, mut expires_s) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(addr)) => destination = Some(IpAddr::V4(*addr)),
            RouteAttribute::Destination(RouteAddress::Inet6(addr)) => destination = Some(IpAddr::V6(*addr)),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics
                    .iter()
                    .find_map(|m| if let RouteMetric::Mtu(mtu) = m { Some(*mtu) } else { None });
            }
            RouteAttribute::CacheInfo(info) => expires_s = Some(info.expires / TICKS_PER_S),
            _ => {}
        }
    }
    Some(LearntMtu { netns: netns.to_owned(), destination: destination?, mtu: mtu?, expires_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routes_that_were_made_for_a_smaller_mtu_count() {
        let mut route = RouteMessage::default();
        let to: IpAddr = [10, 0, 0, 9].into();
        route.attributes = vec![
            RouteAttribute::Destination(to.into()),
            RouteAttribute::Metrics(vec![RouteMetric::Window(1), RouteMetric::Mtu(1300)]),
        ];
        assert_eq!(row("host", &route), None, "a route that somebody has set");
        route.header.flags = RouteFlags::Cloned;
        let found = row("host", &route).map(|row| (row.destination, row.mtu, row.expires_s));
        assert_eq!(found, Some((to, 1300, None)));
        route.attributes.pop();
        assert_eq!(row("host", &route), None, "a redirect");
    }
}
