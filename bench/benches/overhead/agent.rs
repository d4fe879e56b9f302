//! nettrace in a process of its own, so that its memory and CPU time are its own: the benchmark starts itself again
//! with a [`Spec`], waits for [`READY`], runs its load, closes the agent's standard input, and reads a [`Cost`].

use super::net::Watched;
use anyhow::{Context as _, Result, bail};
use nettrace::{
    capture::{Capture, Options},
    iface::Namespace,
    load::ProgramOptions,
    snapshot::{LossCount, Overhead, Packets, Ring, Snapshot},
};
use nettrace_bench::cpu;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// The agent's word that everything is attached.
const READY: &str = "ready";
/// How often the agent keeps its books.
const TICK: Duration = Duration::from_millis(20);
/// The books on programs begin so long after the start at the latest, see `nettrace::capture`.
const SETTLE: Duration = Duration::from_millis(200);

/// What the agent is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// Whether programs return at once.
    pub(crate) empty: bool,
    /// Whether every packet is timed, however many come.
    pub(crate) every: bool,
    /// Whether the kernel's run-time statistics are on the whole time, instead of nettrace's own tenth.
    pub(crate) stats: bool,
    /// Where it runs.
    pub(crate) cpus: Vec<usize>,
    /// What it looks at.
    pub(crate) watched: Vec<Watched>,
    /// Signals by name or group; empty for all.
    pub(crate) signals: Vec<String>,
}

/// What measuring cost, and what it yielded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// By nettrace's own books.
    pub(crate) overhead: Overhead,
    /// Length of the capture, ns.
    pub(crate) duration_ns: u64,
    /// Peak resident memory of the process (VmHWM), bytes.
    pub(crate) peak_rss_bytes: u64,
    /// Resident memory when everything was attached (VmRSS), bytes.
    pub(crate) ready_rss_bytes: u64,
    /// What was lost, by reason.
    pub(crate) losses: Vec<LossCount>,
    /// The event lane's books.
    pub(crate) ring: Ring,
    /// Latencies counted, by signal.
    pub(crate) signals: BTreeMap<String, u64>,
    /// Packets, and how many of them passed untimed.
    pub(crate) packets: Packets,
    /// Packets dropped, by the kernel's count.
    pub(crate) drops: u64,
    /// Probes that are off, and why.
    pub(crate) off: Vec<String>,
}

impl Cost {
    /// Count of a loss.
    #[must_use]
    pub(crate) fn lost(&self, reason: &str) -> u64 {
        self.losses.iter().filter(|l| l.reason == reason).map(|l| l.count).sum()
    }

    /// Share of one CPU that nettrace's own threads took.
    #[must_use]
    pub(crate) fn cpu_share(&self) -> f64 {
        let busy = self.overhead.user_cpu_ns + self.overhead.system_cpu_ns;
        busy as f64 / self.duration_ns.max(1) as f64
    }
}

/// A running agent.
pub(crate) struct Agent {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Agent {
    /// Starts one, and returns when everything is attached.
    ///
    /// # Errors
    /// When it cannot be started, or ends at once: what it had to say is on standard error.
    pub(crate) fn start(spec: &Spec) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["agent", &serde_json::to_string(spec)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the agent")?;
        let Some(stdout) = child.stdout.take() else { bail!("the agent has no standard output") };
        let mut agent = Self { child, answers: BufReader::new(stdout) };
        let mut line = String::new();
        agent.answers.read_line(&mut line)?;
        if line.trim_end() != READY {
            bail!("the agent could not start: {}", agent.child.wait()?);
        }
        thread::sleep(SETTLE);
        Ok(agent)
    }

    /// Ends it, and waits until it has detached everything.
    ///
    /// # Errors
    /// When it failed, or its answer cannot be read.
    pub(crate) fn stop(mut self) -> Result<Cost> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.answers.read_to_string(&mut text)?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the agent failed: {status}");
        serde_json::from_str(&text).context("the agent's answer")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It ends by itself when its standard input does; a failure here means that it has.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The agent's own side.
///
/// # Errors
/// When nothing can be attached or the kernel's books cannot be read.
pub(crate) fn run(spec: &str) -> Result<()> {
    let spec: Spec = serde_json::from_str(spec).context("the agent's orders")?;
    cpu::pin(&spec.cpus)?;
    let stats = spec.stats.then(|| aya::sys::enable_stats(aya::sys::Stats::RunTime)).transpose()?;
    let mut capture = Capture::start(options(&spec))?;
    let ready_rss_bytes = memory("VmRSS:");
    println!("{READY}");
    std::io::stdout().flush()?;
    let over = end_of_input();
    while matches!(over.recv_timeout(TICK), Err(mpsc::RecvTimeoutError::Timeout)) {
        capture.tick();
    }
    let snapshot = capture.stop()?.snapshot;
    drop(stats);
    println!("{}", serde_json::to_string(&cost(snapshot, ready_rss_bytes))?);
    Ok(())
}

fn options(spec: &Spec) -> Options {
    let namespace =
        |w: &Watched| Namespace { name: w.name.clone(), path: Some(w.path.clone()), wire: w.wire };
    // The machine's own traffic is not the load's.
    let mut programs = ProgramOptions { empty: spec.empty, others: false, ..ProgramOptions::default() };
    if spec.every {
        programs.packets_per_second = 0;
    }
    Options {
        programs,
        namespaces: spec.watched.iter().map(namespace).collect(),
        signals: spec.signals.clone(),
        ..Options::default()
    }
}

fn cost(snapshot: Snapshot, ready_rss_bytes: u64) -> Cost {
    let mut signals = BTreeMap::new();
    for signal in snapshot.signals.iter().filter(|s| s.scope == "all") {
        signals.insert(signal.signal.clone(), signal.hist.count());
    }
    let off = |p: &nettrace::snapshot::Probe| {
        p.source.is_none().then(|| format!("{}: {}", p.name, p.reason.clone().unwrap_or_default()))
    };
    Cost {
        duration_ns: snapshot.meta.duration_ns,
        peak_rss_bytes: memory("VmHWM:"),
        ready_rss_bytes,
        signals,
        packets: snapshot.packets,
        drops: snapshot.drops.iter().map(|d| d.count).sum(),
        off: snapshot.probes.iter().filter_map(off).collect(),
        losses: snapshot.losses,
        ring: snapshot.ring,
        overhead: snapshot.overhead,
    }
}

/// Tells when standard input ends: the benchmark is done, or dead.
fn end_of_input() -> mpsc::Receiver<()> {
    let (alive, over) = mpsc::channel();
    thread::spawn(move || {
        // Whether it ended or failed, it is over.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(alive);
    });
    over
}

/// A line of `/proc/self/status`, bytes; 0 when it is not there.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = value.and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
