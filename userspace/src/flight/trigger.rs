//! When the flight recorder writes: a figure of a window that is above its bound, and not too soon after another.
//!
//! Needs a [`FlightConfig`] and the agent's windows, one after another; yields a [`Cause`] for those that are to be written, and
//! counts those that are not. Time is the process's own (CLOCK_MONOTONIC), so that setting the clock neither holds a file back
//! nor lets too many through.

use super::{Figure, FigureError, FlightConfig};
use crate::{
    report::units,
    snapshot::{Cause, CauseUnit, Snapshot},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const HOUR: Duration = Duration::from_secs(3600);

/// One row of `[[flight.trigger]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Typed")]
pub struct Trigger {
    /// What it looks at.
    pub figure: Figure,
    /// Above this it is set off, in the figure's unit.
    pub above: f64,
    /// Of fewer it is not: latencies of a quantile, the whole of a share.
    pub least: u64,
}

/// The same as it is typed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    of: String,
    above: Bound,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    least: Option<u64>,
}

/// A bound with a unit is a text; one without may be a number.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, or a text such as `50ms` or `5%`")]
enum Bound {
    Whole(u64),
    Number(f64),
    Text(String),
}

/// A trigger that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// Its figure, or its bound.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// A scope of what has none.
    #[error("`scope` is of quantiles, and `{0}` is none")]
    Scope(String),
}

impl TryFrom<Typed> for Trigger {
    type Error = TriggerError;

    fn try_from(typed: Typed) -> Result<Self, TriggerError> {
        let figure: Figure = typed.of.parse()?;
        let figure = match &typed.scope {
            Some(scope) => figure.in_scope(scope).ok_or(TriggerError::Scope(typed.of))?,
            None => figure,
        };
        let above = match typed.above {
            Bound::Whole(n) => figure.bound(&n.to_string())?,
            Bound::Number(n) => figure.bound(&n.to_string())?,
            Bound::Text(text) => figure.bound(&text)?,
        };
        let least = typed.least.unwrap_or_else(|| figure.least());
        Ok(Self { figure, above, least })
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} above {}", self.figure, amount(self.figure.unit(), self.above))
    }
}

/// A value in its unit, to be read.
pub(crate) fn amount(unit: CauseUnit, value: f64) -> String {
    match unit {
        CauseUnit::Ns => units::duration_f64(value),
        CauseUnit::Count => units::count(value.max(0.0).round() as u64),
        CauseUnit::PerSecond => format!("{value:.1}/s"),
        CauseUnit::Share => units::percent(value),
    }
}

/// What sets it off where the configuration says nothing: what hardly ever happens on a node that is well.
pub(super) fn usual() -> Vec<Trigger> {
    const USUAL: [(&str, &str); 7] = [
        ("p99 of dns.latency", "1s"),
        ("dns.timeouts", "20"),
        ("conntrack.drop", "100"),
        ("conntrack.early_drop", "10"),
        ("conntrack.insert_failed", "10"),
        ("drops per second", "1000"),
        ("tcp.retransmits of tcp.segments_sent", "10%"),
    ];
    let trigger = |(of, above): (&str, &str)| {
        let typed =
            Typed { of: of.to_owned(), above: Bound::Text(above.to_owned()), scope: None, least: None };
        Trigger::try_from(typed).ok()
    };
    USUAL.into_iter().filter_map(trigger).collect()
}

