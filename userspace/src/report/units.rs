//! Numbers with their units, as every report shows them: three significant digits for durations and sizes, all the
//! digits of a count in groups of three.
//!
//! Needs plain numbers; yields short strings of ASCII.

/// A duration: `0 ns`, `840 ns`, `1.20 us`, `41.0 ms`, `4.80 s`, `1,031 s`.
#[must_use]
pub fn duration(ns: u64) -> String {
    scaled(ns as f64, &[("ns", 1e3), ("us", 1e3), ("ms", 1e3), ("s", f64::INFINITY)])
}

/// A duration that was computed; what is not a number is shown as `-`.
#[must_use]
pub fn duration_f64(ns: f64) -> String {
    if ns.is_finite() && ns >= 0.0 {
        scaled(ns, &[("ns", 1e3), ("us", 1e3), ("ms", 1e3), ("s", f64::INFINITY)])
    } else {
        "-".to_owned()
    }
}

/// A size: `66 B`, `1.48 KiB`, `21.0 MiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const STEP: f64 = 1024.0;
    scaled(n as f64, &[("B", STEP), ("KiB", STEP), ("MiB", STEP), ("GiB", STEP), ("TiB", f64::INFINITY)])
}

/// A count with thousands separators: `84,210`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun: `1 query`, `3 queries`.
#[must_use]
pub fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A share (0 to 1) in percent: `0.31 %`, `12.5 %`; `-` when it is not a number.
#[must_use]
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if !p.is_finite() => "-".to_owned(),
        0.0 => "0 %".to_owned(),
        p if p.abs() < 0.01 => "<0.01 %".to_owned(),
        p => format!("{} %", significant(p)),
    }
}

/// Events a second over a time in ns: `7.13/s`; `-` when no time passed.
#[must_use]
pub fn rate(n: u64, ns: u64) -> String {
    if ns == 0 { "-".to_owned() } else { per_second(n as f64 * 1e9 / ns as f64) }
}

/// A rate that was computed: `7.13/s`; `-` when it is not a number.
#[must_use]
pub fn per_second(rate: f64) -> String {
    if rate.is_finite() { format!("{}/s", significant(rate)) } else { "-".to_owned() }
}

/// A Unix time as `2026-01-01 00:00:00 UTC`.
#[must_use]
pub fn utc(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 0000-03-01 in eras of 400 years, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The value in the first unit in which it stays below the step to the next.
fn scaled(mut value: f64, units: &[(&str, f64)]) -> String {
    let whole = value;
    for (i, (unit, step)) in units.iter().enumerate() {
        // A value that would be rounded up to the step belongs to the next unit: 999.9 us is 1.00 ms.
        if value < step - 0.5 || !step.is_finite() {
            let number =
                if i == 0 && whole.fract() == 0.0 { format!("{value:.0}") } else { significant(value) };
            return format!("{number} {unit}");
        }
        value /= step;
    }
    String::new()
}

/// Three significant digits, or all digits before the point when there are more.
fn significant(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 {
        "0".to_owned()
    } else if magnitude >= 999.5 {
        // Beyond 2^64 the cast saturates, which is far from anything measured.
        count(value.abs().round() as u64)
    } else if magnitude >= 99.95 {
        format!("{value:.0}")
    } else if magnitude >= 9.995 {
        format!("{value:.1}")
    } else if magnitude >= 0.0995 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_three_digits() {
        let cases = [
            (0, "0 ns"),
            (1, "1 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (1_234, "1.23 us"),
            (99_949, "99.9 us"),
            (99_960, "100 us"),
            (999_499, "999 us"),
            (999_900, "1.00 ms"),
            (41_000_000, "41.0 ms"),
            (4_800_000_000, "4.80 s"),
            (1_031_000_000_000, "1,031 s"),
            (u64::MAX, "18,446,744,074 s"),
        ];
        for (ns, text) in cases {
            assert_eq!(duration(ns), text, "{ns}");
        }
        assert_eq!(duration_f64(211.4), "211 ns");
        assert_eq!(duration_f64(96.54), "96.5 ns");
        assert_eq!(duration_f64(f64::NAN), "-");
    }

    #[test]
    fn counts_sizes_shares_and_rates() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(84_210_123), "84,210,123");
        assert_eq!(plural(1, "query", "queries"), "1 query");
        assert_eq!(plural(1_200, "query", "queries"), "1,200 queries");
        assert_eq!(bytes(66), "66 B");
        assert_eq!(bytes(1_514), "1.48 KiB");
        assert_eq!(bytes(21 << 20), "21.0 MiB");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.00312), "0.31 %");
        assert_eq!(percent(0.000_001), "<0.01 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(f64::NAN), "-");
        assert_eq!(rate(214, 30_000_000_000), "7.13/s");
        assert_eq!(rate(214, 0), "-");
        assert_eq!(per_second(12_034.4), "12,034/s");
        assert_eq!(per_second(f64::INFINITY), "-");
    }

    #[test]
    fn times_are_civil() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400 * 1_000_000_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_767_225_599 * 1_000_000_000), "2025-12-31 23:59:59 UTC");
        assert_eq!(utc(u64::MAX), "2554-07-21 23:34:33 UTC");
    }

    proptest! {
        #[test]
        fn any_number_has_a_short_form_with_a_unit(n: u64, x: f64) {
            for text in [duration(n), bytes(n), utc(n), rate(n, 1), per_second(x), percent(x), duration_f64(x)] {
                prop_assert!(text.is_ascii() && !text.is_empty() && text.len() < 40, "{}", text);
            }
        }
    }
}
