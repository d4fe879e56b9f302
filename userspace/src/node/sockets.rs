//! The TCP sockets of a network namespace: listeners with their accept queues, and local ports in use towards one peer.
//!
//! Needs: to be in the namespace. Yields: [`NodeSockets`], as they are when the measurement ends, and how often listeners had dropped
//! when it begins. Source: sock_diag(7); where asking would load a module `/proc/net/tcp` and `tcp6`, which tell
//! neither the limits of queues nor drops.

mod diag;
mod procfs;

use crate::{deadline::Deadline, netlink::DumpError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    collections::HashMap,
    io,
    net::IpAddr,
    ops::{ControlFlow, RangeInclusive},
    path::Path,
};

/// Sockets of one family are looked at up to so many: a second or so.
const MAX_SOCKETS: usize = 200_000;
/// Peers that are told apart.
const MAX_PEERS: usize = 65_536;
/// Listeners that are kept.
const MAX_LISTENERS: usize = 256;

/// `TCP_ESTABLISHED`
const ESTABLISHED: u8 = 1;
/// `TCP_TIME_WAIT`, include/net/tcp_states.h
const TIME_WAIT: u8 = 6;
/// `TCP_LISTEN`
const LISTEN: u8 = 10;
/// What has a peer: from `TCP_ESTABLISHED` to `TCP_CLOSING` without those that are closed or listen.
const WITH_PEER: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << TIME_WAIT | 1 << 8 | 1 << 9 | 1 << 11;

const FILES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
const WMEM: &str = "/proc/sys/net/ipv4/tcp_wmem";
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// TCP sockets of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NodeSockets {
    /// Where they were read: `sock_diag`, or files; empty where they were not.
    pub from: String,
    /// Why they could not be read.
    pub error: Option<String>,
    /// What is missing because there were too many, or because reading took too long.
    pub cut: Option<String>,
    /// Sockets that listen: those that dropped most first, then those with the longest queues.
    pub listeners: Vec<Listener>,
    /// Local ports towards the peer that most of them are used for; none where no connection has one of the range.
    pub ports: Option<PortUse>,
    /// Open connections whose send buffer grew to the last size of net.ipv4.tcp_wmem: it is their limit. None where sizes
    /// are not known.
    pub send_buffers_at_limit: Option<u32>,
}

/// A socket that listens. One of both families is listed once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listener {
    /// Its address, unspecified for any.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Connections that wait for the application to accept them.
    pub queued: u32,
    /// The limit of these: the backlog of listen(2), and net.core.somaxconn at most. One more than this fits. None where
    /// it is not known.
    pub limit: Option<u32>,
    /// SYN and connections that it dropped while measuring, for any reason; none where that is not known.
    pub dropped: Option<u32>,
}

impl Listener {
    /// Whether its queue takes no more. Source: sk_acceptq_is_full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.queued > limit)
    }
}

/// Local ports in use for connections from one address to one port of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortUse {
    /// Local address.
    pub source: IpAddr,
    /// Address of the peer.
    pub destination: IpAddr,
    /// Port of the peer.
    pub destination_port: u16,
    /// Local ports of the range that are in use.
    pub ports: u32,
    /// Of these, held by closed connections (TIME_WAIT).
    pub time_wait: u32,
}

/// A socket as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Socket {
    state: u8,
    source: IpAddr,
    source_port: u16,
    destination: IpAddr,
    destination_port: u16,
    /// The kernel's number of it.
    id: u64,
    /// Of a listener, what waits to be accepted.
    queued: u32,
    /// Of a listener, how much may.
    limit: Option<u32>,
    send_buffer: Option<u32>,
    dropped: Option<u32>,
}

/// How often listeners of the namespace that this thread is in have dropped, by socket; none where that is not known.
pub(super) fn drops(deadline: Deadline) -> Option<HashMap<u64, u32>> {
    diag::there(Path::new("/")).ok()?;
    let mut counts = HashMap::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let each = |socket: Socket| {
            counts.insert(socket.id, socket.dropped.unwrap_or(0));
            if counts.len() < MAX_SOCKETS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        diag::each(family, 1 << LISTEN, deadline, each).ok()?;
    }
    Some(counts)
}

