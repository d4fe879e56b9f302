//! The server's end: waits for a client that knows the token, and serves its loads, one experiment at a time.

use super::{
    Limits, PeerError, Token,
    auth::End,
    wire::{Connection, HANDSHAKE, Request, Response, TO_SERVER, Waited},
};
use crate::{
    cpu::Pinning,
    load::{LoadError, Profile, Served, ServerOptions, Servers, Stop},
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often it looks whether it is to stop, where nobody comes.
const LOOK: Duration = Duration::from_millis(50);
/// Control connections at once. Others are closed.
const MOST_CONNECTIONS: usize = 16;
/// How long a client that says nothing is waited for, between experiments.
const IDLE: Duration = Duration::from_secs(60);
/// What an experiment may take beyond its own times.
const GRACE: Duration = Duration::from_secs(5);

/// What a server is to be like. Both addresses are loopback unless told otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it waits for clients.
    pub control: SocketAddr,
    /// Where its data ports are.
    pub data: IpAddr,
    /// First of the data ports, one for each part of a profile; 0 for any that are free.
    pub data_port: u16,
    /// What clients must know.
    pub token: Token,
    /// What it does at most.
    pub limits: Limits,
    /// Where its threads run.
    pub pinning: Pinning,
}

impl Config {
    /// On loopback, at ports that are free.
    #[must_use]
    pub fn new(token: Token) -> Self {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (limits, pinning) = (Limits::default(), Pinning::default());
        Self { control: SocketAddr::new(here, 0), data: here, data_port: 0, token, limits, pinning }
    }
}

/// What happens at a server.
#[derive(Debug)]
pub enum Event {
    /// Somebody came and went without an experiment: a stranger, a client of another version, one that asked too much.
    TurnedAway {
        /// Who.
        peer: SocketAddr,
        /// Why.
        error: PeerError,
    },
    /// An experiment has begun.
    Started {
        /// Who asks.
        peer: SocketAddr,
        /// What.
        profile: Profile,
        /// Where it is served.
        addresses: Vec<SocketAddr>,
    },
    /// An experiment is over.
    Finished {
        /// Who asked.
        peer: SocketAddr,
        /// What was seen, in the order of the parts.
        served: Vec<Served>,
        /// Why that is not all, if it is not: the client went, the time was over, the server was stopped.
        partial: Option<String>,
    },
}

/// A server that waits for clients.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
    busy: AtomicBool,
}

impl Server {
    /// Listens, in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`LoadError::PortInUse`] or [`LoadError::Listen`] when the address cannot be had.
    pub fn bind(config: Config) -> Result<Self, LoadError> {
        let address = config.control;
        let failed = |source| LoadError::listen(address, source);
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, config, busy: AtomicBool::new(false) })
    }

    /// Where clients find it.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until it is stopped. Data ports are opened in the calling thread's network namespace. `tell` hears what
    /// happens, from the thread that serves that client.
    pub fn run(&self, stop: &Stop, tell: impl Fn(Event) + Sync) {
        let (connections, tell) = (Arc::new(AtomicUsize::new(0)), &tell);
        thread::scope(|scope| {
            while !stop.is_set() {
                // No client, or one that has gone again.
                let Ok((stream, peer)) = self.listener.accept() else {
                    thread::sleep(LOOK);
                    continue;
                };
                if connections.load(Ordering::Relaxed) >= MOST_CONNECTIONS {
                    tell(Event::TurnedAway { peer, error: PeerError::Busy { address: peer } });
                    continue;
                }
                connections.fetch_add(1, Ordering::Relaxed);
                let connections = Arc::clone(&connections);
                scope.spawn(move || {
                    if let Err(error) = self.serve(stream, stop, tell) {
                        tell(Event::TurnedAway { peer, error });
                    }
                    connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
    }

    /// One client, which may run several experiments.
    fn serve(&self, stream: TcpStream, stop: &Stop, tell: &(impl Fn(Event) + Sync)) -> Result<(), PeerError> {
        let failed = |source| PeerError::System { action: "set up a control connection", source };
        stream.set_nonblocking(false).map_err(failed)?;
        let mut connection = Connection::establish(stream, End::Server, &self.config.token)?;
        loop {
            let deadline = Instant::now() + IDLE;
            let profile = match connection.receive(TO_SERVER, "ask", deadline, Some(stop)) {
                Ok(Request::Start(profile)) => profile,
                // It had stopped when it was told that the experiment was over.
                Ok(Request::Stop) => continue,
                // A client that is done says no goodbye.
                Err(Waited::TimeOver) | Err(Waited::Failed(PeerError::Lost { .. })) => return Ok(()),
                Err(Waited::Failed(error)) => return Err(error),
            };
            if self.busy.swap(true, Ordering::AcqRel) {
                connection.send(&Response::Busy)?;
                continue;
            }
            let over = self.experiment(&mut connection, &profile, stop, tell);
            self.busy.store(false, Ordering::Release);
            over?;
        }
    }

    fn experiment(
        &self,
        connection: &mut Connection,
        profile: &Profile,
        stop: &Stop,
        tell: &impl Fn(Event),
    ) -> Result<(), PeerError> {
        let peer = connection.address;
        let servers = match self.config.limits.check(profile).and_then(|()| self.start(profile, peer)) {
            Ok(servers) => servers,
            Err(reason) => {
                connection.send(&Response::Refused(reason.clone()))?;
                tell(Event::TurnedAway { peer, error: PeerError::Refused { address: self.address, reason } });
                return Ok(());
            }
        };
        let addresses = servers.addresses();
        let ports = addresses.iter().map(SocketAddr::port).collect();
        tell(Event::Started { peer, profile: profile.clone(), addresses });
        let deadline = Instant::now() + profile.longest() + GRACE + HANDSHAKE;
        let waited = connection
            .send(&Response::Ready(ports))
            .map_err(Waited::Failed)
            .and_then(|()| connection.receive(TO_SERVER, "end its load", deadline, Some(stop)));
        let partial = match waited {
            Ok(Request::Stop) => None,
            Ok(Request::Start(_)) => {
                Some("the client began another load before this one was over".to_owned())
            }
            Err(Waited::TimeOver) if stop.is_set() => Some("the server was stopped".to_owned()),
            Err(Waited::TimeOver) => Some("the client did not end its load in time".to_owned()),
            Err(Waited::Failed(error)) => Some(error.to_string()),
        };
        let served = servers.stop()?;
        // A client that is gone does not hear it; what was seen is told here all the same.
        let told = connection.send(&Response::Served(served.clone(), partial.clone()));
        let gone = partial.is_some();
        tell(Event::Finished { peer, served, partial });
        if gone { Ok(()) } else { told }
    }

    fn start(&self, profile: &Profile, peer: SocketAddr) -> Result<Servers, String> {
        let options = ServerOptions { pinning: self.config.pinning.clone(), only: Some(peer.ip()) };
        Servers::start(profile, self.config.data, self.config.data_port, &options)
            .map_err(|error: LoadError| error.to_string())
    }
}
