//! Values of configuration files that have a unit: the same texts as on the command line.

use crate::cli::value;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::time::Duration;

/// `"5s"`, `"1m30s"`, `"500us"`, `"30d"`.
///
/// # Errors
/// What is wrong with the text.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    value::duration(&text).map_err(D::Error::custom)
}

/// `"64MiB"`, bytes.
///
/// # Errors
/// What is wrong with the text.
pub fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    value::size(&text).map_err(D::Error::custom)
}

/// `"1%"`, as a share, 0 to 1.
///
/// # Errors
/// When it is no percentage.
pub fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let text = String::deserialize(deserializer)?;
    percentage(&text).ok_or_else(|| D::Error::custom(format!("`{text}`: expected a percentage such as `1%`")))
}

/// A percentage as a share; none when it is none, or negative.
#[must_use]
pub fn percentage(text: &str) -> Option<f64> {
    let number: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug)]
    struct File {
        #[serde(deserialize_with = "duration")]
        interval: Duration,
        #[serde(deserialize_with = "bytes")]
        size: u64,
        #[serde(deserialize_with = "share")]
        cpu: f64,
    }

    #[test]
    fn texts_are_those_of_the_command_line() {
        let file: File = toml::from_str("interval = '1m30s'\nsize = '64MiB'\ncpu = '1.5%'").unwrap();
        assert_eq!((file.interval, file.size), (Duration::from_secs(90), 64 << 20));
        assert!((file.cpu - 0.015).abs() < 1e-12, "{}", file.cpu);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let wrong = |text: &str| toml::from_str::<File>(text).unwrap_err().to_string();
        let error = wrong("interval = '5 parsecs'\nsize = '1'\ncpu = '1%'");
        assert!(error.contains("line 1") && error.contains("parsecs"), "{error}");
        for cpu in ["'1'", "'-1%'", "'NaN%'", "'%'"] {
            let error = wrong(&format!("interval = '5s'\nsize = '1'\ncpu = {cpu}"));
            assert!(error.contains("line 3") && error.contains("percentage"), "{error}");
        }
    }
}
