//! The agent's loop: it keeps the capture going, closes a window every few seconds, and hands it to all that live off windows.
//!
//! Needs a running [`Capture`]; fills the [`Hub`]. One thread: what takes long (looking at the node) has a thread of its own,
//! and nobody waits for it.

use super::{Advisor, ChangeRow, Event, Governor, Hub, Outlets, notify::Notify};
use crate::{
    capture::{Capture, CaptureError, NodeReader, Seen},
    change::{Journal, StateDir},
    config::AgentConfig,
    live::Cost,
    snapshot::Snapshot,
};
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::mpsc::Receiver;

/// How often the capture's own work is done: hooks that come and go, run-time statistics.
const TICK: Duration = Duration::from_millis(50);
/// How often the node is looked at.
const NODE: Duration = Duration::from_secs(60);
/// Windows in a row that cannot be closed before the agent gives up: something is broken for good then.
const MOST_FAILED: u32 = 12;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The capture cannot be started anew, or ended.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Measuring was to begin anew, and neither the new nor the old configuration can be measured.
    #[error("measuring cannot be begun anew, not even as before: {0}")]
    Anew(String),
    /// Windows cannot be closed any more.
    #[error("{MOST_FAILED} windows in a row could not be closed, the last because: {0}")]
    Windows(CaptureError),
}

/// What the loop wants done by those who know the command line.
pub trait Host {
    /// Whether a capture could be started instead of the one that runs, which goes on until then.
    ///
    /// # Errors
    /// Why not, in one line.
    fn may_start(&self, config: &AgentConfig) -> Result<(), String>;
    /// Starts a capture.
    ///
    /// # Errors
    /// Why it cannot be started, in one line.
    fn start(&mut self, config: &AgentConfig) -> Result<Capture, String>;
    /// Reads the configuration anew; none where there is no file.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    fn reread(&mut self) -> Result<Option<AgentConfig>, String>;
    /// Has other parts (page, export) follow a new configuration.
    ///
    /// # Errors
    /// What cannot follow, in one line; the agent goes on with what there was.
    fn follow(&mut self, config: &AgentConfig) -> Result<(), String>;
}

/// The loop's state.
pub struct Work<'h> {
    host: &'h mut dyn Host,
    hub: Arc<Hub>,
    config: AgentConfig,
    /// None only while one capture follows another.
    capture: Option<Capture>,
    governor: Governor,
    outlets: Outlets,
    notify: Notify,
    node: NodeWatch,
    advisor: Advisor,
    failed: u32,
    /// Size and time of the journal of changes when it was last read; none before there is one.
    journal: Option<(u64, SystemTime)>,
}

impl<'h> Work<'h> {
    /// Around a capture that runs.
    #[must_use]
    pub fn new(
        host: &'h mut dyn Host,
        hub: Arc<Hub>,
        config: AgentConfig,
        capture: Capture,
        outlets: Outlets,
    ) -> Self {
        let governor = Governor::new(config.sections.budget);
        let node = NodeWatch::start(capture.node_reader());
        let advisor = Advisor::new(Instant::now(), config.sections.agent.findings);
        Self {
            host,
            hub,
            config,
            capture: Some(capture),
            governor,
            outlets,
            notify: Notify::new(),
            node,
            advisor,
            failed: 0,
            journal: None,
        }
    }

    /// Until it is told to stop. The last window is closed, too.
    ///
    /// # Errors
    /// When the capture is broken for good.
    pub fn run(mut self, events: &mut Receiver<Event>) -> Result<(), AgentError> {
        let mut due = Instant::now() + self.config.sections.agent.interval;
        loop {
            match self.events(events)? {
                Going::On => {}
                Going::Anew => due = Instant::now() + self.config.sections.agent.interval,
                Going::End => break,
            }
            if let Some(capture) = &mut self.capture {
                capture.tick();
            }
            if Instant::now() >= due {
                // From when it was due, so that windows do not drift; after a pause (suspend), from now.
                let interval = self.config.sections.agent.interval;
                due = (due + interval).max(Instant::now());
                self.close()?;
            }
            self.notify.alive();
            std::thread::sleep(TICK.min(due.saturating_duration_since(Instant::now())));
        }
        self.notify.stopping();
        self.end()
    }

