//! What the end-to-end tests share: a lab, a capture of it and nothing else, and a look at the result.

pub mod browser;
pub mod devtools;
pub mod http;
pub mod matrix;
pub mod program;
pub mod pty;
pub mod raw;
pub mod truth;

use anyhow::{Context as _, Result, ensure};
use nettrace::{
    aggregate::Finished,
    capture::{Capture, CaptureError, Options},
    lab::{Lab, LabConfig},
    load::ProgramOptions,
    probes::{self, Forced},
    snapshot::Snapshot,
};
use nettrace_common::Signal;
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Options for a capture of a lab alone: the machine's own traffic is not measured, and every packet of the lab is timed,
/// however many come.
#[must_use]
pub fn options(lab: &Lab) -> Options {
    Options {
        programs: ProgramOptions { others: false, packets_per_second: 0, ..ProgramOptions::default() },
        namespaces: lab.namespaces(),
        lab: true,
        ..Options::default()
    }
}

/// Starts a lab, captures while `work` runs in it, and yields what was captured and what `work` says.
///
/// # Errors
/// When the lab, the capture or `work` fails.
pub fn captured<T>(
    config: LabConfig,
    change: impl FnOnce(&mut Options),
    work: impl FnOnce(&Lab) -> Result<T>,
) -> Result<(Finished, T)> {
    captured_in(&Lab::start(config)?, change, work)
}

/// The same in a lab that is there already and stays.
///
/// # Errors
/// When the capture or `work` fails.
pub fn captured_in<T>(
    lab: &Lab,
    change: impl FnOnce(&mut Options),
    work: impl FnOnce(&Lab) -> Result<T>,
) -> Result<(Finished, T)> {
    let mut options = options(lab);
    change(&mut options);
    let capture = Capture::start(options)?;
    let said = work(lab)?;
    Ok((capture.stop()?, said))
}

/// A change of options: only this signal or group. Programs that a test has no use for are dear to verify where the
/// processor is emulated (`cargo xtask vm`).
pub fn only(signals: &str) -> impl FnOnce(&mut Options) {
    let signals = signals.to_owned();
    move |options| options.signals = vec![signals]
}

/// What was captured from one rung of the ladder.
pub struct Rung<T> {
    /// Its name.
    pub name: &'static str,
    /// What was captured.
    pub snapshot: Snapshot,
    /// What the traffic's own counts say.
    pub said: T,
}

/// Captures `signals` from each rung that `probe`, one of them, has, while `work` runs in a lab of its own. Has each one
/// that this kernel offers checked, and prints why not the others.
///
/// # Errors
/// When a lab, a capture or `work` fails, or the kernel offers none.
#[expect(clippy::print_stdout, reason = "figures, for who runs it with --nocapture")]
pub fn from_every_rung<T>(
    probe: &str,
    signals: &[&str],
    config: LabConfig,
    work: impl Fn(&Lab) -> Result<T>,
    mut check: impl FnMut(Rung<T>),
) -> Result<()> {
    let mut worked = 0;
    for name in probes::rungs(probe) {
        let change = |options: &mut Options| {
            options.signals = signals.iter().map(|s| (*s).to_owned()).collect();
            let force = |s: &&str| Forced { probe: (*s).to_owned(), rung: name.to_owned() };
            options.sources = signals.iter().map(force).collect();
        };
        let started = captured(config, change, &work);
        let (finished, said) = match started {
            Err(error) if error.downcast_ref().is_some_and(|e| matches!(e, CaptureError::NoProbe(_))) => {
                println!("not measured from {name}: {error}");
                continue;
            }
            other => other?,
        };
        let snapshot = finished.snapshot;
        let row = snapshot.probes.iter().find(|p| p.name == probe).context("the probe has no row")?;
        match &row.source {
            Some(source) => {
                println!("{probe} measured from {source}");
                check(Rung { name, snapshot, said });
                worked += 1;
            }
            None => {
                println!(
                    "not measured from {name}: {}",
                    row.reason.as_deref().unwrap_or("no reason is told")
                );
            }
        }
    }
    ensure!(worked > 0, "{probe} is measured from nothing");
    Ok(())
}

/// Waits until something is so; false when it is not within that time.
pub fn comes_about(within: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    while !done() {
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}

/// Latencies of a signal, over all scopes.
#[must_use]
pub fn count(snapshot: &Snapshot, signal: Signal) -> u64 {
    snapshot.signal(signal).map_or(0, |row| row.hist.count())
}

/// Latencies of a signal in one scope.
#[must_use]
pub fn count_in(snapshot: &Snapshot, signal: Signal, scope: &str) -> u64 {
    let rows = snapshot.signals.iter().filter(|row| row.signal == signal.name() && row.scope == scope);
    rows.map(|row| row.hist.count()).sum()
}

/// Two measures of the same thing, ns, and how far they may be apart.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// nettrace's.
    pub ours: u64,
    /// The other tool's.
    pub theirs: u64,
    /// The tolerance.
    pub within: u64,
}

/// Compares up to five times until the measures agree: the noise of a machine that does other work comes and goes,
/// an error of measurement stays.
///
/// # Panics
/// When they never agree.
pub fn agree(mut compare: impl FnMut() -> Compared) {
    let mut seen = Vec::new();
    for _ in 0..5 {
        let compared = compare();
        seen.push(compared);
        if compared.ours.abs_diff(compared.theirs) <= compared.within {
            return;
        }
    }
    panic!("never agreed, ns: {seen:?}");
}

/// Whether this runs in a virtual machine of `cargo xtask vm`, where tests may do what they must not do to a machine that
/// somebody uses.
#[must_use]
pub fn in_guest() -> bool {
    std::env::var_os("NETTRACE_GUEST").is_some()
}

/// Count of a loss, by name.
#[must_use]
pub fn lost(snapshot: &Snapshot, reason: &str) -> u64 {
    snapshot.losses.iter().filter(|l| l.reason == reason).map(|l| l.count).sum()
}

/// Drops with a reason, over all places and scopes.
#[must_use]
pub fn drops(snapshot: &Snapshot, reason: &str) -> u64 {
    snapshot.drops.iter().filter(|d| d.reason == reason).map(|d| d.count).sum()
}
