//! Where a load runs, and what its two arms are.
//!
//! Needs root for networks of its own. Yields, for [`super::experiment`], something whose arm can be changed, and which can be
//! put under load: a scenario of the table, a load between two namespaces, or a load against another node.

use super::{
    BenchError, environment,
    scenario::{self, LoadOptions, Running, Scenario},
};
use crate::{change::Switch, iface::Namespace, lab::Pair};
use nettrace_bench::{
    cpu::Ends,
    load::{Profile, ServerOptions, Servers, Stop, client},
    peer::{Client, ClientOptions},
    result::{self, Arm, Change, Environment, Outcome},
};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// What a round came to.
pub struct Ran {
    /// By load.
    pub loads: BTreeMap<String, Outcome>,
    /// Why it ended before its time.
    pub partial: Option<String>,
}

/// Something that can be put under load, in one of two arms.
pub trait Site {
    /// What is run: runs are comparable where this is the same.
    fn scenario(&self) -> result::Scenario;

    /// What arm B has and arm A has not.
    fn changes(&self) -> Vec<Change>;

    /// Changes the arm. What is so already is made anew, so that rounds of both arms begin alike.
    ///
    /// # Errors
    /// What could not be set.
    fn set(&mut self, arm: Arm) -> Result<(), BenchError>;

    /// Whether the arm is still as it was set.
    ///
    /// # Errors
    /// When somebody else changed it meanwhile.
    fn check(&self) -> Result<(), BenchError> {
        Ok(())
    }

    /// One round of all loads.
    ///
    /// # Errors
    /// When a load could not begin.
    fn round(&mut self, seed: u64, stop: &Stop) -> Result<Ran, BenchError>;

    /// Where that is.
    fn namespaces(&self) -> Vec<Namespace>;

    /// What it is made of, and set to, now.
    fn environment(&self) -> Environment {
        environment::of(&self.namespaces())
    }
}

/// A spec as results hold it: what is written as a table.
fn spec(of: &impl Serialize) -> BTreeMap<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(map)) => map.into_iter().collect(),
        // Of these types nothing else comes.
        _ => BTreeMap::new(),
    }
}

/// How long arms are in force without being looked at: rounds are much shorter.
const MARGIN: Duration = Duration::from_secs(60);

/// What tells the arms of a load apart that is no scenario's.
pub enum Arms {
    /// There is one, with nothing changed.
    One,
    /// Both are the same: what differs is noise.
    Placebo,
    /// The second has a setting.
    Change(Box<Switch>),
}

impl Arms {
    /// How long a setting may be in force that nobody looks after, for rounds of such a length.
    #[must_use]
    pub fn limit(profile: &Profile) -> Duration {
        profile.longest() + MARGIN
    }

    fn changes(&self) -> Vec<Change> {
        let Self::Change(switch) = self else { return Vec::new() };
        let steps = switch.plan().steps.iter();
        let what = |step: &crate::change::Step| {
            format!("{step}: {} -> {}", step.show(&step.before), step.show(&step.after))
        };
        steps.map(|step| Change { id: switch.plan().id.clone(), what: what(step) }).collect()
    }

    fn set(&mut self, arm: Arm) -> Result<(), BenchError> {
        match self {
            Self::One | Self::Placebo => Ok(()),
            Self::Change(switch) => Ok(switch.set(arm == Arm::B)?),
        }
    }

    fn check(&self) -> Result<(), BenchError> {
        match self {
            Self::One | Self::Placebo => Ok(()),
            Self::Change(switch) => Ok(switch.check()?),
        }
    }
}

impl Drop for Arms {
    fn drop(&mut self) {
        if let Self::Change(switch) = self
            && let Err(error) = switch.off()
        {
            // The process that watches its time limit takes it back.
            tracing::warn!("a setting that was tried is not taken back yet: {error}");
        }
    }
}

/// One of the ready scenarios.
pub struct ScenarioSite {
    scenario: &'static Scenario,
    running: Running,
    options: LoadOptions,
    placebo: bool,
}

impl ScenarioSite {
    /// Makes its network. As a placebo, both arms are as people have it. Measurements shorter than its loads need are as long as
    /// those.
    ///
    /// # Errors
    /// As [`Scenario::start`].
    pub fn start(
        scenario: &'static Scenario,
        options: LoadOptions,
        placebo: bool,
    ) -> Result<Self, BenchError> {
        // Shorter ones would not tell the arms apart, and cost as much.
        let least = scenario.workloads.iter().map(|w| w.least).max().unwrap_or_default();
        let options = LoadOptions { measure: options.measure.max(least), ..options };
        Ok(Self { scenario, running: scenario.start()?, options, placebo })
    }
}

impl Site for ScenarioSite {
    fn scenario(&self) -> result::Scenario {
        let profiles = self.scenario.workloads.iter().map(|w| {
            let options = LoadOptions { seed: 0, ..self.options.clone() };
            let profile = w.profile(&options).ok().and_then(|p| serde_json::to_value(p).ok());
            (w.name.to_owned(), profile.unwrap_or(Value::Null))
        });
        let layout = ("layout".to_owned(), Value::String(format!("{:?}", self.scenario.layout)));
        let spec = profiles.chain([layout]).collect();
        result::Scenario { name: self.scenario.name.to_owned(), spec }
    }

