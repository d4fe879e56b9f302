//! Routes that set something of the connections by them: MTU, segment size, first window, quick acknowledgements, features.
//!
//! Needs: to be in the namespace. Yields: [`Routes`], with the rows that set something, in the kernel's order, and the number of
//! all. Source: RTM_GETROUTE (rtnetlink(7)); what ICMP messages taught the kernel is in `ip.learnt` of the snapshot.

use crate::{
    aggregate::ROWS,
    netlink::{DumpError, dump_each},
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
use std::ops::ControlFlow;

/// Routes of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Routes {
    /// Routes to others (unicast), in all tables.
    pub routes: u64,
    /// How many of them set something.
    pub tuned_routes: u64,
    /// The first of these.
    pub tuned: Vec<TunedRoute>,
    /// Why they could not all be listed; none when they were.
    pub error: Option<String>,
}

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
    pub(super) fn read() -> Self {
        let mut routes = Self::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            if let Err(error) = routes.add(family) {
                routes.error = Some(error.to_string());
            }
        }
        routes
    }

    fn add(&mut self, family: AddressFamily) -> Result<(), DumpError> {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        dump_each(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(question), |answer| {
            // A kernel without a family answers with those of all others.
            if let RouteNetlinkMessage::NewRoute(route) = answer
                && route.header.address_family == family
            {
                self.take(&route);
            }
            ControlFlow::Continue(())
        })
    }

    fn take(&mut self, message: &RouteMessage) {
        if message.header.kind != RouteType::Unicast {
            return;
        }
        self.routes += 1;
        let Some(route) = tuned(message) else { return };
        self.tuned_routes += 1;
        if self.tuned.len() < ROWS {
            self.tuned.push(route);
        }
    }
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
        routes.take(&route(RouteType::Unicast, vec![to(), RouteAttribute::Oif(2)]));
        routes.take(&route(RouteType::Local, vec![to(), metrics(vec![RouteMetric::Mtu(1400)])]));
        routes.take(&route(RouteType::Unicast, vec![metrics(vec![RouteMetric::Hoplimit(3)])]));
        routes.take(&route(RouteType::Unicast, vec![to(), metrics(vec![RouteMetric::Mtu(1400)])]));
        assert_eq!((routes.routes, routes.tuned_routes), (3, 1));
        assert_eq!(
            (routes.tuned[0].destination.as_str(), routes.tuned[0].mtu_bytes),
            ("10.0.0.0/8", Some(1400))
        );
    }

    #[test]
    fn the_kernel_answers() {
        assert_eq!(Routes::read().error, None);
    }
}
