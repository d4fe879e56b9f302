//! What scenarios do: traffic between the lab's client and server, names, settings, rules.

mod crowd;
mod race;

use anyhow::{Context as _, Result, bail, ensure};
use nettrace::lab::{
    Family, Lab, Netns, Path, Role,
    dns::{Client, DnsServer, Query, TYPE_A, TYPE_AAAA},
    traffic::{
        tcp,
        udp::{self, Datagrams, Delivery},
    },
};
use nettrace_tests::{in_guest, truth};
use serde::Deserialize;
use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

/// One thing to do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Load {
    /// Requests and answers over TCP.
    Requests {
        connections: u32,
        requests: u32,
        #[serde(default)]
        port: u16,
    },
    /// Datagrams one way, 1,000 a second if nothing else is said.
    Datagrams { count: u32, bytes: usize, rate: Option<u32> },
    /// A transfer.
    Bulk { bytes: u64 },
    /// Transfers at the same time, and requests beside them, one after the other.
    Behind { transfers: u32, bytes: u64, requests: u32 },
    /// A connection that sends so much at once, and pauses.
    Bursts { count: u32, bytes: usize, pause_ms: u64 },
    /// Flows of datagrams, each as fast as it can, sent from these CPUs in turn; without any, from where the kernel likes.
    Flood { flows: u32, time_ms: u64, cpus: Vec<usize> },
    /// Has what the client sends handled by one CPU of the node (RPS).
    ReceiveOn { cpu: u32 },
    /// Names, each asked for so often; `{n}` in one is the number of the time.
    Dns { names: Vec<String>, times: u32 },
    /// Queries for A and AAAA from one socket to a DNS Service: the first is held until the second has been answered.
    RaceOfOneSocket { times: u16 },
    /// The same, of two pods behind one address.
    RaceOfTwoPods { times: u16 },
    /// Connections to a port on which nobody listens.
    Refused { attempts: u32 },
    /// Connections to a listener that does not accept.
    FullListener { backlog: u8, attempts: u32 },
    /// As many connections at once, which the application takes afterwards; it goes on listening.
    Burst { backlog: i32, attempts: u32 },
    /// Connections of which the last segment of the handshake never comes.
    HalfOpen { backlog: i32, attempts: u32 },
    /// Transfers, one after the other, to an application that does not read for a time.
    SlowReader {
        bytes: usize,
        pause_ms: u64,
        #[serde(default = "one")]
        transfers: u32,
    },
    /// Connections that the client closes first, each from a port of its own, held until none is left.
    ShortConnections { count: u32 },
    /// Connections whose client asks for fast open, one after the other.
    FastOpen { connections: u32 },
    /// Requests while every CPU is busy with something else.
    Starved { connections: u32, requests: u32 },
    /// Requests that arrive, and one that is sent again and again.
    InVain { short_bytes: usize, long_bytes: usize },
    /// A kernel setting.
    Sysctl { pod: Place, name: String, value: String },
    /// What `tc` is told.
    Tc { pod: Place, args: String },
    /// Datagrams through the node, each of a connection of its own.
    Flows { count: u32 },
    /// A tunnel (VXLAN) from the client to the server, and datagrams through it; with `route_mtu` its only route has that MTU.
    Tunnel {
        mtu: u32,
        count: u32,
        bytes: usize,
        #[serde(default)]
        route_mtu: Option<u32>,
    },
    /// Rules of so many Services on the node.
    Services { count: u32 },
    /// Rules.
    Nft { pod: Place, hook: String, rules: Vec<String> },
}

const fn one() -> u32 {
    1
}

/// Where in the lab.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    Client,
    Server,
    Node,
    /// Outside the lab: a setting of the whole machine, which has to be a virtual one.
    Machine,
}

impl Place {
    fn netns(self, lab: &Lab) -> Option<&Netns> {
        match self {
            Self::Client => Some(&lab.pod(Role::Client).netns),
            Self::Server => Some(&lab.pod(Role::Server).netns),
            Self::Node => Some(&lab.node().netns),
            Self::Machine => None,
        }
    }