    fn events(&mut self, events: &mut Receiver<Event>) -> Result<Going, AgentError> {
        let mut going = Going::On;
        while let Ok(event) = events.try_recv() {
            match event {
                Event::Stop => return Ok(Going::End),
                Event::Reload => {
                    self.reload()?;
                    going = Going::Anew;
                }
                Event::Flight { reason } => {
                    // With what came until now.
                    self.close()?;
                    self.outlets.asked(&self.hub, self.capture.as_ref(), &reason);
                    going = Going::Anew;
                }
            }
        }
        Ok(going)
    }

    /// Ends a window and hands it on.
    fn close(&mut self) -> Result<(), AgentError> {
        let Some(capture) = &mut self.capture else { return Ok(()) };
        if let Some(seen) = self.node.look() {
            capture.put_node(seen);
        }
        let window = match capture.window() {
            Ok(window) => window,
            Err(error) => {
                self.failed += 1;
                tracing::error!("a window could not be closed: {error}");
                self.hub.update(|status| {
                    status.ready = false;
                    status.failed_windows += 1;
                    status.last_error = Some(error.to_string());
                });
                return if self.failed < MOST_FAILED { Ok(()) } else { Err(AgentError::Windows(error)) };
            }
        };
        self.failed = 0;
        self.hand_on(&Arc::new(window));
        Ok(())
    }

    fn hand_on(&mut self, window: &Arc<Snapshot>) {
        self.hub.put_window(window.clone());
        self.keep_to_budget(window);
        self.outlets.window(&self.hub, self.capture.as_ref(), window);
        self.advisor.add(window);
        if let Some(findings) = self.advisor.advise(Instant::now()) {
            self.outlets.findings(&findings);
            self.hub.put_findings(findings);
        }
        self.look_at_changes();
        let budget = self.governor.status();
        let first = !self.hub.status().ready;
        self.hub.update(|status| {
            (status.ready, status.budget) = (true, budget);
            status.windows += 1;
        });
        let status = self.in_words(window);
        if first { self.notify.ready(&status) } else { self.notify.status(&status) }
    }