    fn changes(&self) -> Vec<Change> {
        if self.placebo {
            return Vec::new();
        }
        let [without, with] = self.scenario.arms;
        vec![Change { id: self.scenario.name.to_owned(), what: format!("{without} -> {with}") }]
    }

    fn set(&mut self, arm: Arm) -> Result<(), BenchError> {
        let arm = if arm == Arm::A || self.placebo { scenario::Arm::A } else { scenario::Arm::B };
        Ok(self.running.set(arm)?)
    }

    fn round(&mut self, seed: u64, stop: &Stop) -> Result<Ran, BenchError> {
        let options = LoadOptions { seed, stop: stop.clone(), ..self.options.clone() };
        let mut ran = Ran { loads: BTreeMap::new(), partial: None };
        for workload in self.scenario.workloads {
            for part in self.running.load(workload, &options)? {
                ran.partial = ran.partial.or_else(|| part.client.partial.clone());
                ran.loads.insert(
                    part.load.name.clone(),
                    Outcome::of(&part.load.kind, &part.client, Some(&part.server)),
                );
            }
        }
        Ok(ran)
    }

    fn namespaces(&self) -> Vec<Namespace> {
        self.running.namespaces()
    }
}

/// A load between two namespaces that are joined by a veth pair.
pub struct PairSite {
    pair: Pair,
    profile: Profile,
    arms: Arms,
    pin: bool,
}

impl PairSite {
    /// Of a network that is there.
    #[must_use]
    pub const fn new(pair: Pair, profile: Profile, arms: Arms, pin: bool) -> Self {
        Self { pair, profile, arms, pin }
    }

    /// Has another load run from now on.
    pub fn load_is(&mut self, profile: Profile) {
        self.profile = profile;
    }
}

impl Site for PairSite {
    fn scenario(&self) -> result::Scenario {
        result::Scenario { name: self.profile.name.clone(), spec: spec(&self.profile) }
    }

    fn changes(&self) -> Vec<Change> {
        self.arms.changes()
    }

    fn set(&mut self, arm: Arm) -> Result<(), BenchError> {
        self.arms.set(arm)
    }

    fn check(&self) -> Result<(), BenchError> {
        self.arms.check()
    }

    fn round(&mut self, seed: u64, stop: &Stop) -> Result<Ran, BenchError> {
        let profile = seeded(&self.profile, seed);
        let [of_client, of_server] = Ends::pinnings(self.pin).map_err(BenchError::Cpus)?;
        let (server, address) = (&self.pair.server().netns, self.pair.server().ipv4);
        let serving = ServerOptions { pinning: of_server, ..ServerOptions::default() };
        let servers = server.run(|| Servers::start(&profile, address.into(), 0, &serving))??;
        let asking = client::Options { pinning: of_client, stop: stop.clone() };
        let addresses = servers.addresses();
        let seen = self.pair.client().netns.run(|| client::run(&profile, &addresses, &asking))?;
        let served = servers.stop()?;
        let mut ran = Ran { loads: BTreeMap::new(), partial: None };
        for ((load, client), server) in profile.parts.iter().zip(seen?).zip(&served) {
            ran.partial = ran.partial.or_else(|| client.partial.clone());
            ran.loads.insert(load.name.clone(), Outcome::of(&load.kind, &client, Some(server)));
        }
        Ok(ran)
    }

    fn namespaces(&self) -> Vec<Namespace> {
        // One end of each packet's way is enough.
        [("client", self.pair.client(), true), ("server", self.pair.server(), false)]
            .map(|(name, end, wire)| Namespace {
                name: name.to_owned(),
                path: Some(end.netns.path().to_owned()),
                wire,
            })
            .into()
    }
}

/// A load against a server on another node.
pub struct PeerSite {
    client: Client,
    options: ClientOptions,
    profile: Profile,
    arms: Arms,
}

impl PeerSite {
    /// Of a connection that is there. What changes, changes at this end.
    #[must_use]
    pub const fn new(client: Client, options: ClientOptions, profile: Profile, arms: Arms) -> Self {
        Self { client, options, profile, arms }
    }
}

impl Site for PeerSite {
    fn scenario(&self) -> result::Scenario {
        let mut spec = spec(&self.profile);
        spec.insert("peer".to_owned(), Value::String(self.client.address().ip().to_string()));
        result::Scenario { name: self.profile.name.clone(), spec }
    }

    fn changes(&self) -> Vec<Change> {
        self.arms.changes()
    }

    fn set(&mut self, arm: Arm) -> Result<(), BenchError> {
        self.arms.set(arm)
    }

    fn check(&self) -> Result<(), BenchError> {
        self.arms.check()
    }

    fn round(&mut self, seed: u64, stop: &Stop) -> Result<Ran, BenchError> {
        self.options.load.stop = stop.clone();
        let run = self.client.run(&seeded(&self.profile, seed), &self.options)?;
        let row = |part: &nettrace_bench::peer::Part| {
            (part.load.name.clone(), Outcome::of(&part.load.kind, &part.client, part.server.as_ref()))
        };
        Ok(Ran { loads: run.parts.iter().map(row).collect(), partial: run.partial })
    }

    fn namespaces(&self) -> Vec<Namespace> {
        vec![Namespace::host()]
    }
}

/// The same loads, with chance of their own.
fn seeded(profile: &Profile, seed: u64) -> Profile {
    let mut profile = profile.clone();
    for (n, part) in profile.parts.iter_mut().enumerate() {
        part.seed = seed.wrapping_add(n as u64);
    }
    profile
}
