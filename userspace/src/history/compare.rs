//! Two windows of a history, and what they show of each other.
//!
//! Needs a directory and two ranges. Yields for each signal the ratio of its quantiles with bounds that hold for all of them
//! together, by the exact rank tests of [`nettrace_bench::stats`], and counts per second side by side. Rounds are frames, or runs
//! of them: at most [`MOST_ROUNDS`], because what follows in time is alike, and a thousand minutes prove no more than the few
//! stretches that they are made of. Where the rounds of a window still hang together, nothing is claimed of that signal.
//!
//! What is shown is that two windows differ by more than the rounds within them do. It is not shown why: the load may be another
//! one, and its rates are told for that.

mod view;

pub use view::render;

use super::{
    Found, Gap, HistoryError, Range, Step,
    counts::{COUNTED, COUNTS, Counted},
    each, heads,
};
use crate::{
    report::view::PATH_ORDER,
    snapshot::{Hist, Snapshot},
};
use nettrace_bench::stats::{
    Estimate,
    correction::{confidence_of_each_bound, holm},
    least_separate_rounds, power,
};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// Version of the JSON layout. It grows when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;
/// Rounds of a window at most: longer windows have longer rounds. Means of few long batches are nearly independent where single
/// ones are not (Law and Carson 1979).
pub const MOST_ROUNDS: usize = 20;
/// Fewer rounds show nothing of the order in which they came.
const LEAST_ROUNDS: usize = 6;
/// Quantiles that are compared.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
/// Fewer latencies of a round beyond a quantile do not tell it.
const BEYOND: f64 = 5.0;
/// From this correlation of a round with the next one on, rounds hang together.
const SERIAL: f64 = 0.3;
/// Confidence of all verdicts together.
const CONFIDENCE: f64 = 0.95;
/// The ratio that is to be found, and how surely.
const EFFECT: f64 = 0.25;
const POWER: f64 = 0.8;

/// What is said of a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Longer in the second window, by more than the rounds within the windows differ.
    Longer,
    /// Shorter in the second window.
    Shorter,
    /// No difference is shown, and one of a quarter would have been.
    NotShown,
    /// No difference is shown, and one of a quarter could have been missed.
    TooNoisy,
    /// Rounds follow the rounds before them, so that no test of them holds.
    HangTogether,
    /// Rounds are too few to show anything.
    TooFew,
}

impl Verdict {
    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Longer => "longer",
            Self::Shorter => "shorter",
            Self::NotShown => "no difference shown",
            Self::TooNoisy => "too noisy",
            Self::HangTogether => "rounds hang together",
            Self::TooFew => "too few rounds",
        }
    }
}

/// One quantile of one signal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The signal, over all interfaces.
    pub signal: &'static str,
    /// The quantile, 0 to 1.
    pub quantile: f64,
    /// Its value over all of the first window, ns.
    pub before_ns: u64,
    /// The same of the second.
    pub after_ns: u64,
    /// The middle of the ratios of rounds, second by first.
    pub ratio: f64,
    /// What it is not below and not above, for all rows together; none where rounds are too few.
    pub bounds: Option<[f64; 2]>,
    /// Probability of a ratio as far from 1 where there is none, corrected for all rows (Holm).
    pub p_corrected: f64,
    /// Rounds of either window that tell it.
    pub rounds: [usize; 2],
    /// The larger of both windows' correlations of a round with the next.
    pub serial: f64,
    /// What is said.
    pub verdict: Verdict,
}

/// A count in both windows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CountRow {
    /// Its name.
    pub name: &'static str,
    /// What is counted.
    pub meaning: &'static str,
    /// In the first window; none where no frame tells it.
    pub before: Option<u64>,
    /// In the second.
    pub after: Option<u64>,
    /// Per second measured, in the first window.
    pub before_per_s: Option<f64>,
    /// In the second.
    pub after_per_s: Option<f64>,
}

/// A window as it was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    /// What was asked for.
    pub asked: Range,
    /// The earliest start of a frame, Unix time, ns.
    pub from_unix_ns: u64,
    /// The latest end of one.
    pub to_unix_ns: u64,
    /// Frames.
    pub frames: u64,
    /// Rounds that they make.
    pub rounds: usize,
    /// Measured, ns.
    pub covered_ns: u64,
    /// Times of which nothing was kept.
    pub gaps: Vec<Gap>,
    /// Times that the clock was set.
    pub steps: Vec<Step>,
    /// Frames that could not be read.
    pub damaged: u64,
}

/// Two windows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// `history-comparison`.
    pub kind: &'static str,
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema: u32,
    /// Node name.
    pub hostname: String,
    /// The window that is compared with.
    pub before: Window,
    /// The window that is asked about.
    pub after: Window,
    /// Confidence of all verdicts together.
    pub confidence: f64,
    /// Everything in one sentence.
    pub sentence: String,
    /// In the order of a packet's way, then by quantile.
    pub rows: Vec<Row>,
    /// Signals of which nothing is said, and why.
    pub untold: Vec<(&'static str, String)>,
    /// Counts side by side.
    pub counts: Vec<CountRow>,
}

