//! `nettrace history`: any time of the past as a report, and two times side by side.

use super::{
    Exit, OutputArgs,
    commands::{Failure, say, write_report, write_text},
    value,
    when::{Against, Present, When},
};
use crate::{
    config::Output,
    history::{self, DEFAULT_DIR, Found, HistoryError, Listing, Range, compare},
    report::{Format, json, units},
};
use anyhow::{Context as _, anyhow};
use clap::Args;
use std::{fmt::Write as _, path::PathBuf, time::Duration};

/// How long the window of `--at` is: a time is typed to the minute.
const AT_NS: u64 = 60_000_000_000;

/// `history`.
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// Directory of the history
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub dir: PathBuf,
    /// The minute that begins at this time: 03:12 (the latest such time, of this machine's zone), 03:12 UTC, 2026-03-01 03:12,
    /// 2026-03-01T03:12:00Z, or -2h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with_all = ["from", "to", "last"])]
    pub at: Option<When>,
    /// From this time on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with = "last")]
    pub from: Option<When>,
    /// Up to this time, the first such one after --from; +10m is so long after it [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "from")]
    pub to: Option<When>,
    /// The last so long, e.g. 1h
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub last: Option<Duration>,
    /// Compare with another window: its start, and it is as long; or START..END; -1d is so long before the start of the window
    #[arg(long, value_name = "WINDOW", allow_hyphen_values = true)]
    pub compare: Option<Against>,
    /// List what there is, which is also what is done without a window
    #[arg(long, conflicts_with_all = ["at", "from", "to", "last", "compare"])]
    pub list: bool,
    /// Where the report goes.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Does what was asked for.
pub(super) fn history(args: &HistoryArgs, output: &Output) -> Result<Exit, Failure> {
    let present = Present::now();
    match (window(args, &present)?, &args.compare) {
        (None, Some(_)) => {
            Err(Failure::usage(anyhow!("--compare needs a window: --at, --from and --to, or --last")))
        }
        (None, None) => list(args, output, &present),
        (Some(window), None) => show(args, window, output, &present),
        (Some(window), Some(against)) => {
            let before = other_window(window, against, &present)?;
            compare(args, before, window, output)
        }
    }
}

/// The window that is asked for, if one is.
fn window(args: &HistoryArgs, present: &Present) -> Result<Option<Range>, Failure> {
    let out_of_range = || Failure::usage(anyhow!("that time is out of range"));
    let (from, to) = match (&args.at, &args.from, args.last) {
        (Some(at), ..) => {
            let from = at.latest(present).ok_or_else(out_of_range)?;
            (from, from.saturating_add(AT_NS))
        }
        (None, Some(from), _) => {
            let from = from.latest(present).ok_or_else(out_of_range)?;
            let to = args.to.as_ref().map(|to| to.first_after(from, present).ok_or_else(out_of_range));
            (from, to.transpose()?.unwrap_or(present.unix_ns))
        }
        (None, None, Some(last)) => {
            let last = u64::try_from(last.as_nanos()).unwrap_or(u64::MAX);
            (present.unix_ns.saturating_sub(last), present.unix_ns)
        }
        (None, None, None) => return Ok(None),
    };
    checked(from, to, present).map(Some)
}

/// The window that it is compared with.
fn other_window(window: Range, against: &Against, present: &Present) -> Result<Range, Failure> {
    let out_of_range = || Failure::usage(anyhow!("the time of --compare is out of range"));
    let from = against.from.relative_to(window.from_unix_ns, present).ok_or_else(out_of_range)?;
    let to = match &against.to {
        Some(to) => to.first_after(from, present).ok_or_else(out_of_range)?,
        None => from.saturating_add(window.to_unix_ns - window.from_unix_ns),
    };
    checked(from, to, present)
}

fn checked(from: u64, to: u64, present: &Present) -> Result<Range, Failure> {
    if to <= from {
        let [from, to] = [from, to].map(|ns| present.local(ns));
        return Err(Failure::usage(anyhow!("the window ends at {to}, before it begins at {from}")));
    }
    Ok(Range { from_unix_ns: from, to_unix_ns: to })
}

/// A window as a report.
fn show(args: &HistoryArgs, window: Range, output: &Output, present: &Present) -> Result<Exit, Failure> {
    let found = history::read(&args.dir, window)?;
    tell(&found, present);
    let Some(snapshot) = &found.snapshot else {
        return Err(nothing(args, window, present));
    };
    write_report(snapshot, output)?;
    Ok(exit(found.damaged))
}

/// Two windows side by side.
fn compare(args: &HistoryArgs, before: Range, after: Range, output: &Output) -> Result<Exit, Failure> {
    let compared = compare::compare(&args.dir, before, after)?;
    write_text(output, |options| {
        compare::render(&compared, output.format, options).context("cannot write the comparison")
    })?;
    Ok(exit(compared.before.damaged + compared.after.damaged))
}

/// What there is.
fn list(args: &HistoryArgs, output: &Output, present: &Present) -> Result<Exit, Failure> {
    let listing = history::list(&args.dir)?;
    write_text(output, |_| match output.format {
        Format::Json => json::indented(&listing).context("cannot write the list"),
        _ => Ok(listed(args, &listing, present)),
    })?;
    Ok(exit(listing.damaged))
}

