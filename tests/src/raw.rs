//! Frames put on an interface as they are, by AF_PACKET: what no ordinary sender would make.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// Sends whole Ethernet frames out of one interface.
pub struct Injector(OwnedFd);

impl Injector {
    /// For an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or when there is no such interface.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        // Protocol 0: it receives nothing.
        // SAFETY: a call without pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: zeroes are a value of this C struct.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer and the length name one initialised `sockaddr_ll`, which the kernel only reads.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
        if bound == 0 { Ok(Self(fd)) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends one frame, which starts with its Ethernet header.
    ///
    /// # Errors
    /// When the kernel refuses it: shorter than an Ethernet header, longer than the MTU.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of one slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Gives a socket room for a long queue, beyond the system's limit.
///
/// # Errors
/// Without CAP_NET_ADMIN.
pub fn set_receive_buffer(socket: &impl AsRawFd, bytes: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    let (level, name, fd) = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, socket.as_raw_fd());
    // SAFETY: the pointer and the length name one `i32`, which the kernel only reads.
    let set = unsafe { libc::setsockopt(fd, level, name, (&raw const bytes).cast(), length) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
