//! The agent's configuration file: TOML, of which each section belongs to a part of the agent.
//!
//! Needs a file; yields an [`AgentConfig`], or an error with file, line and column. `[capture]` has the options of
//! `nettrace run` under their own names, and their values are checked by the same code.

use super::{Capture, UsageError, capture, units};
use crate::{
    agent::BudgetConfig,
    cli::CaptureArgs,
    export::{MetricsConfig, OtlpConfig},
    flight::FlightConfig,
    history::{HistoryConfig, HistoryError},
    privilege::PrivilegeConfig,
    web::{WebConfig, WebConfigError},
};
use clap::{Args as _, FromArgMatches as _};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::{Spanned, Value};

/// Where the file is unless it is said.
pub const DEFAULT_FILE: &str = "/etc/nettrace/agent.toml";
/// Windows shorter than this cost more than they tell.
pub const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Of longer ones the page would be of no use.
pub const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// The configuration.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The file; none for the command line alone.
    pub file: Option<PathBuf>,
    /// What is measured.
    pub capture: Capture,
    /// The other sections.
    pub sections: Sections,
}

/// The sections of the parts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sections {
    capture: BTreeMap<String, Spanned<Value>>,
    /// `[agent]`.
    pub agent: AgentSection,
    /// `[metrics]`.
    pub metrics: MetricsConfig,
    /// `[otlp]`.
    pub otlp: OtlpConfig,
    /// `[web]`.
    pub web: WebConfig,
    /// `[history]`.
    pub history: HistoryConfig,
    /// `[flight]`.
    pub flight: FlightConfig,
    /// `[budget]`.
    pub budget: BudgetConfig,
    /// `[privilege]`.
    pub privilege: PrivilegeConfig,
    /// `[log]`.
    pub log: LogConfig,
}

/// `[agent]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSection {
    /// Length of a window: how old what is shown may be.
    #[serde(deserialize_with = "units::duration")]
    pub interval: Duration,
    /// Findings are of the windows of so long, and made anew ten times in it.
    #[serde(deserialize_with = "units::duration")]
    pub findings: Duration,
    /// Directory of the journal of changes; none for the usual one.
    pub state_dir: Option<PathBuf>,
}

impl Default for AgentSection {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), findings: Duration::from_secs(300), state_dir: None }
    }
}

/// `[log]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// From which level on.
    pub level: LogLevel,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How grave a line of the log has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what is not as it should be.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// Everything.
    Debug,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not what it should be.
    #[error("{}:{line}:{column}: {what}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What was found, and what was expected.
        what: String,
    },
    /// `[web]` contradicts itself.
    #[error("{}: {error}", path.display())]
    Web {
        /// The file.
        path: PathBuf,
        /// Why.
        error: WebConfigError,
    },
    /// `[history]` contradicts itself.
    #[error("{}: {error}", path.display())]
    History {
        /// The file.
        path: PathBuf,
        /// Why.
        error: HistoryError,
    },
    /// The options of `[capture]` do not go together.
    #[error("{}: [capture] {error}", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// Why.
        error: UsageError,
    },
}

