//! Times as people type them: `03:12`, `2026-03-01 03:12`, RFC 3339, `-2h`.
//!
//! Needs a text, and to know what it means the present time; yields Unix times. A time without a zone is this machine's; one
//! without a day is the latest such time that is over, or the first after another.

use super::value;
use crate::capture::nanos;
use jiff::{
    Timestamp, ZonedDateTime,
    civil::{DateTime, Time},
    fmt::temporal::DateTimeParser,
    tz::TimeZone,
};
use std::{str::FromStr, time::Duration};

/// A time as it is typed.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// One that needs nothing else, Unix time, ns.
    Unix(u64),
    /// So long before another: `-2h`, `now`.
    Before(Duration),
    /// So long after another: `+10m`.
    After(Duration),
    /// A day and a time in a zone, or in this machine's.
    Civil(DateTime, Option<TimeZone>),
    /// A time of day in a zone, or in this machine's.
    Daily(Time, Option<TimeZone>),
}

/// Another window to compare with: its start, or both ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Against {
    /// Its start; `-1d` is so long before the start of the window that is asked about.
    pub from: When,
    /// Its end; none for as long as the other.
    pub to: Option<When>,
}

/// What times are counted from.
#[derive(Clone, Debug)]
pub(super) struct Present {
    /// Now, Unix time, ns.
    pub(super) unix_ns: u64,
    /// This machine's zone.
    pub(super) zone: TimeZone,
}

/// A text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhenError {
    /// No form of a time.
    #[error(
        "`{0}` is no time: expected 03:12, 2026-03-01 03:12, 2026-03-01T03:12:00Z, -2h, @1767225600 or now; a zone may follow: 03:12 \
         UTC, 03:12 Europe/Berlin"
    )]
    Syntax(String),
    /// What follows a sign is no time.
    #[error("`{0}`: {1}")]
    Duration(String, String),
    /// No zone of that name, or no zones on this machine.
    #[error("`{0}`: no such time zone")]
    Zone(String),
    /// Before 1970, or too far off.
    #[error("`{0}` is out of range")]
    Range(String),
}

impl FromStr for When {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        let text = text.trim();
        let duration = |typed: &str| {
            value::duration(typed).map_err(|e| WhenError::Duration(text.to_owned(), e.to_string()))
        };
        if text == "now" {
            return Ok(Self::Before(Duration::ZERO));
        }
        if let Some(ago) = text.strip_prefix('-') {
            return duration(ago).map(Self::Before);
        }
        if let Some(after) = text.strip_prefix('+') {
            return duration(after).map(Self::After);
        }
        if let Some(seconds) = text.strip_prefix('@') {
            let ns = seconds.parse::<u64>().ok().and_then(|s| s.checked_mul(1_000_000_000));
            return ns.map(Self::Unix).ok_or_else(|| WhenError::Range(text.to_owned()));
        }
        if let Ok(timestamp) = text.parse::<Timestamp>() {
            return unix_ns(timestamp).map(Self::Unix).ok_or_else(|| WhenError::Range(text.to_owned()));
        }
        let (civil, zone) = with_zone(text)?;
        if let Ok(time) = daily(civil) {
            return Ok(Self::Daily(time, zone));
        }
        civil
            .parse::<DateTime>()
            .map(|civil| Self::Civil(civil, zone))
            .map_err(|_| WhenError::Syntax(text.to_owned()))
    }
}

impl FromStr for Against {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        match text.split_once("..") {
            Some((from, to)) => Ok(Self { from: from.parse()?, to: Some(to.parse()?) }),
            None => Ok(Self { from: text.parse()?, to: None }),
        }
    }
}

impl Present {
    /// As the system has it.
    pub(super) fn now() -> Self {
        Self { unix_ns: unix_ns(Timestamp::now()).unwrap_or_default(), zone: TimeZone::system() }
    }

    /// A Unix time in this machine's zone.
    pub(super) fn local(&self, unix_ns: u64) -> String {
        match timestamp(unix_ns) {
            Some(t) => t.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
            None => crate::report::units::utc(unix_ns),
        }
    }
}

impl When {
    /// The latest such time that is over. A time before another is counted from now.
    pub(super) fn latest(&self, present: &Present) -> Option<u64> {
        self.resolve(present, present.unix_ns, |then, now| if then > now { -1 } else { 0 })
    }