    fn within<T: Send>(self, lab: &Lab, work: impl FnOnce() -> T + Send) -> Result<T> {
        match self.netns(lab) {
            Some(netns) => Ok(netns.run(work)?),
            None if in_guest() => Ok(work()),
            None => bail!("it would change this machine"),
        }
    }
}

impl Load {
    /// The file of a setting of the whole machine that this changes.
    pub(crate) fn setting_of_machine(&self) -> Option<PathBuf> {
        match self {
            Self::Sysctl { pod: Place::Machine, name, .. } => Some(setting(name).into()),
            _ => None,
        }
    }

    /// Yields a listener that is to stay until the measurement ends.
    pub(crate) fn run(&self, lab: &Lab, family: Family) -> Result<Option<TcpListener>> {
        let path = lab.path(Role::Client, Role::Server, family)?;
        match self {
            Self::Requests { connections, requests, port } => {
                let what = tcp::RequestResponse {
                    connections: *connections,
                    requests: *requests,
                    port: *port,
                    ..Default::default()
                };
                tcp::request_response(&path, &what).map(drop)?;
            }
            Self::Datagrams { count, bytes, rate } => {
                let all = Datagrams::default();
                let what = Datagrams { count: *count, bytes: *bytes, rate: rate.or(all.rate), ..all };
                let start = Instant::now();
                let Delivery { received, .. } = udp::datagrams(&path, &what)?;
                // A rate that is asked for is what it is about.
                let slowest = rate.map(|rate| 2 * Duration::from_secs(1) * *count / rate.max(1));
                let took = start.elapsed();
                ensure!(slowest.is_none_or(|limit| took < limit), "{received} of {count} in {took:?}");
            }
            Self::Bulk { bytes } => tcp::bulk(&path, *bytes, 0).map(drop)?,
            Self::Behind { transfers, bytes, requests } => {
                crowd::behind(&path, *transfers, *bytes, *requests)?;
            }
            Self::Bursts { count, bytes, pause_ms } => {
                crowd::bursts(&path, *count, *bytes, Duration::from_millis(*pause_ms))?;
            }
            Self::Flood { flows, time_ms, cpus } => {
                crowd::flood(&path, *flows, Duration::from_millis(*time_ms), cpus)?;
            }
            Self::ReceiveOn { cpu } => crowd::receive_on(&path, &lab.node().netns, *cpu)?,
            Self::RaceOfOneSocket { times } => race::of_one_socket(lab, *times)?,
            Self::RaceOfTwoPods { times } => race::of_two_pods(lab, *times)?,
            Self::Dns { names, times } => dns(lab, family, names, *times)?,
            Self::Refused { attempts } => tcp::refused(&path, *attempts).map(drop)?,
            Self::FullListener { backlog, attempts } => {
                tcp::listen_overflow(&path, *backlog, *attempts, Duration::from_millis(100)).map(drop)?;
            }
            Self::Burst { backlog, attempts } => return burst(&path, *backlog, *attempts).map(Some),
            Self::HalfOpen { backlog, attempts } => half_open(&path, *backlog, *attempts)?,
            Self::SlowReader { bytes, pause_ms, transfers } => {
                for _ in 0..*transfers {
                    slow_reader(&path, *bytes, Duration::from_millis(*pause_ms))?;
                }
            }
            Self::ShortConnections { count } => short_connections(&path, *count)?,
            Self::FastOpen { connections } => fast_open(&path, *connections)?,
            Self::Starved { connections, requests } => starved(&path, *connections, *requests)?,
            Self::InVain { short_bytes, long_bytes } => in_vain(&path, *short_bytes, *long_bytes)?,
            Self::Sysctl { pod, name, value } => {
                let file = setting(name);
                pod.within(lab, || fs::write(&file, value))?.context(file)?;
            }
            Self::Tc { pod, args } => {
                let args: Vec<_> = args.split(' ').collect();
                let netns = pod.netns(lab).context("not in the lab")?;
                truth::output(netns, "tc", "iproute2", &args)?;
            }
            Self::Nft { pod, hook, rules } => {
                let rules: Vec<_> = rules.iter().map(String::as_str).collect();
                let netns = pod.netns(lab).context("not in the lab")?;
                truth::nft(netns, &truth::Nft { hook, rules: &rules })?;
            }
            Self::Flows { count } => flows(&path, *count)?,
            Self::Tunnel { mtu, count, bytes, route_mtu } => {
                tunnel(&path, *mtu, *route_mtu, (*count, *bytes))?;
            }
            Self::Services { count } => {
                truth::nft_script(&lab.node().netns, &truth::services(*count, false))?;
            }
        }
        Ok(None)
    }
}

