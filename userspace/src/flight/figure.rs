//! What a trigger looks at: one number of a snapshot.
//!
//! Needs a text as people write it; yields a [`Figure`] that reads its value from any snapshot. There are four kinds:
//!
//! | text | value | unit |
//! | --- | --- | --- |
//! | `p99 of dns.latency`, `p50 of tx.qdisc@eth0` | a quantile of a signal, of all interfaces or of one | time |
//! | `dns.timeouts` | a count of the window, see [`crate::history::counts`] | number |
//! | `drops per second` | the same by the window's length | number |
//! | `tcp.retransmits of tcp.segments_sent` | one count as a share of another | percent |

use crate::{
    cli::value,
    config::units,
    history::counts::{COUNTS, Counted, named},
    snapshot::{CauseUnit, FlightWindow, Snapshot},
    tune::Objective,
};
use std::{fmt, str::FromStr};

/// How a rate ends.
const PER_SECOND: &str = " per second";
/// Of a share, so many make the whole at least, unless the trigger says otherwise.
const LEAST_WHOLE: u64 = 100;

/// One number of a snapshot.
#[derive(Clone, Debug)]
pub enum Figure {
    /// A quantile; never [`Objective::Throughput`].
    Quantile(Objective),
    /// A count.
    Count(&'static Counted),
    /// A count per second.
    Rate(&'static Counted),
    /// One count as a share of another.
    Share(&'static Counted, &'static Counted),
}

/// A text is no figure, or no bound of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FigureError {
    /// No figure.
    #[error(
        "`{0}`: expected a quantile such as `p99 of dns.latency`, a count, one `per second`, or one `of` another; the counts are {names}",
        names = COUNTS.iter().map(|c| c.name).collect::<Vec<_>>().join(", ")
    )]
    Figure(String),
    /// No bound of it.
    #[error("`{found}` is no bound of `{figure}`: expected {expected}")]
    Bound {
        /// The text.
        found: String,
        /// The figure.
        figure: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// A value, and of how many it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// In the figure's unit.
    pub value: f64,
    /// Latencies of a quantile, the whole of a share; of others none.
    pub count: Option<u64>,
}

impl Figure {
    /// Its value in a snapshot; none where the snapshot does not tell it.
    #[must_use]
    pub fn of(&self, snapshot: &Snapshot) -> Option<Value> {
        match self {
            Self::Quantile(Objective::Latency { signal, scope, quantile }) => {
                let scope = scope.as_deref().unwrap_or("all");
                let is_it = |s: &&crate::snapshot::SignalData| s.signal == signal.name() && s.scope == scope;
                let data = snapshot.signals.iter().find(is_it).filter(|s| !s.hist.is_empty())?;
                let ns = data.hist.quantile_ns(*quantile).min(data.max_ns);
                Some(Value { value: ns as f64, count: Some(data.hist.count()) })
            }
            Self::Quantile(Objective::Throughput) => None,
            Self::Count(counted) => Some(Value { value: (counted.of)(snapshot)? as f64, count: None }),
            Self::Rate(counted) => {
                let seconds = snapshot.meta.duration_ns as f64 / 1e9;
                let n = (counted.of)(snapshot).filter(|_| seconds > 0.0)?;
                Some(Value { value: n as f64 / seconds, count: None })
            }
            Self::Share(part, whole) => {
                let whole = (whole.of)(snapshot).filter(|n| *n > 0)?;
                Some(Value { value: (part.of)(snapshot)? as f64 / whole as f64, count: Some(whole) })
            }
        }
    }

    /// What its values are in.
    #[must_use]
    pub const fn unit(&self) -> CauseUnit {
        match self {
            Self::Quantile(_) => CauseUnit::Ns,
            Self::Count(_) => CauseUnit::Count,
            Self::Rate(_) => CauseUnit::PerSecond,
            Self::Share(..) => CauseUnit::Share,
        }
    }

    /// Of so few nothing is concluded.
    #[must_use]
    pub fn least(&self) -> u64 {
        match self {
            Self::Quantile(objective) => objective.least_count(),
            Self::Count(_) | Self::Rate(_) => 0,
            Self::Share(..) => LEAST_WHOLE,
        }
    }

    /// A bound of it as people write it: `50ms`, `100`, `5%`.
    ///
    /// # Errors
    /// When it is not in the figure's unit.
    pub fn bound(&self, text: &str) -> Result<f64, FigureError> {
        let number = || text.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
        let (bound, expected) = match self.unit() {
            CauseUnit::Ns => {
                (value::duration(text).ok().map(|d| d.as_nanos() as f64), "a time such as `50ms`")
            }
            CauseUnit::Count => (number(), "a number"),
            CauseUnit::PerSecond => (number(), "a number per second such as `100`"),
            CauseUnit::Share => (units::percentage(text), "a percentage such as `5%`"),
        };
        let error = || FigureError::Bound { found: text.to_owned(), figure: self.to_string(), expected };
        bound.ok_or_else(error)
    }

