//! The one table of scenarios. A file for each family; what is registered is here.

mod fast;
mod flows;
mod names;
mod queues;
mod services;
mod tcp;

use super::{Place, Scenario, Step};

/// A flow of datagrams is forgotten before its ports come again, so that each is a new one. TCP's are new by their SYN.
const FORGET: [Step; 2] = [
    Step::Sysctl(Place::Node, "net/netfilter/nf_conntrack_udp_timeout", "1"),
    Step::Sysctl(Place::Node, "net/netfilter/nf_conntrack_udp_timeout_stream", "1"),
];

pub(super) static ALL: &[Scenario] = &[
    services::COUNT_1000,
    services::COUNT_5000,
    services::COUNT_10000,
    services::MODE_1000,
    services::MODE_5000,
    services::MODE_10000,
    services::MAP_10000,
    queues::FAIR,
    queues::PRIORITY,
    tcp::FAST_OPEN,
    tcp::TIME_WAIT,
    tcp::TIME_WAIT_DELAY,
    tcp::ACCEPT_QUEUE,
    tcp::BUFFERS,
    tcp::JUMBO,
    flows::CONNTRACK_FULL,
    flows::NOTRACK,
    names::CACHE,
    fast::HOST_ROUTING,
    fast::SERVICE_TRANSLATION,
    fast::PRIORITY,
    fast::DNS_CACHE,
];
