//! `agent`, `run --continuous` and `config check`: a capture without an end.

use super::{
    Exit,
    commands::{Failure, print, say},
    lab::ChildLab,
    run::{self, MAP_BYTES},
};
use crate::{
    agent::{Event, Host, Hub, Outlets, Status, Work},
    capture::{self, Capture},
    config::{self, AgentConfig, LogConfig, LogFormat, LogLevel},
    preflight::{self, Needs},
};
use anyhow::{Context as _, anyhow};
use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{Sender, channel},
};

/// Signals and requests that wait for the loop.
const WAITING: usize = 16;
/// How long the lab's traffic lasts: until the agent ends.
const LAB: Duration = Duration::from_secs(24 * 3600);

/// Runs until it is told to stop.
pub(super) fn run(config: AgentConfig, page_bytes: u64) -> Result<Exit, Failure> {
    log(config.sections.log);
    preflight::check(
        &preflight::Host,
        Needs {
            namespaces: !config.capture.netns.is_empty() || config.capture.lab.is_some(),
            map_bytes: u64::from(config.capture.ring_bytes) + MAP_BYTES,
        },
    )?;
    let mut machine = Machine { lab: None, file: config.file.clone(), page_bytes };
    machine.lab = config.capture.lab.map(ChildLab::start).transpose()?;
    let (tell, mut events) = channel(WAITING);
    let hub = Hub::new(status(&config), tell.clone());
    signals(tell)?;
    let capture = Capture::start(run::options(&config.capture, machine.lab.as_ref(), None))?;
    if let Some(lab) = &mut machine.lab {
        lab.run(LAB)?;
    }
    tracing::info!("measuring {} interfaces", capture.interfaces().len());
    let outlets = Outlets::default();
    let work = Work::new(&mut machine, hub, config, capture, outlets);
    work.run(&mut events).map_err(|error| Failure::from(anyhow::Error::new(error)))?;
    tracing::info!("ended");
    Ok(Exit::Ok)
}

/// `nettrace config check`.
pub(super) fn check(file: &Path, page_bytes: u64) -> Result<Exit, Failure> {
    let config = AgentConfig::read(file, page_bytes).map_err(Failure::usage)?;
    let interval = config.sections.agent.interval;
    print(|out| writeln!(out, "{} is good: windows of {interval:?}", file.display()))
}

/// The configuration of `agent`: of the file that was named, of the usual one where it is, or what was typed.
pub(super) fn configuration(
    file: Option<&Path>,
    typed: Option<config::Capture>,
    page_bytes: u64,
) -> Result<AgentConfig, Failure> {
    let usual = Path::new(config::DEFAULT_FILE);
    match (file, typed) {
        (Some(file), _) => AgentConfig::read(file, page_bytes).map_err(Failure::usage),
        (None, Some(typed)) => Ok(AgentConfig::of(typed)),
        (None, None) if usual.exists() => AgentConfig::read(usual, page_bytes).map_err(Failure::usage),
        (None, None) => {
            Err(Failure::usage(anyhow!("there is no {}; name a file by --config", usual.display())))
        }
    }
}

fn status(config: &AgentConfig) -> Status {
    let uname = rustix::system::uname();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: capture::hostname(),
        kernel: uname.release().to_string_lossy().into_owned(),
        since_unix_ms: capture::unix_ns() / 1_000_000,
        interval_ms: u64::try_from(config.sections.agent.interval.as_millis()).unwrap_or(u64::MAX),
        config: config.file.clone(),
        ..Status::default()
    }
}

/// What the loop asks for.
struct Machine {
    lab: Option<ChildLab>,
    file: Option<std::path::PathBuf>,
    page_bytes: u64,
}

impl Host for Machine {
    fn start(&mut self, config: &AgentConfig) -> Result<Capture, String> {
        if config.capture.lab.is_some() != self.lab.is_some() {
            return Err("[capture] lab: cannot be changed while the agent runs".to_owned());
        }
        let options = run::options(&config.capture, self.lab.as_ref(), None);
        Capture::start(options).map_err(|error| error.to_string())
    }

    fn reread(&mut self) -> Result<Option<AgentConfig>, String> {
        let read = |file: &std::path::PathBuf| AgentConfig::read(file, self.page_bytes);
        self.file.as_ref().map(read).transpose().map_err(|error| error.to_string())
    }

    fn follow(&mut self, _config: &AgentConfig) -> Result<(), String> {
        Ok(())
    }
}

/// Has signals told to the loop. A second request to end ends the process at once.
fn signals(tell: Sender<Event>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for signals")?;
    let _guard = runtime.enter();
    let on = |kind| signal(kind).context("cannot wait for signals");
    let (interrupt, terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let (hangup, user) = (on(SignalKind::hangup())?, on(SignalKind::user_defined1())?);
    let waiting = Signals { interrupt, terminate, hangup, user };
    drop(_guard);
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || runtime.block_on(waiting.tell(&tell))).context("cannot wait for signals")?;
    Ok(())
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user: Signal,
}

impl Signals {
    async fn tell(mut self, tell: &Sender<Event>) {
        let mut ending = false;
        loop {
            let event = tokio::select! {
                Some(()) = self.interrupt.recv() => Event::Stop,
                Some(()) = self.terminate.recv() => Event::Stop,
                Some(()) = self.hangup.recv() => Event::Reload,
                Some(()) = self.user.recv() => Event::Flight { reason: "signal USR1".to_owned() },
                else => return,
            };
            if event == Event::Stop && std::mem::replace(&mut ending, true) {
                std::process::exit(130);
            }
            // A loop that has no time for more has been told often enough.
            if tell.try_send(event).is_err() {
                tracing::warn!("a signal was not heard: the agent is busy");
            }
        }
    }
}

/// Logs as configured, instead of by `-v`.
fn log(config: LogConfig) {
    let level = match config.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
    };
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    let set = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        // The journal has its own times.
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).without_time().try_init(),
    };
    if let Err(error) = set {
        say(&format!("the log stays as it is: {error}"));
    }
}