    /// The first such time after another; a time before another is counted from now all the same.
    pub(super) fn first_after(&self, other_ns: u64, present: &Present) -> Option<u64> {
        match self {
            Self::After(duration) => other_ns.checked_add(nanos(*duration)),
            _ => {
                let from = if matches!(self, Self::Before(_)) { present.unix_ns } else { other_ns };
                self.resolve(present, from, |then, other| i64::from(then <= other))
            }
        }
    }

    /// The time that a relative one is before or after; any other is what it is.
    pub(super) fn relative_to(&self, other_ns: u64, present: &Present) -> Option<u64> {
        match self {
            Self::Before(_) | Self::After(_) => self.resolve(present, other_ns, |_, _| 0),
            _ => self.latest(present),
        }
    }

    /// `days` says of a time of the same day as `reference_ns`, and of that, how many days from there the one that is meant is.
    fn resolve(
        &self,
        present: &Present,
        reference_ns: u64,
        days: impl Fn(&ZonedDateTime, &ZonedDateTime) -> i64,
    ) -> Option<u64> {
        let zone = |zone: &Option<TimeZone>| zone.clone().unwrap_or_else(|| present.zone.clone());
        match self {
            Self::Unix(ns) => Some(*ns),
            Self::Before(duration) => reference_ns.checked_sub(nanos(*duration)),
            Self::After(duration) => reference_ns.checked_add(nanos(*duration)),
            Self::Civil(civil, typed) => unix_ns(civil.to_zoned_datetime(zone(typed)).ok()?.timestamp()),
            Self::Daily(time, typed) => {
                let reference = timestamp(reference_ns)?.to_zoned_datetime(zone(typed));
                let on =
                    |date: jiff::civil::Date| date.to_datetime(*time).to_zoned_datetime(zone(typed)).ok();
                let today = on(reference.date())?;
                let date = match days(&today, &reference) {
                    -1 => reference.date().yesterday().ok()?,
                    0 => reference.date(),
                    _ => reference.date().tomorrow().ok()?,
                };
                unix_ns(on(date)?.timestamp())
            }
        }
    }
}

/// Splits a zone off the end: ` UTC`, ` Europe/Berlin`, `Z`, and of a time of day `+02:00`.
fn with_zone(text: &str) -> Result<(&str, Option<TimeZone>), WhenError> {
    let named = |civil, name: &str| match name {
        "Z" | "z" | "UTC" | "utc" => Ok((civil, Some(TimeZone::UTC))),
        _ => {
            let zone = DateTimeParser::new().parse_time_zone(name);
            zone.map(|zone| (civil, Some(zone))).map_err(|_| WhenError::Zone(name.to_owned()))
        }
    };
    let is_time = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    if let Some((civil, name)) = text.rsplit_once(' ')
        && !is_time(name)
    {
        return named(civil.trim_end(), name);
    }
    if let Some(civil) = text.strip_suffix(['Z', 'z']) {
        return named(civil, "Z");
    }
    // Of a day, dashes are a part.
    match text.find(['+', '-']) {
        Some(at) if text[..at].contains(':') => named(&text[..at], &text[at..]),
        _ => Ok((text, None)),
    }
}

/// `03:12`, `3:12`, `03:12:30`.
fn daily(text: &str) -> Result<Time, jiff::Error> {
    let hour = text.split(':').next().map_or(0, str::len);
    // Four digits alone may be a year.
    if !text.contains(':') || hour > 2 {
        return "".parse();
    }
    if hour == 1 { format!("0{text}").parse() } else { text.parse() }
}

fn timestamp(unix_ns: u64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(unix_ns)).ok()
}

