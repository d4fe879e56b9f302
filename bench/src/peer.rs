//! The two ends of a load on two nodes.
//!
//! A [`Server`] waits at a control address and opens data ports for the length of one experiment; a [`Client`] asks it to, runs
//! the load, and fetches what the server saw. Needs a [`Token`] that both know. Yields a [`Run`] of each profile, marked where
//! it is not whole.
//!
//! What a stranger can have of a server is nothing: both ends prove that they know the token (HMAC-SHA-256 of nonces of both,
//! RFC 2104; compared in constant time) before anything is done, each message after that is authenticated and counted, data
//! ports serve the address of the control connection alone, and sizes, connections, rates and time are bounded by [`Limits`].
//! What goes over the wire is not encrypted: there is no secret in it.

mod auth;
mod client;
mod error;
mod limits;
mod server;
mod wire;

pub use auth::{SHORTEST_TOKEN, Token};
pub use client::{Client, ClientOptions, Part, Run};
pub use error::PeerError;
pub use limits::Limits;
pub use server::{Config, Event, Server};

/// Version of the protocol: both ends must have the same.
pub const PROTOCOL: u16 = 1;

#[cfg(test)]
mod tests;
