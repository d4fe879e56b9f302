//! Requests to an interface's driver by ioctl(2) (include/uapi/linux/ethtool.h), of the namespace that the calling thread is in.
//!
//! They work on all kernels from 5.10 on; over netlink, the crate `ethtool` can set channels only.

use rustix::net::{AddressFamily, SocketType, socket};
use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_G*` and `ETHTOOL_S*`
pub(crate) const GET_COALESCING: u32 = 0x0e;
pub(crate) const SET_COALESCING: u32 = 0x0f;
pub(crate) const GET_RINGS: u32 = 0x10;
pub(crate) const SET_RINGS: u32 = 0x11;
/// Words of the structure of each, the request first.
pub(crate) const COALESCING_WORDS: usize = 23;
pub(crate) const RINGS_WORDS: usize = 9;

/// A structure with nothing but its request.
pub(crate) const fn request<const WORDS: usize>(kind: u32) -> [u32; WORDS] {
    let mut words = [0; WORDS];
    words[0] = kind;
    words
}

/// What drivers are asked by.
pub(crate) struct Ethtool(OwnedFd);

impl Ethtool {
    /// In the namespace that the calling thread is in.
    ///
    /// # Errors
    /// When there is no socket.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(socket(AddressFamily::INET, SocketType::DGRAM, None)?))
    }

    /// Asks the driver of an interface. The words are those of the request's structure, into which the answer goes.
    ///
    /// # Errors
    /// What the driver or the kernel says.
    pub(crate) fn ask(&self, name: &str, words: &mut [u32]) -> io::Result<()> {
        // SAFETY: all bytes 0 are a valid `ifreq`.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // One byte stays 0, the name's end.
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: `request` is an `ifreq` whose data is the structure of the request in its first word, as long as the
        // kernel takes it to be; both outlive the call.
        let code = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
