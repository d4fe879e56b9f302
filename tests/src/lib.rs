//! What the end-to-end tests share: a lab, a capture of it and nothing else, and a look at the result.

pub mod program;
pub mod raw;
pub mod truth;

use anyhow::Result;
use nettrace::{
    aggregate::Finished,
    capture::{Capture, Options},
    lab::{Lab, LabConfig},
    load::ProgramOptions,
    snapshot::Snapshot,
};
use nettrace_common::Signal;

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
