//! Routes that set something of the connections by them: MTU, segment size, first window, quick acknowledgements, features.
//!
//! Needs: to be in the namespace. Yields: [`Routes`], with the rows that set something, in the kernel's order, the number of
//! all, and interfaces of which all routes set an MTU. Source: RTM_GETROUTE (rtnetlink(7)); what ICMP messages taught the
//! kernel is in `ip.learnt` of the snapshot.

use crate::{
    aggregate::ROWS,
    deadline::Deadline,
    netlink::{dump_each, settled},
};
use rtnetlink::{
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType},
    },
    sys::protocols::NETLINK_ROUTE,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::ControlFlow};

/// Routes of one family are looked at up to so many, a second or so: a route reflector has a million.
const MAX_ROUTES: u64 = 200_000;

/// Routes of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Routes {
    /// Routes to others (unicast), in all tables; `error` says where there are more.
    pub routes: u64,
    /// How many of them set something.
    pub tuned_routes: u64,
    /// The first of these.
    pub tuned: Vec<TunedRoute>,
    /// Interfaces of which every route sets an MTU, so that it is not theirs that limits what is sent; without routes to
    /// addresses of the link alone. None where not all routes could be listed, and in older snapshots.
    #[serde(default)]
    pub limited: Vec<LimitedInterface>,
    /// Why they could not all be listed; none when they were.
    pub error: Option<String>,
}

/// An interface of which every route sets an MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitedInterface {
    /// Index of the interface.
    pub ifindex: u32,
    /// The largest of these, bytes.
    pub mtu_bytes: u32,
}

/// By interface the largest MTU that its routes set; none where one of them sets none.
type Widest = BTreeMap<u32, Option<u32>>;

/// A route that sets something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TunedRoute {
    /// `10.0.0.0/8`, or `default`.
    pub destination: String,
    /// Index of the interface; none of a route by several.
    pub ifindex: Option<u32>,
    /// The longest packet, bytes.
    pub mtu_bytes: Option<u32>,
    /// The longest TCP segment that is announced, bytes.
    pub advmss_bytes: Option<u32>,
    /// The first congestion window, segments.
    pub initcwnd: Option<u32>,
    /// Whether TCP acknowledges at once.
    pub quickack: Option<u32>,
    /// `RTAX_FEATURE_*` as a number: 1 is ECN.
    pub features: Option<u32>,
}

impl Routes {
    /// Of the namespace that this thread is in.
    pub(super) fn read(deadline: Deadline) -> Self {
        let [(mut routes, mut widest), (v6, widest_v6)] =
            [AddressFamily::Inet, AddressFamily::Inet6].map(|family| Self::of(family, MAX_ROUTES, deadline));
        routes.add(v6);
        widest_v6.into_iter().for_each(|(ifindex, mtu_bytes)| allow(&mut widest, ifindex, mtu_bytes));
        if routes.error.is_none() {
            routes.limited = limited(widest);
        }
        routes
    }

    /// Up to `most` of one family, whatever they are to: the kernel's own addresses are among them.
    fn of(family: AddressFamily, most: u64, deadline: Deadline) -> (Self, Widest) {
        let mut looked_at = 0;
        let ((mut routes, widest), error) = settled(<(Self, Widest)>::default, |(routes, widest)| {
            looked_at = 0_u64;
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            dump_each(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(question), deadline, |answer| {
                looked_at += 1;
                if looked_at > most {
                    return ControlFlow::Break(());
                }
                // A kernel without a family answers with those of all others.
                if let RouteNetlinkMessage::NewRoute(route) = answer
                    && route.header.address_family == family
                {
                    routes.take(&route, widest);
                }
                ControlFlow::Continue(())
            })
        });
        let cut =
            (looked_at > most).then(|| format!("routes after the first {most} of a family are not counted"));
        routes.error = error.map(|error| error.to_string()).or(cut);
        (routes, widest)
    }

    fn add(&mut self, other: Self) {
        self.routes = self.routes.saturating_add(other.routes);
        self.tuned_routes = self.tuned_routes.saturating_add(other.tuned_routes);
        self.tuned.extend(other.tuned);
        self.tuned.truncate(ROWS);
        self.error = self.error.take().or(other.error);
    }

    fn take(&mut self, message: &RouteMessage, widest: &mut Widest) {
        if message.header.kind != RouteType::Unicast {
            return;
        }
        self.routes += 1;
        let route = tuned(message);
        widen(widest, message, route.as_ref().and_then(|route| route.mtu_bytes));
        let Some(route) = route else { return };
        self.tuned_routes += 1;
        if self.tuned.len() < ROWS {
            self.tuned.push(route);
        }
    }
}

fn widen(widest: &mut Widest, message: &RouteMessage, mtu_bytes: Option<u32>) {
    // The kernel makes a route to fe80::/64 for each interface; by it go neighbour discovery and routing protocols.
    let of_link = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet6(to)) => to.is_unicast_link_local(),
        _ => false,
    };
    if message.attributes.iter().any(of_link) {
        return;
    }
    for attribute in &message.attributes {
        let by = match attribute {
            RouteAttribute::Oif(index) => vec![*index],
            RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
            _ => Vec::new(),
        };
        for index in by {
            allow(widest, index, mtu_bytes);
        }
    }
}

