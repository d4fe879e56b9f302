//! `nettrace bench`: before and after, measured.

mod history;
mod peer;
mod rounds;
mod show;
mod suite;

use super::{
    Exit,
    bench_args::{BenchArgs, BenchCommand, BenchCompareArgs, JudgeArgs},
    commands::{Failure, print, say},
};
pub(super) use peer::connect;

use crate::bench::{BenchError, report::Subject, scenario};
use anyhow::{Context as _, anyhow};
use clap::ValueEnum as _;
use nettrace_bench::{
    compare::{CompareError, Comparison, FailIf, FailIfError, Options, State, compare, compare_arms},
    history::HistoryError,
    load::{
        LoadError, Profile,
        args::{KindName, LoadArgs},
    },
    peer::PeerError,
    result::RunResult,
};
use std::{fs, path::Path};

/// Does what was asked for.
pub(super) fn bench(args: BenchArgs) -> Result<Exit, Failure> {
    match args.command {
        BenchCommand::Scenarios => scenarios(),
        BenchCommand::Run(args) => rounds::run(&args),
        BenchCommand::Ab(args) => rounds::ab(&args),
        BenchCommand::Compare(args) => compared(&args),
        BenchCommand::Suite(args) => suite::suite(&args),
        BenchCommand::Server(args) => peer::server(&args),
        BenchCommand::Client(args) => rounds::client(&args),
        BenchCommand::History(args) => history::history(&args),
    }
}

/// All scenarios, each with its advice, its arms, and why it cannot run here.
fn scenarios() -> Result<Exit, Failure> {
    print(|out| {
        scenario::all().iter().try_for_each(|scenario| {
            let [without, with] = scenario.arms;
            writeln!(out, "{}\n    {}\n    {without} -> {with}", scenario.name, scenario.advice)?;
            match scenario.unavailable() {
                Some(why) => writeln!(out, "    not here: {why}"),
                None => Ok(()),
            }
        })
    })
}

/// What is asked of a comparison.
fn options(judge: &JudgeArgs, force: bool) -> Options {
    Options { confidence: judge.confidence, effect: judge.effect / 100.0, force, ..Options::default() }
}

/// `bench compare`.
fn compared(args: &BenchCompareArgs) -> Result<Exit, Failure> {
    show::check(&args.report)?;
    let read = |path: &Path| RunResult::read(path).map_err(BenchError::from);
    let before = read(&args.before)?;
    let after = args.after.as_deref().map(read).transpose()?;
    let options = options(&args.judge, args.force);
    let comparison = match &after {
        Some(after) => compare(&before, after, &options)?,
        None => compare_arms(&before, &options)?,
    };
    let subject = match &after {
        Some(after) => Subject::runs(&before, after, &comparison),
        None => Subject::experiment(&before, &comparison),
    };
    let report = show::Report::Runs(subject);
    show::write(&report, &args.report)?;
    show::show(&report, args.format)?;
    judged(&comparison, &args.judge.fail_if)
}

/// Whether a condition of `--fail-if` is shown.
fn judged(comparison: &Comparison, conditions: &[FailIf]) -> Result<Exit, Failure> {
    let mut exit = Exit::Ok;
    for condition in conditions {
        let checked = condition.check(comparison)?;
        let word = match checked.state {
            State::Holds => "is shown",
            State::NotShown => "is not shown",
            State::CannotTell => "cannot be told by so few rounds",
        };
        let of = checked.bounds.map(|b| format!(" (from {:.4} to {:.4})", b.low, b.high)).unwrap_or_default();
        say(&format!("{} {word}{of}", checked.condition));
        if checked.state == State::Holds {
            exit = Exit::Advised;
        }
    }
    Ok(exit)
}

/// What was named: a kind of load, or a TOML file with several.
pub(super) fn profile_named(what: &str) -> Result<Profile, Failure> {
    match KindName::from_str(what, false) {
        Ok(kind) => Ok(LoadArgs::of(kind).resolve()?),
        Err(_) if Path::new(what).exists() => Ok(Profile::from_toml(&text_of(Path::new(what))?)?),
        Err(_) => {
            let kinds =
                KindName::value_variants().iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
            Err(Failure::usage(anyhow!(
                "`{what}` is neither a file nor a kind of load; the kinds are {kinds}"
            )))
        }
    }
}

/// A file that somebody named, as text.
fn text_of(path: &Path) -> Result<String, Failure> {
    let read = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    read.map_err(Failure::usage)
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        if error.is_usage() { Self::usage(error) } else { anyhow::Error::new(error).into() }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        BenchError::from(error).into()
    }
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        BenchError::from(error).into()
    }
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Self {
        Self::usage(error)
    }
}

impl From<FailIfError> for Failure {
    fn from(error: FailIfError) -> Self {
        Self::usage(error)
    }
}

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        anyhow::Error::new(error).into()
    }
}