impl Trigger {
    /// Why it is set off by this window, if it is.
    fn cause(&self, snapshot: &Snapshot) -> Option<Cause> {
        let found = self.figure.of(snapshot)?;
        let enough = found.count.is_none_or(|n| n >= self.least);
        (enough && found.value > self.above).then(|| Cause {
            at_unix_ns: snapshot.meta.start_unix_ns.saturating_add(snapshot.meta.duration_ns),
            what: self.figure.to_string(),
            value: Some(found.value),
            bound: Some(self.above),
            unit: self.figure.unit(),
            count: found.count,
            also: Vec::new(),
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.zip(self.bound) {
            Some((value, bound)) => {
                let [value, bound] = [value, bound].map(|v| amount(self.unit, v));
                write!(f, "{} was {value}, above {bound}", self.what)?;
                self.count.map_or(Ok(()), |n| write!(f, " (of {})", units::count(n)))
            }
            None => f.write_str(&self.what),
        }
    }
}

/// It was too soon after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flight recorder wrote a file not long ago; the next one can be in {} s", wait.as_secs() + 1)]
pub struct RateLimited {
    /// Until then.
    pub wait: Duration,
}

/// What came of looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TriggerStats {
    /// Causes that were let through.
    pub fired: u64,
    /// Causes that came too soon after another.
    pub suppressed: u64,
}

/// Looks at windows.
#[derive(Debug)]
pub struct Triggers {
    triggers: Vec<Trigger>,
    cooldown: Duration,
    per_hour: u32,
    began: Instant,
    /// When those of the last hour were, since it began.
    recent: VecDeque<Duration>,
    stats: TriggerStats,
}

impl Triggers {
    /// As configured.
    #[must_use]
    pub fn new(config: &FlightConfig) -> Self {
        Self {
            triggers: config.triggers.clone(),
            cooldown: config.cooldown,
            per_hour: config.per_hour,
            began: Instant::now(),
            recent: VecDeque::new(),
            stats: TriggerStats::default(),
        }
    }

    /// Takes another configuration. What was written before still counts.
    pub fn reload(&mut self, config: &FlightConfig) {
        self.triggers.clone_from(&config.triggers);
        self.cooldown = config.cooldown;
        self.per_hour = config.per_hour;
    }

    /// Why this window is to be written; none where nothing is wrong, or it is too soon.
    pub fn look(&mut self, snapshot: &Snapshot) -> Option<Cause> {
        self.look_at(snapshot, self.began.elapsed())
    }

    /// That somebody asked for a file: by a signal to the process, or over HTTP.
    ///
    /// # Errors
    /// When it is too soon after another.
    pub fn asked(&mut self, reason: &str) -> Result<Cause, RateLimited> {
        self.asked_at(reason, self.began.elapsed())
    }

    /// What came of looking so far.
    #[must_use]
    pub const fn stats(&self) -> TriggerStats {
        self.stats
    }

    fn look_at(&mut self, snapshot: &Snapshot, now: Duration) -> Option<Cause> {
        let mut causes = self.triggers.iter().filter_map(|trigger| trigger.cause(snapshot));
        let mut cause = causes.next()?;
        cause.also = causes.map(|cause| cause.to_string()).collect();
        self.admit(now).ok()?;
        Some(cause)
    }

    fn asked_at(&mut self, reason: &str, now: Duration) -> Result<Cause, RateLimited> {
        self.admit(now)?;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Cause {
            at_unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
            what: format!("asked for: {reason}"),
            ..Cause::default()
        })
    }

