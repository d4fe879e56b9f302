//! Conditions that fail a build: `tcp_rr.p99 > 1.1x`, `tcp_rr.throughput < 0.95x`, `dns.errors > 0`, `dns.p50 > 2ms`.
//!
//! Needs an expression, then a [`Comparison`]. A condition holds only where it is shown: where the whole interval of the effect
//! (or of the middle of rounds after, when the bound is no ratio) lies beyond the bound. The intervals hold for all rows
//! together, so any number of conditions on them is wrong no more often than the comparison says. Errors are counted, not
//! estimated: a bound on their number is compared with the sum after.

use super::{Bounds, Comparison, Metric, Row};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What units of time are called, and their ns.
const TIMES: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub struct FailIf {
    text: String,
    load: String,
    metric: Metric,
    above: bool,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// Of after by before.
    Ratio(f64),
    /// Of after, in the metric's unit.
    Value(f64),
}

/// Why a condition is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailIfError {
    /// Not of the form.
    #[error(
        "`{0}` is not a condition: LOAD.METRIC > BOUND or LOAD.METRIC < BOUND, as in `tcp_rr.p99 > 1.1x` or \
         `dns.errors > 0`"
    )]
    Form(String),
    /// Unknown metric.
    #[error("`{text}`: no metric `{metric}`; there are {}", metrics())]
    Metric {
        /// The condition.
        text: String,
        /// What it names.
        metric: String,
    },
    /// Not a bound.
    #[error("`{text}`: `{bound}` is not a bound: {expected}")]
    Bound {
        /// The condition.
        text: String,
        /// What it has for one.
        bound: String,
        /// What it could be.
        expected: &'static str,
    },
    /// Unknown load, or a metric that was not compared.
    #[error("`{text}`: {load}.{metric} was not compared{because}; there are {known}")]
    NotCompared {
        /// The condition.
        text: String,
        /// Its load.
        load: String,
        /// Its metric.
        metric: &'static str,
        /// Why not, to be put behind it.
        because: String,
        /// What was compared.
        known: String,
    },
}

fn metrics() -> String {
    Metric::ALL.map(Metric::name).join(", ")
}

impl FromStr for FailIf {
    type Err = FailIfError;

    fn from_str(text: &str) -> Result<Self, FailIfError> {
        let form = || FailIfError::Form(text.to_owned());
        let at = text.find(['<', '>']).ok_or_else(form)?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let above = rest.starts_with('>');
        // No interval tells `above` from `at least`.
        let bound = rest[1..].strip_prefix('=').unwrap_or(&rest[1..]).trim();
        // `p99.9` has a dot of its own.
        let (load, metric) = name
            .strip_suffix(".p99.9")
            .map(|load| (load, Metric::P999.name()))
            .or_else(|| name.rsplit_once('.'))
            .filter(|(load, metric)| !load.is_empty() && !metric.is_empty())
            .ok_or_else(form)?;
        let found =
            Metric::ALL.into_iter().find(|m| m.name() == metric || m.name().replace('.', "") == metric);
        let metric =
            found.ok_or_else(|| FailIfError::Metric { text: text.to_owned(), metric: metric.to_owned() })?;
        Ok(Self {
            text: text.to_owned(),
            load: load.to_owned(),
            metric,
            above,
            bound: parse_bound(metric, bound).map_err(|expected| FailIfError::Bound {
                text: text.to_owned(),
                bound: bound.to_owned(),
                expected,
            })?,
        })
    }
}

/// Or what it could be.
fn parse_bound(metric: Metric, text: &str) -> Result<Bound, &'static str> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0);
    match metric {
        Metric::Errors => number(text).map(Bound::Value).ok_or("a number of errors, as in `0`"),
        Metric::Throughput => match text.strip_suffix('x') {
            Some(ratio) => number(ratio).map(Bound::Ratio),
            None => number(text).map(Bound::Value),
        }
        .ok_or("a ratio to what it was, as in `0.95x`, or a rate per second, as in `1000`"),
        Metric::P50 | Metric::P90 | Metric::P99 | Metric::P999 => {
            let time = || {
                // Longer names first: `ms` ends in `s`.
                let (value, size) =
                    TIMES.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)))?;
                Some(Bound::Value(number(value)? * size))
            };
            match text.strip_suffix('x') {
                Some(ratio) => number(ratio).map(Bound::Ratio),
                None => time(),
            }
            .ok_or("a ratio to what it was, as in `1.1x`, or a time, as in `2ms`")
        }
    }
}

impl fmt::Display for FailIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What became of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was shown: the build fails.
    Holds,
    /// It was not shown.
    NotShown,
    /// It could not have been: there are too few rounds for any interval.
    CannotTell,
}

/// A condition that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// As it was typed.
    pub condition: String,
    /// What became of it.
    pub state: State,
    /// What it was compared with.
    pub bounds: Option<Bounds>,
}

impl FailIf {
    /// Looks at a comparison.
    ///
    /// # Errors
    /// When what it names was not compared.
    pub fn check(&self, comparison: &Comparison) -> Result<Checked, FailIfError> {
        let bounds = match self.bounds(comparison) {
            Some(bounds) => bounds,
            None => return Err(self.not_compared(comparison)),
        };
        let (Bound::Ratio(limit) | Bound::Value(limit)) = self.bound;
        let state = match bounds {
            None => State::CannotTell,
            Some(Bounds { low, .. }) if self.above && low > limit => State::Holds,
            Some(Bounds { high, .. }) if !self.above && high < limit => State::Holds,
            Some(_) => State::NotShown,
        };
        Ok(Checked { condition: self.text.clone(), state, bounds })
    }

    /// What the bound is compared with; none inside where there are too few rounds, none at all where it was not compared.
    fn bounds(&self, comparison: &Comparison) -> Option<Option<Bounds>> {
        if self.metric == Metric::Errors {
            let counted = comparison.totals.iter().find(|t| t.load == self.load)?.errors[1] as f64;
            return Some(Some(Bounds { low: counted, high: counted }));
        }
        let is_it = |row: &&Row| row.load == self.load && row.metric == self.metric;
        let row = comparison.rows.iter().find(is_it)?;
        Some(match self.bound {
            Bound::Ratio(_) => row.bounds,
            Bound::Value(_) => row.after_bounds,
        })
    }

    fn not_compared(&self, comparison: &Comparison) -> FailIfError {
        let why = comparison.untold.iter().find(|u| u.load == self.load && u.metric == self.metric);
        let rows = comparison.rows.iter().filter(|row| row.metric != Metric::Errors);
        let known = rows
            .map(|row| format!("{}.{}", row.load, row.metric.name()))
            .chain(comparison.totals.iter().map(|t| format!("{}.errors", t.load)));
        FailIfError::NotCompared {
            text: self.text.clone(),
            load: self.load.clone(),
            metric: self.metric.name(),
            because: why.map(|u| format!(" ({})", u.because)).unwrap_or_default(),
            known: known.collect::<Vec<_>>().join(", "),
        }
    }
}
