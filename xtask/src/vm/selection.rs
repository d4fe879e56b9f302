//! Which tests run on which kernels, and what is expected to fail there: the data of `tests/vm.toml`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use glob::Pattern;
use serde::Deserialize;

use super::kernels::SERIES;

/// The data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selection {
    /// Tests that do not run in the machines.
    #[serde(default)]
    outside: Vec<Outside>,
    /// Tests that need more than one processor, on a machine that has two. Its time is not the host's own.
    #[serde(default)]
    two_processors: Vec<Tests>,
    /// Kernel series, tests, reasons.
    #[serde(default)]
    gaps: BTreeMap<String, BTreeMap<Tests, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outside {
    tests: Vec<Tests>,
    /// Read by people.
    #[expect(dead_code, reason = "required of whoever adds an entry, and shown by nothing")]
    reason: String,
}

/// Names of tests, with `*` for any part of them.
#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
struct Tests(Pattern);

impl TryFrom<String> for Tests {
    type Error = glob::PatternError;

    fn try_from(text: String) -> Result<Self, glob::PatternError> {
        Pattern::new(&text).map(Self)
    }
}

impl Selection {
    /// Reads the data, and checks them against the tests that there are.
    pub(super) fn read(path: &Path, tests: &[&str]) -> Result<Self> {
        let context = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(context)?;
        Self::parse(&text, tests).with_context(context)
    }

    fn parse(text: &str, tests: &[&str]) -> Result<Self> {
        let selection: Self = toml::from_str(text)?;
        if let Some(series) = selection.gaps.keys().find(|name| SERIES.iter().all(|s| s.name != **name)) {
            bail!("gaps: there is no kernel series {series}");
        }
        let outside = selection.outside.iter().flat_map(|outside| &outside.tests);
        let gaps = selection.gaps.values().flat_map(BTreeMap::keys);
        for Tests(pattern) in outside.chain(gaps).chain(&selection.two_processors) {
            if !tests.iter().any(|name| pattern.matches(name)) {
                bail!("there is no test {pattern}");
            }
        }
        Ok(selection)
    }

    /// Whether a test runs in the machines.
    pub(super) fn is_inside(&self, test: &str) -> bool {
        !self.outside.iter().flat_map(|outside| &outside.tests).any(|Tests(pattern)| pattern.matches(test))
    }

    /// Processors of the machine that a test runs on.
    pub(super) fn processors(&self, test: &str) -> u8 {
        if self.two_processors.iter().any(|Tests(pattern)| pattern.matches(test)) { 2 } else { 1 }
    }

    /// Why a test is expected to fail on a kernel; none when it is not.
    pub(super) fn gap(&self, series: &str, test: &str) -> Option<&str> {
        let gaps = self.gaps.get(series)?;
        gaps.iter().find(|(Tests(pattern), _)| pattern.matches(test)).map(|(_, reason)| reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TESTS: [&str; 3] = ["probes::rx::one", "probes::rx::two", "run::cli"];

    #[test]
    fn what_runs_where_is_read_from_the_data() {
        let text = r#"
            two_processors = ["probes::rx::two"]
            [[outside]]
            tests = ["run::*"]
            reason = "needs a browser"
            [gaps."5.10"]
            "probes::rx::*" = "no tracepoint"
        "#;
        let data = Selection::parse(text, &TESTS).expect("well formed");
        assert!(data.is_inside(TESTS[0]) && !data.is_inside(TESTS[2]));
        assert_eq!((data.processors(TESTS[0]), data.processors(TESTS[1])), (1, 2));
        assert_eq!(data.gap("5.10", TESTS[1]), Some("no tracepoint"));
        assert_eq!((data.gap("5.10", TESTS[2]), data.gap("6.1", TESTS[1])), (None, None));
    }

    #[test]
    fn stale_and_malformed_data_are_refused() {
        let refused = |text| format!("{:#}", Selection::parse(text, &TESTS).expect_err("bad"));
        assert!(refused("[gaps.\"2.6\"]\n\"run::*\" = \"old\"").contains("no kernel series 2.6"));
        assert!(refused("[gaps.\"6.1\"]\n\"gone::*\" = \"x\"").contains("no test gone::*"));
        assert!(refused("[[outside]]\ntests = [\"run::*\"]").contains("reason"));
        assert!(refused("[[outside]]\ntests = [\"[\"]\nreason = \"x\"").contains("attern"));
        assert!(refused("gap = 1").contains("gap"));
    }
}
