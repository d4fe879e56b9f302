//! What the command line means: defaults filled in, options weighed against each other, everything typed.
//!
//! Needs a [`Cli`]; yields a [`Config`], or a [`UsageError`] (exit code 2). It looks at nothing but the arguments
//! and the page size: whether the machine can do it is [`crate::preflight`]'s business.

mod agent;
mod change;
mod top;
pub mod units;

pub use agent::{
    AgentConfig, AgentSection, ConfigError, DEFAULT_FILE, LogConfig, LogFormat, LogLevel, MAX_INTERVAL,
    MIN_INTERVAL, Sections,
};

pub use change::{Apply, MAX_WINDOW, MIN_WINDOW, Tune, Wanted};
pub use top::{Top, TopSource};

use crate::{
    cli::{
        BenchArgs, CaptureArgs, Cli, Command, CompletionShell, ConfigCommand, Exemplar, Exit, Format,
        HistoryArgs, OutputArgs, RecommendArgs, RecordArgs, Topology,
    },
    filter::{self, FilterError},
    iface::Selection,
    probes::Forced,
    recommend::{self, Profile, Verdict},
    recording::WriterOptions,
};
use nettrace_common::{Signal, filter::Filter, probes::dns};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// From here on a packet is kept where `--exemplar` does not say otherwise.
pub const DEFAULT_EXEMPLAR: Duration = Duration::from_millis(1);
/// The largest ring buffer, bytes.
pub const MAX_RING_BYTES: u32 = 1 << 30;
/// The smallest file of a recording, bytes.
pub const MIN_ROTATE_BYTES: u64 = 1 << 20;

/// What a command line means.
#[derive(Clone, Debug)]
pub struct Config {
    /// 0: warnings, 1: what happens, 2 and more: everything.
    pub verbosity: u8,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Measure and report.
    Run {
        /// What is measured.
        capture: Capture,
        /// Where the report goes.
        output: Output,
        /// What is changed after that, before it is measured again.
        apply: Option<Apply>,
    },
    /// Show what happens now.
    Top(Box<Top>),
    /// Measure for as long as the machine runs.
    Agent {
        /// The configuration, if one was named.
        file: Option<PathBuf>,
        /// What is measured, where it was typed.
        capture: Option<Capture>,
        /// The kernel's page size, bytes.
        page_bytes: u64,
    },
    /// Look at a configuration of the agent.
    ConfigCheck {
        /// The file.
        file: PathBuf,
        /// The kernel's page size, bytes.
        page_bytes: u64,
    },
    /// Measure into a recording.
    Record {
        /// What is measured.
        capture: Capture,
        /// The recording.
        file: PathBuf,
        /// Its limits.
        limits: WriterOptions,
    },
    /// Report on a recording or a snapshot.
    Report {
        /// The recording or snapshot.
        file: PathBuf,
        /// Where the report goes.
        output: Output,
    },
    /// Report on the past.
    History {
        /// Of when, and from where.
        args: Box<HistoryArgs>,
        /// Where the report goes.
        output: Output,
    },
    /// Say what is to be changed.
    Recommend {
        /// What is measured.
        capture: Capture,
        /// What is said of it.
        advice: Advice,
    },
    /// Change settings.
    Apply {
        /// What is measured, where findings are asked for.
        capture: Capture,
        /// What is to be changed, and how.
        apply: Apply,
    },
    /// Try changes.
    Tune {
        /// What is measured.
        capture: Capture,
        /// What is tried, and how.
        tune: Box<Tune>,
    },
    /// Measure loads.
    Bench(Box<BenchArgs>),
    /// Take changes back.
    Rollback {
        /// By numbers or ids.
        changes: Vec<String>,
        /// All that is in force.
        all: bool,
        /// Also what somebody else changed since.
        force: bool,
        /// Directory of the journal, if one was named.
        state_dir: Option<PathBuf>,
    },
    /// Take the time limit off changes.
    Keep {
        /// By numbers or ids; empty for all.
        changes: Vec<String>,
        /// Directory of the journal, if one was named.
        state_dir: Option<PathBuf>,
    },
    /// List changes.
    Changes {
        /// Whether the answer is JSON.
        json: bool,
        /// Directory of the journal, if one was named.
        state_dir: Option<PathBuf>,
    },
    /// Look at what is changed now.
    Status {
        /// Whether the answer is JSON.
        json: bool,
        /// Directory of the journal, if one was named.
        state_dir: Option<PathBuf>,
    },
    /// Take changes back when their time is up.
    Guard {
        /// Directory of the journal, if one was named.
        state_dir: Option<PathBuf>,
    },
    /// Look at the node.
    Doctor {
        /// Whether the answer is JSON.
        json: bool,
    },
    /// Only set the lab up.
    Lab {
        /// How its pods are joined.
        topology: Topology,
        /// How long; none for until Ctrl-C.
        duration: Option<Duration>,
        /// Whether a capture commands it.
        serve: bool,
    },
    /// Write a completion script.
    Completions(CompletionShell),
    /// Write manual pages: all into a directory, or the main one to standard output.
    Man(Option<PathBuf>),
}

