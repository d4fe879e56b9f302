//! Reading from a socket and writing to one: the kernel's calls, and not those of the C library.
//!
//! In a process with threads each of the library's looks, before and after, whether its thread is to be cancelled
//! (`pthread_setcanceltype(3)`), which a profile shows as some 2 % of a round trip on one node. Who reads or writes a stream is told
//! of an interruption. No signal is raised where the other end is gone.

use rustix::{
    io::retry_on_intr,
    net::{RecvFlags, SendFlags, SocketAddrAny, recv, recvfrom, send as send_some, sendto},
};
use std::{io, os::fd::AsFd};

/// What came, bytes; 0 when a stream is over.
pub(super) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (len, _) = recv(socket, buffer, RecvFlags::empty())?;
    Ok(len)
}

/// A datagram, and whose it is: as the kernel writes it, since most are only answered.
#[inline]
pub(super) fn receive_from(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrAny)> {
    let (len, _, from) = recvfrom(socket, buffer, RecvFlags::empty())?;
    Ok((len, from.ok_or(io::ErrorKind::InvalidData)?))
}

/// Sends some of these bytes, of a datagram all. Yields how many.
pub(super) fn send(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send_some(socket, bytes, SendFlags::NOSIGNAL)?)
}

/// Sends a datagram, again when the call is interrupted while it waits for room.
pub(super) fn send_to(socket: &impl AsFd, bytes: &[u8], to: &SocketAddrAny) -> io::Result<usize> {
    Ok(retry_on_intr(|| sendto(socket, bytes, SendFlags::NOSIGNAL, to))?)
}