impl AgentConfig {
    /// Reads a file. `page_bytes` is the kernel's page size.
    ///
    /// # Errors
    /// When it cannot be read, or something in it is not as it should be, with its place.
    pub fn read(path: &Path, page_bytes: u64) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        Self::parse(path, &text, page_bytes)
    }

    /// The same of a text that is there already.
    ///
    /// # Errors
    /// When something in it is not as it should be, with its place.
    pub fn parse(path: &Path, text: &str, page_bytes: u64) -> Result<Self, ConfigError> {
        let wrong = |at: usize, what: String| {
            let (line, column) = place(text, at);
            ConfigError::Wrong { path: path.to_owned(), line, column, what }
        };
        let sections: Sections = toml::from_str(text)
            .map_err(|e| wrong(e.span().map_or(0, |span| span.start), one_line(e.message())))?;
        let AgentSection { interval, findings, .. } = &sections.agent;
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(interval) {
            let at = text.find("interval").unwrap_or(0);
            let what = format!("interval is {interval:?}: expected {MIN_INTERVAL:?} to {MAX_INTERVAL:?}");
            return Err(wrong(at, what));
        }
        if findings < interval {
            let at = text.find("findings").unwrap_or(0);
            let what = format!("findings is {findings:?}: expected no less than interval, {interval:?}");
            return Err(wrong(at, what));
        }
        let owned = || path.to_owned();
        sections.web.check().map_err(|error| ConfigError::Web { path: owned(), error })?;
        sections.history.check().map_err(|error| ConfigError::History { path: owned(), error })?;
        let args = capture_args(&sections.capture).map_err(|(at, what)| wrong(at, what))?;
        let capture = capture(args, page_bytes)
            .map_err(|error| ConfigError::Capture { path: path.to_owned(), error })?;
        let capture = Capture { duration: None, progress: false, ..capture };
        Ok(Self { file: Some(path.to_owned()), capture, sections })
    }

    /// Without a file.
    #[must_use]
    pub fn of(capture: Capture) -> Self {
        let capture = Capture { duration: None, progress: false, ..capture };
        Self { file: None, capture, sections: Sections::default() }
    }

    /// Takes from another what is measured, and how.
    pub fn measure_as(&mut self, other: &Self) {
        self.capture = other.capture.clone();
        self.sections.capture = other.sections.capture.clone();
    }

    /// Whether another configuration measures the same.
    #[must_use]
    pub fn measures_as(&self, other: &Self) -> bool {
        let values = |c: &Self| -> BTreeMap<String, Value> {
            c.sections.capture.iter().map(|(k, v)| (k.clone(), v.get_ref().clone())).collect()
        };
        values(self) == values(other)
    }
}

/// Options that the agent has no use for: it runs until it is stopped, and shows no progress.
const NOT_HERE: [&str; 2] = ["duration", "quiet"];

/// The options of `[capture]`, checked by the command line's own parser: first one by one, so that the place of a wrong one is
/// known, then together.
fn capture_args(options: &BTreeMap<String, Spanned<Value>>) -> Result<CaptureArgs, (usize, String)> {
    let mut all = Vec::new();
    for (name, value) in options {
        let at = value.span().start;
        let typed = typed(name, value.get_ref()).map_err(|what| (at, what))?;
        // `topology` is of no use without `lab`, and says so only when both are there.
        let alone = typed.iter().cloned().chain((name == "topology").then(|| "--lab".to_owned()));
        parsed(alone).map_err(|what| (at, format!("{name}: {what}")))?;
        all.extend(typed);
    }
    let first = options.values().map(|v| v.span().start).min().unwrap_or(0);
    parsed(all.into_iter()).map_err(|what| (first, what))
}

/// As it would be typed.
fn typed(name: &str, value: &Value) -> Result<Vec<String>, String> {
    let command = CaptureArgs::augment_args(clap::Command::new("capture"));
    let option = name.replace('_', "-");
    let known = command.get_arguments().filter_map(|a| a.get_long()).filter(|n| !NOT_HERE.contains(n));
    let known: Vec<_> = known.collect();
    if !known.contains(&option.as_str()) {
        let names: Vec<_> = known.iter().map(|n| n.replace('-', "_")).collect();
        return Err(format!("[capture] has no `{name}`: expected one of {}", names.join(", ")));
    }
    let one = |value: &Value| match value {
        Value::String(text) => Ok(format!("--{option}={text}")),
        Value::Integer(n) => Ok(format!("--{option}={n}")),
        other => Err(format!("{name}: expected a text or a number, found {}", other.type_str())),
    };
    match value {
        Value::Boolean(true) => Ok(vec![format!("--{option}")]),
        Value::Boolean(false) => Ok(Vec::new()),
        Value::Array(values) => values.iter().map(one).collect(),
        single => Ok(vec![one(single)?]),
    }
}

fn parsed(typed: impl Iterator<Item = String>) -> Result<CaptureArgs, String> {
    let command = CaptureArgs::augment_args(clap::Command::new("capture").no_binary_name(true));
    let matches = command.try_get_matches_from(typed).map_err(|e| clap_line(&e))?;
    CaptureArgs::from_arg_matches(&matches).map_err(|e| clap_line(&e))
}

