//! The loads under which overhead is measured: both ends on one CPU.
//!
//! Needs a [`Net`]; yields throughput, latency percentiles as the client sees them, and how much of the CPU the load
//! got: what others took of it is not nettrace's doing, and a run that lacks much says nothing.

use super::net::Net;
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use nettrace_bench::{
    cpu::Pinning,
    load::{
        ServerOptions, Servers,
        args::{KindName, LoadArgs},
        client,
    },
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Load before measuring begins.
const WARM_UP_SECONDS: f64 = 0.2;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Load {
    /// One byte there and back over one TCP connection.
    TcpRr,
    /// One byte there and back by UDP.
    UdpRr,
    /// A new TCP connection for every byte there and back.
    TcpCrr,
    /// One-byte datagrams as fast as they can be sent; what arrives counts.
    UdpFlood,
}

impl Load {
    /// As on the command line.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TcpRr => "tcp_rr",
            Self::UdpRr => "udp_rr",
            Self::TcpCrr => "tcp_crr",
            Self::UdpFlood => "udp_flood",
        }
    }

    const fn kind(self) -> KindName {
        match self {
            Self::TcpRr => KindName::TcpRr,
            Self::UdpRr => KindName::UdpRr,
            Self::TcpCrr => KindName::TcpCrr,
            Self::UdpFlood => KindName::UdpFlood,
        }
    }

    /// What one of its units is.
    #[must_use]
    pub(crate) const fn unit(self) -> &'static str {
        if matches!(self, Self::UdpFlood) { "datagram" } else { "transaction" }
    }

    /// Packets that one unit takes at the least, each of which its receiver reads.
    #[must_use]
    pub(crate) const fn reads(self) -> u64 {
        match self {
            Self::TcpRr | Self::UdpRr | Self::TcpCrr => 2,
            Self::UdpFlood => 1,
        }
    }
}

/// Latencies of one run, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// Median.
    pub(crate) p50_ns: u64,
    /// One in a hundred is longer.
    pub(crate) p99_ns: u64,
    /// One in a thousand is longer.
    pub(crate) p999_ns: u64,
}

/// What one run of a load came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Transactions or datagrams, without those of the warm-up.
    pub(crate) count: u64,
    /// The same with the warm-up: what an observer saw.
    pub(crate) all: u64,
    /// Length of the measurement, ns.
    pub(crate) elapsed_ns: u64,
    /// Share of the CPU that both ends together got.
    pub(crate) cpu_share: f64,
    /// Requests without an answer.
    pub(crate) errors: u64,
    /// Transactions or datagrams in each slice of [`nettrace_bench::load::SLICE`], the last one, which is not whole, left out.
    pub(crate) slices: Vec<u32>,
    /// As the client sees them; none for a flood.
    pub(crate) latency: Option<Percentiles>,
}

impl Outcome {
    /// Transactions or datagrams per second.
    #[must_use]
    pub(crate) fn per_second(&self) -> f64 {
        self.count as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }
}

/// Runs a load for a time, both ends pinned to a CPU.
///
/// # Errors
/// When a socket cannot be opened or a thread not be pinned, and when nothing at all was answered.
pub(crate) fn run(net: &Net, load: Load, cpu: usize, time: Duration) -> Result<Outcome> {
    let outcome = both(net, load, cpu, time).with_context(|| format!("load {}", load.name()))?;
    anyhow::ensure!(outcome.count > 0, "load {}: nothing was answered", load.name());
    Ok(outcome)
}

fn both(net: &Net, load: Load, cpu: usize, time: Duration) -> Result<Outcome> {
    let args = LoadArgs {
        seconds: Some(time.as_secs_f64()),
        warm_up_seconds: Some(WARM_UP_SECONDS),
        ..LoadArgs::of(load.kind())
    };
    let profile = args.resolve()?;
    let pinning = Pinning::On(vec![cpu]);
    let (netns, address) = net.server();
    let options = ServerOptions { pinning: pinning.clone(), only: None };
    let servers = netns.run(|| Servers::start(&profile, address.into(), 0, &options))??;
    let options = client::Options { pinning, ..client::Options::default() };
    let asked = net.client().run(|| client::run(&profile, &servers.addresses(), &options))??;
    let (client, server) = (only(asked)?, only(servers.stop()?)?);
    for (end, pinned) in [("client", &client.pinned), ("server", &server.pinned)] {
        anyhow::ensure!(pinned.why_not.is_none(), "the {end} is not pinned: {:?}", pinned.why_not);
    }
    let cpu_share = (client.cpu.busy_ns + server.cpu.busy_ns) as f64 / client.cpu.wall_ns.max(1) as f64;
    let (elapsed_ns, errors) = (client.elapsed_ns, client.errors.total());
    let Some(received) = server.received else {
        let at = |q| client.latency.value_at_quantile(q);
        let latency = Some(Percentiles { p50_ns: at(0.5), p99_ns: at(0.99), p999_ns: at(0.999) });
        let (count, all, slices) = (client.answered, client.all, client.slices);
        return Ok(Outcome { count, all, elapsed_ns, cpu_share, errors, slices, latency });
    };
    let slices = received.slices.iter().map(|n| u32::try_from(*n).unwrap_or(u32::MAX)).collect();
    let (count, all, elapsed_ns) = (received.units, server.requests, received.elapsed_ns);
    Ok(Outcome { count, all, elapsed_ns, cpu_share, errors, slices, latency: None })
}

/// That of the one part that these profiles have.
fn only<T>(parts: Vec<T>) -> Result<T> {
    parts.into_iter().next().context("a profile without a part")
}
