//! A small DNS server, authoritative for every name; what it does is in the name's first label.
//!
//! | label | answer |
//! | --- | --- |
//! | `nx...` | NXDOMAIN |
//! | `fail...` | SERVFAIL |
//! | `drop...` | none |
//! | `retry...` | none to the first copy of a query (same client, port, id), NOERROR to the next |
//! | `big...` | over UDP truncated and empty, over TCP 40 addresses |
//! | `delay5ms...` | after 5 ms; a label behind it acts too, as in `delay5ms-nx1` |
//! | any other | NOERROR with one address of the asked type |
//!
//! Below `nowhere.test`, where search domains may lead, there is nothing: NXDOMAIN.

use super::message::{self, Message, NOERROR, NXDOMAIN, SERVFAIL};
use crate::lab::traffic::sock::{Stop, Wake, sleep_until};
use crate::lab::{Family, LabError, Pod};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Port that the server listens on, UDP and TCP.
pub const PORT: u16 = 53;
/// Longest delay that a name may ask for.
pub const MAX_DELAY: Duration = Duration::from_secs(10);
/// Answers that the server keeps a record of; it counts the others.
pub const MAX_RECORDS: usize = 65_536;
/// Queries that may wait for their delay at once; more are answered without one.
const MAX_DELAYED: usize = 4096;
/// First copies that are remembered for `retry` names.
const MAX_FIRST_COPIES: usize = 65_536;
/// TCP connections that are served at once.
const MAX_CONNECTIONS: usize = 64;
const BIG_ANSWERS: u8 = 40;
const TCP_LIMIT: Duration = Duration::from_secs(5);

/// UDP or TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// An answer that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Who asked.
    pub client: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// Id of the query.
    pub id: u16,
    /// Name that was asked for.
    pub name: String,
    /// Type that was asked for.
    pub qtype: u16,
    /// Response code.
    pub rcode: u8,
    /// From having read the query to having handed the answer to the kernel, ns, on the monotonic clock: a lower
    /// bound of the latency that anyone else sees.
    pub service_ns: u64,
}

/// What the server did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerLog {
    /// Queries that were read.
    pub queries: u64,
    /// Answers that were sent.
    pub answers: u64,
    /// Queries that were left without an answer on purpose.
    pub ignored: u64,
    /// Messages that were no queries.
    pub malformed: u64,
    /// The first [`MAX_RECORDS`] answers.
    pub answered: Vec<Answered>,
}

/// A DNS server in a pod, over UDP and TCP, on all of the pod's addresses. Dropping it ends it.
#[derive(Debug)]
pub struct DnsServer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<(), LabError>>>,
}

#[derive(Debug)]
struct Shared {
    stop: Stop,
    log: Mutex<ServerLog>,
    first_copies: Mutex<HashSet<(SocketAddr, u16)>>,
    delayed: Mutex<Delayed>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Delayed {
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    jobs: std::collections::HashMap<u64, Job>,
    next: u64,
    stopped: bool,
}

/// An answer that is to be sent over UDP.
#[derive(Debug)]
struct Job {
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    query: Message,
    reply: Reply,
    read: Instant,
}

/// What a query is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reply {
    rcode: u8,
    truncated: bool,
    addresses: u8,
}

/// What a name asks the server to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Answer(u8),
    Drop,
    Retry,
    Big,
}

impl DnsServer {
    /// Starts a server in a pod, and returns when it listens.
    ///
    /// # Errors
    /// [`LabError::Socket`] when the port is taken.
    pub fn start(pod: &Pod) -> Result<Self, LabError> {
        let addresses = [Some(IpAddr::V4(pod.ipv4)), pod.ipv6.map(IpAddr::V6)];
        let stop = Stop::new()
            .map_err(LabError::socket("make a signal for", SocketAddr::new(IpAddr::V4(pod.ipv4), PORT)))?;
        let shared = Arc::new(Shared {
            stop,
            log: Mutex::default(),
            first_copies: Mutex::default(),
            delayed: Mutex::default(),
            wake: Condvar::new(),
        });
        let mut server = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        server.threads.push(pod.netns.spawn({
            let shared = Arc::clone(&shared);
            move || shared.send_delayed()
        })?);
        for address in addresses.into_iter().flatten() {
            let address = SocketAddr::new(address, PORT);
            let (udp, tcp) = pod
                .netns
                .run(|| UdpSocket::bind(address).and_then(|udp| Ok((udp, TcpListener::bind(address)?))))?
                .map_err(LabError::socket("bind", address))?;
            let for_udp = Arc::clone(&shared);
            server.threads.push(pod.netns.spawn(move || for_udp.serve_udp(&Arc::new(udp)))?);
            let for_tcp = Arc::clone(&shared);
            server.threads.push(pod.netns.spawn(move || for_tcp.serve_tcp(&tcp))?);
        }
        Ok(server)
    }

