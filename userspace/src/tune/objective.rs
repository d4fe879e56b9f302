//! What is to get better: a quantile of a signal, or throughput.

use nettrace_common::Signal;
use std::{fmt, str::FromStr};

/// Fewer latencies above a quantile tell little of it.
const ABOVE: f64 = 5.0;
/// Fewer latencies in a window tell nothing at all.
const LEAST: u64 = 20;

/// What is to get better, or must not get worse.
#[derive(Clone, Debug, PartialEq)]
pub enum Objective {
    /// A quantile of a signal's latencies; less is better.
    Latency {
        /// The signal.
        signal: Signal,
        /// In one interface's scope alone.
        scope: Option<String>,
        /// The quantile, 0 to 1.
        quantile: f64,
    },
    /// Bytes a second through the interfaces of the measured namespaces, sent and received; more is better.
    Throughput,
}

/// What was typed is no objective.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no objective: expected a quantile of a signal, like `p99 of tcp.srtt` or `dns.latency p95`, one interface's like \
     `p95 of tx.qdisc@eth0`, or `throughput`; the signals are {signals}",
    signals = Signal::ALL.map(Signal::name).join(", ")
)]
pub struct ObjectiveError(String);

impl FromStr for Objective {
    type Err = ObjectiveError;

    fn from_str(text: &str) -> Result<Self, ObjectiveError> {
        let error = || ObjectiveError(text.to_owned());
        if text.trim() == "throughput" {
            return Ok(Self::Throughput);
        }
        let (mut quantile, mut signal) = (None, None);
        for word in text.split_whitespace().filter(|word| *word != "of") {
            let percent = word.strip_prefix('p').and_then(|number| number.parse::<f64>().ok());
            if let Some(percent) = percent.filter(|p| (0.0..100.0).contains(p)) {
                quantile.replace(percent / 100.0).is_none().then_some(()).ok_or_else(error)?;
            } else {
                let (name, scope) = word.split_once('@').map_or((word, None), |(n, s)| (n, Some(s)));
                let known = Signal::ALL.into_iter().find(|s| s.name() == name).ok_or_else(error)?;
                signal.replace((known, scope)).is_none().then_some(()).ok_or_else(error)?;
            }
        }
        let ((signal, scope), quantile) = signal.zip(quantile).ok_or_else(error)?;
        Ok(Self::Latency { signal, scope: scope.map(str::to_owned), quantile })
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throughput => f.write_str("throughput"),
            Self::Latency { signal, scope, quantile } => {
                // Of 0.999, 99.9 and not 99.90000000000001.
                let percent = (quantile * 1e6).round() / 1e4;
                write!(f, "p{percent} of {}", signal.name())?;
                scope.as_ref().map_or(Ok(()), |scope| write!(f, "@{scope}"))
            }
        }
    }
}

impl Objective {
    /// Whether more of it is better.
    #[must_use]
    pub const fn more_is_better(&self) -> bool {
        matches!(self, Self::Throughput)
    }

    /// The signal that it is of.
    #[must_use]
    pub const fn signal(&self) -> Option<Signal> {
        match self {
            Self::Latency { signal, .. } => Some(*signal),
            Self::Throughput => None,
        }
    }

    /// Latencies in a window without which it is not told.
    #[must_use]
    pub fn least_count(&self) -> u64 {
        match self {
            Self::Latency { quantile, .. } => ((ABOVE / (1.0 - quantile)).ceil() as u64).max(LEAST),
            Self::Throughput => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_typed_as_people_say_them() {
        let parse = |text: &str| text.parse::<Objective>();
        for (typed, said) in [
            ("p99 of tcp.srtt", "p99 of tcp.srtt"),
            ("dns.latency p95", "p95 of dns.latency"),
            ("p99.9 tx.qdisc@eth0", "p99.9 of tx.qdisc@eth0"),
            (" throughput ", "throughput"),
        ] {
            assert_eq!(parse(typed).unwrap().to_string(), said);
        }
        for wrong in
            ["", "p99", "tcp.srtt", "p99 of tcp.srt", "p100 of tcp.srtt", "p9 p9 tcp.srtt", "pp tcp.srtt"]
        {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("is no objective") && error.contains("tcp.srtt"), "{error}");
        }
        assert_eq!(parse("p99 of tcp.srtt").unwrap().least_count(), 500);
        assert_eq!(parse("p50 of tcp.srtt").unwrap().least_count(), 20);
    }
}
