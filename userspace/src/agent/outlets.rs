//! Where windows go: metrics, history, flight recorder, export. Each may fail by itself; the agent goes on, and says so.

use super::Hub;
use crate::{capture::Capture, config::AgentConfig, recommend::Finding, snapshot::Snapshot};
use std::sync::Arc;

/// All of them.
#[derive(Debug, Default)]
pub struct Outlets {}

impl Outlets {
    /// A window was closed.
    pub(super) fn window(&mut self, _hub: &Hub, _capture: Option<&Capture>, _window: &Arc<Snapshot>) {}

    /// There are new findings.
    pub(super) fn findings(&mut self, _findings: &[Finding]) {}

    /// Somebody wants what the flight recorder holds.
    pub(super) fn asked(&mut self, _hub: &Hub, _capture: Option<&Capture>, _reason: &str) {}

    /// The configuration is another.
    pub(super) fn follow(&mut self, _config: &AgentConfig) {}

    /// The agent ends.
    pub(super) fn end(&mut self, _hub: &Hub) {}
}
