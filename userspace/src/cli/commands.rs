//! From the command line to an exit code: one clear line for every failure.

use super::{Cli, Exit, completions, lab, man_page, man_pages, run};
use crate::{
    capture::{CaptureError, ReplayError, replay},
    config::{self, Action, Output},
    lab::LabError,
    preflight::PreflightError,
    recording::{self, FileKind},
    report,
    snapshot::{Rotated, Snapshot},
};
use anyhow::Context as _;
use clap::Parser as _;
use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
};

/// A failure and the exit code that it means.
pub(super) struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// For the user to put right.
    pub(super) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Failed, error }
    }
}

impl From<CaptureError> for Failure {
    fn from(error: CaptureError) -> Self {
        let exit = if error.is_usage() { Exit::Usage } else { Exit::Failed };
        Self { exit, error: error.into() }
    }
}

impl From<PreflightError> for Failure {
    fn from(error: PreflightError) -> Self {
        Self { exit: PreflightError::EXIT, error: error.into() }
    }
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        let exit = match error {
            LabError::MissingCapability { .. } | LabError::Mtu { .. } | LabError::NoIpv6 => Exit::Usage,
            _ => Exit::Failed,
        };
        Self { exit, error: error.into() }
    }
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.verbose);
    let page_bytes = rustix::param::page_size() as u64;
    let outcome = match config::resolve(cli, page_bytes) {
        Ok(config) => dispatch(config.action),
        Err(error) => Err(Failure::usage(error)),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(Failure { exit, error }) => {
            say(&told(&error));
            exit.into()
        }
    }
}

/// An error and its causes. Many errors name their cause themselves, and nothing is said twice.
fn told(error: &anyhow::Error) -> String {
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

/// One line to standard error. When even that cannot be said, the exit code must do.
pub(super) fn say(message: &str) {
    let _ = writeln!(io::stderr(), "nettrace: {message}");
}

fn log(verbosity: u8) {
    let level = match verbosity {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}

fn dispatch(action: Action) -> Result<Exit, Failure> {
    match action {
        Action::Run { capture, output } => {
            check_writable(&output)?;
            let finished = run::measure(&capture, None)?;
            write_report(&finished.snapshot, &output)?;
            Ok(Exit::Ok)
        }
        Action::Record { capture, file, limits } => {
            let finished = run::measure(&capture, Some((file.clone(), limits)))?;
            run::say_recorded(&file, &finished.snapshot);
            Ok(Exit::Ok)
        }
        Action::Report { file, output } => report_file(&file, &output),
        Action::Lab { topology, serve: true, .. } => lab::serve(topology),
        Action::Lab { topology, duration, .. } => lab::hold(topology, duration),
        Action::Completions(shell) => print(|out| completions(shell, out)),
        Action::Man(None) => print(|out| man_page(out)),
        Action::Man(Some(dir)) => {
            man_pages(&dir).with_context(|| format!("cannot write manual pages to {}", dir.display()))?;
            Ok(Exit::Ok)
        }
    }
}

/// Writes to standard output. A reader that has had enough (`| head`) is not an error.
pub(super) fn print(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        Ok(()) => Ok(Exit::Ok),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output").into()),
    }
}

/// Before measuring, so that no measurement is lost to a mistyped path. A file that is there is left as it is.
fn check_writable(output: &Output) -> Result<(), Failure> {
    let Some(path) = &output.path else { return Ok(()) };
    let opened = fs::OpenOptions::new().append(true).create(true).open(path);
    opened
        .map(drop)
        .with_context(|| format!("cannot write report {}", path.display()))
        .map_err(Failure::usage)
}

fn write_report(snapshot: &Snapshot, output: &Output) -> Result<(), Failure> {
    let terminal = output.path.is_none() && io::stdout().is_terminal();
    let color = terminal && std::env::var_os("NO_COLOR").is_none();
    let options = report::Options { top: output.top, color, ..report::Options::default() };
    let text = report::render(snapshot, output.format, &options).context("cannot write the report")?;
    match &output.path {
        Some(path) => {
            fs::write(path, text).with_context(|| format!("cannot write report {}", path.display()))?;
        }
        None => drop(print(|out| out.write_all(text.as_bytes()))?),
    }
    Ok(())
}

/// A recording or a snapshot becomes a report; what is damaged is told, and the rest reported.
fn report_file(file: &Path, output: &Output) -> Result<Exit, Failure> {
    let kind = recording::sniff(file).with_context(|| format!("cannot read {}", file.display()));
    match kind.map_err(Failure::usage)? {
        FileKind::Recording => {
            let replayed = replay(file).map_err(|error| match &error {
                ReplayError::Read(inner) if !inner.is_damage() => Failure::usage(error),
                _ => Failure { exit: Exit::Damaged, error: error.into() },
            })?;
            let snapshot = &replayed.finished.snapshot;
            if let Some(Rotated { files, size_bytes }) = snapshot.meta.rotated {
                say(&format!(
                    "the recording's start was rotated away ({files} files, {size_bytes} bytes); the report has \
                     the rest, and the kernel's totals of all"
                ));
            }
            replayed.damage.iter().for_each(|d| say(d));
            write_report(snapshot, output)?;
            Ok(if replayed.damage.is_empty() { Exit::Ok } else { Exit::Damaged })
        }
        FileKind::Snapshot => {
            let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let snapshot = Snapshot::from_json(&bytes)
                .with_context(|| format!("cannot read snapshot {}", file.display()))
                .map_err(Failure::usage)?;
            write_report(&snapshot, output)?;
            Ok(Exit::Ok)
        }
        FileKind::Empty => Err(Failure::usage(anyhow::anyhow!("{} is empty", file.display()))),
        FileKind::Unknown => {
            let what = "is neither a recording nor a JSON snapshot of nettrace";
            Err(Failure::usage(anyhow::anyhow!("{} {what}", file.display())))
        }
    }
}
