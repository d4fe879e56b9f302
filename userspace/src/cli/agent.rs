//! `agent`, `run --continuous` and `config check`: a capture without an end.

use super::{
    Exit,
    commands::{Failure, print, say},
    lab::ChildLab,
    run::{self, MAP_BYTES},
};
use crate::{
    agent::{Event, Host, Hub, Outlets, Site, Status, Work, millis},
    capture::{self, Capture, CaptureError, Options},
    change::StateDir,
    config::{self, AgentConfig, LogConfig, LogFormat, LogLevel},
    preflight::{self, Needs},
    privilege,
};
use anyhow::{Context as _, anyhow};
use std::{
    fs::DirBuilder,
    io::{self, IsTerminal as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
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
    let (tell, mut events) = channel(WAITING);
    let hub = Hub::new(status(&config), tell.clone());
    signals(tell)?;
    let outlets = Outlets::new(&config, &hub).map_err(Failure::usage)?;
    let sections = &config.sections;
    let kept = sections.history.enabled.then(|| sections.history.dir.clone());
    // Before anything is attached: a port that is taken is told at once.
    let site = Site::start(&sections.web, hub.clone(), outlets.metrics(), kept).map_err(Failure::usage)?;
    let lab = config.capture.lab.map(ChildLab::start).transpose()?;
    let mut machine = Machine { lab, site, file: config.file.clone(), page_bytes };
    let capture = machine.capture(&config)?;
    if let Some(lab) = &mut machine.lab {
        lab.run(LAB)?;
    }
    tracing::info!("measuring {} interfaces", capture.interfaces().len());
    give_up_privileges(&config, machine.lab.as_ref(), &hub)?;
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
        interval_ms: millis(config.sections.agent.interval),
        config: config.file.clone(),
        ..Status::default()
    }
}

/// Keeps what the agent needs from now on, and no more. A lab is taken down by who set it up, so that all is kept then.
fn give_up_privileges(config: &AgentConfig, lab: Option<&ChildLab>, hub: &Hub) -> Result<(), Failure> {
    if lab.is_some() {
        hub.update(|status| status.privileges = vec!["all kept: a lab is to be taken down".to_owned()]);
        return Ok(());
    }
    let sections = &config.sections;
    let namespaces = run::namespaces(&config.capture);
    let mut needs = privilege::Needs::of_namespaces(namespaces.iter().map(|n| n.path.as_deref()));
    let web = &sections.web;
    let read = [&config.file, &web.token_file, &web.tls_certificate, &web.tls_key];
    needs.read.extend(read.into_iter().flatten().cloned());
    needs.read.push(StateDir::new(sections.agent.state_dir.as_deref()).path().to_owned());
    let kept = [
        sections.history.enabled.then_some(&sections.history.dir),
        sections.flight.enabled.then_some(&sections.flight.dir),
    ];
    for dir in kept.into_iter().flatten() {
        // Where it cannot be made, who writes there says so.
        match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
            Ok(()) => needs.write.push(dir.clone()),
            Err(error) => tracing::warn!("cannot make {}: {error}", dir.display()),
        }
    }
    let status = privilege::drop(&sections.privilege, &needs)
        .context("cannot give up privileges; `drop = false` in [privilege] keeps them")?;
    let words = status.words();
    tracing::info!("privileges: {}", words.join("; "));
    hub.update(|status| status.privileges = words);
    Ok(())
}

/// What the loop asks for.
struct Machine {
    lab: Option<ChildLab>,
    site: Site,
    file: Option<PathBuf>,
    page_bytes: u64,
}

impl Host for Machine {
    fn may_start(&self, config: &AgentConfig) -> Result<(), String> {
        if config.capture.lab.is_some() != self.lab.is_some() {
            return Err("[capture] lab: cannot be changed while the agent runs".to_owned());
        }
        if !privilege::may_load() {
            return Err(
                "[capture] is not taken before the next start: [privilege] loading is false".to_owned()
            );
        }
        Ok(())
    }

    fn start(&mut self, config: &AgentConfig) -> Result<Capture, String> {
        self.capture(config).map_err(|error| error.to_string())
    }

    fn reread(&mut self) -> Result<Option<AgentConfig>, String> {
        let read = |file: &PathBuf| AgentConfig::read(file, self.page_bytes);
        self.file.as_ref().map(read).transpose().map_err(|error| error.to_string())
    }

    fn follow(&mut self, config: &AgentConfig) -> Result<(), String> {
        self.site.follow(&config.sections.web).map_err(|error| error.to_string())
    }
}

impl Machine {
    fn capture(&self, config: &AgentConfig) -> Result<Capture, CaptureError> {
        let options = run::options(&config.capture, self.lab.as_ref(), None);
        let flight = config.sections.flight.memory_options();
        Capture::start(Options { flight, ..options })
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
