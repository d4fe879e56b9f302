//! The loads of scenarios.

use super::ScenarioError;
use nettrace_bench::load::{Load, Outcome, Profile, Served, Stop, args::LoadArgs};
use std::{net::Ipv4Addr, time::Duration};

/// A load, or several at once.
#[derive(Debug)]
pub struct Workload {
    /// Names it among those of its scenario. Its parts are called so, too, or begin so.
    pub name: &'static str,
    /// What is asked. How long, and with which seed, is for who runs it.
    pub args: fn() -> LoadArgs,
    /// Port of the server's first part, the others being at the next ones; 0 for any, a new one each time.
    pub port: u16,
    /// The address that the client asks, where it is not the server's own: that of a Service.
    pub service: Option<Ipv4Addr>,
    /// The shortest measurement that tells the arms apart.
    pub least: Duration,
    /// Whether there is load before measuring begins. There is none where the first requests are what counts.
    pub warms_up: bool,
}

/// How a load is run.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Load before measuring begins.
    pub warm_up: Duration,
    /// Measuring.
    pub measure: Duration,
    /// Of what is left to chance.
    pub seed: u64,
    /// Whether each end has a CPU of its own, where the machine has as many.
    pub pin: bool,
    /// Ends it before its time.
    pub stop: Stop,
}

impl Default for LoadOptions {
    /// A second, after a fifth of one.
    fn default() -> Self {
        Self {
            warm_up: Duration::from_millis(200),
            measure: Duration::from_secs(1),
            seed: 1,
            pin: true,
            stop: Stop::default(),
        }
    }
}

/// What one part of a load came to.
#[derive(Clone, Debug)]
pub struct Part {
    /// What was asked.
    pub load: Load,
    /// What the client saw.
    pub client: Outcome,
    /// What the server saw.
    pub server: Served,
}

impl Workload {
    /// One that asks the server itself, at any port, for at least a second.
    pub(super) const fn plain(name: &'static str, args: fn() -> LoadArgs) -> Self {
        Self { name, args, port: 0, service: None, least: Duration::from_secs(1), warms_up: true }
    }

    /// What it is, as it is run.
    ///
    /// # Errors
    /// [`ScenarioError::Load`] for times that cannot be.
    pub fn profile(&self, options: &LoadOptions) -> Result<Profile, ScenarioError> {
        let args = LoadArgs { name: Some(self.name.to_owned()), seed: Some(options.seed), ..(self.args)() };
        let mut profile = args.resolve()?;
        for part in &mut profile.parts {
            part.times.warm_up = if self.warms_up { options.warm_up } else { Duration::ZERO };
            part.times.measure = options.measure;
        }
        profile.check()?;
        Ok(profile)
    }
}
