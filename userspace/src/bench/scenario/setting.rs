//! What scenarios set: before both arms, and from one arm to the other.

use super::{FastPath, Place, Program, Script};
use std::net::Ipv4Addr;

/// What is made of a network before the arms.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A kernel setting: its path below `/proc/sys`, and its value.
    Sysctl(Place, &'static str, &'static str),
    /// What a program reads.
    Script(Place, fn() -> Script),
    /// What a program is told.
    Run(Place, Program, &'static [&'static str]),
    /// Client and server learn each other's link addresses.
    Meet,
}

/// What tells the arms apart. Each is put on and taken off again and again.
#[derive(Clone, Copy, Debug)]
pub enum Setting {
    /// Settings that nettrace's own change engine makes in B, as one change: where, and `KIND:KEY=VALUE`. It takes them back
    /// in A.
    Change(&'static [(Place, &'static str)]),
    /// Rules for A and for B, each of which replace those of the other.
    Rules(Place, [fn() -> Script; 2]),
    /// A caching name server in B, at an address that is an address of its namespace only then.
    Cache(Cache),
    /// New flows of datagrams from the client to the server, in both arms, that whatever keeps track of flows holds until its
    /// time for them is over.
    Flows(u16),
    /// A fast path in B.
    FastPath(FastPath),
}

/// A caching name server.
#[derive(Clone, Copy, Debug)]
pub struct Cache {
    /// Where it runs.
    pub place: Place,
    /// The address that it has and answers at, port 53.
    pub address: Ipv4Addr,
    /// Whom it asks, port 53.
    pub upstream: Ipv4Addr,
}
