//! A TAP interface: what the kernel sends on it is read from a descriptor, and what is written there it receives
//! (Documentation/networking/tuntap.rst).

use super::super::netlink::{Mac, Netlink};
use super::super::{LabError, Netns};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

/// The descriptor of an interface is one of this device.
pub(super) const DEVICE: &str = "/dev/net/tun";
/// Longest frame: a packet of 65,535 bytes and its Ethernet header with two VLAN tags, bytes.
pub(super) const LONGEST_FRAME: usize = 65_535 + 22;

/// The counters of a namespace's interfaces.
const COUNTERS: &str = "/proc/thread-self/net/dev";

/// An interface, which goes when this is dropped.
#[derive(Debug)]
pub(super) struct Tap {
    file: File,
    name: String,
    /// [`COUNTERS`] of the namespace that it was opened in.
    counters: File,
}

impl Tap {
    /// Makes an interface in a namespace, down.
    pub(super) fn open(netns: &Netns, name: &str, mac: Mac, mtu: u32) -> Result<Self, LabError> {
        // The namespace is that of the thread which opens the device.
        netns.run(|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(DEVICE)
                .map_err(LabError::file("open", DEVICE))?;
            make(&file, name).map_err(LabError::file("make an interface by", DEVICE))?;
            let netlink = Netlink::connect()?;
            netlink.configure(netlink.index_of(name)?, mac, mtu)?;
            let counters = File::open(COUNTERS).map_err(LabError::file("open", COUNTERS))?;
            Ok(Self { file, name: name.to_owned(), counters })
        })?
    }

    /// The next frame that the interface sends, if there is one; its length, bytes.
    pub(super) fn read(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(frame) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the interface receive a frame; false when it does not take it.
    pub(super) fn write(&self, frame: &[u8]) -> io::Result<bool> {
        match (&self.file).write(frame) {
            // A frame is taken whole.
            Ok(written) => Ok(written == frame.len()),
            // EIO: it is down; EBADFD: it is gone (tun_get_user, tun_chr_write_iter). The rest: there is no memory for the
            // frame, or the kernel takes it for none.
            Err(error) => match error.raw_os_error() {
                Some(
                    libc::EIO | libc::EBADFD | libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINVAL,
                ) => Ok(false),
                _ => Err(error),
            },
        }
    }
}

impl Tap {
    /// Frames that the interface was to send and lost.
    pub(super) fn lost(&self) -> Result<u64, LabError> {
        let mut text = vec![0; 64 << 10];
        let length = self.counters.read_at(&mut text, 0).map_err(LabError::file("read", COUNTERS))?;
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned();
        let missing = || LabError::NoSuchLink(self.name.clone());
        let row = text.lines().find_map(|line| line.trim_start().strip_prefix(&self.name)?.strip_prefix(':'));
        // Received: bytes, packets, errors, drops, and four more; sent: bytes, packets, errors, drops.
        let drops = row.ok_or_else(missing)?.split_whitespace().nth(11);
        drops.and_then(|word| word.parse().ok()).ok_or_else(missing)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Gives a descriptor its interface: frames with their Ethernet headers, and nothing before them.
fn make(file: &File, name: &str) -> io::Result<()> {
    // SAFETY: all bytes 0 are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays 0, the name's end.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and `request` is an initialised `ifreq`, which the kernel reads and writes during the
    // call alone.
    let code = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