    /// The same of one interface's scope alone; only quantiles have scopes.
    #[must_use]
    pub fn in_scope(self, name: &str) -> Option<Self> {
        match self {
            Self::Quantile(Objective::Latency { signal, quantile, .. }) => {
                Some(Self::Quantile(Objective::Latency { signal, scope: Some(name.to_owned()), quantile }))
            }
            _ => None,
        }
    }
}

/// Figures are the same when they are written the same.
impl PartialEq for Figure {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl FromStr for Figure {
    type Err = FigureError;

    fn from_str(text: &str) -> Result<Self, FigureError> {
        let error = || FigureError::Figure(text.to_owned());
        let text = text.trim();
        if let Some(counted) = named(text) {
            return Ok(Self::Count(counted));
        }
        if let Some(counted) = text.strip_suffix(PER_SECOND).and_then(|name| named(name.trim())) {
            return Ok(Self::Rate(counted));
        }
        if let Some((part, whole)) = text.split_once(" of ")
            && let Some(share) = named(part.trim()).zip(named(whole.trim()))
        {
            return Ok(Self::Share(share.0, share.1));
        }
        match text.parse() {
            Ok(objective @ Objective::Latency { .. }) => Ok(Self::Quantile(objective)),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantile(objective) => write!(f, "{objective}"),
            Self::Count(counted) => f.write_str(counted.name),
            Self::Rate(counted) => write!(f, "{}{PER_SECOND}", counted.name),
            Self::Share(part, whole) => write!(f, "{} of {}", part.name, whole.name),
        }
    }
}

/// What is told of a window around a cause that looked at this figure; somebody who asked looked at none.
#[must_use]
pub fn window_of(snapshot: &Snapshot, figure: Option<&Figure>) -> FlightWindow {
    FlightWindow {
        start_unix_ns: snapshot.meta.start_unix_ns,
        duration_ns: snapshot.meta.duration_ns,
        value: figure.and_then(|figure| figure.of(snapshot)).map(|v| v.value),
        dns_timeouts: snapshot.dns.timeouts,
        retransmits: snapshot.tcp.retransmits,
        drops: snapshot.drops.iter().fold(0, |sum, d| d.count.saturating_add(sum)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;
    use nettrace_common::Signal;

    fn figure(text: &str) -> Figure {
        text.parse().unwrap()
    }

    #[test]
    fn figures_are_read_and_written_alike() {
        for text in [
            "p99 of dns.latency",
            "p99.9 of tx.qdisc@eth0",
            "dns.timeouts",
            "drops per second",
            "tcp.retransmits of tcp.segments_sent",
        ] {
            assert_eq!(figure(text).to_string(), text);
        }
        for wrong in
            ["", "throughput", "p99 of nothing", "dns.timeouts per hour", "drops of", "of drops", "p99"]
        {
            let error = wrong.parse::<Figure>().unwrap_err().to_string();
            assert!(
                error.contains("conntrack.insert_failed") && error.contains("p99 of dns.latency"),
                "{error}"
            );
        }
    }

    #[test]
    fn values_are_those_of_the_snapshot() {
        let snapshot = sample::rich();
        let of = |text: &str| figure(text).of(&snapshot);
        let dns = snapshot.signal(Signal::DnsLatency).unwrap();
        let p99 = of("p99 of dns.latency").unwrap();
        assert_eq!(p99, Value { value: dns.hist.quantile_ns(0.99) as f64, count: Some(dns.hist.count()) });
        assert_eq!(of("dns.timeouts").unwrap().value, snapshot.dns.timeouts as f64);
        let drops: u64 = snapshot.drops.iter().map(|d| d.count).sum();
        assert_eq!(of("drops per second").unwrap().value, drops as f64 / 30.0);
        let share = of("dns.timeouts of dns.transactions").unwrap();
        assert_eq!(share.count, Some(snapshot.dns.transactions));
        assert!(
            (share.value - snapshot.dns.timeouts as f64 / snapshot.dns.transactions as f64).abs() < 1e-12
        );
        // What a snapshot does not tell is no 0.
        assert_eq!(of("p99 of dns.latency@nowhere"), None);
        assert_eq!(figure("p99 of dns.latency").of(&sample::empty()), None);
        assert_eq!(figure("conntrack.drop").of(&sample::empty()), None);
        assert_eq!(figure("dns.timeouts of dns.transactions").of(&sample::empty()), None);
    }

    #[test]
    fn bounds_are_in_the_figures_unit() {
        let bound = |text: &str, bound: &str| figure(text).bound(bound);
        assert_eq!(bound("p99 of dns.latency", "50ms"), Ok(50e6));
        assert_eq!(bound("dns.timeouts", "10"), Ok(10.0));
        assert_eq!(bound("drops per second", "0.5"), Ok(0.5));
        assert_eq!(bound("tcp.retransmits of tcp.segments_sent", "5%"), Ok(0.05));
        for (text, wrong, expected) in [
            ("p99 of dns.latency", "50", "a time such as"),
            ("dns.timeouts", "5%", "a number"),
            ("drops per second", "-1", "per second"),
            ("tcp.retransmits of tcp.segments_sent", "0.05", "a percentage"),
        ] {
            let error = bound(text, wrong).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(text), "{error}");
        }
    }
}