    /// Address of the server in a pod.
    ///
    /// # Errors
    /// [`LabError::NoIpv6`] when the pod has no IPv6.
    pub fn address(pod: &Pod, family: Family) -> Result<SocketAddr, LabError> {
        match family {
            Family::V4 => Ok(SocketAddr::new(pod.ipv4.into(), PORT)),
            Family::V6 => pod.ipv6.map(|ip| SocketAddr::new(ip.into(), PORT)).ok_or(LabError::NoIpv6),
        }
    }

    /// What it has done so far.
    pub fn log(&self) -> ServerLog {
        lock(&self.shared.log).clone()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stop.set();
        lock(&self.shared.delayed).stopped = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a thread of the lab's DNS server failed"),
                Err(_) => tracing::warn!("a thread of the lab's DNS server panicked"),
            }
        }
    }
}

impl Shared {
    fn serve_udp(&self, socket: &Arc<UdpSocket>) {
        let mut buffer = [0; 4096];
        while matches!(self.stop.wait(socket, None), Ok(Wake::Readable)) {
            // An error here is the ICMP echo of an earlier answer; the socket goes on.
            let Ok((bytes, client)) = socket.recv_from(&mut buffer) else { continue };
            let read = Instant::now();
            let Some(query) = self.read_query(&buffer[..bytes]) else { continue };
            let Some((reply, delay)) = self.decide(&query, client, Transport::Udp) else { continue };
            let job = Job { socket: Arc::clone(socket), client, query, reply, read };
            if delay.is_zero() {
                self.send(&job);
            } else {
                self.delay(job, delay);
            }
        }
    }

    fn read_query(&self, bytes: &[u8]) -> Option<Message> {
        let query = message::decode(bytes).ok().filter(|message| !message.response);
        let mut log = lock(&self.log);
        let counter = if query.is_some() { &mut log.queries } else { &mut log.malformed };
        *counter += 1;
        drop(log);
        query
    }

    /// The reply and how long it is to wait; none when there is to be no reply.
    fn decide(&self, query: &Message, client: SocketAddr, transport: Transport) -> Option<(Reply, Duration)> {
        let (delay, behaviour) = behaviour(&query.question.name);
        let plain = |rcode, addresses| Reply { rcode, truncated: false, addresses };
        let reply = match (behaviour, transport) {
            (Behaviour::Answer(NOERROR), _) => Some(plain(NOERROR, 1)),
            (Behaviour::Answer(rcode), _) => Some(plain(rcode, 0)),
            (Behaviour::Big, Transport::Udp) => Some(Reply { rcode: NOERROR, truncated: true, addresses: 0 }),
            (Behaviour::Big, Transport::Tcp) => Some(plain(NOERROR, BIG_ANSWERS)),
            (Behaviour::Retry, Transport::Tcp) => Some(plain(NOERROR, 1)),
            (Behaviour::Retry, Transport::Udp) => {
                let mut seen = lock(&self.first_copies);
                let second = seen.remove(&(client, query.id));
                if !second && seen.len() < MAX_FIRST_COPIES {
                    seen.insert((client, query.id));
                }
                second.then(|| plain(NOERROR, 1))
            }
            (Behaviour::Drop, _) => None,
        };
        if reply.is_none() {
            lock(&self.log).ignored += 1;
        }
        reply.map(|reply| (reply, delay))
    }

    fn delay(&self, job: Job, delay: Duration) {
        let mut delayed = lock(&self.delayed);
        if delayed.jobs.len() >= MAX_DELAYED {
            drop(delayed);
            self.send(&job);
            return;
        }
        let number = delayed.next;
        delayed.next += 1;
        delayed.heap.push(Reverse((job.read + delay, number)));
        delayed.jobs.insert(number, job);
        self.wake.notify_one();
    }