/// A window as it is read.
struct Side {
    asked: Range,
    found: Found,
    hostname: String,
    /// By round, then by signal.
    rounds: Vec<BTreeMap<&'static str, Hist>>,
    whole: BTreeMap<&'static str, Hist>,
    counts: [Option<u64>; COUNTED],
}

/// Compares two windows of a history: what was `after` with what was `before`.
///
/// # Errors
/// When there is no history, or the directory cannot be read.
pub fn compare(dir: &Path, before: Range, after: Range) -> Result<Compared, HistoryError> {
    Ok(judge(&Side::read(dir, before)?, &Side::read(dir, after)?))
}

impl Side {
    fn read(dir: &Path, asked: Range) -> Result<Self, HistoryError> {
        // Known first, so that no more than the rounds are in memory.
        let frames = heads(dir, asked)?.len().max(1);
        let mut side = Self::new(asked, frames.min(MOST_ROUNDS));
        let mut n = 0;
        side.found = {
            let side = &mut side;
            each(dir, asked, |_, snapshot| {
                let rounds = side.rounds.len();
                side.add((n * rounds / frames).min(rounds - 1), &snapshot);
                n += 1;
            })?
        };
        Ok(side)
    }

    fn new(asked: Range, rounds: usize) -> Self {
        Self {
            asked,
            found: Found::default(),
            hostname: String::new(),
            rounds: vec![BTreeMap::new(); rounds],
            whole: BTreeMap::new(),
            counts: [None; COUNTED],
        }
    }

    fn add(&mut self, round: usize, snapshot: &Snapshot) {
        for signal in PATH_ORDER {
            let Some(data) = snapshot.signal(signal).filter(|data| !data.hist.is_empty()) else { continue };
            for hists in [&mut self.rounds[round], &mut self.whole] {
                hists.entry(signal.name()).or_default().merge(&data.hist);
            }
        }
        for (sum, counted) in self.counts.iter_mut().zip(&COUNTS) {
            if let Some(n) = (counted.of)(snapshot) {
                *sum = Some(sum.unwrap_or(0).saturating_add(n));
            }
        }
        self.hostname.clone_from(&snapshot.meta.hostname);
    }

    /// Logarithms of a quantile of each round that tells it.
    fn series(&self, signal: &str, q: f64) -> Vec<f64> {
        let needed = (BEYOND / (1.0 - q)).round() as u64;
        let told = self.rounds.iter().filter_map(|round| round.get(signal)).filter(|h| h.count() >= needed);
        told.map(|hist| (hist.quantile_ns(q).max(1) as f64).ln()).collect()
    }

    fn per_second(&self, count: Option<u64>) -> Option<f64> {
        let seconds = self.found.covered_ns as f64 / 1e9;
        count.filter(|_| seconds > 0.0).map(|n| n as f64 / seconds)
    }

    fn window(&self) -> Window {
        let found = &self.found;
        Window {
            asked: self.asked,
            from_unix_ns: found.from_unix_ns,
            to_unix_ns: found.to_unix_ns,
            frames: found.frames,
            rounds: if found.frames == 0 { 0 } else { self.rounds.len() },
            covered_ns: found.covered_ns,
            gaps: found.gaps.clone(),
            steps: found.steps.clone(),
            damaged: found.damaged,
        }
    }
}

/// A quantile's rounds in both windows.
struct Series {
    signal: &'static str,
    quantile: f64,
    values: [Vec<f64>; 2],
}

fn judge(before: &Side, after: &Side) -> Compared {
    let mut untold = Vec::new();
    let mut series = Vec::new();
    for signal in PATH_ORDER.map(nettrace_common::Signal::name) {
        match series_of(before, after, signal) {
            Ok(told) => series.extend(told),
            Err(Some(why)) => untold.push((signal, why)),
            Err(None) => {}
        }
    }
    let each = confidence_of_each_bound(CONFIDENCE, series.len());
    let estimated: Vec<(Series, Estimate)> = series
        .into_iter()
        .filter_map(|s| Estimate::of_separate(&s.values[0], &s.values[1], each).map(|e| (s, e)))
        .collect();
    let corrected = holm(&estimated.iter().map(|(_, e)| e.p_two_sided()).collect::<Vec<_>>());
    let rows: Vec<Row> = estimated
        .iter()
        .zip(corrected)
        .map(|((series, estimate), corrected)| row((before, after), series, estimate, corrected, each))
        .collect();
    Compared {
        kind: "history-comparison",
        schema: SCHEMA_VERSION,
        hostname: if after.hostname.is_empty() { before.hostname.clone() } else { after.hostname.clone() },
        before: before.window(),
        after: after.window(),
        confidence: CONFIDENCE,
        sentence: sentence(before, after, &rows),
        rows,
        untold,
        counts: counts(before, after),
    }
}