/// Sockets of the namespace that this thread is in, with how often its listeners had dropped before.
pub(super) fn read(before: Option<&HashMap<u64, u32>>, deadline: Deadline) -> NodeSockets {
    let why_not = match diag::there(Path::new("/")) {
        Err(why) => why,
        Ok(()) => {
            let mut books = Books::new(before);
            let mut families = [libc::AF_INET, libc::AF_INET6].into_iter();
            match families.try_for_each(|family| books.family(|s, e| diag::each(family, s, deadline, e))) {
                Ok(()) => return books.finish("sock_diag".to_owned()),
                // Files would take longer.
                Err(DumpError::Late(late)) => {
                    books.late = Some(late.to_string());
                    return books.finish("sock_diag".to_owned());
                }
                Err(error) => error.to_string(),
            }
        }
    };
    let mut books = Books::new(None);
    let from = format!("{}, as {why_not}", FILES.join(" and "));
    match FILES.into_iter().try_for_each(|path| books.family(|s, e| procfs::each(path, s, deadline, e))) {
        Ok(()) => books.finish(from),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            books.late = Some(error.to_string());
            books.finish(from)
        }
        Err(error) => NodeSockets { from, error: Some(error.to_string()), ..NodeSockets::default() },
    }
}

/// What is kept of sockets while they pass.
struct Books<'a> {
    before: Option<&'a HashMap<u64, u32>>,
    range: RangeInclusive<u16>,
    /// What send buffers grow to, bytes.
    send_buffer: Option<u64>,
    at_limit: Option<u32>,
    listeners: Vec<Listener>,
    /// Ports, and those in TIME_WAIT.
    peers: HashMap<(IpAddr, IpAddr, u16), (u32, u32)>,
    /// Sockets that were not counted for want of room.
    uncounted: u64,
    /// Whether there were more sockets than are looked at.
    more: bool,
    /// Why reading ended before all were seen.
    late: Option<String>,
}

impl<'a> Books<'a> {
    fn new(before: Option<&'a HashMap<u64, u32>>) -> Self {
        let range = super::text(Path::new(RANGE)).ok().and_then(|text| {
            let (first, last) = text.split_once(char::is_whitespace)?;
            Some(first.parse().ok()?..=last.trim().parse().ok()?)
        });
        // Where it cannot be read, a server's ports count too: they are few towards one port of a peer.
        let range = range.unwrap_or(1..=u16::MAX);
        let wmem = super::text(Path::new(WMEM)).ok();
        Self {
            before,
            range,
            send_buffer: wmem.and_then(|sizes| super::last_number(&sizes)),
            at_limit: None,
            listeners: Vec::new(),
            peers: HashMap::new(),
            uncounted: 0,
            more: false,
            late: None,
        }
    }

    /// Takes the sockets of one family from what looks at them.
    fn family<E>(
        &mut self,
        look: impl FnOnce(u32, &mut dyn FnMut(Socket) -> ControlFlow<()>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = MAX_SOCKETS;
        // The kernel lists those that listen first.
        look(1 << LISTEN | WITH_PEER, &mut |socket| {
            let Some(rest) = left.checked_sub(1) else {
                self.more = true;
                return ControlFlow::Break(());
            };
            left = rest;
            self.take(&socket);
            ControlFlow::Continue(())
        })
    }

    fn take(&mut self, socket: &Socket) {
        if let (ESTABLISHED, Some(size), Some(limit)) = (socket.state, socket.send_buffer, self.send_buffer) {
            // SO_SNDBUF sets other sizes, also larger ones. Source: tcp_sndbuf_expand.
            let at_limit = u32::from(u64::from(size) == limit);
            self.at_limit = Some(self.at_limit.unwrap_or(0).saturating_add(at_limit));
        }
        if socket.state == LISTEN {
            // A listener that is new began at zero; the counter is 32 bits wide.
            let since = |now: u32| Some(now.wrapping_sub(*self.before?.get(&socket.id).unwrap_or(&0)));
            self.listeners.push(Listener {
                address: socket.source,
                port: socket.source_port,
                queued: socket.queued,
                limit: socket.limit,
                dropped: socket.dropped.and_then(since),
            });
        } else if self.range.contains(&socket.source_port) {
            let peer = (socket.source, socket.destination, socket.destination_port);
            if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
                self.uncounted += 1;
                return;
            }
            let (ports, waiting) = self.peers.entry(peer).or_default();
            *ports += 1;
            *waiting += u32::from(socket.state == TIME_WAIT);
        }
    }

