//! Which tests run on which kernels, and what is expected to fail there: the data of `tests/vm.toml`.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use glob::Pattern;
use serde::Deserialize;

use super::{kernels::SERIES, machine::Clock};

/// The data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selection {
    /// Tests that the matrix runs.
    inside: Vec<Tests>,
    /// Tests that cannot run in the machines.
    #[serde(default)]
    outside: Vec<Outside>,
    /// Those of them that check how long something takes, on a machine whose time is its own.
    #[serde(default)]
    timed: Vec<Tests>,
    /// Tests that are expected to fail.
    #[serde(default)]
    gap: Vec<Gap>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outside {
    tests: Vec<Tests>,
    /// Read by people.
    #[expect(dead_code, reason = "required of whoever adds an entry, and shown by nothing")]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gap {
    kernels: Vec<String>,
    tests: Vec<Tests>,
    reason: String,
}

/// Names of tests, with `*` for any part of them.
#[derive(Debug, Deserialize)]
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
        let mut kernels = selection.gap.iter().flat_map(|gap| &gap.kernels);
        if let Some(unknown) = kernels.find(|name| SERIES.iter().all(|series| series.name != **name)) {
            bail!("there is no kernel series {unknown}");
        }
        let outside = selection.outside.iter().flat_map(|outside| &outside.tests);
        let gaps = selection.gap.iter().flat_map(|gap| &gap.tests);
        let lists = selection.inside.iter().chain(&selection.timed);
        for Tests(pattern) in outside.chain(gaps).chain(lists) {
            if !tests.iter().any(|name| pattern.matches(name)) {
                bail!("there is no test {pattern}");
            }
        }
        Ok(selection)
    }

    /// Whether the matrix runs a test.
    pub(super) fn is_inside(&self, test: &str) -> bool {
        self.is_possible(test) && self.inside.iter().any(|Tests(pattern)| pattern.matches(test))
    }

    /// Whether a test can run in the machines, be it worth its time or not.
    pub(super) fn is_possible(&self, test: &str) -> bool {
        !self.outside.iter().flat_map(|outside| &outside.tests).any(|Tests(pattern)| pattern.matches(test))
    }

    /// The time of the machine that a test runs on.
    pub(super) fn clock(&self, test: &str) -> Clock {
        let timed = self.timed.iter().any(|Tests(pattern)| pattern.matches(test));
        if timed { Clock::Own } else { Clock::Host }
    }

    /// Why a test is expected to fail on a kernel; none when it is not.
    pub(super) fn gap(&self, series: &str, test: &str) -> Option<&str> {
        let is_it = |gap: &&Gap| {
            gap.kernels.iter().any(|name| name == series)
                && gap.tests.iter().any(|Tests(pattern)| pattern.matches(test))
        };
        self.gap.iter().find(is_it).map(|gap| gap.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TESTS: [&str; 3] = ["probes::rx::one", "probes::rx::two", "run::cli"];

    #[test]
    fn what_runs_where_is_read_from_the_data() {
        let text = r#"
            inside = ["probes::*::one", "run::*"]
            timed = ["probes::rx::two"]
            [[outside]]
            tests = ["run::*"]
            reason = "needs a browser"
            [[gap]]
            kernels = ["5.10"]
            tests = ["probes::rx::*"]
            reason = "no tracepoint"
        "#;
        let data = Selection::parse(text, &TESTS).expect("well formed");
        assert_eq!(TESTS.map(|test| data.is_inside(test)), [true, false, false]);
        assert_eq!(TESTS.map(|test| data.is_possible(test)), [true, true, false]);
        assert_eq!((data.clock(TESTS[0]), data.clock(TESTS[1])), (Clock::Host, Clock::Own));
        assert_eq!(data.gap("5.10", TESTS[1]), Some("no tracepoint"));
        assert_eq!((data.gap("5.10", TESTS[2]), data.gap("6.1", TESTS[1])), (None, None));
    }

    #[test]
    fn stale_and_malformed_data_are_refused() {
        let gap =
            |kernel, test| format!("[[gap]]\nkernels = [{kernel:?}]\ntests = [{test:?}]\nreason = \"x\"");
        let refused = |text: &str| {
            let text = format!("inside = []\n{text}");
            format!("{:#}", Selection::parse(&text, &TESTS).expect_err("bad"))
        };
        assert!(refused(&gap("2.6", "run::*")).contains("no kernel series 2.6"));
        assert!(refused(&gap("6.1", "gone::*")).contains("no test gone::*"));
        assert!(refused("[[outside]]\ntests = [\"run::*\"]").contains("reason"));
        assert!(refused("[[outside]]\ntests = [\"[\"]\nreason = \"x\"").contains("attern"));
        assert!(refused("gaps = 1").contains("gaps"));
    }
}
