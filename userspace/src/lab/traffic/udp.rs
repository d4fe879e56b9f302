//! UDP: exchanges, datagrams of any size with the receiver's own measure of each, floods.

use super::sock::{self, Stop, Wake};
use super::{PEER_LIMIT, Path};
use crate::lab::LabError;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Largest UDP payload over IPv4, bytes.
pub const MAX_DATAGRAM: usize = 65_507;
/// How long a receiver listens on for stragglers when the sender is done.
const LINGER: Duration = Duration::from_millis(200);
/// Room for a burst in the receiver's socket, bytes.
const RECEIVE_BUFFER: i32 = 8 * 1024 * 1024;

/// What [`request_response`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestResponse {
    /// Requests, one after the other.
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
    /// 100 requests of 100 bytes and responses of 500.
    fn default() -> Self {
        Self { requests: 100, request_bytes: 100, response_bytes: 500, read_delay: Duration::ZERO, port: 0 }
    }
}

/// What was exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// Port of the server.
    pub port: u16,
    /// Requests that the client sent.
    pub sent: u64,
    /// Responses that the server sent.
    pub served: u64,
    /// Responses that the client received.
    pub answered: u64,
}

/// What [`datagrams`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagrams {
    /// How many.
    pub count: u32,
    /// Payload of each, bytes, at most [`MAX_DATAGRAM`]; more than the MTU holds goes in fragments.
    pub bytes: usize,
    /// How many a second; none for as fast as it goes.
    pub rate: Option<u32>,
    /// The receiver lets each lie in its socket at least this long before it reads it. It begins when the receiver
    /// sees the datagram, so that it should be less than the time between two.
    pub read_delay: Duration,
    /// Forbids fragments: the kernel sets DF, and refuses what is longer than the path's MTU as it knows it.
    pub dont_fragment: bool,
    /// Whether the result lists each arrival.
    pub record: bool,
    /// Port of the receiver; 0 for any.
    pub port: u16,
}

impl Default for Datagrams {
    /// 10 datagrams of 100 bytes, 1000 a second, each recorded.
    fn default() -> Self {
        Self {
            count: 10,
            bytes: 100,
            rate: Some(1000),
            read_delay: Duration::ZERO,
            dont_fragment: false,
            record: true,
            port: 0,
        }
    }
}

impl Datagrams {
    /// Many small datagrams at `rate` a second, counted and not recorded.
    pub fn flood(count: u32, rate: u32) -> Self {
        Self { count, rate: Some(rate), record: false, ..Self::default() }
    }
}

/// One datagram as its receiver saw it. Both times are Unix time in ns, of the same clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Payload, bytes.
    pub bytes: usize,
    /// When the kernel took it in from the interface (SO_TIMESTAMPNS); of a fragmented one, some fragment. None if the
    /// kernel gave no time: the first socket that wants timestamps has them switched on, which takes some ms.
    pub kernel_rx_ns: Option<u64>,
    /// When the receiver had read it.
    pub read_ns: u64,
}

impl Arrival {
    /// From the interface to the application, ns: what `rx.total` measures.
    pub fn total_ns(&self) -> Option<u64> {
        self.read_ns.checked_sub(self.kernel_rx_ns?)
    }
}

/// What was sent and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Port of the receiver.
    pub port: u16,
    /// Datagrams that the kernel took from the sender.
    pub sent: u64,
    /// Datagrams that it refused (EMSGSIZE, ECONNREFUSED, ENOBUFS).
    pub refused: u64,
    /// Datagrams that were received.
    pub received: u64,
    /// Payload bytes that were received.
    pub received_bytes: u64,
    /// Each of them, if wanted.
    pub arrivals: Vec<Arrival>,
}

/// Requests and responses, one at a time. One that is lost is not sent again, and costs the client a second.
///
/// # Errors
/// [`LabError::Socket`] when a socket call fails.
pub fn request_response(path: &Path<'_>, what: &RequestResponse) -> Result<Exchanged, LabError> {
    const ANSWER_LIMIT: Duration = Duration::from_secs(1);
    let (socket, address) = open_receiver(path, what.port)?;
    let server = |stop: &Stop| {
        let response = vec![b'r'; what.response_bytes];
        let mut buffer = vec![0; what.request_bytes];
        let mut served = 0;
        while served < u64::from(what.requests) && next(&socket, stop, what.read_delay, address)? {
            let answered =
                socket.recv_from(&mut buffer).and_then(|(_, peer)| socket.send_to(&response, peer));
            answered.map_err(LabError::socket("serve", address))?;
            served += 1;
        }
        Ok(served)
    };
    let client = || {
        let socket = connected(path, address)?;
        let failed = |action| LabError::socket::<io::Error>(action, address);
        socket.set_nonblocking(true).map_err(failed("set up"))?;
        let request = vec![b'q'; what.request_bytes];
        let mut buffer = vec![0; what.response_bytes];
        let (mut sent, mut answered) = (0, 0);
        for _ in 0..what.requests {
            socket.send(&request).map_err(failed("send to"))?;
            sent += 1;
            sock::wait_readable(&socket, ANSWER_LIMIT).map_err(failed("receive from"))?;
            match socket.recv(&mut buffer) {
                Ok(_) => answered += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(failed("receive from")(error)),
            }
        }
        Ok((sent, answered))
    };
    let (served, (sent, answered)) = path.run_pair(server, client)?;
    Ok(Exchanged { port: address.port(), sent, served, answered })
}

