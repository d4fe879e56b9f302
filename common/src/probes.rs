//! Wire records by probe; the module of a probe has the same name in `ebpf`, here, in `userspace` and in `tests`.

pub mod black_hole;
pub mod conntrack;
pub mod dns;
pub mod drop;
pub mod frag;
pub mod fragmenting;
pub mod netfilter;
pub mod ptb;
pub mod rtt;
pub mod tcp;