    fn finish(mut self, from: String) -> NodeSockets {
        let mut cut = Vec::from_iter(self.late);
        if self.more {
            cut.push(format!("sockets after the first {MAX_SOCKETS} of a family"));
        }
        if self.uncounted > 0 {
            cut.push(format!("{} sockets of peers after the first {MAX_PEERS}", self.uncounted));
        }
        self.listeners.sort_by_key(|l| (Reverse((l.dropped, l.queued)), l.port, l.address));
        if let Some(left) = self.listeners.len().checked_sub(MAX_LISTENERS).filter(|left| *left > 0) {
            self.listeners.truncate(MAX_LISTENERS);
            cut.push(format!("{left} listeners"));
        }
        let busiest = self.peers.into_iter().max_by_key(|(peer, (ports, _))| (*ports, Reverse(*peer)));
        let ports = busiest.map(|((source, destination, destination_port), (ports, time_wait))| PortUse {
            source,
            destination,
            destination_port,
            ports,
            time_wait,
        });
        let cut = (!cut.is_empty()).then(|| cut.join("; "));
        NodeSockets {
            from,
            error: None,
            cut,
            listeners: self.listeners,
            ports,
            send_buffers_at_limit: self.at_limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn socket(state: u8, source_port: u16, destination_port: u16) -> Socket {
        Socket {
            state,
            source: [10, 0, 0, 1].into(),
            source_port,
            destination: [10, 0, 0, 2].into(),
            destination_port,
            id: u64::from(source_port),
            queued: 0,
            limit: None,
            send_buffer: Some(u32::from(source_port)),
            dropped: Some(5),
        }
    }

    #[test]
    fn what_is_open_here_is_found_both_ways() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let both = TcpListener::bind("[::]:0");
        let address = listener.local_addr().unwrap();
        let soon = Deadline::after(std::time::Duration::from_secs(60));
        let before = drops(soon);
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let check = |sockets: &NodeSockets| {
            assert_eq!((&sockets.error, &sockets.cut), (&None, &None), "{sockets:?}");
            let of = |port| sockets.listeners.iter().filter(|l| l.port == port).collect::<Vec<_>>();
            let found = of(address.port());
            assert_eq!((found.len(), found[0].address, found[0].queued), (1, address.ip(), 3));
            if let Ok(both) = &both {
                assert_eq!(of(both.local_addr().unwrap().port()).len(), 1, "both families are one socket");
            }
            assert!(sockets.ports.as_ref().is_some_and(|p| p.ports >= 3), "{sockets:?}");
            found[0].clone()
        };
        let found = check(&read(before.as_ref(), soon));
        if diag::there(Path::new("/")).is_ok() && found.limit.is_some() {
            assert_eq!((found.limit.is_some_and(|n| n >= 3), found.dropped), (true, Some(0)), "{found:?}");
        }
        let mut books = Books::new(None);
        FILES.into_iter().try_for_each(|path| books.family(|s, e| procfs::each(path, s, soon, e))).unwrap();
        assert_eq!(check(&books.finish("files".to_owned())).limit, None);
        drop(clients);
        let late = read(None, Deadline::after(std::time::Duration::ZERO));
        assert_eq!(late.cut.as_deref(), Some("not all was read within 0ns"), "{late:?}");
    }

    #[test]
    fn the_busiest_peer_is_that_of_most_ports_of_the_range() {
        let before = HashMap::from([(80, 3)]);
        let mut books = Books { range: 100..=200, send_buffer: Some(101), ..Books::new(Some(&before)) };
        let sockets = [
            socket(LISTEN, 80, 0),
            socket(LISTEN, 81, 0),
            // A server's ports are not of the range.
            socket(TIME_WAIT, 80, 443),
            socket(TIME_WAIT, 80, 443),
            socket(TIME_WAIT, 100, 443),
            socket(1, 101, 443),
            socket(1, 102, 444),
        ];
        books
            .family(|states, each| {
                assert_eq!(states & (1 << LISTEN), 1 << LISTEN);
                let _ = sockets.into_iter().try_for_each(each);
                Ok::<(), ()>(())
            })
            .unwrap();
        let sockets = books.finish(String::new());
        let dropped: Vec<_> = sockets.listeners.iter().map(|l| (l.port, l.dropped)).collect();
        assert_eq!(dropped, [(81, Some(5)), (80, Some(2))]);
        let ports = sockets.ports.unwrap();
        assert_eq!((ports.destination_port, ports.ports, ports.time_wait), (443, 2, 1));
        assert_eq!(sockets.send_buffers_at_limit, Some(1));
    }

    #[test]
    fn what_is_too_much_is_cut_and_said() {
        let mut books = Books { range: 1..=u16::MAX, ..Books::new(None) };
        let many = |each: &mut dyn FnMut(Socket) -> ControlFlow<()>| {
            let listeners = (1..=300).map(|port| socket(LISTEN, port, 0));
            let peers = (0..MAX_SOCKETS as u32)
                .map(|n| Socket { destination: std::net::Ipv4Addr::from(n).into(), ..socket(1, 1, 1) });
            let _ = listeners.chain(peers).try_for_each(each);
            Ok::<(), ()>(())
        };
        books.family(|_, each| many(each)).unwrap();
        assert_eq!((books.peers.len(), books.more), (MAX_PEERS, true));
        let sockets = books.finish(String::new());
        assert_eq!(sockets.listeners.len(), MAX_LISTENERS);
        let cut = sockets.cut.unwrap();
        assert!(cut.contains("200000") && cut.contains("65536") && cut.contains("44 listeners"), "{cut}");
    }
}