/// The quantiles that both windows tell; or why there are none, which is not worth a word where neither has the signal.
fn series_of(before: &Side, after: &Side, signal: &'static str) -> Result<Vec<Series>, Option<String>> {
    match [before, after].map(|side| side.whole.contains_key(signal)) {
        [true, true] => {}
        [false, false] => return Err(None),
        [false, true] => return Err(Some("not measured in the first window".to_owned())),
        [true, false] => return Err(Some("not measured in the second window".to_owned())),
    }
    let of = |quantile| Series {
        signal,
        quantile,
        values: [before, after].map(|side| side.series(signal, quantile)),
    };
    let told: Vec<Series> =
        QUANTILES.into_iter().map(of).filter(|s| s.values.iter().all(|v| !v.is_empty())).collect();
    if told.is_empty() { Err(Some("too few latencies in a round".to_owned())) } else { Ok(told) }
}

fn row(
    (before, after): (&Side, &Side),
    series: &Series,
    estimate: &Estimate,
    p_corrected: f64,
    each: f64,
) -> Row {
    let quantile_ns =
        |side: &Side| side.whole.get(series.signal).map_or(0, |h| h.quantile_ns(series.quantile));
    let serial = series.values.iter().map(|v| serial(v)).fold(0.0, f64::max);
    let rounds = [0, 1].map(|n| series.values[n].len());
    let finite = estimate.low.is_finite() && estimate.high.is_finite();
    Row {
        signal: series.signal,
        quantile: series.quantile,
        before_ns: quantile_ns(before),
        after_ns: quantile_ns(after),
        ratio: estimate.middle.exp(),
        bounds: finite.then(|| [estimate.low.exp(), estimate.high.exp()]),
        p_corrected,
        rounds,
        serial,
        verdict: verdict(estimate, p_corrected, each, rounds, serial),
    }
}

fn verdict(estimate: &Estimate, p_corrected: f64, each: f64, rounds: [usize; 2], serial: f64) -> Verdict {
    let least = least_separate_rounds(each).max(LEAST_ROUNDS);
    if rounds.into_iter().any(|n| n < least) {
        return Verdict::TooFew;
    }
    if serial > SERIAL {
        return Verdict::HangTogether;
    }
    if p_corrected <= 1.0 - CONFIDENCE {
        return if estimate.middle > 0.0 { Verdict::Longer } else { Verdict::Shorter };
    }
    match power::detectable(estimate, each, POWER) {
        Some(detectable) if detectable <= EFFECT.ln_1p() => Verdict::NotShown,
        _ => Verdict::TooNoisy,
    }
}

/// Correlation of values with the next ones; 0 of values that are all the same.
fn serial(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let products: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    if squares > 0.0 { products / squares } else { 0.0 }
}

fn counts(before: &Side, after: &Side) -> Vec<CountRow> {
    let row = |(n, counted): (usize, &Counted)| CountRow {
        name: counted.name,
        meaning: counted.meaning,
        before: before.counts[n],
        after: after.counts[n],
        before_per_s: before.per_second(before.counts[n]),
        after_per_s: after.per_second(after.counts[n]),
    };
    COUNTS.iter().enumerate().map(row).collect()
}

/// What all rows say.
fn sentence(before: &Side, after: &Side, rows: &[Row]) -> String {
    for (side, name) in [(before, "first"), (after, "second")] {
        if side.found.frames == 0 {
            return format!("Nothing was kept of the {name} window.");
        }
    }
    let of = |verdict| rows.iter().filter(|r| r.verdict == verdict).count();
    let total = rows.len();
    let (longer, shorter) = (of(Verdict::Longer), of(Verdict::Shorter));
    let mut parts = Vec::new();
    for (n, what, verdict) in [(longer, "longer", Verdict::Longer), (shorter, "shorter", Verdict::Shorter)] {
        let far = |row: &&Row| row.ratio.ln().abs();
        let most = rows.iter().filter(|r| r.verdict == verdict).max_by(|a, b| far(a).total_cmp(&far(b)));
        if let Some(most) = most {
            let name = format!("{} p{}", most.signal, view::percent(most.quantile));
            parts.push(format!(
                "{n} of {total} quantiles got {what}, most of all {name} ({:.2} times)",
                most.ratio
            ));
        }
    }
    match (parts.is_empty(), total) {
        (true, 0) => "No signal was measured in both windows.".to_owned(),
        (true, _) if of(Verdict::NotShown) == total => {
            format!("No difference is shown: each of {total} quantiles would have shown one of a quarter.")
        }
        (true, _) => format!(
            "No difference is shown: {} of {total} quantiles would have shown one of a quarter, {} are too noisy, of {} the rounds hang \
             together, of {} they are too few.",
            of(Verdict::NotShown),
            of(Verdict::TooNoisy),
            of(Verdict::HangTogether),
            of(Verdict::TooFew)
        ),
        (false, _) => format!("{}.", parts.join("; ")),
    }
}

#[cfg(test)]
mod tests;
