//! Load generators, both ends of them.
//!
//! Needs a [`Profile`] (what is to be asked, how often, of what size) and two ends that reach each other: [`Servers`] answer,
//! [`client::run`] asks. Each runs in the network namespace of the thread that calls it. Yields an [`Outcome`] for each part of
//! the profile: latency, counts, errors by kind, throughput by slices, and how honest the generator was about its own schedule.
//!
//! Two modes, see [`Pace`]. In a **closed loop** the next request follows the last answer: a server that stalls is asked less
//! often while it stalls, so that its stall is one slow request (coordinated omission, Tene 2013). In an **open loop** requests
//! are sent on a schedule, and latency counts from the time at which the request was to be sent, whether or not it could be.
//!
//! Each connection has a thread of its own, which holds its own books; they are added up at the end. Nothing is allocated or
//! locked between the first request and the last.

pub mod args;
mod books;
pub mod client;
mod clock;
mod descriptors;
mod dns;
mod error;
mod http;
mod outcome;
mod pipe;
mod ports;
mod protocol;
pub mod schedule;
mod server;
mod service;
mod socket;
mod spec;
mod tick;

pub use error::{Failure, LoadError};
pub use outcome::{Errors, HIGHEST_NS, Mode, Outcome, Received, SLICE, Served};
pub use server::{Server, ServerOptions, Servers};
pub use spec::{
    Arrivals, Dns, Each, Kind, Load, MOST_CONNECTIONS, MOST_PARTS, Pace, Profile, Record, Service, Times,
    Transport,
};

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Ends a run before its time. Once set it stays set; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

/// One that somebody else sets.
impl From<Arc<AtomicBool>> for Stop {
    fn from(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }
}

impl Stop {
    /// Sets it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