/// What is to be said of a measurement, and how.
#[derive(Clone, Debug)]
pub struct Advice {
    /// The measurement; none for one that is made now.
    pub from: Option<PathBuf>,
    /// Whether also what is not needed.
    pub all: bool,
    /// Only this rule.
    pub explain: Option<String>,
    /// What the node is to be good at.
    pub profile: Profile,
    /// The least grave verdict that is a failure, see [`Verdict::is_as_grave_as`].
    pub fail_on: Option<Verdict>,
    /// What it is written as.
    pub format: recommend::Format,
}

/// What is measured, and how.
#[derive(Clone, Debug)]
pub struct Capture {
    /// How long; none for until Ctrl-C.
    pub duration: Option<Duration>,
    /// Which interfaces, and by which programs.
    pub selection: Selection,
    /// Network namespaces to measure instead of this one, each once.
    pub netns: Vec<NetnsRef>,
    /// Signals by name or group; empty for all.
    pub signals: Vec<String>,
    /// Sources that were asked for.
    pub sources: Vec<Forced>,
    /// The compiled filter; empty for none.
    pub filter: Filter,
    /// The filter as typed, for the report.
    pub filter_text: Option<String>,
    /// The lab, when its traffic is measured.
    pub lab: Option<Topology>,
    /// From here on a packet is kept, by signal, ns; `u64::MAX` for never. As in
    /// [`nettrace_common::config::Config::exemplar_ns`].
    pub exemplar_ns: [u64; Signal::COUNT],
    /// One packet in so many is kept; 0 for none.
    pub sample_every: u32,
    /// Packets a second of which each CPU times every one, 0 for no limit; none when it was not said.
    pub packet_budget: Option<u32>,
    /// Size of the ring buffer, bytes; a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Ports taken for DNS; 0 for none. As in [`nettrace_common::config::Config::dns_ports`].
    pub dns_ports: [u16; dns::MAX_PORTS],
    /// When a DNS query is given up.
    pub dns_timeout: Duration,
    /// Whether progress is shown.
    pub progress: bool,
}

/// A network namespace as people name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NetnsRef {
    /// As in `ip netns`.
    Name(String),
    /// A file to be entered: `/proc/1/ns/net`.
    Path(PathBuf),
    /// That of a process.
    Pid(u32),
}

impl NetnsRef {
    /// The file to be opened.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Name(name) => Path::new("/run/netns").join(name),
            Self::Path(path) => path.clone(),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        }
    }
}

/// Where a report goes, and how it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it is written as.
    pub format: Format,
    /// The file; none for standard output.
    pub path: Option<PathBuf>,
    /// How many of each list.
    pub top: usize,
}

/// Options that do not go together, or a value that only the whole shows to be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// `--filter` cannot be understood.
    #[error("--filter: {0}")]
    Filter(FilterError),
    /// `--netns` is no namespace's name.
    #[error("--netns `{0}`: expected a name as in `ip netns`, a path, or the number of a process")]
    Netns(String),
    /// `--ring-size` is not what the kernel takes.
    #[error(
        "--ring-size {bytes}: must be a power of two from {page} (a page) to {MAX_RING_BYTES} bytes; \
         the nearest is {nearest}"
    )]
    RingSize {
        /// What was asked for, bytes.
        bytes: u64,
        /// The page size, bytes.
        page: u64,
        /// The nearest size from there up, bytes.
        nearest: u64,
    },
    /// Too many `--dns-port`.
    #[error("--dns-port: {0} ports are given, and at most {most} can be", most = dns::MAX_PORTS)]
    DnsPorts(usize),
    /// `--dns-timeout 0`.
    #[error("--dns-timeout 0: every query would be given up at once")]
    DnsTimeout,
    /// `--window` is too short or too long, or `--settle` is.
    #[error(
        "--window {0:?}: must be from {MIN_WINDOW:?} to {MAX_WINDOW:?}, and --settle no longer than that"
    )]
    Window(Duration),
    /// `--interval` is too short or too long.
    #[error("--interval {0:?}: must be from {least:?} to {most:?}", least = top::MIN_INTERVAL, most = top::MAX_INTERVAL)]
    Interval(Duration),
    /// `--until 0`.
    #[error("--until 0: it would be taken back at once")]
    Until,
    /// `--rotate-size` does not fit.
    #[error(
        "--rotate-size: a file of {file} bytes does not fit a recording of {total} bytes; it must be from \
         {MIN_ROTATE_BYTES} bytes to half of --max-size"
    )]
    RotateSize {
        /// The size of a file, bytes.
        file: u64,
        /// The size of all, bytes.
        total: u64,
    },
    /// `--max-size` is too small.
    #[error("--max-size {0}: must be at least {least} bytes", least = 2 * MIN_ROTATE_BYTES)]
    MaxSize(u64),
    /// The extension of `--output` names no format, and there is no `--format`.
    #[error(
        "--output {}: no format goes by the extension `.{extension}`; there are {}, or give --format",
        path.display(),
        EXTENSIONS.map(|(extension, _)| format!(".{extension}")).join(", ")
    )]
    Extension {
        /// The file.
        path: PathBuf,
        /// Its extension.
        extension: String,
    },
}

