//! `[metrics]` of the configuration file.

use serde::{Deserialize, Deserializer, de::Error as _};

/// How metrics are counted and written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Series that a scrape has at the most. What does not fit is counted in series with the label value `other`.
    pub max_series: usize,
    /// Upper bounds of the classic buckets of histograms, seconds, ascending. Each is exact to 0.4 %.
    #[serde(deserialize_with = "bounds")]
    pub classic_buckets: Vec<f64>,
    /// Whether scrapers that ask for protobuf get it, and native histograms with it.
    pub native: bool,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        let classic_buckets =
            vec![1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 5.0];
        Self { max_series: 2_000, classic_buckets, native: true }
    }
}

/// As many are of no use to anybody, and each is a series of every histogram.
const MAX_BOUNDS: usize = 64;

fn bounds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let bounds = Vec::<f64>::deserialize(deserializer)?;
    let ascending = bounds.is_sorted_by(|a, b| a < b);
    if !ascending || bounds.len() > MAX_BOUNDS || bounds.iter().any(|b| !b.is_finite() || *b <= 0.0) {
        return Err(D::Error::custom(format!(
            "expected up to {MAX_BOUNDS} ascending upper bounds in seconds, such as [0.001, 0.01, 0.1]"
        )));
    }
    Ok(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_ascend_or_the_line_is_named() {
        let read = |text: &str| toml::from_str::<MetricsConfig>(text);
        assert_eq!(read("").unwrap(), MetricsConfig::default());
        assert_eq!(read("classic_buckets = [0.5, 1.0]").unwrap().classic_buckets, [0.5, 1.0]);
        for bad in ["[1.0, 0.5]", "[0.0]", "[nan]", "[inf]", "[0.1, 0.1]"] {
            let error = read(&format!("max_series = 9\nclassic_buckets = {bad}")).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains("ascending"), "{error}");
        }
        assert!(read("max_serie = 9").unwrap_err().to_string().contains("unknown field"));
    }
}