    /// Sends delayed answers when they are due, until the stop.
    fn send_delayed(&self) {
        const EARLY: Duration = Duration::from_micros(300);
        let mut delayed = lock(&self.delayed);
        while !delayed.stopped {
            let Some(Reverse((due, number))) = delayed.heap.peek().copied() else {
                delayed = self.wake.wait(delayed).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = due.saturating_duration_since(Instant::now());
            if left > EARLY {
                let waited = self.wake.wait_timeout(delayed, left - EARLY);
                delayed = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            delayed.heap.pop();
            let job = delayed.jobs.remove(&number);
            drop(delayed);
            sleep_until(due);
            if let Some(job) = job {
                self.send(&job);
            }
            delayed = lock(&self.delayed);
        }
    }

    fn send(&self, job: &Job) {
        let Ok(bytes) = encode(&job.query, job.reply) else { return };
        if job.socket.send_to(&bytes, job.client).is_ok() {
            self.record(&job.query, job.client, Transport::Udp, job.reply.rcode, job.read);
        }
    }

    fn record(&self, query: &Message, client: SocketAddr, transport: Transport, rcode: u8, read: Instant) {
        let service_ns = u64::try_from(read.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut log = lock(&self.log);
        log.answers += 1;
        if log.answered.len() < MAX_RECORDS {
            let (name, qtype) = (query.question.name.clone(), query.question.qtype);
            log.answered.push(Answered { client, transport, id: query.id, name, qtype, rcode, service_ns });
        }
    }

    /// Serves connections one thread each; the scope ends when all of them have.
    fn serve_tcp(&self, listener: &TcpListener) {
        let open = AtomicUsize::new(0);
        let open = &open;
        std::thread::scope(|scope| {
            while matches!(self.stop.wait(listener, None), Ok(Wake::Readable)) {
                let Ok((stream, client)) = listener.accept() else { continue };
                // One too many is closed at once.
                if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                    open.fetch_sub(1, Ordering::Relaxed);
                } else {
                    scope.spawn(move || {
                        // The client closed or broke the connection, and sees so itself.
                        let _ = self.serve_connection(stream, client);
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
        });
    }

    /// Answers the queries of one connection in their order.
    fn serve_connection(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TCP_LIMIT))?;
        stream.set_write_timeout(Some(TCP_LIMIT))?;
        while self.stop.wait(&stream, Some(TCP_LIMIT))? == Wake::Readable {
            let bytes = read_tcp(&mut stream)?;
            let read = Instant::now();
            let Some(query) = self.read_query(&bytes) else { return Ok(()) };
            let Some((reply, delay)) = self.decide(&query, client, Transport::Tcp) else { continue };
            if !delay.is_zero() {
                sleep_until(read + delay);
            }
            write_tcp(&mut stream, &encode(&query, reply).map_err(io::Error::other)?)?;
            self.record(&query, client, Transport::Tcp, reply.rcode, read);
        }
        Ok(())
    }
}

/// Reads one message with its two bytes of length.
pub(super) fn read_tcp(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Writes messages, each behind its two bytes of length, as one segment.
pub(super) fn write_tcp(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat())
}

fn encode(query: &Message, reply: Reply) -> Result<Vec<u8>, message::MessageError> {
    // Documentation addresses (RFC 5737, RFC 3849): nobody is to connect to them.
    let addresses: Vec<_> = (1..=reply.addresses)
        .flat_map(|host| {
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into());
            [IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), IpAddr::V6(v6)]
        })
        .collect();
    message::encode_response(query, reply.rcode, reply.truncated, &addresses)
}

/// What the first label of a name asks for.
fn behaviour(name: &str) -> (Duration, Behaviour) {
    if name.ends_with(".nowhere.test") {
        return (Duration::ZERO, Behaviour::Answer(NXDOMAIN));
    }
    let label = name.split('.').next().unwrap_or_default();
    let (delay, rest) = delay_prefix(label).unwrap_or((Duration::ZERO, label));
    let prefixes = [
        ("nx", Behaviour::Answer(NXDOMAIN)),
        ("fail", Behaviour::Answer(SERVFAIL)),
        ("drop", Behaviour::Drop),
        ("retry", Behaviour::Retry),
        ("big", Behaviour::Big),
    ];
    let found = prefixes.into_iter().find(|(prefix, _)| rest.starts_with(prefix));
    (delay, found.map_or(Behaviour::Answer(NOERROR), |(_, behaviour)| behaviour))
}

/// `delay5ms-rest` as 5 ms and `rest`.
fn delay_prefix(label: &str) -> Option<(Duration, &str)> {
    let (number, rest) = label.strip_prefix("delay")?.split_once("ms")?;
    let delay = Duration::from_millis(number.parse().ok()?);
    Some((delay.min(MAX_DELAY), rest.trim_start_matches('-')))
}

/// A panic of another thread does not spoil counters and queues, which are whole between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_to_do() {
        let ms = Duration::from_millis;
        assert_eq!(behaviour("www.example.test"), (ms(0), Behaviour::Answer(NOERROR)));
        assert_eq!(behaviour("nx1.example.test"), (ms(0), Behaviour::Answer(NXDOMAIN)));
        assert_eq!(behaviour("fail"), (ms(0), Behaviour::Answer(SERVFAIL)));
        assert_eq!(behaviour("delay5ms.example.test"), (ms(5), Behaviour::Answer(NOERROR)));
        assert_eq!(behaviour("delay20ms-nx1.a"), (ms(20), Behaviour::Answer(NXDOMAIN)));
        assert_eq!(behaviour("delayed.a"), (ms(0), Behaviour::Answer(NOERROR)));
        assert_eq!(behaviour("delay99999ms.a"), (MAX_DELAY, Behaviour::Answer(NOERROR)));
    }
}
