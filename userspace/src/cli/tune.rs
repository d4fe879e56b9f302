//! `nettrace tune`: tries changes under the load that there is, and keeps those that help.

use super::{
    Exit, PeerArgs, apply, bench,
    commands::{Failure, print, say},
    run, undo,
};
use crate::{
    change::{StateDir, start_guard},
    config::{Capture, Tune},
    tune::{self, CaptureMeter, Trial, TuneError},
};
use anyhow::{Context as _, anyhow};
use nettrace_bench::{
    cpu::Pinning,
    load::{Stop, client},
    peer::ClientOptions,
};
use std::{
    io,
    sync::atomic::Ordering,
    thread::{self, JoinHandle},
    time::Duration,
};

/// Load is asked for so long at once, and then again.
const AT_ONCE: Duration = Duration::from_secs(30);

/// Plans, asks, measures and keeps.
pub(super) fn tune(capture: &Capture, tune: &Tune) -> Result<Exit, Failure> {
    let dir = StateDir::new(tune.apply.state_dir.as_deref());
    apply::check(&tune.apply)?;
    if !tune.apply.dry_run {
        undo::recover(&dir)?;
    }
    let plans = apply::each(capture, &tune.apply)?;
    if plans.is_empty() {
        say("there is nothing to be tried");
        return Ok(Exit::Ok);
    }
    let options = &tune.options;
    let least = tune::least_rounds(options.confidence, plans.len());
    if options.rounds < least {
        return Err(Failure::usage(anyhow!(
            "{} rounds prove nothing of {} changes at {}: {least} are the least; nothing was changed",
            options.rounds,
            plans.len(),
            options.confidence
        )));
    }
    let show = |out: &mut dyn io::Write| plans.iter().try_for_each(|plan| apply::show(out, plan));
    if tune.json {
        // Programs read the answer alone.
        show(&mut io::stderr()).context("cannot show the changes")?;
    } else {
        print(show)?;
    }
    let one = (options.window + options.settle) * 2 * options.rounds;
    say(&format!(
        "each is tried {} times, by {}; that takes some {} s",
        options.rounds,
        options.objective,
        (one * plans.len() as u32).as_secs().max(1)
    ));
    if tune.apply.dry_run || !apply::agreed(&tune.apply)? {
        say("nothing was changed");
        return Ok(Exit::Ok);
    }
    let load = tune.bench.as_ref().map(|(load, peer)| Load::start(load, peer)).transpose()?;
    dir.create()?;
    start_guard(&dir)?;
    let trials = tried(capture, tune, &dir, &plans)?;
    if let Some(load) = load {
        load.stop()?;
    }
    let text =
        if tune.json { tune::json(&trials).context("cannot write JSON")? } else { tune::text(&trials) };
    print(|out| out.write_all(text.as_bytes()))?;
    let kept = trials.iter().filter_map(|t| Some((t.change?, &t.id)));
    kept.for_each(|(n, id)| say(&format!("change {n}, {id}: kept; `nettrace rollback {n}` takes it back")));
    if trials.len() < plans.len() {
        say(&format!(
            "{} of {} were not tried to their end, and are as before",
            plans.len() - trials.len(),
            plans.len()
        ));
    }
    Ok(Exit::Ok)
}

fn tried(
    capture: &Capture,
    tune: &Tune,
    dir: &StateDir,
    plans: &[crate::change::Plan],
) -> Result<Vec<Trial>, Failure> {
    let options = &tune.options;
    let objectives: Vec<_> = std::iter::once(&options.objective).chain(&options.guards).cloned().collect();
    // Only what is needed: measuring has a cost of its own.
    let mut signals: Vec<_> = objectives.iter().filter_map(|o| Some(o.signal()?.name().to_owned())).collect();
    if signals.is_empty() {
        signals.push("tcp.srtt".to_owned());
    }
    let interrupted = run::interrupt()?;
    let capture = Capture { signals, ..capture.clone() };
    let running = run::start(&capture)?;
    let mut meter = CaptureMeter::new(running, run::namespaces(&capture), objectives);
    let stop = || interrupted.load(Ordering::Relaxed);
    let said = |trial: &Trial| say(&format!("{}: {}, {}", trial.id, trial.verdict.name(), trial.because));
    let trials = tune::tune(dir, plans, options, &mut meter, &stop, said).map_err(|error| match error {
        TuneError::Change(error) => Failure::from(error),
        TuneError::Meter(error) => anyhow::Error::new(error).into(),
    });
    // What was measured is in the trials already.
    meter.stop()?;
    trials
}

/// Load that is made while changes are tried.
struct Load {
    stop: Stop,
    thread: JoinHandle<Result<(), Failure>>,
}

impl Load {
    /// Of a kind, or of a file with several loads.
    fn start(what: &str, peer: &PeerArgs) -> Result<Self, Failure> {
        let mut profile = bench::profile_named(what)?;
        for part in &mut profile.parts {
            part.times.measure = AT_ONCE;
        }
        let address = peer.peer.ok_or_else(|| Failure::usage(anyhow!("--bench needs --peer")))?;
        let mut client = bench::connect(peer, address)?;
        let stop = Stop::default();
        let options = ClientOptions {
            data: peer.data,
            load: client::Options { pinning: Pinning::Off, stop: stop.clone() },
        };
        let until = stop.clone();
        let run = move || {
            while !until.is_set() {
                let run = client.run(&profile, &options)?;
                if let Some(why) = run.partial.filter(|_| !until.is_set()) {
                    return Err(Failure::from(anyhow!("the load ended before the tuning did: {why}")));
                }
            }
            Ok(())
        };
        let spawned = thread::Builder::new().name("load".to_owned()).spawn(run);
        Ok(Self { stop, thread: spawned.context("cannot start a thread")? })
    }

    /// Ends it; what was tried without it proves nothing.
    fn stop(self) -> Result<(), Failure> {
        self.stop.set();
        self.thread.join().map_err(|_| Failure::from(anyhow!("the thread of the load panicked")))?
    }
}
