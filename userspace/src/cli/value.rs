//! Single values as people type them: times, sizes, globs, thresholds.

use super::Exemplar;
use crate::probes::Forced;
use glob::Pattern;
use nettrace_common::Signal;
use std::time::Duration;

/// Units of time, ns.
const TIME_UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];
/// Units of size, bytes.
const SIZE_UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// Why a word is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("expected a time like 500us, 30s or 1m30s")]
    Time,
    #[error("no such signal; there are {0}, and groups such as rx and tcp")]
    SignalGroup(String),
    #[error("a time needs a unit: {0}s? (ns, us, ms, s, m, h, d)")]
    TimeUnit(String),
    #[error("unknown unit of time `{0}`: ns, us, ms, s, m, h or d")]
    UnknownTimeUnit(String),
    #[error("a time has whole numbers: 1500ms, not 1.5s")]
    Fraction,
    #[error("expected a size like 65536, 512KiB or 8MiB")]
    Size,
    #[error("unknown unit of size `{0}`: KiB, MiB, GiB or TiB (KB, MB, GB, TB for powers of ten)")]
    UnknownSizeUnit(String),
    #[error("too large")]
    TooLarge,
    #[error("not a pattern: {0}")]
    Glob(&'static str),
    #[error("expected a signal and its source, like rx=fentry")]
    Source,
    #[error("{probe} has no source {found}; there is {rungs}")]
    Rung { probe: String, found: String, rungs: String },
    #[error("unknown signal `{found}`: one of {}", Signal::ALL.map(Signal::name).join(", "))]
    Signal { found: String },
    #[error("a threshold is above 0 or `off`; to keep every packet, use --sample 1")]
    ZeroThreshold,
}

/// `30s`, `1m30s`, `500us`, `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, ValueError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total_ns: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or(ValueError::Time)??;
        if after.starts_with('.') {
            return Err(ValueError::Fraction);
        }
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        if unit.is_empty() {
            return Err(ValueError::TimeUnit(number.to_string()));
        }
        let scale = TIME_UNITS.iter().find(|(name, _)| *name == unit);
        let (_, scale) = scale.ok_or_else(|| ValueError::UnknownTimeUnit(unit.to_owned()))?;
        let ns = number.checked_mul(*scale).and_then(|ns| total_ns.checked_add(ns));
        total_ns = ns.ok_or(ValueError::TooLarge)?;
        rest = next;
    }
    if text.is_empty() { Err(ValueError::Time) } else { Ok(Duration::from_nanos(total_ns)) }
}

/// `65536`, `512KiB`, `8M`, bytes. As with coreutils, `K` and `KiB` are 1024 and `KB` is 1000.
pub(crate) fn size(text: &str) -> Result<u64, ValueError> {
    let (number, unit) = number(text).ok_or(ValueError::Size)??;
    let lower = unit.trim_start().to_ascii_lowercase();
    let scale = SIZE_UNITS.iter().find(|(name, _)| *name == lower);
    let (_, scale) = scale.ok_or_else(|| ValueError::UnknownSizeUnit(unit.to_owned()))?;
    number.checked_mul(*scale).ok_or(ValueError::TooLarge)
}

/// An interface pattern.
pub(super) fn glob(text: &str) -> Result<Pattern, ValueError> {
    Pattern::new(text).map_err(|e| ValueError::Glob(e.msg))
}

/// `1ms`, `rx.total=500us`, `off`, `fwd.host=off`.
pub(super) fn exemplar(text: &str) -> Result<Exemplar, ValueError> {
    let (signal, time) = match text.split_once('=') {
        Some((name, time)) => {
            let signal = Signal::from_name(name);
            (Some(signal.ok_or_else(|| ValueError::Signal { found: name.to_owned() })?), time)
        }
        None => (None, text),
    };
    let threshold = match time {
        "off" => None,
        time => Some(duration(time)?),
    };
    if threshold == Some(Duration::ZERO) {
        return Err(ValueError::ZeroThreshold);
    }
    Ok(Exemplar { signal, threshold })
}

/// The number that a text begins with, and what follows; none when it begins otherwise.
fn number(text: &str) -> Option<Result<(u64, &str), ValueError>> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 {
        return None;
    }
    let (digits, rest) = text.split_at(end);
    Some(digits.parse().map(|n| (n, rest)).map_err(|_| ValueError::TooLarge))
}