/// None before 1970.
fn unix_ns(timestamp: Timestamp) -> Option<u64> {
    u64::try_from(timestamp.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-01 15:00 in Berlin, which is an hour ahead then.
    fn present() -> Present {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        Present { unix_ns: ns("2026-03-01T14:00:00Z"), zone }
    }

    fn ns(text: &str) -> u64 {
        unix_ns(text.parse().unwrap()).unwrap()
    }

    fn latest(text: &str) -> u64 {
        text.parse::<When>().unwrap().latest(&present()).unwrap()
    }

    #[test]
    fn times_are_read_as_people_mean_them() {
        for (typed, meant) in [
            ("now", "2026-03-01T14:00:00Z"),
            ("-2h", "2026-03-01T12:00:00Z"),
            ("-1d12h", "2026-02-28T02:00:00Z"),
            ("03:12", "2026-03-01T02:12:00Z"),
            ("3:12", "2026-03-01T02:12:00Z"),
            ("03:12:30", "2026-03-01T02:12:30Z"),
            ("15:01", "2026-02-28T14:01:00Z"),
            ("15:00", "2026-03-01T14:00:00Z"),
            ("03:12 UTC", "2026-03-01T03:12:00Z"),
            ("03:12Z", "2026-03-01T03:12:00Z"),
            ("03:12+02:00", "2026-03-01T01:12:00Z"),
            ("23:30-05:00", "2026-03-01T04:30:00Z"),
            ("2026-02-27 03:12", "2026-02-27T02:12:00Z"),
            ("2026-02-27T03:12:01", "2026-02-27T02:12:01Z"),
            ("2026-02-27", "2026-02-26T23:00:00Z"),
            ("2026-02-27 03:12 UTC", "2026-02-27T03:12:00Z"),
            ("2026-02-27T03:12:00Z", "2026-02-27T03:12:00Z"),
            ("2026-02-27T03:12:00-05:00", "2026-02-27T08:12:00Z"),
            ("2026-02-27 03:12+02:00", "2026-02-27T01:12:00Z"),
            ("@1767225600", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(latest(typed), ns(meant), "{typed}");
        }
    }

    #[test]
    fn an_end_is_the_first_such_time_after_the_start() {
        let from = latest("23:00");
        let to = |text: &str| text.parse::<When>().unwrap().first_after(from, &present()).unwrap();
        assert_eq!(from, ns("2026-02-28T22:00:00Z"));
        assert_eq!(to("23:30"), ns("2026-02-28T22:30:00Z"));
        assert_eq!(to("01:00"), ns("2026-03-01T00:00:00Z"), "the next day");
        assert_eq!(to("+10m"), ns("2026-02-28T22:10:00Z"));
        assert_eq!(to("-1h"), ns("2026-03-01T13:00:00Z"), "an hour ago");
        assert_eq!(to("now"), present().unix_ns);
    }

    #[test]
    fn what_is_compared_with_may_be_so_long_before() {
        let start = ns("2026-03-01T10:00:00Z");
        let against = |text: &str| text.parse::<Against>().unwrap();
        let day = against("-1d");
        assert_eq!(day.from.relative_to(start, &present()), Some(ns("2026-02-28T10:00:00Z")));
        assert_eq!(day.to, None);
        let both = against("02:00..03:00");
        assert_eq!(both.from.relative_to(start, &present()), Some(ns("2026-03-01T01:00:00Z")));
        assert_eq!(both.to, Some(When::Daily(Time::constant(3, 0, 0, 0), None)));
    }

    #[test]
    fn summer_time_begins_and_ends_with_the_zone() {
        let Ok(berlin) = TimeZone::get("Europe/Berlin") else {
            println!("skipped: this machine has no time zones");
            return;
        };
        assert_eq!(latest("2026-07-01 12:00 Europe/Berlin"), ns("2026-07-01T10:00:00Z"));
        // The hour from 2:00 to 3:00 is not there: times in it are an hour later.
        let present = Present { unix_ns: ns("2026-03-29T12:00:00Z"), zone: berlin };
        let latest = |text: &str| text.parse::<When>().unwrap().latest(&present).unwrap();
        assert_eq!(latest("02:30"), ns("2026-03-29T01:30:00Z"));
        assert_eq!(present.local(latest("02:30")), "2026-03-29 03:30:00 +02:00");
        // 23:00 of the day before, which was in winter.
        assert_eq!(latest("23:00"), ns("2026-03-28T22:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_told() {
        for wrong in [
            "",
            "noon",
            "25:00",
            "0312",
            "2026",
            "12",
            "2026-13-01",
            "-2",
            "-2 parsecs",
            "@-1",
            "1969-01-01T00:00:00Z",
        ] {
            let error = wrong.parse::<When>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}`")), "{wrong}: {error}");
        }
        assert_eq!(
            "03:12 Atlantis/Nowhere".parse::<When>().unwrap_err(),
            WhenError::Zone("Atlantis/Nowhere".into())
        );
        assert!("03:12..".parse::<Against>().is_err());
    }
}