/// One more route, or all of a family, by an interface.
fn allow(widest: &mut Widest, ifindex: u32, mtu_bytes: Option<u32>) {
    let row = widest.entry(ifindex).or_insert(mtu_bytes);
    *row = row.zip(mtu_bytes).map(|(one, other)| one.max(other));
}

fn limited(widest: Widest) -> Vec<LimitedInterface> {
    let limited =
        |(ifindex, mtu_bytes): (u32, Option<u32>)| Some(LimitedInterface { ifindex, mtu_bytes: mtu_bytes? });
    widest.into_iter().filter_map(limited).collect()
}

/// None of a route that sets nothing of these.
fn tuned(message: &RouteMessage) -> Option<TunedRoute> {
    let mut route = TunedRoute { destination: "default".to_owned(), ..TunedRoute::default() };
    let bits = message.header.destination_prefix_length;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.destination = format!("{address}/{bits}");
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                route.destination = format!("{address}/{bits}");
            }
            RouteAttribute::Oif(index) => route.ifindex = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(value) => route.mtu_bytes = Some(*value),
                        RouteMetric::Advmss(value) => route.advmss_bytes = Some(*value),
                        RouteMetric::InitCwnd(value) => route.initcwnd = Some(*value),
                        RouteMetric::QuickAck(value) => route.quickack = Some(*value),
                        RouteMetric::Features(value) => route.features = Some(*value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let values = [route.mtu_bytes, route.advmss_bytes, route.initcwnd, route.quickack, route.features];
    values.iter().any(Option::is_some).then_some(route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::route::RouteNextHop;

    #[test]
    fn routes_that_set_something_are_kept() {
        let route = |kind, attributes: Vec<RouteAttribute>| {
            let mut message = RouteMessage::default();
            message.header.kind = kind;
            message.header.destination_prefix_length = 8;
            message.attributes = attributes;
            message
        };
        let to = || RouteAttribute::Destination(RouteAddress::Inet([10, 0, 0, 0].into()));
        let metrics = |metrics| RouteAttribute::Metrics(metrics);
        let mut routes = Routes::default();
        let mut take = |route| routes.take(&route, &mut Widest::new());
        take(route(RouteType::Unicast, vec![to(), RouteAttribute::Oif(2)]));
        take(route(RouteType::Local, vec![to(), metrics(vec![RouteMetric::Mtu(1400)])]));
        take(route(RouteType::Unicast, vec![metrics(vec![RouteMetric::Hoplimit(3)])]));
        take(route(RouteType::Unicast, vec![to(), metrics(vec![RouteMetric::Mtu(1400)])]));
        assert_eq!((routes.routes, routes.tuned_routes), (3, 1));
        assert_eq!(
            (routes.tuned[0].destination.as_str(), routes.tuned[0].mtu_bytes),
            ("10.0.0.0/8", Some(1400))
        );
    }

    #[test]
    fn interfaces_are_limited_where_every_route_sets_an_mtu() {
        let route = |to: RouteAddress, by: RouteAttribute, mtu: Option<u32>| {
            let mut message = RouteMessage::default();
            message.header.kind = RouteType::Unicast;
            message.attributes = vec![RouteAttribute::Destination(to), by];
            message.attributes.extend(mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
            message
        };
        let pods = || RouteAddress::Inet([10, 0, 0, 0].into());
        let by = |index| RouteAttribute::Oif(index);
        let hops = |indices: [u32; 2]| {
            let hop = |interface_index| {
                let mut hop = RouteNextHop::default();
                hop.interface_index = interface_index;
                hop
            };
            RouteAttribute::MultiPath(indices.map(hop).to_vec())
        };
        let mut widest = Widest::new();
        for message in [
            route(pods(), by(2), Some(1400)),
            route(pods(), by(2), Some(1450)),
            route(RouteAddress::Inet6("fe80::".parse().unwrap()), by(2), None),
            route(pods(), by(3), Some(1400)),
            route(pods(), by(3), None),
            route(pods(), by(4), None),
            route(pods(), hops([5, 6]), Some(1300)),
            route(pods(), by(6), Some(1280)),
            route(pods(), hops([7, 4]), None),
        ] {
            Routes::default().take(&message, &mut widest);
        }
        let found: Vec<_> = limited(widest).iter().map(|row| (row.ifindex, row.mtu_bytes)).collect();
        assert_eq!(found, [(2, 1450), (5, 1300), (6, 1300)]);
    }

    #[test]
    fn the_kernel_answers() {
        let soon = Deadline::after(std::time::Duration::from_secs(60));
        assert_eq!(Routes::read(soon).error, None);
        // The loopback's own address is a route, too.
        let (cut, _) = Routes::of(AddressFamily::Inet, 0, soon);
        assert_eq!(
            (cut.routes, cut.error.as_deref()),
            (0, Some("routes after the first 0 of a family are not counted"))
        );
        let late = Routes::read(Deadline::after(std::time::Duration::ZERO));
        assert_eq!(late.error.as_deref(), Some("netlink: not all was read within 0ns"));
        assert_eq!(late.limited, [], "others may set no MTU");
    }
}
