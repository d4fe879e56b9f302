//! Socket parts that the standard library has not: options, kernel timestamps, waits that can be ended.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A signal to threads that wait for packets. Once set it stays set.
#[derive(Debug)]
pub(crate) struct Stop(OwnedFd);

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// There is something to read or accept; it wins when the stop is set too.
    Readable,
    /// The stop is set and there is nothing to read.
    Stopped,
    /// Neither within the time.
    TimedOut,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(crate) fn set(&self) {
        // The counter is at most one per setter, so that it never overflows, the one way in which this write fails.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Waits until `socket` can be read, the stop is set, or the time is over.
    pub(crate) fn wait(&self, socket: &impl AsFd, limit: Option<Duration>) -> io::Result<Wake> {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
        if !poll_all(&mut fds, limit)? {
            return Ok(Wake::TimedOut);
        }
        Ok(if fds[0].revents().is_empty() { Wake::Stopped } else { Wake::Readable })
    }
}

/// Waits until `socket` can be read; false when the time is over.
pub(crate) fn wait_readable(socket: &impl AsFd, limit: Duration) -> io::Result<bool> {
    wait_for(socket, PollFlags::IN, limit)
}

/// Waits until `socket` can be written, or its connect has ended; false when the time is over.
pub(super) fn wait_writable(socket: &impl AsFd, limit: Duration) -> io::Result<bool> {
    wait_for(socket, PollFlags::OUT, limit)
}

fn wait_for(socket: &impl AsFd, what: PollFlags, limit: Duration) -> io::Result<bool> {
    poll_all(&mut [PollFd::new(socket, what)], Some(limit))
}

/// Waits for any of them, through signals; false when the time is over.
fn poll_all(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<bool> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        match poll(fds, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result? > 0),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Sleeps until shortly before `due` and spins the rest, so that a delay is neither cut short nor much exceeded.
pub(crate) fn sleep_until(due: Instant) {
    const SPIN: Duration = Duration::from_micros(200);
    let left = due.saturating_duration_since(Instant::now());
    if left > SPIN {
        std::thread::sleep(left - SPIN);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

/// Sets a socket option to a plain value.
fn set_option<T: Copy>(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the length of the borrow; the pointer and the length name one initialised
    // `T`, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How often a SYN is sent again before the connection fails with ETIMEDOUT.
pub(super) fn set_syn_retries(socket: &impl AsFd, retries: u8) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_SYNCNT, &libc::c_int::from(retries))
}

/// Never fragments here: what is longer than the path's MTU fails with EMSGSIZE, and leaves with DF set otherwise.
pub(super) fn set_dont_fragment(socket: &UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv4() {
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DO)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &libc::IPV6_PMTUDISC_DO)
    }
}

/// Has the kernel note when each datagram was received, for [`receive_timestamped`].
pub(super) fn enable_timestamps(socket: &UdpSocket) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &libc::c_int::from(1u8))
}

/// Asks for a receive buffer that holds a burst.
pub(super) fn set_receive_buffer(socket: &UdpSocket, bytes: i32) -> io::Result<()> {
    // Beyond net.core.rmem_max where the rights are there, up to it where not.
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes)
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes))
}

/// Has the kernel drop every segment to this listener, without an answer: SYNs to it are lost.
pub(super) fn drop_everything(listener: &TcpListener) -> io::Result<()> {
    // "Return 0": keep nothing of the packet.
    let mut code = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    // The program is copied by the kernel during the call, in which `code` lives.
    set_option(listener, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// A listener with a queue of `backlog` + 1 connections, as the kernel counts it.
pub(super) fn listen(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket.into())
}

/// Nanoseconds since the epoch, on the clock of the kernel's receive timestamps.
pub(super) fn realtime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// A datagram as it was read.
pub(super) struct Received {
    /// Bytes.
    pub(super) bytes: usize,
    /// When the kernel received it (the last fragment of it), Unix time, ns.
    pub(super) kernel_rx_ns: Option<u64>,
    /// When the read had returned, Unix time, ns.
    pub(super) read_ns: u64,
}

/// Receives a datagram with the kernel's timestamp, without waiting.
pub(super) fn receive_timestamped(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    // As `u64` so that it is aligned for `cmsghdr`.
    let mut control = [0u64; 16];
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is a C struct of integers and pointers, for which zeroes are a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let before_ns = realtime_ns();
    // SAFETY: the descriptor is open; the message names `buffer` and `control` with their lengths, and both outlive
    // the call.
    let read = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let bytes = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    // At once: what is done with the datagram from here on is not the kernel's time.
    let read_ns = realtime_ns();
    // A packet that came before the kernel had switched its timestamps on is stamped as it is read.
    let kernel_rx_ns = timestamp(&message).filter(|&stamp_ns| stamp_ns < before_ns);
    Ok(Received { bytes, kernel_rx_ns, read_ns })
}

/// The receive timestamp among a message's control data, ns.
fn timestamp(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: `recvmsg` has filled the control data and set its length; CMSG_FIRSTHDR and CMSG_NXTHDR yield null or a
    // header that lies within it. A header of type SCM_TIMESTAMPNS is followed by one timespec, read unaligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = header.as_ref() {
            if control.cmsg_level == libc::SOL_SOCKET && control.cmsg_type == libc::SCM_TIMESTAMPNS {
                let time: libc::timespec = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                return u64::try_from(time.tv_sec)
                    .ok()?
                    .checked_mul(1_000_000_000)?
                    .checked_add(u64::try_from(time.tv_nsec).ok()?);
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}
