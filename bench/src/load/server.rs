//! The servers of a load: a few threads that answer, or that take what comes.
//!
//! Needs an address of the calling thread's network namespace. Yields a server that runs until it is stopped, and then what it
//! saw. Its threads wait for as long as nothing comes, and are interrupted when they are to stop, which costs an answer nothing;
//! those that take what comes have timeouts, since silence tells them that all came.

mod datagram;
mod sink;
mod stream;

use super::{
    LoadError, Stop,
    clock::Clock,
    descriptors,
    outcome::Served,
    service::Thinker,
    spec::{Kind, Load, Pace, Profile},
    tick,
};
use crate::cpu::{self, Pinned, Pinning, Used};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use sink::{Origin, Sink};
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a thread waits for the network before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);
/// Pause between interruptions of a thread that is to stop.
const STOP: Duration = Duration::from_millis(1);
/// How long a server that is stopped goes on taking what is under way.
const DRAIN: Duration = Duration::from_secs(1);
/// Room at a receiver of datagrams, bytes, so that a turn of the sender fits.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Threads that take new connections, where nothing else says how many.
const ACCEPTORS: u32 = 16;

/// How a server is run.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Where its threads run.
    pub pinning: Pinning,
    /// Serves this address alone: others have no answer, and are counted.
    pub only: Option<IpAddr>,
}

/// What its threads share.
struct Shared {
    load: Load,
    only: Option<IpAddr>,
    stop: Stop,
    clock: Clock,
    origin: Origin,
}

impl Shared {
    /// Whether an address may be served.
    fn serves(&self, address: SocketAddr) -> bool {
        self.only.is_none_or(|only| only == address.ip().to_canonical())
    }

    fn thinker(&self, thread: u32) -> Thinker {
        Thinker::new(self.load.service, self.clock, self.load.seed, thread)
    }
}

/// What one thread saw.
struct Thread {
    served: Served,
    sink: Option<Sink>,
    busy: Duration,
    not_pinned: Option<String>,
}

/// A server of one load. Dropping it stops it.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Its threads have copies in tables of their own, so that the last of it must go here.
    bound: Bound,
    threads: Vec<JoinHandle<Thread>>,
    started: Instant,
    pinned: Pinned,
}

/// What its threads wait at.
#[derive(Clone)]
enum Bound {
    Stream(Arc<TcpListener>),
    Datagrams(Arc<UdpSocket>),
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(listener) => listener.as_fd(),
            Self::Datagrams(socket) => socket.as_fd(),
        }
    }
}

impl Bound {
    /// Has the calls at it end every [`LOOK`] where silence tells something, or nothing else ends them.
    fn look(&self, load: &Load) {
        if !load.kind.is_one_way() && tick::prepare().is_ok() {
            return;
        }
        for which in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            // What a listener is set to, its connections are. It cannot fail: the socket is one, and the time is no 0.
            let _ = sockopt::set_socket_timeout(self, which, Some(LOOK));
        }
    }
}

/// Waits for a thread that is to stop. One that takes what comes is not interrupted: it hears by itself that all came.
fn join<T>(thread: JoinHandle<T>, load: &Load) -> thread::Result<T> {
    while !load.kind.is_one_way() && !thread.is_finished() {
        tick::interrupt(&thread);
        thread::sleep(STOP);
    }
    thread.join()
}

