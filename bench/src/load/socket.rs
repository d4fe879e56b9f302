//! Reading from a socket and writing to one: the kernel's calls, and not those of the C library.
//!
//! In a process with threads each of the library's looks, before and after, whether its thread is to be cancelled
//! (`pthread_setcanceltype(3)`), which a profile shows as some 2 % of a round trip on one node. Who reads or writes a stream is told
//! of an interruption. No signal is raised where the other end is gone.

use rustix::{
    io::retry_on_intr,
    net::{
        RecvFlags, SendFlags,
        addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
        recv, send as send_some, sendto,
    },
};
use std::{
    io,
    mem::size_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _},
};

/// An address of the internet as the kernel writes it (`sockaddr_in`, `sockaddr_in6`): most that come are only answered. It is
/// written and read in place, since to move what has room for any family, 128 bytes, shows in a round trip.
pub(super) struct Address {
    written: libc::sockaddr_in6,
    len: libc::socklen_t,
}

impl Address {
    /// Of nobody yet.
    pub(super) const fn none() -> Self {
        let written = libc::sockaddr_in6 {
            sin6_family: libc::AF_UNSPEC as libc::sa_family_t,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        };
        Self { written, len: 0 }
    }

    /// In words of this program, where it is one of the internet.
    pub(super) fn get(&self) -> Option<SocketAddr> {
        // Where a `sockaddr_in` has its address, a `sockaddr_in6` has the flow information; ports are at one place.
        let port = u16::from_be(self.written.sin6_port);
        match libc::c_int::from(self.written.sin6_family) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from_bits(u32::from_be(self.written.sin6_flowinfo));
                Some(SocketAddr::new(IpAddr::V4(ip), port))
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(self.written.sin6_addr.s6_addr);
                let (flow, scope) = (self.written.sin6_flowinfo, self.written.sin6_scope_id);
                Some(SocketAddrV6::new(ip, port, flow, scope).into())
            }
            _ => None,
        }
    }
}

// SAFETY: the pointer is to a value that is borrowed while it is used. All of it can be read, and the length is at most its size:
// `receive_from` sees to that.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(&self, call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        call((&raw const self.written).cast(), self.len)
    }
}

/// What came, bytes; 0 when a stream is over.
pub(super) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (len, _) = recv(socket, buffer, RecvFlags::empty())?;
    Ok(len)
}

/// A datagram, its length in bytes, and whose it is.
#[inline]
pub(super) fn receive_from(socket: &impl AsFd, buffer: &mut [u8], from: &mut Address) -> io::Result<usize> {
    const ROOM: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    from.len = ROOM;
    // SAFETY: the kernel writes no more into the buffer, and no more of an address, than it is told that there is room for; both
    // are borrowed for as long as the call takes.
    let len = unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            socket.as_fd().as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
            0,
            &raw mut from.written,
            &raw mut from.len,
        )
    };
    // It tells how long the address is, of which it may have written a part.
    from.len = from.len.min(ROOM);
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

/// Sends some of these bytes, of a datagram all. Yields how many.
pub(super) fn send(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send_some(socket, bytes, SendFlags::NOSIGNAL)?)
}

/// Sends a datagram, again when the call is interrupted while it waits for room.
pub(super) fn send_to(socket: &impl AsFd, bytes: &[u8], to: &Address) -> io::Result<usize> {
    Ok(retry_on_intr(|| sendto(socket, bytes, SendFlags::NOSIGNAL, to))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn whose_a_datagram_is_is_told_and_answered() {
        let mut from = Address::none();
        assert_eq!(from.get(), None);
        // The shorter address last: nothing stays of the longer one.
        for ip in [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)] {
            let bind = || UdpSocket::bind((ip, 0)).unwrap();
            let (server, client) = (bind(), bind());
            client.send_to(b"question", server.local_addr().unwrap()).unwrap();
            let mut buffer = [0; 4];
            let len = receive_from(&server, &mut buffer, &mut from).unwrap();
            assert_eq!((&buffer[..len], from.get()), (&b"ques"[..], client.local_addr().ok()));
            assert_eq!(send_to(&server, b"answer", &from).unwrap(), 6);
            let mut buffer = [0; 16];
            let (len, whose) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], whose), (&b"answer"[..], server.local_addr().unwrap()));
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_told() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let error = receive_from(&socket, &mut [0; 4], &mut Address::none()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        // It has no address: there is nowhere to send it.
        assert!(send_to(&socket, b"answer", &Address::none()).is_err());
    }
}
