//! Everything at once: the segments of a packet's way with graphs, and a line for each other matter.
//!
//! Needs a [`State`]; yields rows of text, and what of it asks for attention.

use super::{sheet, state::State};
use crate::{
    live::{Frame, SignalFrame},
    recommend::{Finding, Verdict},
    report::{
        units,
        view::{Level, PATH_ORDER, clean},
    },
};
use nettrace_common::Signal;

/// A line of the overview.
pub(super) struct Line {
    /// How much it asks for attention.
    pub(super) level: Level,
    /// Of what it is.
    pub(super) name: &'static str,
    /// What is said.
    pub(super) text: String,
}

/// Signals that were measured, over all scopes, in the order of a packet's way.
pub(super) fn signals(frame: &Frame) -> Vec<&SignalFrame> {
    let there = |signal: &Signal| frame.signal(*signal).filter(|s| s.count > 0);
    PATH_ORDER.iter().filter_map(there).collect()
}

/// How many they are.
pub(super) fn rows(state: &State) -> usize {
    state.frame().map_or(0, |frame| signals(frame).len())
}

/// The 99th percentile of a signal in the frames that are shown, with their times, ms.
pub(super) fn series(state: &State, signal: &str) -> super::graph::Series {
    let at = |frame: &Frame| {
        let row = frame.signals.iter().find(|s| s.scope == "all" && s.signal == signal);
        let measured = row.filter(|s| s.count > 0);
        (frame.at_unix_ms, measured.map(|s| sheet::percentile_ns(s, |s| s.p99_ns)))
    };
    state.shown().map(at).collect()
}

/// A line for each matter.
pub(super) fn lines(frame: &Frame, findings: Option<&Vec<Finding>>) -> Vec<Line> {
    let line =
        |name, warns: bool, text| Line { level: if warns { Level::Warn } else { Level::Note }, name, text };
    let full = frame.tcp.listen_overflows.is_some_and(|n| n > 0);
    let mut lines = vec![
        line("packets", frame.black_holes > 0, packets(frame)),
        line("DNS", frame.dns.timeouts > 0, sheet::dns(frame)),
        line("TCP", frame.tcp.failures > 0 || full, sheet::tcp(frame)),
        line("drops", frame.drops_per_s > 0.0, sheet::dropped(frame)),
    ];
    lines.extend(conntrack(frame).map(|text| line("conntrack", true, text)));
    lines.push(found(findings));
    lines.push(line("lost", !frame.losses.is_empty(), lost(frame)));
    lines.push(line("cost", false, cost(frame)));
    lines
}

fn packets(frame: &Frame) -> String {
    let mut text = units::per_second(frame.packets_per_s);
    if frame.untimed_share > 0.0 {
        text += &format!(", {} untimed", units::percent(frame.untimed_share));
    }
    if frame.black_holes > 0 {
        text +=
            &format!("; {}", units::plural(frame.black_holes, "path MTU black hole", "path MTU black holes"));
    }
    if frame.fragments_per_s > 0.0 {
        text += &format!("; fragments {}", units::per_second(frame.fragments_per_s));
    }
    text
}

/// Connection tracking, where a table is nearly full or refused something.
fn conntrack(frame: &Frame) -> Option<String> {
    let share = |entries: Option<u64>, max: Option<u64>| match (entries, max) {
        (Some(n), Some(max)) if max > 0 => n as f64 / max as f64,
        _ => 0.0,
    };
    let troubled = frame
        .conntrack
        .iter()
        .filter(|c| c.drops > 0 || c.insert_failed > 0 || share(c.entries, c.max) >= NEARLY_FULL);
    let worst = troubled.max_by_key(|c| (c.drops, c.insert_failed))?;
    Some(format!(
        "{}: {} full, {} dropped, {} not entered",
        clean(&worst.netns),
        units::percent(share(worst.entries, worst.max)),
        units::count(worst.drops),
        units::count(worst.insert_failed),
    ))
}

/// As `conntrack.max` has it.
const NEARLY_FULL: f64 = 0.9;

fn found(findings: Option<&Vec<Finding>>) -> Line {
    let line = |level, text| Line { level, name: "findings", text };
    let Some(findings) = findings else {
        return line(Level::Note, "the last minutes were not judged yet".to_owned());
    };
    let of = |verdict| findings.iter().filter(move |f| f.verdict == verdict);
    let (apply, consider) = (of(Verdict::Apply).count(), of(Verdict::Consider).count());
    let level = match (apply, consider) {
        (0, 0) => return line(Level::Good, "nothing is to be changed".to_owned()),
        (0, _) => Level::Warn,
        _ => Level::Bad,
    };
    let ids: Vec<_> = of(Verdict::Apply).chain(of(Verdict::Consider)).map(|f| clean(&f.id)).collect();
    line(level, format!("{apply} to apply, {consider} to consider: {}", ids.join(", ")))
}

fn lost(frame: &Frame) -> String {
    let sum = frame.losses.iter().fold(0_u64, |sum, loss| sum.saturating_add(loss.count));
    let reasons: Vec<_> = frame.losses.iter().map(|loss| clean(&loss.reason)).collect();
    match sum {
        0 => "nothing".to_owned(),
        n => format!("{}: {}", units::plural(n, "measurement", "measurements"), reasons.join(", ")),
    }
}

fn cost(frame: &Frame) -> String {
    let cost = &frame.cost;
    format!(
        "CPU {}, and {} in the kernel; {}, and {} in maps",
        units::percent(cost.own_cpu_share),
        units::percent(cost.kernel_cpu_share),
        units::bytes(cost.rss_bytes),
        units::bytes(cost.map_bytes),
    )
}
