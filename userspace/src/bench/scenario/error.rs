//! Why a scenario does not run.

use super::Program;
use crate::{change::ChangeError, lab::LabError};
use nettrace_bench::load::LoadError;
use std::io;

/// Why a scenario does not run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// There is none of that name.
    #[error("there is no scenario `{name}`{hint}; the scenarios are {names}")]
    NoSuch {
        /// What was asked for.
        name: String,
        /// The nearest one, if one is near.
        hint: String,
        /// All of them.
        names: String,
    },
    /// The machine lacks something.
    #[error("{scenario} cannot run here: {why}")]
    Unavailable {
        /// Its name.
        scenario: &'static str,
        /// What is missing, and what to do.
        why: String,
    },
    /// The network has no such place: a fault of the table.
    #[error("the scenario's network has no {0}")]
    NoPlace(&'static str),
    /// A program is not there, or cannot be run.
    #[error("{} cannot be run ({source}); install the package {}", .program.name(), .program.package())]
    Program {
        /// Which one.
        program: Program,
        /// Why.
        source: io::Error,
    },
    /// A program does not do what it is told.
    #[error("{} {told}: {said}", .program.name())]
    Refused {
        /// Which one.
        program: Program,
        /// What it was told: its arguments, or the begin of its input.
        told: String,
        /// What it says.
        said: String,
    },
    /// The cache does not begin to listen, or ends by itself.
    #[error("the cache at {address} does not start: {said}")]
    Cache {
        /// Where it was to listen.
        address: std::net::SocketAddrV4,
        /// What it says, or how long it was waited for.
        said: String,
    },
    /// Which CPUs there are cannot be read.
    #[error("the process's CPUs cannot be read: {0}")]
    Cpus(#[source] io::Error),
    /// The network.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The setting.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The load.
    #[error(transparent)]
    Load(#[from] LoadError),
}
