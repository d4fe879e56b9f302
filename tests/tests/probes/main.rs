//! Each probe against known truth, in the lab. A probe's tests have its name.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]
#![expect(clippy::print_stdout, reason = "figures, for who runs it with --nocapture")]

mod black_hole;
mod conntrack;
mod dns;
mod drop;
mod frag;
mod limited;
mod netem;
mod netfilter;
mod ptb;
mod rtt;
mod rx;
mod softirq;
mod tcp;
mod tx;
mod wire;
