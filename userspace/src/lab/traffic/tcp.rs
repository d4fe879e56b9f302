//! TCP: exchanges, connections that succeed, are refused or time out, streams, a full accept queue.

use super::sock::{self, Wake};
use super::{PEER_LIMIT, Path};
use crate::lab::LabError;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const BACKLOG: i32 = 128;
const CHUNK: usize = 64 * 1024;
const HTTP_REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n";
const HTTP_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

/// What [`request_response`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestResponse {
    /// Connections, one after the other.
    pub connections: u32,
    /// Requests on each connection, one after the other.
    pub requests: u32,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Bytes of a response.
    pub response_bytes: usize,
    /// The server lets a request lie in its socket at least this long before it reads it.
    pub read_delay: Duration,
    /// Port of the server; 0 for any.
    pub port: u16,
}

impl Default for RequestResponse {
    /// 100 requests of 100 bytes and responses of 1000 on one connection.
    fn default() -> Self {
        Self {
            connections: 1,
            requests: 100,
            request_bytes: 100,
            response_bytes: 1000,
            read_delay: Duration::ZERO,
            port: 0,
        }
    }
}

/// What was exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// Port of the server.
    pub port: u16,
    /// Connections that were established, used and closed.
    pub connections: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Payload bytes from client to server.
    pub request_bytes: u64,
    /// Payload bytes from server to client.
    pub response_bytes: u64,
}

/// How connections failed or did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connects {
    /// Port of the server.
    pub port: u16,
    /// Calls of connect.
    pub attempts: u64,
    /// Those that were established.
    pub established: u64,
    /// Those that failed with ECONNREFUSED.
    pub refused: u64,
    /// Those that failed with ETIMEDOUT.
    pub timed_out: u64,
    /// Those that the client gave up before the kernel did.
    pub given_up: u64,
}

/// Requests and responses, the server's socket read after a delay if wanted.
///
/// # Errors
/// [`LabError::Socket`] or [`LabError::Timeout`] when a connection does not work.
pub fn request_response(path: &Path<'_>, what: &RequestResponse) -> Result<Exchanged, LabError> {
    let (request, response) = (vec![b'q'; what.request_bytes], vec![b'r'; what.response_bytes]);
    exchange(path, what, &request, &response)
}

/// Connections with one HTTP exchange each.
///
/// # Errors
/// As [`request_response`].
pub fn http_gets(path: &Path<'_>, connections: u32) -> Result<Exchanged, LabError> {
    let what = RequestResponse { connections, requests: 1, ..RequestResponse::default() };
    exchange(path, &what, HTTP_REQUEST, HTTP_RESPONSE)
}

fn exchange(
    path: &Path<'_>,
    what: &RequestResponse,
    request: &[u8],
    response: &[u8],
) -> Result<Exchanged, LabError> {
    let (listener, address) = open_listener(path, what.port, BACKLOG)?;
    let serve = |stream: &mut TcpStream| {
        let mut buffer = vec![0; request.len()];
        for _ in 0..what.requests {
            if !what.read_delay.is_zero() {
                sock::wait_readable(stream, PEER_LIMIT)?;
                sock::sleep_until(Instant::now() + what.read_delay);
            }
            stream.read_exact(&mut buffer)?;
            stream.write_all(response)?;
        }
        // The client closes first, so that its side is the one in TIME_WAIT, as with real clients.
        stream.read(&mut buffer).map(|_| ())
    };
    let server = |stop: &sock::Stop| {
        for _ in 0..what.connections {
            let Some((mut stream, peer)) = accept(&listener, stop, address)? else { break };
            serve(&mut stream).map_err(LabError::socket("serve", peer))?;
        }
        Ok(())
    };
    let client = || {
        let mut done = Exchanged { port: address.port(), ..Exchanged::default() };
        let mut buffer = vec![0; response.len()];
        for _ in 0..what.connections {
            let mut stream = connect(address)?;
            for _ in 0..what.requests {
                stream
                    .write_all(request)
                    .and_then(|()| stream.read_exact(&mut buffer))
                    .map_err(LabError::socket("exchange with", address))?;
                done.requests += 1;
                done.request_bytes += request.len() as u64;
                done.response_bytes += response.len() as u64;
            }
            done.connections += 1;
        }
        Ok(done)
    };
    path.run_pair(server, client).map(|((), done)| done)
}

/// Sends `bytes` on one connection as fast as they are read. Yields the bytes that the server read.
///
/// # Errors
/// As [`request_response`].
pub fn bulk(path: &Path<'_>, bytes: u64, port: u16) -> Result<Exchanged, LabError> {
    let (listener, address) = open_listener(path, port, BACKLOG)?;
    let server = |stop: &sock::Stop| {
        let Some((mut stream, peer)) = accept(&listener, stop, address)? else { return Ok(0) };
        drain(&mut stream)
            .and_then(|read| stream.write_all(b".").map(|()| read))
            .map_err(LabError::socket("serve", peer))
    };
    let client = || {
        let mut stream = connect(address)?;
        let send = |stream: &mut TcpStream| {
            let chunk = [b'b'; CHUNK];
            let mut left = bytes;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                stream.write_all(&chunk[..part])?;
                left -= part as u64;
            }
            stream.shutdown(Shutdown::Write)?;
            stream.read_exact(&mut [0])
        };
        send(&mut stream).map_err(LabError::socket("send to", address))
    };
    let (request_bytes, ()) = path.run_pair(server, client)?;
    Ok(Exchanged { port: address.port(), connections: 1, requests: 1, request_bytes, response_bytes: 1 })
}

