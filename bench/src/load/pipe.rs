//! The client's end of a connection that stays, over TCP or by UDP: sends one request, and reads what answers there are.
//!
//! The same in both modes. In a closed loop its calls wait, up to the load's limit; in an open loop they do not, and fail with
//! [`io::ErrorKind::WouldBlock`].

use super::{
    LoadError,
    clock::{nanos, wait},
    error::Failure,
    ports::Ports,
    protocol::{Caller, Reader, Requests, Verdict},
    socket::{receive, send},
    spec::{Kind, Load},
    tick::Tick,
};
use rustix::{
    event::PollFlags,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, socket_with, sockopt},
};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

/// Room for answers of one read, bytes.
pub(super) const READ_BYTES: usize = 1 << 16;
/// Longest time that a connection takes to be made in an open loop, which sends nothing meanwhile.
const LONGEST_CONNECT: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// As much of the request's number as came back; none over a stream, where answers come in the order of requests.
    pub(super) id: Option<u64>,
    /// How the request went.
    pub(super) verdict: Verdict,
    /// Payload, bytes.
    pub(super) bytes: u64,
}

/// A connection to a server.
pub(super) enum Pipe {
    /// Over TCP.
    Stream(Box<Stream>),
    /// By UDP.
    Datagrams(Box<Datagrams>),
}

/// Over TCP.
pub(super) struct Stream {
    socket: TcpStream,
    requests: Requests,
    reader: Reader,
    buffer: Vec<u8>,
    /// What of the buffer is not read yet.
    unread: std::ops::Range<usize>,
    /// What of the present request is sent.
    sent: usize,
    /// Bytes of the present answer that came so far.
    answer_bytes: u64,
}

/// By UDP.
pub(super) struct Datagrams {
    socket: UdpSocket,
    caller: Caller,
    buffer: Vec<u8>,
    /// Where each request has a socket of its own.
    ports: Option<Ports>,
}

/// Whether the calls of a socket wait.
#[derive(Clone, Copy)]
pub(super) enum Waits<'a> {
    /// Up to the load's limit, by a tick: the fastest.
    Ticked(&'a Tick),
    /// Up to the load's limit, by timeouts of the socket.
    Timed,
    /// Not at all.
    Never,
}

impl Waits<'_> {
    /// Makes a call that may be begun again when it is interrupted.
    #[inline]
    pub(super) fn within<T>(self, limit: Duration, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Ticked(tick) => tick.within(limit, call),
            Self::Timed | Self::Never => call(),
        }
    }
}

impl Pipe {
    /// Connects to a server, as the calling thread's namespace reaches it; one of the load's connections, by number.
    pub(super) fn connect(
        load: &Load,
        address: SocketAddr,
        connection: u32,
        waits: Waits<'_>,
    ) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Connect { load: load.name.clone(), address, source };
        let buffer = vec![0; READ_BYTES];
        if load.kind.is_datagram() {
            let caller = Caller::of(load)?;
            let mut ports = (load.kind == Kind::UdpNew).then(|| Ports::of(connection, load.connections));
            let socket = datagram_socket(load, address, ports.as_mut(), waits).map_err(failed)?;
            return Ok(Self::Datagrams(Box::new(Datagrams { socket, caller, buffer, ports })));
        }
        let (requests, reader) = (Requests::of(load)?, Reader::of(load));
        let socket = stream_socket(load, address, waits).map_err(failed)?;
        let stream = Stream { socket, requests, reader, buffer, unread: 0..0, sent: 0, answer_bytes: 0 };
        Ok(Self::Stream(Box::new(stream)))
    }

    /// How many requests can be under way and be told apart; none where they are answered in order.
    pub(super) fn ids(&self) -> Option<u64> {
        match self {
            Self::Stream(_) => None,
            Self::Datagrams(datagrams) => Some(datagrams.caller.ids()),
        }
    }

    /// A new connection after a failed one, or a new socket where each request has one; datagrams need none else.
    pub(super) fn reconnect(&mut self, load: &Load, address: SocketAddr, waits: Waits<'_>) -> io::Result<()> {
        let stream = match self {
            Self::Stream(stream) => stream,
            Self::Datagrams(datagrams) => {
                if let Some(ports) = &mut datagrams.ports {
                    datagrams.socket = datagram_socket(load, address, Some(ports), waits)?;
                }
                return Ok(());
            }
        };
        stream.socket = stream_socket(load, address, waits)?;
        stream.reader.reset();
        (stream.unread, stream.sent, stream.answer_bytes) = (0..0, 0, 0);
        Ok(())
    }

    /// Sends a request. Yields its payload, bytes. After [`io::ErrorKind::WouldBlock`] and [`io::ErrorKind::Interrupted`] the
    /// same is to be sent again, which goes on where it stopped.
    pub(super) fn send(&mut self, number: u64) -> io::Result<u64> {
        match self {
            Self::Stream(stream) => {
                if stream.sent == 0 {
                    stream.requests.prepare(number);
                }
                let request = stream.requests.present();
                send_rest(&stream.socket, request, &mut stream.sent)?;
                stream.sent = 0;
                Ok(request.len() as u64)
            }
            Self::Datagrams(datagrams) => {
                let request = datagrams.caller.prepare(number);
                send(&datagrams.socket, request).map(|n| n as u64)
            }
        }
    }

    /// Reads answers until one is whole. None when what came is none, or not all of it: there may be more to read.
    pub(super) fn receive(&mut self) -> io::Result<Option<Answer>> {
        match self {
            Self::Stream(stream) => stream.receive(),
            Self::Datagrams(datagrams) => {
                let len = receive(&datagrams.socket, &mut datagrams.buffer)?;
                let read = datagrams.caller.read(&datagrams.buffer[..len]);
                Ok(read.map(|(id, verdict)| Answer { id: Some(id), verdict, bytes: len as u64 }))
            }
        }
    }

    /// Whether an answer may have been read already that was not looked at yet, so that there is no need to wait for one.
    pub(super) fn has_unread(&self) -> bool {
        matches!(self, Self::Stream(stream) if !stream.unread.is_empty())
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(stream) => stream.socket.as_fd(),
            Self::Datagrams(datagrams) => datagrams.socket.as_fd(),
        }
    }
}