    /// Reads the journal when it is another than at the last look.
    fn look_at_changes(&mut self) {
        let dir = StateDir::new(self.config.sections.agent.state_dir.as_deref());
        let stamp = dir.journal_stamp();
        if stamp == self.journal {
            return;
        }
        self.journal = stamp;
        match Journal::look(&dir) {
            Ok(entries) => self.hub.put_changes(entries.iter().map(ChangeRow::of).collect()),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    fn keep_to_budget(&mut self, window: &Snapshot) {
        let cost = Cost::of(window);
        let Some(limits) = self.governor.look(cost) else { return };
        let budget = self.governor.status();
        tracing::warn!(
            "{:.2} % of a CPU and {} MiB are used: step {} of {}: {}",
            100.0 * (cost.own_cpu_share + cost.kernel_cpu_share),
            (cost.rss_bytes + cost.map_bytes) >> 20,
            budget.step,
            super::STEPS.len(),
            budget.reduced.last().map_or("all is measured again", String::as_str),
        );
        if let Some(Err(error)) = self.capture.as_mut().map(|capture| capture.limit(limits)) {
            tracing::error!("the budget cannot be kept to: {error}");
            self.hub.update(|status| status.last_error = Some(error.to_string()));
        }
    }

    /// Reads the configuration anew. What is measured is begun anew only when that changed, and what was counted so far is
    /// told of before.
    fn reload(&mut self) -> Result<(), AgentError> {
        self.notify.reloading();
        let outcome = match self.host.reread() {
            Ok(None) => Ok(()),
            Ok(Some(config)) => self.adopt(config)?,
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            tracing::error!("the configuration is not taken: {error}");
        } else {
            tracing::info!("the configuration was read anew");
        }
        self.hub.update(|status| {
            status.reloads += 1;
            status.config_error = outcome.err();
            status.interval_ms = millis(self.config.sections.agent.interval);
        });
        self.notify.ready("the configuration was read anew");
        Ok(())
    }

    /// Takes another configuration, or says why not all of it is taken.
    fn adopt(&mut self, config: AgentConfig) -> Result<Result<(), String>, AgentError> {
        let is_same = config.measures_as(&self.config);
        let mut followed = || -> Result<(), String> {
            if !is_same {
                self.host.may_start(&config)?;
            }
            self.host.follow(&config)?;
            self.outlets.follow(&config, &self.hub).map_err(|error| error.to_string())
        };
        if let Err(error) = followed() {
            return Ok(Err(error));
        }
        self.governor.set(config.sections.budget);
        self.advisor.set_span(Instant::now(), config.sections.agent.findings);
        let old = std::mem::replace(&mut self.config, config);
        if is_same {
            return Ok(Ok(()));
        }
        self.stop_capture()?;
        match self.host.start(&self.config) {
            Ok(capture) => {
                self.begin(capture);
                Ok(Ok(()))
            }
            Err(error) => {
                let again = self.host.start(&old).map_err(AgentError::Anew)?;
                self.begin(again);
                self.config.measure_as(&old);
                Ok(Err(error))
            }
        }
    }

    fn begin(&mut self, mut capture: Capture) {
        if let Err(error) = capture.limit(self.governor.limits()) {
            tracing::error!("the budget cannot be kept to: {error}");
        }
        self.node = NodeWatch::start(capture.node_reader());
        self.capture = Some(capture);
    }

    /// Ends the capture; its last window is told of.
    fn stop_capture(&mut self) -> Result<(), AgentError> {
        let Some(mut capture) = self.capture.take() else { return Ok(()) };
        if let Some(seen) = self.node.look().or_else(|| self.node.latest.clone()) {
            capture.put_node(seen);
        }
        let finished = capture.stop()?;
        self.hand_on(&Arc::new(finished.snapshot));
        Ok(())
    }

    fn end(mut self) -> Result<(), AgentError> {
        self.stop_capture()?;
        self.outlets.end();
        Ok(())
    }

    fn in_words(&self, window: &Snapshot) -> String {
        let seconds = window.meta.duration_ns.max(1) as f64 / 1e9;
        let lost: u64 = window.losses.iter().map(|l| l.count).sum();
        let probes = window.probes.iter().filter(|p| p.source.is_some()).count();
        format!(
            "{probes} probes, {:.0} packets/s, {:.0} DNS/s, {lost} measurements lost, budget step {}",
            window.packets.begun as f64 / seconds,
            window.dns.transactions as f64 / seconds,
            self.governor.status().step,
        )
    }
}

/// How the loop goes on.
enum Going {
    On,
    /// With a window that begins now.
    Anew,
    End,
}

/// Looks at the node now and then, on a thread of its own.
pub(crate) struct NodeWatch {
    seen: mpsc::Receiver<Seen>,
    latest: Option<Seen>,
}

impl NodeWatch {
    /// Begins at once.
    pub(crate) fn start(mut reader: NodeReader) -> Self {
        let (tell, seen) = mpsc::channel();
        let reading = move || {
            loop {
                let began = Instant::now();
                if tell.send(reader.read()).is_err() {
                    return;
                }
                // In pieces, so that it ends soon after the agent does.
                while began.elapsed() < NODE {
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("node".to_owned()).spawn(reading) {
            tracing::error!("what the node is set to is not looked at: {error}");
        }
        Self { seen, latest: None }
    }

    /// What was seen since the last look.
    pub(crate) fn look(&mut self) -> Option<Seen> {
        let seen = self.seen.try_iter().last()?;
        self.latest = Some(seen.clone());
        Some(seen)
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