    fn admit(&mut self, now: Duration) -> Result<(), RateLimited> {
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) >= HOUR) {
            self.recent.pop_front();
        }
        let after_last = self.recent.back().map(|at| *at + self.cooldown);
        // Of as many as there may be in an hour, the first makes room.
        let full = self.recent.len().checked_sub(self.per_hour.max(1) as usize);
        let after_first = full.and_then(|n| self.recent.get(n)).map(|at| *at + HOUR);
        let free = after_last.max(after_first).unwrap_or_default();
        if self.per_hour == 0 || now < free {
            self.stats.suppressed += 1;
            return Err(RateLimited { wait: if self.per_hour == 0 { HOUR } else { free - now } });
        }
        self.recent.push_back(now);
        self.stats.fired += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;

    const MINUTE: Duration = Duration::from_secs(60);

    fn config(text: &str) -> FlightConfig {
        toml::from_str(text).unwrap()
    }

    fn error(text: &str) -> String {
        toml::from_str::<FlightConfig>(text).unwrap_err().to_string()
    }

    #[test]
    fn every_usual_trigger_is_one_and_a_quiet_node_sets_none_off() {
        let mut triggers = Triggers::new(&FlightConfig::default());
        assert_eq!(triggers.triggers.len(), 7);
        assert_eq!(triggers.look(&sample::empty()), None);
        assert_eq!(triggers.stats(), TriggerStats::default());
    }

    #[test]
    fn triggers_are_read_from_the_configuration() {
        let config = config(
            "cooldown = '1m'\n[[trigger]]\nof = 'p99 of dns.latency'\nabove = '50ms'\nleast = 7\n\
             [[trigger]]\nof = 'p50 of tx.qdisc'\nscope = 'eth0'\nabove = '1ms'\n\
             [[trigger]]\nof = 'dns.timeouts'\nabove = 3\n\
             [[trigger]]\nof = 'drops per second'\nabove = 0.5\n",
        );
        let told: Vec<_> = config.triggers.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "p99 of dns.latency above 50.0 ms",
                "p50 of tx.qdisc@eth0 above 1.00 ms",
                "dns.timeouts above 3",
                "drops per second above 0.5/s"
            ]
        );
        assert_eq!(config.triggers.iter().map(|t| t.least).collect::<Vec<_>>(), [7, 20, 0, 0]);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let of = |of: &str, rest: &str| error(&format!("[[trigger]]\nof = '{of}'\n{rest}"));
        assert!(of("dns.timeouts", "above = '50ms'").contains("`50ms` is no bound of `dns.timeouts`"));
        assert!(of("dns.timeouts", "above = 3\nscope = 'eth0'").contains("`scope` is of quantiles"));
        assert!(of("dns.slow", "above = 3").contains("expected a quantile such as"));
        assert!(of("dns.timeouts", "").contains("above"));
        assert!(of("dns.timeouts", "above = true").contains("expected a number"));
        assert!(of("dns.timeouts", "above = 3\nbelow = 1").contains("below"));
    }

    #[test]
    fn a_cause_names_value_bound_and_number() {
        let mut triggers = Triggers::new(&config(
            "[[trigger]]\nof = 'p99 of dns.latency'\nabove = '1us'\nleast = 1\n[[trigger]]\nof = 'dns.timeouts'\nabove = 0",
        ));
        let snapshot = sample::rich();
        let cause = triggers.look(&snapshot).unwrap();
        assert_eq!(cause.at_unix_ns, snapshot.meta.start_unix_ns + snapshot.meta.duration_ns);
        let text = cause.to_string();
        assert!(text.starts_with("p99 of dns.latency was ") && text.contains("above 1.00 us (of "), "{text}");
        assert_eq!(cause.also.len(), 1);
        assert!(cause.also[0].starts_with("dns.timeouts was "), "{:?}", cause.also);
        // Of too few nothing is concluded.
        let few = "[[trigger]]\nof = 'p99 of dns.latency'\nabove = '1us'\nleast = 1000000000";
        assert_eq!(Triggers::new(&config(few)).look(&snapshot), None);
    }

    #[test]
    fn a_storm_writes_as_many_files_as_it_may() {
        let mut triggers = Triggers::new(&config(
            "cooldown = '5m'\nper_hour = 4\n[[trigger]]\nof = 'dns.timeouts'\nabove = 0",
        ));
        let snapshot = sample::rich();
        let mut fired = Vec::new();
        // Each window of three hours is a bad one.
        for second in (0..3 * 3600).step_by(5) {
            if triggers.look_at(&snapshot, Duration::from_secs(second)).is_some() {
                fired.push(second / 60);
            }
        }
        assert_eq!(fired, [0, 5, 10, 15, 60, 65, 70, 75, 120, 125, 130, 135]);
        assert_eq!(triggers.stats(), TriggerStats { fired: 12, suppressed: 2160 - 12 });
    }

    #[test]
    fn who_asks_is_limited_too_and_told_how_long() {
        let mut triggers = Triggers::new(&config("cooldown = '5m'\ntrigger = []"));
        let cause = triggers.asked_at("SIGUSR1", MINUTE).unwrap();
        assert_eq!((cause.to_string().as_str(), cause.value), ("asked for: SIGUSR1", None));
        let error = triggers.asked_at("HTTP", 2 * MINUTE).unwrap_err();
        assert_eq!(error.wait, 4 * MINUTE);
        assert!(error.to_string().ends_with("in 241 s"), "{error}");
        triggers.asked_at("HTTP", 6 * MINUTE).unwrap();
        // With another configuration, what was written before counts.
        triggers.reload(&config("cooldown = '0'\nper_hour = 2\ntrigger = []"));
        assert!(triggers.asked_at("HTTP", 7 * MINUTE).is_err());
        assert!(triggers.asked_at("HTTP", 61 * MINUTE).is_ok());
        triggers.reload(&config("per_hour = 0\ntrigger = []"));
        assert!(triggers.asked_at("HTTP", 900 * MINUTE).is_err());
    }
}
