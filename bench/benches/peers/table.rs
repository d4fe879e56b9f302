//! Ratios of rounds, and the table of them.

use nettrace_bench::cpu::Ends;
use std::fmt::{self, Display, Formatter};

/// What a generator told of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Transactions, or bytes, a second.
    pub(crate) per_second: f64,
    /// Median round trip, us; none where there is none.
    pub(crate) p50_us: Option<f64>,
}

/// The rounds of one load.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: String,
    compares_p50: bool,
    rounds: Vec<(Sample, Sample)>,
}

/// Whether two generators agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The median is as close as it is to be, and that is no chance.
    Agree,
    /// It is not, and that is no chance.
    Apart,
    /// More rounds are needed to tell.
    Undecided,
}

/// A median, and an interval in which the true one lies with a confidence of 95 %, whatever the distribution (sign test).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    median: f64,
    low: f64,
    high: f64,
}

impl Ratio {
    fn of(ratios: impl Iterator<Item = f64>) -> Option<Self> {
        let mut ratios: Vec<f64> = ratios.filter(|ratio| ratio.is_finite()).collect();
        ratios.sort_by(f64::total_cmp);
        let last = ratios.len().checked_sub(1)?;
        let median = f64::midpoint(ratios[last / 2], ratios[ratios.len() / 2]);
        let (low, high) = match left_out(ratios.len()).checked_sub(1) {
            Some(k) => (ratios[k], ratios[last - k]),
            None => (0.0, f64::INFINITY),
        };
        Some(Self { median, low, high })
    }

    fn verdict(self, tolerance: f64) -> Verdict {
        let (least, most) = (1.0 - tolerance, 1.0 + tolerance);
        if least <= self.low && self.high <= most {
            Verdict::Agree
        } else if self.high < least || most < self.low {
            Verdict::Apart
        } else {
            Verdict::Undecided
        }
    }
}

/// How many values at each end are so many that the median lies among or beyond them in less than one case in 40: the tail of
/// a binomial distribution of even chances.
fn left_out(n: usize) -> usize {
    let mut tail = 0.0;
    let mut term = 0.5f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    for k in 0..n {
        tail += term;
        if tail > 0.025 {
            return k;
        }
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    0
}

impl Display for Ratio {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.2} .. {:.2})", self.median, self.low, self.high)
    }
}

impl Row {
    pub(crate) fn new(name: String, compares_p50: bool) -> Self {
        Self { name, compares_p50, rounds: Vec::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// One more round.
    pub(crate) fn add(&mut self, ours: Sample, theirs: Sample) {
        self.rounds.push((ours, theirs));
    }

    /// Ours by theirs, of each round.
    pub(crate) fn rate(&self) -> Option<Ratio> {
        Ratio::of(self.rounds.iter().map(|(ours, theirs)| ours.per_second / theirs.per_second))
    }

    /// The same of medians.
    pub(crate) fn p50(&self) -> Option<Ratio> {
        let ratios = self.rounds.iter().filter_map(|(ours, theirs)| Some(ours.p50_us? / theirs.p50_us?));
        Ratio::of(ratios).filter(|_| self.compares_p50)
    }

    /// What the rounds tell so far.
    pub(crate) fn verdict(&self, tolerance: f64) -> Verdict {
        let of = |ratio: Option<Ratio>| ratio.map_or(Verdict::Undecided, |ratio| ratio.verdict(tolerance));
        match (of(self.rate()), self.compares_p50.then(|| of(self.p50()))) {
            (Verdict::Apart, _) | (_, Some(Verdict::Apart)) => Verdict::Apart,
            (Verdict::Agree, None | Some(Verdict::Agree)) => Verdict::Agree,
            _ => Verdict::Undecided,
        }
    }

    /// Whether all medians that are compared are as close as that; what was never run is not.
    pub(crate) fn agrees(&self, tolerance: f64) -> bool {
        let is_within = |ratio: Ratio| (ratio.median - 1.0).abs() <= tolerance;
        let p50 = !self.compares_p50 || self.p50().is_some_and(is_within);
        p50 && self.rate().is_some_and(is_within)
    }

    /// Medians of what was told: ours, theirs.
    fn medians(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<(f64, f64)> {
        let median = |samples: Vec<&Sample>| Ratio::of(samples.into_iter().filter_map(&of)).map(|r| r.median);
        Some((
            median(self.rounds.iter().map(|(ours, _)| ours).collect())?,
            median(self.rounds.iter().map(|(_, theirs)| theirs).collect())?,
        ))
    }
}

/// All rows, in Markdown.
pub(crate) struct Table<'a> {
    pub(crate) rows: &'a [Row],
    pub(crate) tolerance: f64,
    pub(crate) ends: &'a Ends,
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Ends { client, server, share_core } = self.ends;
        let core = if *share_core == Some(true) && client != server { ", threads of one core" } else { "" };
        writeln!(
            f,
            "Client on CPU {client}, server on CPU {server}{core}. Ratios are ours by theirs, round by round:"
        )?;
        writeln!(
            f,
            "median (with its interval of 95 %); medians are to be within {} of 1.\n",
            self.tolerance
        )?;
        writeln!(f, "| load | rounds | ours /s | theirs /s | ratio | ours p50 us | theirs p50 us | ratio |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for row in self.rows {
            let (Some((ours, theirs)), Some(rate)) = (row.medians(|s| Some(s.per_second)), row.rate()) else {
                writeln!(f, "| {} | 0 | - | - | - | - | - | - |", row.name)?;
                continue;
            };
            write!(f, "| {} | {} | {ours:.0} | {theirs:.0} | {rate} |", row.name, row.rounds.len())?;
            match (row.medians(|s| s.p50_us), row.p50()) {
                (Some((ours, theirs)), Some(ratio)) => writeln!(f, " {ours:.2} | {theirs:.2} | {ratio} |")?,
                (Some((ours, theirs)), None) => writeln!(f, " {ours:.2} | {theirs:.2} | not compared |")?,
                (None, _) => writeln!(f, " - | - | - |")?,
            }
        }
        Ok(())
    }
}