impl Server {
    /// Starts one at an address; port 0 is any that is free.
    ///
    /// # Errors
    /// [`LoadError::PortInUse`], [`LoadError::Listen`] when the address cannot be had, [`LoadError::Spec`] for a load that
    /// cannot be.
    pub fn start(load: &Load, address: SocketAddr, options: &ServerOptions) -> Result<Self, LoadError> {
        load.check()?;
        let (bound, address) = bind(load, address).map_err(|source| LoadError::listen(address, source))?;
        let shared = Arc::new(Shared {
            load: load.clone(),
            only: options.only.map(|only| only.to_canonical()),
            stop: Stop::default(),
            clock: Clock::start(),
            origin: Origin::default(),
        });
        let pinned = options.pinning.resolve();
        bound.look(load);
        let started = Instant::now();
        let mut server =
            Self { address, shared, bound, threads: Vec::new(), started, pinned: pinned.clone() };
        for number in 0..threads(load) {
            let (shared, pinned) = (Arc::clone(&server.shared), pinned.clone());
            let bound = server.bound.clone();
            let run = move || {
                let not_pinned = pinned.apply(number as usize);
                descriptors::leave_with(bound.as_fd());
                let before = cpu::thread_time();
                let (served, sink) = match &bound {
                    Bound::Stream(listener) => stream::serve(listener, &shared, number),
                    Bound::Datagrams(socket) => datagram::serve(socket, &shared, number),
                };
                Thread { served, sink, busy: cpu::thread_time() - before, not_pinned }
            };
            let thread = thread::Builder::new()
                .name(format!("serve-{number}"))
                .spawn(run)
                .map_err(|source| LoadError::System { action: "start a server's thread", source })?;
            server.threads.push(thread);
        }
        Ok(server)
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it. Yields what it saw.
    ///
    /// # Errors
    /// [`LoadError::Panicked`] for a fault of the program.
    pub fn stop(mut self) -> Result<Served, LoadError> {
        self.shared.stop.set();
        let mut sum = Served { pinned: self.pinned.clone(), ..Served::default() };
        let (mut sinks, mut busy) = (Vec::new(), Duration::ZERO);
        let load = &self.shared.load;
        for thread in self.threads.drain(..) {
            let thread = join(thread, load).map_err(|_| LoadError::Panicked { load: load.name.clone() })?;
            sum.connections += thread.served.connections;
            sum.requests += thread.served.requests;
            sum.received_bytes += thread.served.received_bytes;
            sum.sent_bytes += thread.served.sent_bytes;
            sum.strangers += thread.served.strangers;
            sum.failed += thread.served.failed;
            sinks.extend(thread.sink);
            busy += thread.busy;
            if sum.pinned.why_not.is_none() {
                sum.pinned.why_not = thread.not_pinned;
            }
        }
        sum.pinned.cpus.truncate(threads(load) as usize);
        sum.cpu = Used::of(busy, self.started.elapsed());
        sum.received = Sink::sum(sinks, load, &self.shared.origin);
        Ok(sum)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.set();
        for thread in self.threads.drain(..) {
            // Its panic has been printed; there is nobody to tell.
            let _ = join(thread, &self.shared.load);
        }
    }
}

/// Servers of all parts of a profile.
pub struct Servers(Vec<Server>);

impl Servers {
    /// Starts them at an address, at ports one after the other, or any that are free where `port` is 0.
    ///
    /// # Errors
    /// As [`Server::start`]; those that have started are stopped.
    pub fn start(
        profile: &Profile,
        address: IpAddr,
        port: u16,
        options: &ServerOptions,
    ) -> Result<Self, LoadError> {
        profile.check()?;
        let start = |(load, n): (&Load, u16)| {
            let port = if port == 0 { 0 } else { port.saturating_add(n) };
            Server::start(load, SocketAddr::new(address, port), options)
        };
        profile.parts.iter().zip(0..).map(start).collect::<Result<_, _>>().map(Self)
    }

    /// Where they are, in the order of the parts.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(Server::address).collect()
    }

    /// Stops them. Yields what each of them saw.
    ///
    /// # Errors
    /// As [`Server::stop`].
    pub fn stop(self) -> Result<Vec<Served>, LoadError> {
        // All are told before the first is waited for.
        self.0.iter().for_each(|server| server.shared.stop.set());
        self.0.into_iter().map(Server::stop).collect()
    }
}

/// Threads that serve a load.
fn threads(load: &Load) -> u32 {
    match (load.server_threads, load.pace) {
        (0, _) if load.kind.is_datagram() => 1,
        // Those that were cut may not be seen to end before they are made again.
        (0, _) if !load.kind.connects_each() => load.connections + 1,
        (0, Pace::Closed) => load.connections,
        (0, Pace::Open { .. }) => ACCEPTORS,
        (n, _) => n,
    }
}

fn bind(load: &Load, address: SocketAddr) -> io::Result<(Bound, SocketAddr)> {
    if load.kind.is_datagram() {
        let socket = UdpSocket::bind(address)?;
        if load.kind == Kind::UdpFlood {
            // Beyond net.core.rmem_max where the rights are there, up to it where not.
            sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
                .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER))?;
        }
        let address = socket.local_addr()?;
        return Ok((Bound::Datagrams(Arc::new(socket)), address));
    }
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // What a listener is set to, its connections are: that saves a call for each.
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, i32::try_from(load.backlog).unwrap_or(i32::MAX))?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((Bound::Stream(Arc::new(listener)), address))
}
