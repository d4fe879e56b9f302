//! Load generators: plain blocking sockets, both ends on one CPU.
//!
//! Needs a [`Net`]; yields throughput, latency percentiles as the client sees them, and how much of the CPU the load
//! got: what others took of it is not nettrace's doing, and a run that lacks much says nothing.

mod flood;
mod rr;

use crate::net::Net;
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use nettrace_bench::cpu;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Longest latency that is told apart, ns.
const HIGHEST_NS: u64 = 10_000_000_000;
/// How long a read waits before it counts as failed.
const READ_LIMIT: Duration = Duration::from_secs(1);
/// Throughput is kept for each slice of this length: the machine is not disturbed in all of them.
pub(crate) const SLICE: Duration = Duration::from_millis(10);
/// Load before measuring begins.
const WARM_UP: Duration = Duration::from_millis(200);

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
    /// Transactions or datagrams in each slice of [`SLICE`], the last one, which is not whole, left out.
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
    let outcome = match load {
        Load::TcpRr => rr::tcp(net, cpu, time),
        Load::UdpRr => rr::udp(net, cpu, time),
        Load::TcpCrr => rr::tcp_connect(net, cpu, time),
        Load::UdpFlood => flood::run(net, cpu, time),
    }
    .with_context(|| format!("load {}", load.name()))?;
    anyhow::ensure!(outcome.count > 0, "load {}: nothing was answered", load.name());
    Ok(outcome)
}

/// The client's books.
struct Samples {
    hist: Histogram<u64>,
    count: u64,
    all: u64,
    errors: u64,
    elapsed: Duration,
    slices: Slices,
}

/// Counts by slices of time.
#[derive(Default)]
struct Slices {
    done: Vec<u32>,
    current: u32,
    end: Option<Instant>,
}

impl Slices {
    /// One more at a time. A slice that nothing ended in holds nothing.
    fn count(&mut self, now: Instant) {
        let end = self.end.get_or_insert(now + SLICE);
        while now >= *end {
            self.done.push(std::mem::take(&mut self.current));
            *end += SLICE;
        }
        self.current += 1;
    }
}

impl Samples {
    /// Asks one thing after another for a time. `false` from `ask` is an error; it counts, and the next one follows.
    fn take(time: Duration, mut ask: impl FnMut() -> bool) -> Result<Self> {
        let hist = Histogram::new_with_bounds(1, HIGHEST_NS, 3)?;
        let mut samples =
            Self { hist, count: 0, all: 0, errors: 0, elapsed: Duration::ZERO, slices: Slices::default() };
        let begin = Instant::now() + WARM_UP;
        let end = begin + time;
        let mut first = None;
        let mut before = Instant::now();
        while before < end {
            let answered = ask();
            let after = Instant::now();
            samples.all += u64::from(answered);
            samples.errors += u64::from(!answered);
            if answered && before >= begin {
                let start = *first.get_or_insert(before);
                samples.elapsed = after - start;
                samples.count += 1;
                samples.slices.count(after);
                samples
                    .hist
                    .saturating_record(u64::try_from((after - before).as_nanos()).unwrap_or(HIGHEST_NS));
            }
            before = after;
        }
        Ok(samples)
    }

    fn percentiles(&self) -> Percentiles {
        let at = |q| self.hist.value_at_quantile(q);
        Percentiles { p50_ns: at(0.5), p99_ns: at(0.99), p999_ns: at(0.999) }
    }
}

/// Runs one end on the load's CPU. Yields its result and the CPU time that it took.
fn pinned<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    cpu::pin(&[cpu]).with_context(|| format!("cannot run on CPU {cpu}"))?;
    let before = cpu::thread_time();
    let result = work()?;
    Ok((result, cpu::thread_time() - before))
}

fn share(busy: Duration, wall: Duration) -> f64 {
    if wall.is_zero() { 0.0 } else { busy.as_secs_f64() / wall.as_secs_f64() }
}
