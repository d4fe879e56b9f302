//! The confusion matrix of the fault suite, by rule: what was advised of what was to be advised.
//!
//! A case is one rule in one scenario over one address family. It is printed as a table, which [`Matrix::read`] reads
//! again, so that halves of the suite that run on different kernels can be added up, by `src/bin/matrix.rs`.

use nettrace::recommend::Verdict;
use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

/// First word of the head, and of the line of sums.
const HEAD: &str = "rule";
const ALL: &str = "all";

/// What a verdict is, against the one that was to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// True positive: *apply* or *consider*, as expected.
    Found,
    /// False positive: *apply* or *consider* where nothing is to be advised.
    Wrong,
    /// False negative: silence where there is a fault, also *not needed* where *cannot tell* is the truth.
    Missed,
    /// *apply* instead of *consider*, or the other way round: wrong advice was given, and the right one was not.
    Other,
    /// True negative: rightly silent.
    Silent,
}

/// Cases of one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// True positives.
    pub found: u64,
    /// False positives.
    pub wrong: u64,
    /// False negatives.
    pub missed: u64,
    /// True negatives.
    pub silent: u64,
    /// Those of the true negatives that said *cannot tell*.
    pub cannot_tell: u64,
}

/// Cases of all rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    rows: BTreeMap<String, Counts>,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.found += other.found;
        self.wrong += other.wrong;
        self.missed += other.missed;
        self.silent += other.silent;
        self.cannot_tell += other.cannot_tell;
    }

    /// Share of the advice that was right; none without advice.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        share(self.found, self.wrong)
    }

    /// Share of the faults that were found; none without faults.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        share(self.found, self.missed)
    }
}

fn share(part: u64, rest: u64) -> Option<f64> {
    let whole = part.saturating_add(rest);
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Case {
    /// Of a verdict, and the one that was to be had; none where the rule is to be silent in whatever way.
    #[must_use]
    pub fn of(expected: Option<Verdict>, said: Verdict) -> Self {
        match expected {
            Some(expected) if expected == said && said.is_urgent() => Self::Found,
            Some(expected) if expected == said => Self::Silent,
            Some(expected) if said.is_urgent() && expected.is_urgent() => Self::Other,
            _ if said.is_urgent() => Self::Wrong,
            Some(_) => Self::Missed,
            None => Self::Silent,
        }
    }
}

impl Matrix {
    /// Adds one case.
    pub fn count(&mut self, rule: &str, case: Case, said: Verdict) {
        let row = self.rows.entry(rule.to_owned()).or_default();
        match case {
            Case::Found => row.found += 1,
            Case::Wrong => row.wrong += 1,
            Case::Missed => row.missed += 1,
            Case::Other => {
                row.wrong += 1;
                row.missed += 1;
            }
            Case::Silent => {
                row.silent += 1;
                row.cannot_tell += u64::from(said == Verdict::CannotTell);
            }
        }
    }

    /// Adds all cases of another one.
    pub fn add(&mut self, other: &Self) {
        for (rule, counts) in &other.rows {
            self.rows.entry(rule.clone()).or_default().add(*counts);
        }
    }

    /// Of one rule.
    #[must_use]
    pub fn of(&self, rule: &str) -> Counts {
        self.rows.get(rule).copied().unwrap_or_default()
    }

    /// Of all rules.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.rows.values().for_each(|counts| total.add(*counts));
        total
    }

    /// Whether there was advice, all of it was right, and no fault was missed.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        let Counts { found, wrong, missed, .. } = self.total();
        found > 0 && wrong == 0 && missed == 0
    }

    /// Rules that no scenario calls for: of these it is known only that they are silent.
    #[must_use]
    pub fn never_called_for(&self) -> Vec<&str> {
        let rows = self.rows.iter().filter(|(_, counts)| counts.recall().is_none());
        rows.map(|(rule, _)| rule.as_str()).collect()
    }

    /// The last table in a text: the whole output of a test, or of a virtual machine. None where there is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut found = None;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.split_whitespace().eq(HEAD_WORDS.split_whitespace()) {
                let rows = lines.by_ref().map_while(|line| row(line).filter(|(rule, _)| rule != ALL));
                found = Some(Self { rows: rows.collect() });
            }
        }
        found
    }
}

const HEAD_WORDS: &str = "rule tp fp fn tn cannot-tell precision recall";

/// A line of the table.
fn row(line: &str) -> Option<(String, Counts)> {
    let mut words = line.split_whitespace();
    let rule = words.next()?.to_owned();
    let mut number = || words.next()?.parse().ok();
    let counts = Counts {
        found: number()?,
        wrong: number()?,
        missed: number()?,
        silent: number()?,
        cannot_tell: number()?,
    };
    Some((rule, counts))
}

impl Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.keys().map(String::len).max().unwrap_or(0).max(HEAD.len());
        let mut columns = HEAD_WORDS.split_whitespace().skip(1);
        write!(f, "{HEAD:width$}")?;
        for column in columns.by_ref().take(4) {
            write!(f, " {column:>5}")?;
        }
        for column in columns {
            write!(f, " {column:>11}")?;
        }
        let total = self.total();
        let rows = self.rows.iter().map(|(rule, counts)| (rule.as_str(), counts));
        for (rule, counts) in rows.chain([(ALL, &total)]) {
            let Counts { found, wrong, missed, silent, cannot_tell } = counts;
            let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |s| format!("{s:.3}"));
            let (precision, recall) = (share(counts.precision()), share(counts.recall()));
            write!(f, "\n{rule:width$} {found:>5} {wrong:>5} {missed:>5} {silent:>5}")?;
            write!(f, " {cannot_tell:>11} {precision:>11} {recall:>11}")?;
        }
        Ok(())
    }
}
