//! Why there is no result.

use super::scenario::ScenarioError;
use crate::{capture::CaptureError, change::ChangeError, lab::LabError};
use nettrace_bench::{
    load::LoadError,
    peer::PeerError,
    result::{ReadError, WriteError},
};
use std::io;

/// Why there is no result of a bench.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The other node.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A setting.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// nettrace's own probes.
    #[error("nettrace's own probes: {0}; --no-probes does without them")]
    Probes(#[from] CaptureError),
    /// CPUs.
    #[error("cannot tell which CPUs there are: {0}")]
    Cpus(io::Error),
    /// A result cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A result cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It ended before its first round did.
    #[error("no round came to its end: {0}")]
    Nothing(String),
}

impl BenchError {
    /// Whether it is for the user to put right, nothing having been measured.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Scenario(error) => matches!(
                error,
                ScenarioError::NoSuch { .. }
                    | ScenarioError::Unavailable { .. }
                    | ScenarioError::Program { .. }
            ),
            Self::Change(error) => error.is_usage(),
            Self::Probes(error) => error.is_usage(),
            Self::Load(_) | Self::Peer(_) | Self::Read(_) => true,
            Self::Lab(_) | Self::Cpus(_) | Self::Write(_) | Self::Nothing(_) => false,
        }
    }
}
