//! What both sides of the kernel boundary name: wire records, signals, histogram layout, loss reasons and the
//! configuration block.
//!
//! Every type that crosses the boundary is `#[repr(C)]`, has its size asserted at compile time, and changes only
//! together with [`WIRE_VERSION`].
#![no_std]

pub mod config;
pub mod counter;
pub mod filter;
pub mod hist;
pub mod loss;
pub mod probes;
pub mod signal;
pub mod wire;

pub use counter::{Books, Budget, Counter};
pub use loss::Loss;
pub use signal::Signal;

/// Version of every layout in this crate. The kernel object carries it, the loader refuses another one, and a
/// recording names the one it was written with.
pub const WIRE_VERSION: u32 = 4;

/// Interface scopes for which the kernel keeps separate histograms, at most. Scope 0 means *not selected*.
pub const MAX_SCOPES: u32 = 16;

/// Scopes that there are at least, whatever memory they take: the hooks of netfilter have one each.
pub const MIN_SCOPES: u32 = probes::netfilter::SCOPES;

/// The scope of a packet that is not to be measured.
pub const SCOPE_IGNORED: u16 = 0;

/// The scope of every interface that has none of its own (pods' ends in other network namespaces, overflow).
pub const SCOPE_OTHER: u16 = 1;