/// What the command line's parser says, without its advice on usage.
fn clap_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let said = text.split("\n\n").next().unwrap_or(&text);
    one_line(said.trim_start_matches("error: "))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Line and column, both from 1, of a byte.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(1, |last| last.chars().count() + 1);
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AgentConfig, ConfigError> {
        AgentConfig::parse(Path::new("agent.toml"), text, 4096)
    }

    fn wrong(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn options_of_a_capture_are_those_of_the_command_line() {
        let text = "
[agent]
interval = '2s'
[capture]
iface = ['eth*', 'ens*']
signals = ['rx', 'dns.latency']
exemplar = ['5ms', 'rx.total=200us']
ring_size = '8MiB'
dns_port = [53, 5353]
sample = 7
xdp = true
[budget]
cpu = '1%'
mem = '64MiB'
[log]
format = 'json'
";
        let config = parse(text).unwrap();
        assert_eq!(config.sections.agent.interval, Duration::from_secs(2));
        assert_eq!(config.capture.signals, ["rx", "dns.latency"]);
        assert_eq!((config.capture.ring_bytes, config.capture.sample_every), (8 << 20, 7));
        assert_eq!(config.capture.dns_ports[..2], [53, 5353]);
        assert!(config.capture.selection.xdp && config.capture.selection.include.len() == 2);
        assert_eq!(config.sections.log.format, LogFormat::Json);
        assert_eq!(config.sections.budget.mem, Some(64 << 20));
        assert!(config.capture.duration.is_none());
        let empty = parse("").unwrap();
        assert_eq!(empty.sections, Sections::default());
    }

    #[test]
    fn every_option_of_run_has_its_key() {
        let command = CaptureArgs::augment_args(clap::Command::new("capture"));
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            let name = option.replace('-', "_");
            let found = typed(&name, &Value::String("x".to_owned()));
            assert_eq!(found.is_err(), NOT_HERE.contains(&option), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_file_line_and_what_was_expected() {
        for (text, at, said) in [
            ("[agent]\ninterval = '5 parsecs'", "agent.toml:2:12", "unknown unit"),
            ("[agent]\ninterval = '5ms'", "agent.toml:2:1", "expected 1s to 600s"),
            ("[agent]\nintervall = '5s'", "agent.toml:2:1", "expected one of"),
            ("[agnet]", "agent.toml:1:2", "unknown field"),
            ("[capture]\niface = 'eth*'\nring_size = '3MiB'", "agent.toml: ", "power of two"),
            ("[capture]\niface = 'eth*'\nring_size = 'huge'", "agent.toml:3:13", "expected a size"),
            ("[capture]\n\nduration = '5s'", "agent.toml:3:12", "has no `duration`"),
            ("[capture]\ndns_port = [0]", "agent.toml:2:12", "dns_port"),
            ("[capture]\nsample = 1.5", "agent.toml:2:10", "expected a text or a number, found float"),
            ("[capture]\nfilter = 'bogus ==='", "agent.toml: ", "--filter"),
            ("[budget]\ncpu = '1'", "agent.toml:2:7", "percentage"),
            ("[log]\nlevel = 'loud'", "agent.toml:2:9", "expected one of"),
            ("[capture", "agent.toml:1:", ""),
        ] {
            let error = wrong(text);
            assert!(error.starts_with(at) && error.contains(said), "{text}: {error}");
        }
        let missing = AgentConfig::read(Path::new("/nowhere/agent.toml"), 4096).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/agent.toml"), "{missing}");
    }

    #[test]
    fn a_change_of_what_is_measured_is_told_from_others() {
        let (a, b) =
            (parse("[capture]\nsample = 3").unwrap(), parse("[log]\n[capture]\nsample = 3").unwrap());
        assert!(a.measures_as(&b), "its place is nothing");
        let mut c = parse("[capture]\nsample = 4").unwrap();
        assert!(!a.measures_as(&c));
        c.measure_as(&a);
        assert!(a.measures_as(&c) && c.capture.sample_every == 3);
    }

    #[test]
    fn places_count_characters() {
        assert_eq!(place("a\nbé = 1", 5), (2, 3));
        assert_eq!(place("a", 99), (1, 2));
    }
}