/// The name of a probe, or of a group of them.
pub(super) fn signal_group(text: &str) -> Result<String, ValueError> {
    if crate::probes::select(&[text.to_owned()]).is_empty() {
        let names: Vec<_> = crate::probes::PROBES.iter().map(|p| p.name).collect();
        return Err(ValueError::SignalGroup(names.join(", ")));
    }
    Ok(text.to_owned())
}

/// `rx=fentry`: a probe or group, and one of its rungs.
pub(super) fn source(text: &str) -> Result<Forced, ValueError> {
    let Some((name, rung)) = text.split_once('=') else { return Err(ValueError::Source) };
    let probe = signal_group(name)?;
    let rungs = crate::probes::rungs(&probe);
    if !rungs.contains(&rung) {
        return Err(ValueError::Rung { probe, found: rung.to_owned(), rungs: rungs.join(", ") });
    }
    Ok(Forced { probe, rung: rung.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, ns) in [
            ("0", 0),
            ("0s", 0),
            ("7ns", 7),
            ("500us", 500_000),
            ("500µs", 500_000),
            ("500ms", 500_000_000),
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("2h", 7_200_000_000_000),
            ("3d", 259_200_000_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
        assert_eq!(duration(""), Err(ValueError::Time));
        assert_eq!(duration("-1s"), Err(ValueError::Time));
        assert_eq!(duration("s"), Err(ValueError::Time));
        assert_eq!(duration("10"), Err(ValueError::TimeUnit("10".into())));
        assert_eq!(duration("1m30"), Err(ValueError::TimeUnit("30".into())));
        assert_eq!(duration("1.5s"), Err(ValueError::Fraction));
        assert_eq!(duration("3w"), Err(ValueError::UnknownTimeUnit("w".into())));
        assert_eq!(duration("99999999999h"), Err(ValueError::TooLarge));
        assert_eq!(duration("99999999999999999999s"), Err(ValueError::TooLarge));
    }

    #[test]
    fn sources() {
        let forced = |probe: &str, rung: &str| Forced { probe: probe.to_owned(), rung: rung.to_owned() };
        assert_eq!(source("rx=fentry"), Ok(forced("rx", "fentry")));
        assert_eq!(source("dns.latency=tc"), Ok(forced("dns.latency", "tc")));
        assert_eq!(source("fentry"), Err(ValueError::Source));
        assert!(matches!(source("nothing=tc"), Err(ValueError::SignalGroup(_))));
        assert_eq!(
            source("dns.latency=kprobe").unwrap_err().to_string(),
            "dns.latency has no source kprobe; there is tc"
        );
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("65536", 65_536),
            ("64k", 65_536),
            ("8MiB", 8 << 20),
            ("8 MiB", 8 << 20),
            ("8m", 8 << 20),
            ("1GiB", 1 << 30),
            ("1kb", 1_000),
            ("12B", 12),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(size("MiB"), Err(ValueError::Size));
        assert_eq!(size(""), Err(ValueError::Size));
        assert_eq!(size("8x"), Err(ValueError::UnknownSizeUnit("x".into())));
        assert_eq!(size("99999999999TiB"), Err(ValueError::TooLarge));
    }

    #[test]
    fn thresholds() {
        let ms = Some(Duration::from_millis(1));
        assert_eq!(exemplar("1ms"), Ok(Exemplar { signal: None, threshold: ms }));
        assert_eq!(exemplar("off"), Ok(Exemplar { signal: None, threshold: None }));
        let rx = Some(Signal::RxTotal);
        assert_eq!(exemplar("rx.total=1ms"), Ok(Exemplar { signal: rx, threshold: ms }));
        assert_eq!(exemplar("0"), Err(ValueError::ZeroThreshold));
        assert_eq!(exemplar("rx=1ms"), Err(ValueError::Signal { found: "rx".into() }));
        assert!(ValueError::Signal { found: "rx".into() }.to_string().contains("rx.total, "));
    }

    #[test]
    fn globs() {
        assert!(glob("eth*").unwrap().matches("eth0"));
        assert!(matches!(glob("eth["), Err(ValueError::Glob(_))));
    }
}