fn listed(args: &HistoryArgs, listing: &Listing, present: &Present) -> String {
    let mut text = format!(
        "{}: {}, {} in {}\n",
        args.dir.display(),
        units::plural(listing.frames, "snapshot", "snapshots"),
        units::bytes(listing.size_bytes),
        units::plural(listing.segments.len() as u64, "segment", "segments"),
    );
    if listing.damaged > 0 {
        let places = units::plural(listing.damaged, "place", "places");
        let _ = writeln!(text, "{places} are damaged");
    }
    for run in &listing.runs {
        if let Some(step) = run.step {
            let _ = writeln!(text, "  the clock was set by {:+.1} s", step.by_ns as f64 / 1e9);
        }
        let [from, to] = [run.from_unix_ns, run.to_unix_ns].map(|ns| present.local(ns));
        let _ = writeln!(text, "  {from}  to  {to}  {}", units::plural(run.frames, "snapshot", "snapshots"));
    }
    text
}

/// What is to be known of a window beside its report.
fn tell(found: &Found, present: &Present) {
    for step in &found.steps {
        let [before, after] = [step.before_unix_ns, step.after_unix_ns].map(|ns| present.local(ns));
        let by = step.by_ns as f64 / 1e9;
        say(&format!("the clock was set by {by:+.1} s within the window: after {before} came {after}"));
    }
    for gap in &found.gaps {
        let [from, to] = [gap.from_unix_ns, gap.to_unix_ns].map(|ns| present.local(ns));
        say(&format!("nothing was kept from {from} to {to}"));
    }
    if found.damaged > 0 {
        let frames = units::plural(found.damaged, "snapshot", "snapshots");
        say(&format!("{frames} could not be read; the report has the rest"));
    }
}

/// Nothing is there of a window: what is there instead.
fn nothing(args: &HistoryArgs, window: Range, present: &Present) -> Failure {
    let [from, to] = [window.from_unix_ns, window.to_unix_ns].map(|ns| present.local(ns));
    let reach = history::list(&args.dir).ok().and_then(|listing| {
        let from = listing.runs.iter().map(|r| r.from_unix_ns).min()?;
        let to = listing.runs.iter().map(|r| r.to_unix_ns).max()?;
        Some(format!("; there is something from {} to {}", present.local(from), present.local(to)))
    });
    anyhow!("nothing was kept from {from} to {to}{}", reach.unwrap_or_default()).into()
}

const fn exit(damaged: u64) -> Exit {
    if damaged == 0 { Exit::Ok } else { Exit::Damaged }
}

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        if error.is_usage() { Self::usage(error) } else { anyhow::Error::new(error).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;
    use jiff::tz::TimeZone;

    const S: u64 = 1_000_000_000;

    fn present() -> Present {
        Present { unix_ns: 1_767_225_600 * S, zone: TimeZone::UTC }
    }

    fn args(words: &[&str]) -> HistoryArgs {
        let cli = Cli::try_parse_from(["nettrace", "history"].iter().chain(words)).unwrap();
        let Command::History(args) = cli.command else { panic!() };
        args
    }

    /// From and to, s before now.
    fn seconds(range: Range) -> (u64, u64) {
        let ago = |ns: u64| (present().unix_ns - ns) / S;
        (ago(range.from_unix_ns), ago(range.to_unix_ns))
    }

    #[test]
    fn windows_are_what_was_typed() {
        let of = |words: &[&str]| window(&args(words), &present()).ok().unwrap().map(seconds);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["--list"]), None);
        assert_eq!(of(&["--last", "1h"]), Some((3600, 0)));
        assert_eq!(of(&["--at", "-2h"]), Some((7200, 7140)));
        assert_eq!(of(&["--from", "-2h"]), Some((7200, 0)));
        assert_eq!(of(&["--from", "23:00", "--to", "23:30"]), Some((3600, 1800)));
        assert_eq!(of(&["--from", "23:00", "--to", "+10m"]), Some((3600, 3000)));
        assert!(window(&args(&["--from", "-1h", "--to", "-2h"]), &present()).is_err());
    }

    #[test]
    fn the_other_window_is_as_long_unless_it_says_otherwise() {
        let window = Range { from_unix_ns: present().unix_ns - 3600 * S, to_unix_ns: present().unix_ns };
        let of = |text: &str| {
            let against = args(&["--last", "1h", "--compare", text]).compare.unwrap();
            seconds(other_window(window, &against, &present()).ok().unwrap())
        };
        assert_eq!(of("-1d"), (86_400 + 3600, 86_400));
        assert_eq!(of("12:00"), (12 * 3600, 11 * 3600));
        assert_eq!(of("12:00..12:10"), (12 * 3600, 12 * 3600 - 600));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for words in [
            &["--at", "03:12", "--last", "1h"][..],
            &["--to", "03:12"],
            &["--list", "--last", "1h"],
            &["--at", "noon"],
            &["--last", "1"],
        ] {
            let all = ["nettrace", "history"].iter().chain(words);
            assert!(Cli::try_parse_from(all).is_err(), "{words:?}");
        }
        let alone = args(&["--compare", "-1d"]);
        let output = Output { format: Format::Text, path: None, top: 10 };
        assert!(history(&alone, &output).is_err());
    }
}