/// Datagrams one way.
///
/// # Errors
/// [`LabError::Socket`] when a socket call fails in an unexpected way.
pub fn datagrams(path: &Path<'_>, what: &Datagrams) -> Result<Delivery, LabError> {
    let (socket, address) = open_receiver(path, what.port)?;
    let server = |stop: &Stop| receive_all(&socket, address, what, stop);
    let client = || send_all(path, address, what);
    let (mut delivery, (sent, refused)) = path.run_pair(server, client)?;
    (delivery.sent, delivery.refused) = (sent, refused);
    Ok(delivery)
}

fn receive_all(
    socket: &UdpSocket,
    address: SocketAddr,
    what: &Datagrams,
    stop: &Stop,
) -> Result<Delivery, LabError> {
    let mut delivery = Delivery { port: address.port(), ..Delivery::default() };
    let mut buffer = vec![0; what.bytes + 1];
    while delivery.received < u64::from(what.count) && next(socket, stop, what.read_delay, address)? {
        let received = match sock::receive_timestamped(socket, &mut buffer) {
            Ok(received) => received,
            // A datagram that was announced and then found damaged.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(LabError::socket("receive", address)(error)),
        };
        delivery.received += 1;
        delivery.received_bytes += received.bytes as u64;
        if what.record {
            let sock::Received { bytes, kernel_rx_ns, read_ns } = received;
            delivery.arrivals.push(Arrival { bytes, kernel_rx_ns, read_ns });
        }
    }
    Ok(delivery)
}

/// Yields how many the kernel took and how many it refused.
fn send_all(path: &Path<'_>, address: SocketAddr, what: &Datagrams) -> Result<(u64, u64), LabError> {
    let socket = connected(path, address)?;
    if what.dont_fragment {
        sock::set_dont_fragment(&socket).map_err(LabError::socket("set up", address))?;
    }
    let payload = vec![b'd'; what.bytes];
    let start = Instant::now();
    let (mut sent, mut refused) = (0, 0);
    for number in 0..what.count {
        if let Some(rate) = what.rate {
            let due = u64::from(number) * 1_000_000_000 / u64::from(rate.max(1));
            std::thread::sleep((start + Duration::from_nanos(due)).saturating_duration_since(Instant::now()));
        }
        match socket.send(&payload) {
            Ok(_) => sent += 1,
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMSGSIZE | libc::ECONNREFUSED | libc::ENOBUFS)
                ) =>
            {
                refused += 1;
            }
            Err(error) => return Err(LabError::socket("send to", address)(error)),
        }
    }
    Ok((sent, refused))
}

/// Waits for a datagram and lets it lie for `delay`. False when there is none and the sender is done.
fn next(socket: &UdpSocket, stop: &Stop, delay: Duration, address: SocketAddr) -> Result<bool, LabError> {
    let failed = || LabError::socket("wait for", address);
    let ready = match stop.wait(socket, Some(PEER_LIMIT)).map_err(failed())? {
        Wake::Readable => true,
        Wake::Stopped => sock::wait_readable(socket, LINGER).map_err(failed())?,
        Wake::TimedOut => false,
    };
    if ready && !delay.is_zero() {
        sock::sleep_until(Instant::now() + delay);
    }
    Ok(ready)
}

fn open_receiver(path: &Path<'_>, port: u16) -> Result<(UdpSocket, SocketAddr), LabError> {
    path.open_server("bind", port, |address| {
        let socket = UdpSocket::bind(address)?;
        sock::set_receive_buffer(&socket, RECEIVE_BUFFER)?;
        sock::enable_timestamps(&socket)?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    })
}

fn connected(path: &Path<'_>, address: SocketAddr) -> Result<UdpSocket, LabError> {
    let local = path.client_address(0);
    let socket = UdpSocket::bind(local).map_err(LabError::socket("bind", local))?;
    socket.connect(address).map_err(LabError::socket("connect to", address))?;
    Ok(socket)
}