impl UsageError {
    /// How the process ends.
    pub const EXIT: Exit = Exit::Usage;
}

/// Works out what was meant. `page_bytes` is the kernel's page size.
///
/// # Errors
/// With the first thing that does not make sense.
pub fn resolve(cli: Cli, page_bytes: u64) -> Result<Config, UsageError> {
    let action = match cli.command {
        Command::Run(args) if args.continuous => {
            Action::Agent { file: None, capture: Some(capture(args.capture, page_bytes)?), page_bytes }
        }
        Command::Agent(args) => Action::Agent { file: args.config, capture: None, page_bytes },
        Command::Config(args) => {
            let ConfigCommand::Check { file } = args.command;
            Action::ConfigCheck { file, page_bytes }
        }
        Command::Run(args) => {
            let apply = args.apply.then(|| Apply::all_safe(args.yes, args.state.state_dir));
            Action::Run { capture: capture(args.capture, page_bytes)?, output: output(args.output)?, apply }
        }
        Command::Top(args) => Action::Top(Box::new(top::resolve(*args, page_bytes)?)),
        Command::Record(args) => {
            let limits = limits(&args)?;
            Action::Record { capture: capture(args.capture, page_bytes)?, file: args.file, limits }
        }
        Command::Report(args) => Action::Report { file: args.file, output: output(args.output)? },
        Command::History(args) => {
            let output = output(args.output.clone())?;
            Action::History { args: Box::new(args), output }
        }
        Command::Recommend(args) => {
            let fail_on = args.fail_on.map(|verdict| match verdict.as_str() {
                "apply" => Verdict::Apply,
                "consider" => Verdict::Consider,
                _ => Verdict::CannotTell,
            });
            let RecommendArgs { from, all, explain, profile, format, capture: measured, .. } = args;
            let advice = Advice { from, all, explain, profile, fail_on, format };
            Action::Recommend { capture: capture(measured, page_bytes)?, advice }
        }
        Command::Apply(args) => change::apply(args, page_bytes)?,
        Command::Bench(args) => Action::Bench(Box::new(args)),
        Command::Tune(args) => change::tune(args, page_bytes)?,
        Command::Rollback(args) => Action::Rollback {
            changes: args.changes,
            all: args.all,
            force: args.force,
            state_dir: args.state.state_dir,
        },
        Command::Keep(args) => Action::Keep { changes: args.changes, state_dir: args.state.state_dir },
        Command::Changes(args) => Action::Changes { json: args.json, state_dir: args.state.state_dir },
        Command::Status(args) => Action::Status { json: args.json, state_dir: args.state.state_dir },
        Command::Guard(args) => Action::Guard { state_dir: args.state.state_dir },
        Command::Doctor(args) => Action::Doctor { json: args.json },
        Command::Lab(args) => {
            Action::Lab { topology: args.topology, duration: limit(args.duration), serve: args.serve }
        }
        Command::Completions(args) => Action::Completions(args.shell),
        Command::Man(args) => Action::Man(args.dir),
    };
    Ok(Config { verbosity: cli.verbose, action })
}

fn capture(args: CaptureArgs, page_bytes: u64) -> Result<Capture, UsageError> {
    let filter = args
        .filter
        .as_deref()
        .map(filter::parse)
        .transpose()
        .map_err(UsageError::Filter)?
        .unwrap_or_default();
    if args.dns_timeout.is_zero() {
        return Err(UsageError::DnsTimeout);
    }
    Ok(Capture {
        duration: limit(args.duration),
        selection: Selection { include: args.iface, exclude: args.exclude, xdp: args.xdp, clsact: false },
        netns: namespaces(&args.netns)?,
        signals: args.signals,
        sources: args.source,
        filter,
        filter_text: args.filter.filter(|_| !filter.is_empty()),
        lab: args.lab.then(|| args.topology.unwrap_or_default()),
        exemplar_ns: thresholds(&args.exemplar),
        sample_every: args.sample,
        packet_budget: args.packet_budget,
        ring_bytes: ring_bytes(args.ring_size, page_bytes)?,
        dns_ports: dns_ports(&args.dns_port)?,
        dns_timeout: args.dns_timeout,
        progress: !args.quiet,
    })
}

