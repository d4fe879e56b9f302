//! From the command line to an exit code: one clear line for every failure.

use super::{
    Cli, Command, Exit, agent, apply, bench, completions, doctor, history, input, lab, man_page, man_pages,
    recommend, run, top, tune, undo,
};
use crate::{
    capture::CaptureError,
    config::{self, Action, Output},
    lab::LabError,
    preflight::PreflightError,
    report,
    snapshot::Snapshot,
};
use anyhow::Context as _;
use clap::Parser as _;
use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
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

    /// Of an input that is damaged.
    pub(super) fn damaged(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Damaged, error: error.into() }
    }

    /// The same, with more to be said before it.
    pub(super) fn with(self, what: String) -> Self {
        Self { error: self.error.context(what), ..self }
    }

    /// In one line.
    pub(super) fn into_text(self) -> String {
        told(&self.error)
    }

    /// The error of a type that it comes from.
    pub(super) fn cause<E: std::error::Error + Send + Sync + 'static>(&self) -> Option<&E> {
        self.error.chain().find_map(|cause| cause.downcast_ref())
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
    // The agent logs as it is configured.
    let is_agent = matches!(&cli.command, Command::Agent(_))
        || matches!(&cli.command, Command::Run(args) if args.continuous);
    if !is_agent {
        log(cli.verbose);
    }
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
        .with_writer(crate::top::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}

fn dispatch(action: Action) -> Result<Exit, Failure> {
    match action {
        Action::Run { capture, output, apply } => {
            let created = check_writable(&output)?;
            let measure = || match &apply {
                None => run::measure(&capture, None).map(|finished| finished.snapshot),
                Some(apply) => apply::measure_apply_measure(&capture, apply),
            };
            let snapshot = measure().inspect_err(|_| {
                // An empty report would be taken for one. If it cannot be removed either, the error is told all the same.
                created.iter().for_each(|path| drop(fs::remove_file(path)));
            })?;
            write_report(&snapshot, &output)?;
            Ok(Exit::Ok)
        }
        Action::Top(top) => top::top(&top),
        Action::Agent { file, capture, page_bytes } => {
            let config = agent::configuration(file.as_deref(), capture, page_bytes)?;
            agent::run(config, page_bytes)
        }
        Action::ConfigCheck { file, page_bytes } => agent::check(&file, page_bytes),
        Action::Record { capture, file, limits } => {
            let finished = run::measure(&capture, Some((file.clone(), limits)))?;
            if let Some(error) = finished.unwritten {
                let what = format!("{} lacks a part of the measurement", file.display());
                return Err(anyhow::Error::new(error).context(what).into());
            }
            run::say_recorded(&file, &finished.snapshot);
            Ok(Exit::Ok)
        }
        Action::Apply { capture, apply } => apply::apply(&capture, &apply),
        Action::Bench(args) => bench::bench(*args),
        Action::Tune { capture, tune } => tune::tune(&capture, &tune),
        Action::Rollback { changes, all, force, state_dir } => {
            undo::rollback(state_dir.as_deref(), &changes, all, force)
        }
        Action::Keep { changes, state_dir } => undo::keep(state_dir.as_deref(), &changes),
        Action::Changes { json, state_dir } => undo::changes(state_dir.as_deref(), json),
        Action::Status { json, state_dir } => undo::status(state_dir.as_deref(), json),
        Action::Guard { state_dir } => undo::guard(state_dir.as_deref()),
        Action::Recommend { capture, advice } => recommend::advise(&capture, &advice),
        Action::Report { file, output } => report_file(&file, &output),
        Action::History { args, output } => history::history(&args, &output),
        Action::Doctor { json } => doctor::examine(json),
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

/// Before measuring, so that no measurement is lost to a mistyped path. A file that is there is left as it is; one that
/// had to be created is returned.
fn check_writable(output: &Output) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = &output.path else { return Ok(None) };
    let mut options = fs::OpenOptions::new();
    options.append(true);
    let created = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            options.create(true).open(path).map(|_| Some(path.clone()))
        }
        opened => opened.map(|_| None),
    };
    created.with_context(|| format!("cannot write report {}", path.display())).map_err(Failure::usage)
}

/// A report must not take the place of the only copy of what it is made from.
fn check_other_file(file: &Path, output: &Output) -> Result<(), Failure> {
    let Some(path) = &output.path else { return Ok(()) };
    let same = |(a, b): (fs::Metadata, fs::Metadata)| a.is_file() && (a.dev(), a.ino()) == (b.dev(), b.ino());
    // A file that is not there is no other's.
    if fs::metadata(file).ok().zip(fs::metadata(path).ok()).is_some_and(same) {
        let path = path.display();
        return Err(Failure::usage(anyhow::anyhow!(
            "--output {path}: the report would overwrite its own input"
        )));
    }
    Ok(())
}

/// Whether standard output may have colours.
pub(super) fn colorful() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

pub(super) fn write_report(snapshot: &Snapshot, output: &Output) -> Result<(), Failure> {
    write_text(output, |options| {
        report::render(snapshot, output.format, options).context("cannot write the report")
    })
}

/// Writes what is rendered to where it is to go.
pub(super) fn write_text(
    output: &Output,
    render: impl FnOnce(&report::Options) -> anyhow::Result<String>,
) -> Result<(), Failure> {
    let color = output.path.is_none() && colorful();
    let options = report::Options { top: output.top, color, ..report::Options::default() };
    let text = render(&options)?;
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
    check_other_file(file, output)?;
    let input = input::read(file)?;
    write_report(&input.snapshot, output)?;
    Ok(input.exit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Format;

    fn output(path: &Path) -> Output {
        Output { format: Format::Text, path: Some(path.to_owned()), top: 10 }
    }

    #[test]
    fn a_path_is_tried_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.txt");
        assert_eq!(check_writable(&output(&path)).ok().unwrap(), Some(path.clone()));
        fs::write(&path, "before").unwrap();
        assert_eq!(check_writable(&output(&path)).ok().unwrap(), None);
        assert_eq!(fs::read(&path).unwrap(), b"before");
        let failure = check_writable(&output(&dir.path().join("no/report.txt"))).err().unwrap();
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn a_report_never_overwrites_its_input() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("run.json"), dir.path().join("link.json"));
        fs::write(&file, serde_json::to_vec(&crate::snapshot::sample::empty()).unwrap()).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link] {
            let failure = report_file(&file, &output(path)).err().unwrap();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(told(&failure.error).ends_with("the report would overwrite its own input"));
        }
        let other = dir.path().join("run.txt");
        assert_eq!(report_file(&file, &output(&other)).ok().unwrap(), Exit::Ok);
        assert!(fs::read_to_string(other).unwrap().starts_with("nettrace report: node-1"));
        Snapshot::from_json(&fs::read(&file).unwrap()).unwrap();
    }
}
