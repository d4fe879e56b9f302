//! The client's end of a connection that stays, over TCP or by UDP: sends one request, and reads what answers there are.
//!
//! The same in both modes. In a closed loop its calls wait, up to the load's limit; in an open loop they do not, and fail with
//! [`io::ErrorKind::WouldBlock`].

use super::{
    LoadError,
    error::Failure,
    protocol::{Caller, Reader, Requests, Verdict},
    spec::Load,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
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
}

/// Whether a pipe's calls wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Up to the load's limit.
    UpToLimit,
    /// Not at all.
    Never,
}

impl Pipe {
    /// Connects to a server, as the calling thread's namespace reaches it.
    pub(super) fn connect(load: &Load, address: SocketAddr, waits: Waits) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Connect { load: load.name.clone(), address, source };
        let buffer = vec![0; READ_BYTES];
        if load.kind.is_datagram() {
            let caller = Caller::of(load)?;
            let socket = datagram_socket(load, address, waits).map_err(failed)?;
            return Ok(Self::Datagrams(Box::new(Datagrams { socket, caller, buffer })));
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

    /// A new connection after a failed one. Datagrams need none.
    pub(super) fn reconnect(&mut self, load: &Load, address: SocketAddr, waits: Waits) -> io::Result<()> {
        let Self::Stream(stream) = self else { return Ok(()) };
        stream.socket = stream_socket(load, address, waits)?;
        stream.reader.reset();
        (stream.unread, stream.sent, stream.answer_bytes) = (0..0, 0, 0);
        Ok(())
    }

    /// Sends a request. Yields its payload, bytes. After [`io::ErrorKind::WouldBlock`] the same is to be sent again, which
    /// goes on where it stopped.
    pub(super) fn send(&mut self, number: u64) -> io::Result<u64> {
        match self {
            Self::Stream(stream) => {
                if stream.sent == 0 {
                    stream.requests.prepare(number);
                }
                let request = stream.requests.present();
                while stream.sent < request.len() {
                    match stream.socket.write(&request[stream.sent..]) {
                        Ok(n) => stream.sent += n,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                stream.sent = 0;
                Ok(request.len() as u64)
            }
            Self::Datagrams(datagrams) => {
                let request = datagrams.caller.prepare(number);
                datagrams.socket.send(request).map(|n| n as u64)
            }
        }
    }

    /// Reads answers until one is whole. None when what came is none, or not all of it: there may be more to read.
    pub(super) fn receive(&mut self) -> io::Result<Option<Answer>> {
        match self {
            Self::Stream(stream) => stream.receive(),
            Self::Datagrams(datagrams) => {
                let len = datagrams.socket.recv(&mut datagrams.buffer)?;
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
            let len = self.socket.read(&mut self.buffer)?;
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

/// A connected TCP socket that sends each request at once. In as few calls as can be: some loads make one for each request.
pub(super) fn stream_socket(load: &Load, address: SocketAddr, waits: Waits) -> io::Result<TcpStream> {
    let limit = load.times.limit;
    let socket = unconnected(address, SocketFlags::CLOEXEC)?;
    // It bounds the time of connect(2), too (socket(7)).
    let of_connect = if waits == Waits::Never { limit.min(LONGEST_CONNECT) } else { limit };
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(of_connect))?;
    match rustix::net::connect(&socket, &address) {
        Err(rustix::io::Errno::INPROGRESS) => return Err(io::ErrorKind::TimedOut.into()),
        other => other?,
    }
    let socket = TcpStream::from(socket);
    match waits {
        Waits::Never => socket.set_nonblocking(true)?,
        Waits::UpToLimit => socket.set_read_timeout(Some(limit))?,
    }
    Ok(socket)
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

/// A UDP socket that hears of one address only.
pub(super) fn datagram_socket(load: &Load, address: SocketAddr, waits: Waits) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    match waits {
        Waits::Never => socket.set_nonblocking(true)?,
        Waits::UpToLimit => socket.set_read_timeout(Some(load.times.limit))?,
    }
    Ok(socket)
}