fn tunnel(path: &Path<'_>, mtu: u32, route_mtu: Option<u32>, (count, bytes): (u32, usize)) -> Result<()> {
    const ENDS: [&str; 2] = ["10.88.0.1", "10.88.0.2"];
    let below = [path.client_address(0).ip(), path.server_address(0).ip()];
    for (pod, own, other) in [(path.from(), 0, 1), (path.to(), 1, 0)] {
        // The route that comes with an address has no MTU.
        let kernels_route = if route_mtu.is_some() { " noprefixroute" } else { "" };
        let mut lines = vec![
            format!(
                "link add vx0 mtu {mtu} type vxlan id 7 dstport 4789 local {} remote {}",
                below[own], below[other]
            ),
            format!("addr add {}/24 dev vx0{kernels_route}", ENDS[own]),
            "link set vx0 up".to_owned(),
        ];
        lines.extend(route_mtu.map(|mtu| format!("route add 10.88.0.0/24 dev vx0 mtu {mtu}")));
        for line in lines {
            let args: Vec<_> = line.split(' ').collect();
            truth::output(&pod.netns, "ip", "iproute2", &args)?;
        }
    }
    let receiver = path.to().netns.run(|| UdpSocket::bind((ENDS[1], 7200)))??;
    receiver.set_read_timeout(Some(Duration::from_secs(5)))?;
    let sender = path.from().netns.run(|| UdpSocket::bind((ENDS[0], 0)))??;
    for _ in 0..count {
        sender.send_to(&vec![7; bytes], (ENDS[1], 7200))?;
        let arrived = receiver.recv(&mut vec![0; bytes + 1]).context("nothing comes out of the tunnel")?;
        ensure!(arrived == bytes, "{arrived} of {bytes} B");
    }
    Ok(())
}

/// The file of a kernel setting.
fn setting(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// Whoever receives them does not answer.
fn flows(path: &Path<'_>, count: u32) -> Result<()> {
    const PORT: u16 = 7100;
    let server = path.server_address(PORT);
    let _receiver = path.to().netns.run(|| UdpSocket::bind(server))??;
    path.from().netns.run(|| {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        (0..count).try_for_each(|_| {
            let socket = UdpSocket::bind(any)?;
            // One that connection tracking has no room for is refused here where the node is, and lost elsewhere.
            socket.send_to(b"through", server).map(drop)
        })
    })??;
    Ok(())
}

fn dns(lab: &Lab, family: Family, names: &[String], times: u32) -> Result<()> {
    let _server = DnsServer::start(lab.pod(Role::Dns))?;
    // Longer than what counts as no answer.
    let timeout = Duration::from_millis(1_100);
    let client = Client { timeout, ..Client::new(DnsServer::address(lab.pod(Role::Dns), family)?) };
    let qtype = if family == Family::V4 { TYPE_A } else { TYPE_AAAA };
    lab.pod(Role::Client).netns.run(|| {
        for n in 0..times {
            for name in names {
                client.resolve(&Query::new(&name.replace("{n}", &n.to_string()), qtype))?;
            }
        }
        Ok(())
    })?
}

fn listen(path: &Path<'_>, port: u16, backlog: i32) -> Result<TcpListener> {
    let listen = || {
        let listener = TcpListener::bind(path.server_address(port))?;
        // SAFETY: a plain system call on a descriptor that is open; it only sets the length of the queue anew.
        let set = unsafe { libc::listen(listener.as_raw_fd(), backlog) };
        if set == 0 { Ok(listener) } else { Err(io::Error::last_os_error()) }
    };
    Ok(path.to().netns.run(listen)??)
}

fn burst(path: &Path<'_>, backlog: i32, attempts: u32) -> Result<TcpListener> {
    let listener = listen(path, 0, backlog)?;
    let address = listener.local_addr()?;
    let connect = || {
        let attempts =
            (0..attempts).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100)));
        attempts.filter_map(Result::ok).collect::<Vec<_>>()
    };
    let clients = path.from().netns.run(connect)?;
    ensure!(clients.len() < attempts as usize, "all of them fit");
    for _ in &clients {
        listener.accept()?;
    }
    Ok(listener)
}

