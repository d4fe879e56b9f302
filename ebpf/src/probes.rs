//! The probes; each has the same name here, in `common`, in `userspace` and in `tests`.

pub mod black_hole;
pub mod conntrack;
pub mod dns;
pub mod drop;
pub mod frag;
pub mod fragmenting;
pub mod netfilter;
pub mod ptb;
pub mod rtt;
pub mod rx;
pub mod softirq;
pub mod tcp;
pub mod tx;
pub mod udp;
pub mod wire;
