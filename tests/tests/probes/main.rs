//! Each probe against known truth, in the lab. A probe's tests have its name.

mod dns;
mod drop;
mod frag;
mod ptb;
mod rtt;
mod rx;
mod softirq;
mod tcp;
mod tx;
mod wire;
