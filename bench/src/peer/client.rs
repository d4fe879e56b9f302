//! The client's end: asks a server to open data ports, runs the load, and fetches what the server saw.

use super::{
    PeerError, Token,
    auth::End,
    wire::{Connection, Request, Response, TO_CLIENT, Waited},
};
use crate::load::{self, Load, Outcome, Profile, Served, Stop, client::Options};
use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How loads are run against a peer.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Address of the server's data ports, where it is not that of its control connection.
    pub data: Option<IpAddr>,
    /// Where threads run, and what ends a run before its time.
    pub load: Options,
}

/// What came of one load, at both ends.
#[derive(Clone, Debug)]
pub struct Part {
    /// The load.
    pub load: Load,
    /// What the client saw.
    pub client: Outcome,
    /// What the server saw; none where it was lost.
    pub server: Option<Served>,
}

/// What came of a profile.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its parts.
    pub parts: Vec<Part>,
    /// Why it is not whole, if it is not. What there is is kept.
    pub partial: Option<String>,
}

/// A connection to a server that knows the same token.
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Connects, and proves each end to the other. `limit` is how long that may take.
    ///
    /// # Errors
    /// [`PeerError::Unreachable`], [`PeerError::NotAPeer`], [`PeerError::Version`], [`PeerError::WrongToken`].
    pub fn connect(address: SocketAddr, token: &Token, limit: Duration) -> Result<Self, PeerError> {
        let unreachable = |source| PeerError::Unreachable { address, source };
        let stream = TcpStream::connect_timeout(&address, limit).map_err(unreachable)?;
        Ok(Self { connection: Connection::establish(stream, End::Client, token)? })
    }

    /// The server.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.connection.address
    }

    /// Runs a profile. A server that is lost on the way ends it, and what there is comes back, marked.
    ///
    /// # Errors
    /// [`PeerError::Busy`] and [`PeerError::Refused`] as the server says, [`PeerError::Lost`] and [`PeerError::Damaged`] where
    /// it is lost before the start, [`PeerError::Load`] where the load cannot begin.
    pub fn run(&mut self, profile: &Profile, options: &ClientOptions) -> Result<Run, PeerError> {
        profile.check()?;
        let ports = self.start(profile)?;
        let address = options.data.unwrap_or(self.connection.address.ip());
        let addresses: Vec<_> = ports.into_iter().map(|port| SocketAddr::new(address, port)).collect();
        let begun = Instant::now();
        let (outcomes, lost) = self.watched(profile, &addresses, options);
        // The server is told also when the load could not begin: it has another client to serve.
        let ended = self.connection.send(&Request::Stop).and_then(|()| self.served());
        let outcomes = outcomes?;
        let (served, partial) = match ended {
            Ok((served, partial)) if served.len() == profile.parts.len() => {
                (served.into_iter().map(Some).collect(), partial)
            }
            Ok(_) => return Err(PeerError::Damaged { address: self.connection.address }),
            Err(error) => (vec![None; profile.parts.len()], Some(error.to_string())),
        };
        let stopped = outcomes.iter().find_map(|outcome| outcome.partial.clone());
        let partial = match (lost, partial) {
            (true, why) => {
                let (address, seconds) = (self.connection.address, begun.elapsed().as_secs_f64());
                let why = why.unwrap_or_else(|| "it ended the run".to_owned());
                Some(format!("the server at {address} was lost after {seconds:.1} s: {why}"))
            }
            (false, why) => why.or(stopped),
        };
        let parts = profile.parts.iter().zip(outcomes).zip(served);
        let parts = parts.map(|((load, mut client), server)| {
            client.partial = client.partial.take().or_else(|| partial.clone());
            Part { load: load.clone(), client, server }
        });
        Ok(Run { parts: parts.collect(), partial })
    }

    fn start(&mut self, profile: &Profile) -> Result<Vec<u16>, PeerError> {
        let address = self.connection.address;
        self.connection.send(&Request::Start(profile.clone()))?;
        match self.response("open its data ports")? {
            Response::Ready(ports) if ports.len() == profile.parts.len() => Ok(ports),
            Response::Ready(_) | Response::Served(..) => Err(PeerError::Damaged { address }),
            Response::Refused(reason) => Err(PeerError::Refused { address, reason }),
            Response::Busy => Err(PeerError::Busy { address }),
        }
    }

    fn served(&mut self) -> Result<(Vec<Served>, Option<String>), PeerError> {
        match self.response("tell what it saw")? {
            Response::Served(served, partial) => Ok((served, partial)),
            _ => Err(PeerError::Damaged { address: self.connection.address }),
        }
    }

    fn response(&mut self, doing: &'static str) -> Result<Response, PeerError> {
        let address = self.connection.address;
        self.connection.receive(TO_CLIENT, doing, Instant::now() + ANSWER, None).map_err(
            |waited| match waited {
                Waited::Failed(error) => error,
                Waited::TimeOver => {
                    PeerError::Lost { address, doing, source: std::io::ErrorKind::TimedOut.into() }
                }
            },
        )
    }

    /// Runs the load while the control connection is watched: a server that is gone, or that says something, has ended it.
    /// Yields what came of it, and whether the server was lost.
    fn watched(
        &self,
        profile: &Profile,
        addresses: &[SocketAddr],
        options: &ClientOptions,
    ) -> (Result<Vec<Outcome>, load::LoadError>, bool) {
        let inner = Options { stop: Stop::default(), ..options.load.clone() };
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    if options.load.stop.is_set() {
                        inner.stop.set();
                    }
                    // Waits a little.
                    if self.connection.is_disturbed() {
                        inner.stop.set();
                        return true;
                    }
                }
                false
            });
            let outcomes = load::client::run(profile, addresses, &inner);
            over.store(true, Ordering::Release);
            (outcomes, watch.join().unwrap_or(true))
        })
    }
}

#[cfg(test)]
impl Client {
    /// Has the ports opened, and nothing sent.
    pub(super) fn start_for_test(&mut self, profile: &Profile) -> Vec<u16> {
        self.start(profile).unwrap()
    }

    /// Ends what was started.
    pub(super) fn stop_for_test(&mut self) -> (Vec<Served>, Option<String>) {
        self.connection.send(&Request::Stop).and_then(|()| self.served()).unwrap()
    }
}
