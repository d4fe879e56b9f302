//! A scenario that runs: its network, its arm, its loads.

use super::{
    Arm, LoadOptions, Part, Place, Scenario, ScenarioError, Setting, Step, Workload, cache, ground::Ground,
    program,
};
use crate::{
    change::{Engine, Request, StateDir, plan},
    iface::Namespace,
    lab::{LabError, Netns},
};
use nettrace_bench::{
    cpu::Ends,
    load::{ServerOptions, Servers, client},
};
use std::{
    io,
    net::{SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    time::Duration,
};

/// First source port of [`Setting::Flows`].
const FLOWS_FROM: u16 = 20_000;
/// Where they go: discard (RFC 863).
const DISCARD: u16 = 9;
/// How long client and server may take to know each other.
const MEETING: Duration = Duration::from_secs(2);

/// What tells the arms apart.
#[derive(Debug)]
pub(super) enum Difference {
    /// The scenario's own settings.
    Own,
    /// Somebody else's changes; the scenario's settings are those of arm A in both arms.
    Others(Vec<(Place, String)>),
}

/// A running scenario. Dropping it removes everything.
#[derive(Debug)]
pub struct Running {
    scenario: &'static Scenario,
    difference: Difference,
    /// None while it is neither: a change of arms failed.
    arm: Option<Arm>,
    /// What the change engine has made, by its number.
    change: Option<u64>,
    // The order is that of removal.
    cache: Option<cache::Running>,
    ground: Ground,
}

impl Running {
    pub(super) fn start(scenario: &'static Scenario, difference: Difference) -> Result<Self, ScenarioError> {
        let ground = Ground::start(scenario.layout)?;
        let mut running = Self { scenario, difference, arm: None, change: None, cache: None, ground };
        for step in scenario.setup {
            running.make(step)?;
        }
        running.set(Arm::A)?;
        Ok(running)
    }

    /// What it is of.
    #[must_use]
    pub const fn scenario(&self) -> &'static Scenario {
        self.scenario
    }

    /// Its arm; none after a change of arms that failed.
    #[must_use]
    pub const fn arm(&self) -> Option<Arm> {
        self.arm
    }

    /// Names its network among all of this machine: its namespaces are `nettrace-ID-client` and so on.
    #[must_use]
    pub fn id(&self) -> &str {
        self.ground.id()
    }

    /// One of its namespaces.
    ///
    /// # Errors
    /// [`ScenarioError::NoPlace`] where its network has none such.
    pub fn netns(&self, place: Place) -> Result<&Netns, ScenarioError> {
        self.ground.netns(place)
    }

    /// What a capture is to look at.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.ground.namespaces()
    }

    fn make(&self, step: &Step) -> Result<(), ScenarioError> {
        match *step {
            Step::Sysctl(place, key, value) => Ok(self.netns(place)?.set_sysctl(key, value)?),
            Step::Script(place, script) => script().run(self.netns(place)?),
            Step::Run(place, program, args) => program::run_with(self.netns(place)?, program, args),
            Step::Meet => self.meet(),
        }
    }

    /// Nobody listens there: an answer it is all the same.
    fn meet(&self) -> Result<(), ScenarioError> {
        let address = SocketAddr::from((self.ground.server(), DISCARD));
        let connect = || TcpStream::connect_timeout(&address, MEETING);
        match self.netns(Place::Client)?.run(connect)? {
            Err(source) if source.kind() != io::ErrorKind::ConnectionRefused => {
                Err(LabError::Socket { action: "reach", address, source }.into())
            }
            _ => Ok(()),
        }
    }

    /// Changes the arm. What is so already is made again.
    ///
    /// # Errors
    /// What could not be set. The arm is neither then, and may be set again.
    pub fn set(&mut self, arm: Arm) -> Result<(), ScenarioError> {
        self.arm = None;
        let own = if matches!(self.difference, Difference::Own) { arm } else { Arm::A };
        self.scenario.settings.iter().try_for_each(|setting| self.put(setting, own))?;
        match (&self.difference, arm) {
            (Difference::Own, _) => {}
            (Difference::Others(_), Arm::A) => self.take_back()?,
            (Difference::Others(changes), Arm::B) => {
                let requests =
                    self.requests(changes.iter().map(|(place, setting)| (*place, setting.as_str())))?;
                self.change(&requests)?;
            }
        }
        self.arm = Some(arm);
        Ok(())
    }

    fn put(&mut self, setting: &Setting, arm: Arm) -> Result<(), ScenarioError> {
        match (*setting, arm) {
            (Setting::Change(_), Arm::A) => match self.difference {
                Difference::Own => self.take_back(),
                // What is in force is not the scenario's.
                Difference::Others(_) => Ok(()),
            },
            (Setting::Change(changes), Arm::B) => {
                let requests = self.requests(changes.iter().copied())?;
                self.change(&requests)
            }
            (Setting::Rules(place, [a, b]), _) => {
                let script = if arm == Arm::A { a } else { b };
                script().run(self.netns(place)?)
            }
            (Setting::Cache(of), Arm::A) => match self.cache.take() {
                Some(running) => {
                    drop(running);
                    cache::remove_address(of.address, self.netns(of.place)?)
                }
                None => Ok(()),
            },
            (Setting::Cache(of), Arm::B) => {
                // What it had learnt in a round before goes with it.
                self.cache = None;
                self.cache = Some(cache::Running::start(&of, self.netns(of.place)?)?);
                Ok(())
            }
            (Setting::Flows(count), _) => self.open_flows(count),
            (Setting::FastPath(_), Arm::A) => Ok(()),
            (Setting::FastPath(path), Arm::B) => {
                let why = format!("the fast path {} is not built yet", path.name());
                Err(ScenarioError::Unavailable { scenario: self.scenario.name, why })
            }
        }
    }

    fn state(&self) -> StateDir {
        StateDir::new(Some(&self.ground.directory()))
    }

    fn requests<'a>(
        &self,
        changes: impl Iterator<Item = (Place, &'a str)>,
    ) -> Result<Vec<Request>, ScenarioError> {
        let request = |(place, setting): (Place, &str)| {
            let netns = self.netns(place)?.name().to_owned();
            Ok(Request { netns, setting: setting.to_owned() })
        };
        changes.map(request).collect()
    }

    fn change(&mut self, requests: &[Request]) -> Result<(), ScenarioError> {
        if self.change.is_some() {
            return Ok(());
        }
        let plan = plan(self.scenario.name, "arm B of a scenario", requests, false)?;
        let (mut engine, _) = Engine::open(&self.state())?;
        self.change = Some(engine.apply(&plan, None)?);
        Ok(())
    }

    fn take_back(&mut self) -> Result<(), ScenarioError> {
        if let Some(change) = self.change {
            Engine::open(&self.state())?.0.undo(change, "arm A of a scenario", false)?;
            self.change = None;
        }
        Ok(())
    }

    /// The same flows each time. Some of them may be lost on their way, as it is meant.
    fn open_flows(&self, count: u16) -> Result<(), ScenarioError> {
        let (client, to) = (self.ground.client(), SocketAddrV4::new(self.ground.server(), DISCARD));
        let failed = |address: SocketAddrV4| LabError::socket("send from", address.into());
        let _receiver = self
            .netns(Place::Server)?
            .run(|| UdpSocket::bind(to))?
            .map_err(LabError::socket("bind", to.into()))?;
        let open = || {
            (0..count).try_for_each(|n| {
                let from = SocketAddrV4::new(client, FLOWS_FROM.saturating_add(n));
                UdpSocket::bind(from)
                    .and_then(|socket| socket.send_to(b"flow", to))
                    .map(drop)
                    .map_err(failed(from))
            })
        };
        Ok(self.netns(Place::Client)?.run(open)??)
    }

    /// Runs a load in the present arm. Yields a row for each of its parts.
    ///
    /// # Errors
    /// [`ScenarioError::Load`] where a server or a client cannot begin. Requests that fail are counted.
    pub fn load(&self, workload: &Workload, options: &LoadOptions) -> Result<Vec<Part>, ScenarioError> {
        let profile = workload.profile(options)?;
        let [of_client, of_server] = Ends::pinnings(options.pin).map_err(ScenarioError::Cpus)?;
        let address = self.ground.server();
        let serving = ServerOptions { pinning: of_server, ..ServerOptions::default() };
        let servers = self
            .netns(Place::Server)?
            .run(|| Servers::start(&profile, address.into(), workload.port, &serving))??;
        let asked = workload.service.unwrap_or(address);
        let addresses: Vec<_> =
            servers.addresses().iter().map(|server| SocketAddr::from((asked, server.port()))).collect();
        let asking = client::Options { pinning: of_client, stop: options.stop.clone() };
        let outcomes = self.netns(Place::Client)?.run(|| client::run(&profile, &addresses, &asking))?;
        let served = servers.stop()?;
        let parts = profile.parts.into_iter().zip(outcomes?).zip(served);
        Ok(parts.map(|((load, client), server)| Part { load, client, server }).collect())
    }
}