impl Stream {
    fn receive(&mut self) -> io::Result<Option<Answer>> {
        if self.unread.is_empty() {
            let len = receive(&self.socket, &mut self.buffer)?;
            if len == 0 {
                let ended = self.reader.closed().ok_or(io::ErrorKind::UnexpectedEof)?;
                return Ok(Some(self.answer(ended)));
            }
            self.unread = 0..len;
        }
        let (used, verdict) = self.reader.feed(&self.buffer[self.unread.clone()]);
        self.unread.start += used;
        self.answer_bytes += used as u64;
        match verdict {
            // After this nothing that comes can be told apart.
            Some(Verdict::Failed(Failure::Malformed)) => Err(io::ErrorKind::InvalidData.into()),
            Some(verdict) => Ok(Some(self.answer(verdict))),
            None => Ok(None),
        }
    }

    fn answer(&mut self, verdict: Verdict) -> Answer {
        Answer { id: None, verdict, bytes: std::mem::take(&mut self.answer_bytes) }
    }
}

/// Sends what of a message is not sent yet; how much is, is told also after an error.
pub(super) fn send_rest(socket: &TcpStream, message: &[u8], sent: &mut usize) -> io::Result<()> {
    while let Some(rest) = message.get(*sent..).filter(|rest| !rest.is_empty()) {
        *sent += send(socket, rest)?;
    }
    Ok(())
}

/// A connected TCP socket that sends each request at once. In as few calls as can be: some loads make one for each request.
pub(super) fn stream_socket(load: &Load, address: SocketAddr, waits: Waits<'_>) -> io::Result<TcpStream> {
    let limit = load.times.limit;
    let socket = unconnected(address, SocketFlags::CLOEXEC)?;
    // It bounds the time of connect(2), too (socket(7)).
    let bound = |most| sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit.min(most)));
    match waits {
        Waits::Never => bound(LONGEST_CONNECT)?,
        Waits::Timed => bound(Duration::MAX)?,
        Waits::Ticked(_) => {}
    }
    match rustix::net::connect(&socket, &address) {
        Err(rustix::io::Errno::INPROGRESS) => return Err(io::ErrorKind::TimedOut.into()),
        // The handshake goes on (connect(2)).
        Err(rustix::io::Errno::INTR) => handshake(&socket, limit)?,
        other => other?,
    }
    let socket = TcpStream::from(socket);
    match waits {
        Waits::Never => socket.set_nonblocking(true)?,
        Waits::Timed => socket.set_read_timeout(Some(limit))?,
        Waits::Ticked(_) => {}
    }
    Ok(socket)
}

/// Waits for the end of a handshake that was not waited for.
fn handshake(socket: &OwnedFd, limit: Duration) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if !wait(socket, PollFlags::OUT, nanos(left))?.is_empty() {
            return Ok(sockopt::socket_error(socket)??);
        }
    }
}

/// A TCP socket that has sent its first bytes: with its SYN where the kernel lets it (RFC 7413), else after the handshake.
pub(super) fn stream_socket_with(load: &Load, address: SocketAddr, first: &[u8]) -> io::Result<TcpStream> {
    /// Of `sendto(2)`: connects, and has the data go with the SYN if the server's cookie is known (include/linux/socket.h).
    const MSG_FASTOPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
    let limit = load.times.limit;
    let socket = unconnected(address, SocketFlags::CLOEXEC)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(limit))?;
    // It bounds the handshake, too.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit.min(LONGEST_CONNECT)))?;
    match rustix::net::sendto(&socket, first, MSG_FASTOPEN, &address) {
        Ok(sent) => {
            let stream = TcpStream::from(socket);
            send_rest(&stream, first, &mut { sent })?;
            Ok(stream)
        }
        // The kernel is set to not do it (`net.ipv4.tcp_fastopen`).
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let stream = stream_socket(load, address, Waits::Timed)?;
            send_rest(&stream, first, &mut 0)?;
            Ok(stream)
        }
        // A handshake that takes too long.
        Err(rustix::io::Errno::INPROGRESS) => Err(io::ErrorKind::TimedOut.into()),
        Err(errno) => Err(errno.into()),
    }
}

fn unconnected(address: SocketAddr, flags: SocketFlags) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// A TCP socket whose connection is under way.
pub(super) fn connecting(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = unconnected(address, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// A UDP socket that hears of one address only, at the next of some ports, or at any.
pub(super) fn datagram_socket(
    load: &Load,
    address: SocketAddr,
    ports: Option<&mut Ports>,
    waits: Waits<'_>,
) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = match ports {
        Some(ports) => ports.socket(address)?,
        None => UdpSocket::bind(any)?,
    };
    socket.connect(address)?;
    match waits {
        Waits::Never => socket.set_nonblocking(true)?,
        Waits::Timed => socket.set_read_timeout(Some(load.times.limit))?,
        Waits::Ticked(_) => {}
    }
    Ok(socket)
}