/// A duration of which 0 means without end.
fn limit(duration: Duration) -> Option<Duration> {
    Some(duration).filter(|d| !d.is_zero())
}

fn namespaces(typed: &[String]) -> Result<Vec<NetnsRef>, UsageError> {
    let mut found = Vec::new();
    for text in typed {
        let netns = if text.contains('/') {
            NetnsRef::Path(text.into())
        } else if matches!(text.as_str(), "" | "." | "..") {
            return Err(UsageError::Netns(text.clone()));
        } else if text.bytes().all(|b| b.is_ascii_digit()) {
            let pid = text.parse().ok().filter(|pid| *pid > 0);
            NetnsRef::Pid(pid.ok_or_else(|| UsageError::Netns(text.clone()))?)
        } else {
            NetnsRef::Name(text.clone())
        };
        if !found.contains(&netns) {
            found.push(netns);
        }
    }
    Ok(found)
}

/// Bare thresholds first, so that one for a signal holds wherever it stands; of equals, the last holds.
fn thresholds(typed: &[Exemplar]) -> [u64; Signal::COUNT] {
    let ns = |threshold: Option<Duration>| {
        threshold.map_or(u64::MAX, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX))
    };
    let bare = typed.iter().rev().find(|e| e.signal.is_none());
    let mut all = [ns(bare.map_or(Some(DEFAULT_EXEMPLAR), |e| e.threshold)); Signal::COUNT];
    for exemplar in typed {
        if let Some(signal) = exemplar.signal {
            all[signal as usize] = ns(exemplar.threshold);
        }
    }
    all
}

fn ring_bytes(bytes: u64, page: u64) -> Result<u32, UsageError> {
    let most = u64::from(MAX_RING_BYTES);
    let fits = bytes.is_power_of_two() && (page..=most).contains(&bytes);
    let nearest = bytes.clamp(page, most).next_power_of_two();
    u32::try_from(bytes).ok().filter(|_| fits).ok_or(UsageError::RingSize { bytes, page, nearest })
}

fn dns_ports(typed: &[u16]) -> Result<[u16; dns::MAX_PORTS], UsageError> {
    let mut once = Vec::new();
    for port in typed {
        if !once.contains(port) {
            once.push(*port);
        }
    }
    let mut ports = [0; dns::MAX_PORTS];
    let slots = ports.get_mut(..once.len()).ok_or(UsageError::DnsPorts(once.len()))?;
    slots.copy_from_slice(&once);
    Ok(ports)
}

/// A file is at most half of the whole, so that rotation always leaves something.
fn limits(args: &RecordArgs) -> Result<WriterOptions, UsageError> {
    let total = args.max_size;
    if total < 2 * MIN_ROTATE_BYTES {
        return Err(UsageError::MaxSize(total));
    }
    let file = args.rotate_size.unwrap_or_else(|| (total / 8).max(MIN_ROTATE_BYTES));
    if file < MIN_ROTATE_BYTES || file > total / 2 {
        return Err(UsageError::RotateSize { file, total });
    }
    Ok(WriterOptions { max_bytes_total: total, max_file_bytes: file })
}

fn output(args: OutputArgs) -> Result<Output, UsageError> {
    let path = args.output.filter(|path| path != Path::new("-"));
    let format = match (args.format, &path) {
        (Some(format), _) => format,
        (None, Some(path)) => format_of(path)?,
        (None, None) => Format::default(),
    };
    Ok(Output { format, path, top: args.top as usize })
}

/// Extensions of files, and the formats that they stand for.
const EXTENSIONS: [(&str, Format); 6] = [
    ("txt", Format::Text),
    ("json", Format::Json),
    ("html", Format::Html),
    ("htm", Format::Html),
    ("md", Format::Markdown),
    ("markdown", Format::Markdown),
];

/// The format that a file's extension stands for; a file without one is text. A mistyped one is better known before
/// the measurement than after it.
fn format_of(path: &Path) -> Result<Format, UsageError> {
    let Some(extension) = path.extension() else { return Ok(Format::default()) };
    let known = EXTENSIONS.into_iter().find(|(known, _)| extension.eq_ignore_ascii_case(known));
    known.map(|(_, format)| format).ok_or_else(|| UsageError::Extension {
        path: path.to_owned(),
        extension: extension.to_string_lossy().into_owned(),
    })
}

#[cfg(test)]
mod tests;