/// Reads until the peer closes; yields the bytes.
fn drain(stream: &mut TcpStream) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(total),
            read => total += read as u64,
        }
    }
}

/// Connects to a port that nobody listens on: each is answered with RST.
///
/// # Errors
/// [`LabError::Socket`] when a connection fails otherwise.
pub fn refused(path: &Path<'_>, attempts: u32) -> Result<Connects, LabError> {
    // The port is free in the pod, and nothing else there binds one while the listener is closed: kernels hand out
    // ephemeral ports at random among some 55,000.
    let (listener, address) = open_listener(path, 0, BACKLOG)?;
    drop(listener);
    attempt(path, address, attempts, None)
}

/// Connects to a port whose SYNs are lost. With one retransmission (TCP_SYNCNT 1) each attempt takes some 3 s; all
/// are made at once.
///
/// # Errors
/// [`LabError::Socket`] when a connection fails otherwise.
pub fn timed_out(path: &Path<'_>, attempts: u32) -> Result<Connects, LabError> {
    let (listener, address) = open_listener(path, 0, BACKLOG)?;
    sock::drop_everything(&listener).map_err(LabError::socket("filter", address))?;
    attempt(path, address, attempts, Some(PEER_LIMIT))
}

/// Connects to a listener that accepts nothing, one attempt after the other, giving each `wait`: the first `backlog` +
/// 1 are established, the SYNs of the others overflow the queue. With a `wait` of less than a second each of these
/// is a single SYN.
///
/// # Errors
/// [`LabError::Socket`] when a connection fails otherwise.
pub fn listen_overflow(
    path: &Path<'_>,
    backlog: u8,
    attempts: u32,
    wait: Duration,
) -> Result<Connects, LabError> {
    let (listener, address) = open_listener(path, 0, backlog.into())?;
    let done = path.from.netns.run(|| {
        let mut done = Connects { port: address.port(), ..Connects::default() };
        let mut held = Vec::new();
        for _ in 0..attempts {
            done.attempts += 1;
            match TcpStream::connect_timeout(&address, wait) {
                Ok(stream) => {
                    done.established += 1;
                    held.push(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => done.given_up += 1,
                Err(error) => return Err(LabError::socket("connect to", address)(error)),
            }
        }
        Ok(done)
    })?;
    drop(listener);
    done
}

/// Attempts that are expected to fail; at once if each takes long.
fn attempt(
    path: &Path<'_>,
    address: SocketAddr,
    attempts: u32,
    limit: Option<Duration>,
) -> Result<Connects, LabError> {
    let mut done = Connects { port: address.port(), ..Connects::default() };
    let results = path.from.netns.run(|| {
        std::thread::scope(|scope| {
            let connect = || connect_once(address, limit.unwrap_or(PEER_LIMIT));
            if limit.is_none() {
                return (0..attempts).map(|_| connect()).collect::<Vec<_>>();
            }
            let threads: Vec<_> = (0..attempts).map(|_| scope.spawn(connect)).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        })
    })?;
    for result in results {
        done.attempts += 1;
        match result {
            Ok(true) => done.established += 1,
            Ok(false) => done.given_up += 1,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => done.refused += 1,
            Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => done.timed_out += 1,
            Err(error) => return Err(LabError::socket("connect to", address)(error)),
        }
    }
    Ok(done)
}

/// One connect that ends by the kernel's word or, yielding false, after `limit`.
fn connect_once(address: SocketAddr, limit: Duration) -> io::Result<bool> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sock::set_syn_retries(&socket, 1)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => return Ok(true),
        Err(rustix::io::Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    if !sock::wait_writable(&socket, limit)? {
        return Ok(false);
    }
    sockopt::socket_error(&socket)??;
    Ok(true)
}

fn open_listener(path: &Path<'_>, port: u16, backlog: i32) -> Result<(TcpListener, SocketAddr), LabError> {
    path.open_server("listen on", port, |address| {
        let listener = sock::listen(address, backlog)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    })
}

/// The next connection, with its limits set; none when the client is done or does not come.
fn accept(
    listener: &TcpListener,
    stop: &sock::Stop,
    address: SocketAddr,
) -> Result<Option<(TcpStream, SocketAddr)>, LabError> {
    let accepted = || match stop.wait(listener, Some(PEER_LIMIT))? {
        Wake::Readable => {
            let (stream, peer) = listener.accept()?;
            set_limits(&stream).map(|()| Some((stream, peer)))
        }
        Wake::Stopped | Wake::TimedOut => Ok(None),
    };
    accepted().map_err(LabError::socket("accept", address))
}

fn connect(address: SocketAddr) -> Result<TcpStream, LabError> {
    TcpStream::connect_timeout(&address, PEER_LIMIT)
        .and_then(|stream| set_limits(&stream).map(|()| stream))
        .map_err(LabError::socket("connect to", address))
}

fn set_limits(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PEER_LIMIT))?;
    stream.set_write_timeout(Some(PEER_LIMIT))
}