/// The client's own rules eat the answers to its SYN.
fn half_open(path: &Path<'_>, backlog: i32, attempts: u32) -> Result<()> {
    const PORT: u16 = 7777;
    let rules = ["tcp sport 7777 tcp flags & (syn | ack) == syn | ack drop"];
    truth::nft(&path.from().netns, &truth::Nft { hook: "type filter hook input priority 0", rules: &rules })?;
    let _listener = listen(path, PORT, backlog)?;
    path.from().netns.run(|| {
        for _ in 0..attempts {
            let half = TcpStream::connect_timeout(&path.server_address(PORT), Duration::from_millis(20));
            ensure!(half.is_err_and(|e| e.kind() == io::ErrorKind::TimedOut), "it was not lost");
        }
        Ok(())
    })?
}

fn pair(path: &Path<'_>) -> Result<(TcpStream, TcpStream)> {
    let listener = path.to().netns.run(|| TcpListener::bind(path.server_address(0)))??;
    let address = listener.local_addr()?;
    let client = path.from().netns.run(|| TcpStream::connect(address))??;
    client.set_nodelay(true)?;
    client.set_write_timeout(Some(Duration::from_secs(20)))?;
    let (server, _) = listener.accept()?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok((client, server))
}

fn slow_reader(path: &Path<'_>, bytes: usize, pause: Duration) -> Result<()> {
    let (mut client, mut server) = pair(path)?;
    let reader = thread::spawn(move || {
        sleep(pause);
        server.read_to_end(&mut Vec::new())
    });
    client.write_all(&vec![0; bytes])?;
    drop(client);
    let read = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    ensure!(read == bytes, "{read} of {bytes} B were read");
    Ok(())
}

fn short_connections(path: &Path<'_>, count: u32) -> Result<()> {
    let listener = path.to().netns.run(|| TcpListener::bind(path.server_address(0)))??;
    let address = listener.local_addr()?;
    path.from().netns.run(|| {
        for _ in 0..count {
            let client = match TcpStream::connect(address) {
                Ok(client) => client,
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => continue,
                Err(error) => return Err(error.into()),
            };
            let (mut server, _) = listener.accept()?;
            // The end that closes first waits.
            drop(client);
            server.read_to_end(&mut Vec::new())?;
        }
        Ok(())
    })?
}

/// The server's listener takes part where its kernel lets it.
fn fast_open(path: &Path<'_>, connections: u32) -> Result<()> {
    let listener = path.to().netns.run(|| TcpListener::bind(path.server_address(0)))??;
    truth::allow_fast_open(&listener)?;
    let address = listener.local_addr()?;
    path.from().netns.run(|| {
        for _ in 0..connections {
            let mut client = truth::connect_fast_open(address)?;
            client.write_all(b"early")?;
            let (mut server, _) = listener.accept()?;
            server.read_exact(&mut [0; 5])?;
        }
        Ok(())
    })?
}

/// More threads than CPUs compute until the requests are answered.
fn starved(path: &Path<'_>, connections: u32, requests: u32) -> Result<()> {
    let done = AtomicBool::new(false);
    let threads = 2 * thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let what = tcp::RequestResponse { connections, requests, ..Default::default() };
        let answered = tcp::request_response(path, &what);
        done.store(true, Ordering::Relaxed);
        answered.map(drop)
    })?;
    Ok(())
}

fn in_vain(path: &Path<'_>, short_bytes: usize, long_bytes: usize) -> Result<()> {
    let (mut client, mut server) = pair(path)?;
    for _ in 0..5 {
        client.write_all(&vec![7; short_bytes])?;
        server.read_exact(&mut vec![0; short_bytes]).context("a short request does not arrive")?;
    }
    client.write_all(&vec![7; long_bytes])?;
    // Sent again after 200, 400, 800 ms, and a probe of the tail before.
    sleep(Duration::from_millis(1_800));
    Ok(())
}
