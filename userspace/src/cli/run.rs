//! `run` and `record`: one capture, with or without the lab, with progress and a clean end by Ctrl-C.

use super::{
    commands::{Failure, say},
    lab::ChildLab,
};
use crate::{
    aggregate::Finished,
    capture::{Capture, Options},
    config,
    iface::Namespace,
    load::{self, ProgramOptions},
    preflight::{self, Host, Needs},
    recording::WriterOptions,
    snapshot::Snapshot,
};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const TICK: Duration = Duration::from_millis(50);

/// Measures as configured, until the time is up or Ctrl-C.
pub(super) fn measure(
    config: &config::Capture,
    record: Option<(PathBuf, WriterOptions)>,
) -> Result<Finished, Failure> {
    preflight::check(&Host, needs(config))?;
    let interrupted = interrupt()?;
    let mut lab = config.lab.map(ChildLab::start).transpose()?;
    let capture = Capture::start(options(config, lab.as_ref(), record))?;
    if let Some(lab) = &mut lab {
        lab.run(config.duration.unwrap_or(UNTIL_INTERRUPTED))?;
    }
    let mut capture = wait(capture, config, &interrupted);
    // What the lab has begun is finished before the books are closed, so that they show all of it.
    if let Some(lab) = lab.as_ref().filter(|_| !interrupted.load(Ordering::Relaxed)) {
        lab.wait();
        capture.tick();
    }
    Ok(capture.stop()?)
}

/// A capture that runs until it is stopped, without a lab.
pub(super) fn start(config: &config::Capture) -> Result<Capture, Failure> {
    preflight::check(&Host, needs(config))?;
    Ok(Capture::start(options(config, None, None))?)
}

/// A capture that runs until it is stopped, with its lab if one was asked for, whose traffic has begun.
pub(super) fn start_with_lab(config: &config::Capture) -> Result<(Capture, Option<ChildLab>), Failure> {
    preflight::check(&Host, needs(config))?;
    let mut lab = config.lab.map(ChildLab::start).transpose()?;
    let capture = Capture::start(options(config, lab.as_ref(), None))?;
    if let Some(lab) = &mut lab {
        lab.run(config.duration.unwrap_or(UNTIL_INTERRUPTED))?;
    }
    Ok((capture, lab))
}

fn needs(config: &config::Capture) -> Needs {
    Needs {
        namespaces: !config.netns.is_empty() || config.lab.is_some(),
        map_bytes: u64::from(config.ring_bytes) + MAP_BYTES,
    }
}

/// Namespaces that are measured, without a lab.
pub(super) fn namespaces(config: &config::Capture) -> Vec<Namespace> {
    match &config.netns[..] {
        [] => vec![Namespace::host()],
        named_ones => named_ones.iter().map(|n| named(&n.path())).collect(),
    }
}

/// How long the lab's traffic lasts when nothing but Ctrl-C ends it.
const UNTIL_INTERRUPTED: Duration = Duration::from_secs(24 * 3600);
/// Kernel maps besides the ring, roughly, bytes: for the memory lock limit of kernels before 5.11.
pub(super) const MAP_BYTES: u64 = 64 << 20;

/// What was typed, as the capture wants it.
pub(super) fn options(
    config: &config::Capture,
    lab: Option<&ChildLab>,
    record: Option<(PathBuf, WriterOptions)>,
) -> Options {
    let namespaces = match lab {
        Some(lab) => lab.namespaces(),
        None => namespaces(config),
    };
    // A recording is of every packet unless it is told otherwise.
    let sample_every = if record.is_some() { config.sample_every.max(1) } else { config.sample_every };
    let budget = if record.is_some() { 0 } else { load::PACKETS_PER_SECOND };
    Options {
        programs: ProgramOptions {
            exemplar_ns: config.exemplar_ns,
            sample_every,
            packets_per_second: config.packet_budget.unwrap_or(budget),
            others: lab.is_none() && config.netns.is_empty() && !config.selection.is_explicit(),
            dns_ports: config.dns_ports.into_iter().filter(|p| *p != 0).collect(),
            filter: config.filter,
            ring_bytes: config.ring_bytes,
            ..ProgramOptions::default()
        },
        namespaces,
        selection: config.selection.clone(),
        signals: config.signals.clone(),
        sources: config.sources.clone(),
        always: false,
        dns_timeout: config.dns_timeout,
        filter_text: config.filter_text.clone(),
        lab: lab.is_some(),
        record,
        flight: None,
    }
}

fn named(path: &Path) -> Namespace {
    let name =
        path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
    let name = if name == "net" { path.display().to_string() } else { name };
    Namespace { name, path: Some(path.to_owned()), wire: true }
}

/// A flag that Ctrl-C and SIGTERM set; a second one ends the process at once.
pub(super) fn interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let theirs = flag.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for signals")?;
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let waiting = move || {
        runtime.block_on(async move {
            while signalled().await.is_ok() {
                if theirs.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    };
    thread.spawn(waiting).context("cannot wait for signals")?;
    Ok(flag)
}

async fn signalled() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        r = tokio::signal::ctrl_c() => r,
        _ = terminate.recv() => Ok(()),
    }
}

/// Until the time is up or Ctrl-C.
fn wait(mut capture: Capture, config: &config::Capture, interrupted: &AtomicBool) -> Capture {
    let started = Instant::now();
    let bar = progress(config);
    while !interrupted.load(Ordering::Relaxed) {
        let elapsed = started.elapsed();
        if config.duration.is_some_and(|d| elapsed >= d) {
            break;
        }
        capture.tick();
        bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        bar.set_message(format!("{} events", capture.received()));
        let left = config.duration.map_or(TICK, |d| d.saturating_sub(elapsed));
        std::thread::sleep(TICK.min(left));
    }
    bar.finish_and_clear();
    capture
}

/// On standard error, and only when that is a terminal.
fn progress(config: &config::Capture) -> ProgressBar {
    if !config.progress {
        return ProgressBar::hidden();
    }
    let Some(duration) = config.duration else {
        return ProgressBar::new_spinner().with_message("measuring, Ctrl-C ends it");
    };
    let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    // A template that is wrong leaves the default style, which will do.
    if let Ok(style) = ProgressStyle::with_template(
        "measuring {elapsed} {wide_bar} {eta} left, {msg} (Ctrl-C ends it early)",
    ) {
        bar.set_style(style);
    }
    bar
}

/// After `record`: what is in the file.
pub(super) fn say_recorded(file: &Path, snapshot: &Snapshot) {
    let seconds = Duration::from_nanos(snapshot.meta.duration_ns).as_secs_f64();
    let ring = &snapshot.ring;
    say(&format!(
        "recorded {} records in {seconds:.1} s to {}, {} lost; `nettrace report {}` shows them",
        ring.received,
        file.display(),
        ring.lost,
        file.display()
    ));
}
