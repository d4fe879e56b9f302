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

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    median: f64,
    min: f64,
    max: f64,
}

impl Ratio {
    fn of(ratios: impl Iterator<Item = f64>) -> Option<Self> {
        let mut ratios: Vec<f64> = ratios.filter(|ratio| ratio.is_finite()).collect();
        ratios.sort_by(f64::total_cmp);
        let (min, max) = (*ratios.first()?, *ratios.last()?);
        let middle = f64::midpoint(ratios[(ratios.len() - 1) / 2], ratios[ratios.len() / 2]);
        Some(Self { median: middle, min, max })
    }

    fn is_within(self, tolerance: f64) -> bool {
        (self.median - 1.0).abs() <= tolerance
    }
}

impl Display for Ratio {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.2} .. {:.2})", self.median, self.min, self.max)
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

    /// Whether all that is compared is as close as that; what was never run is not.
    pub(crate) fn agrees(&self, tolerance: f64) -> bool {
        let p50 = !self.compares_p50 || self.p50().is_some_and(|ratio| ratio.is_within(tolerance));
        p50 && self.rate().is_some_and(|ratio| ratio.is_within(tolerance))
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
        writeln!(f, "median (min .. max); medians are to be within {} of 1.\n", self.tolerance)?;
        writeln!(f, "| load | ours /s | theirs /s | ratio | ours p50 us | theirs p50 us | ratio |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for row in self.rows {
            let (Some((ours, theirs)), Some(rate)) = (row.medians(|s| Some(s.per_second)), row.rate()) else {
                writeln!(f, "| {} | - | - | never run | - | - | - |", row.name)?;
                continue;
            };
            write!(f, "| {} | {ours:.0} | {theirs:.0} | {rate} |", row.name)?;
            match (row.medians(|s| s.p50_us), row.p50()) {
                (Some((ours, theirs)), Some(ratio)) => writeln!(f, " {ours:.2} | {theirs:.2} | {ratio} |")?,
                (Some((ours, theirs)), None) => writeln!(f, " {ours:.2} | {theirs:.2} | not compared |")?,
                (None, _) => writeln!(f, " - | - | - |")?,
            }
        }
        Ok(())
    }
}
