//! Packets made by hand, and the few socket options that the standard library has not.

use anyhow::{Context, Result, bail, ensure};
use nettrace::lab::Path;
use rustix::net::{AddressFamily, SocketType};
use std::{
    io,
    mem::{size_of, size_of_val, zeroed},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

const UDP: u8 = 17;
const FRAGMENT_HEADER: u8 = 44;
const UDP_HEADER: usize = 8;

/// A fragment of a UDP datagram: a whole IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment(Vec<u8>);

/// Cuts a UDP datagram into fragments of `bytes` (a multiple of 8) of IP payload each, the last one the rest.
///
/// # Errors
/// When the addresses are of two families.
pub fn fragments(
    from: SocketAddr,
    to: SocketAddr,
    id: u16,
    payload: usize,
    bytes: usize,
) -> Result<Vec<Fragment>> {
    let mut datagram = Vec::with_capacity(UDP_HEADER + payload);
    let length = u16::try_from(UDP_HEADER + payload)?;
    for word in [from.port(), to.port(), length, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend((0..payload).map(|n| n as u8));
    if from.is_ipv6() {
        let sum = checksum_v6(from.ip(), to.ip(), &datagram);
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    let count = datagram.len().div_ceil(bytes);
    let mut packets = Vec::with_capacity(count);
    for (number, part) in datagram.chunks(bytes).enumerate() {
        let more = number + 1 < count;
        let offset = u16::try_from(number * bytes)?;
        let mut packet = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let total = u16::try_from(20 + part.len())?.to_be_bytes();
                let place = ((offset / 8) | (u16::from(more) << 13)).to_be_bytes();
                let [id_high, id_low] = id.to_be_bytes();
                // The kernel fills in the checksum.
                let mut packet =
                    vec![0x45, 0, total[0], total[1], id_high, id_low, place[0], place[1], 64, UDP, 0, 0];
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let length = u16::try_from(8 + part.len())?.to_be_bytes();
                let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], FRAGMENT_HEADER, 64];
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet.extend([UDP, 0]);
                packet.extend((offset | u16::from(more)).to_be_bytes());
                packet.extend(u32::from(id).to_be_bytes());
                packet
            }
            _ => bail!("{from} and {to} are of two families"),
        };
        packet.extend(part);
        packets.push(Fragment(packet));
    }
    Ok(packets)
}

/// The checksum of a UDP datagram over IPv6, which must have one (RFC 8200, 8.1).
fn checksum_v6(from: IpAddr, to: IpAddr, datagram: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [from, to] {
        if let IpAddr::V6(address) = address {
            bytes.extend(address.octets());
        }
    }
    bytes.extend((datagram.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, UDP]);
    bytes.extend(datagram);
    let words = bytes.chunks(2).map(|w| (u32::from(w[0]) << 8) | w.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

/// An answer to a connection that nobody began, with a checksum that is wrong: SYN and ACK without data.
#[must_use]
pub fn stray_segment(from: Ipv4Addr, to: Ipv4Addr) -> Fragment {
    const TCP: u8 = 6;
    const SYN_ACK: u8 = 0x12;
    // The kernel fills in the checksum of the IP header.
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend([
        0x30, 0x39, 0x30, 0x3a, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, SYN_ACK, 0xff, 0xff, 0xde, 0xad, 0, 0,
    ]);
    Fragment(packet)
}

/// Sends whole IP packets from a path's first pod to its second.
pub struct RawSender {
    socket: OwnedFd,
    to: SocketAddr,
}

impl RawSender {
    /// Opens one; `path` says the family too.
    ///
    /// # Errors
    /// When the kernel gives no raw socket.
    pub fn open(path: &Path<'_>) -> Result<Self> {
        let to = path.server_address(0);
        let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let socket = path.from().netns.run(|| {
            // SAFETY: a plain system call; the new descriptor is owned by what is made of it and by nothing else.
            let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
            // SAFETY: as above; a negative one is none.
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
        })?;
        Ok(Self { socket: socket.context("raw socket")?, to })
    }

    /// Sends one packet.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn send(&self, packet: &Fragment) -> Result<()> {
        // SAFETY: zeroes are a value of these C structures of integers.
        let (mut v4, mut v6): (libc::sockaddr_in, libc::sockaddr_in6) = unsafe { (zeroed(), zeroed()) };
        let (address, length) = match self.to.ip() {
            IpAddr::V4(ip) => {
                v4.sin_family = libc::AF_INET as libc::sa_family_t;
                v4.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
                (std::ptr::from_ref(&v4).cast(), size_of_val(&v4))
            }
            IpAddr::V6(ip) => {
                v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                v6.sin6_addr.s6_addr = ip.octets();
                (std::ptr::from_ref(&v6).cast(), size_of_val(&v6))
            }
        };
        // SAFETY: packet and address live through the call and are as long as said.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.0.as_ptr().cast(),
                packet.0.len(),
                0,
                address,
                length as libc::socklen_t,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error()).context("send a packet made by hand");
        }
        Ok(())
    }
}

fn set_option<T: Copy>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: T) -> Result<()> {
    // SAFETY: the descriptor is open for the length of the borrow; pointer and length name one value.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("socket option");
    }
    Ok(())
}

/// Has a socket send with DF whatever it has learnt of the path's MTU.
///
/// # Errors
/// When the kernel refuses.
pub fn set_probing(socket: &UdpSocket) -> Result<()> {
    if socket.local_addr()?.is_ipv4() {
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
    }
}

/// Has a socket keep at most about half of so many bytes to send.
///
/// # Errors
/// When the kernel refuses.
pub fn set_send_buffer(socket: &impl AsFd, bytes: i32) -> Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)
}

/// Has a listener take data in a SYN (RFC 7413), where its kernel lets it.
///
/// # Errors
/// When the kernel refuses.
pub fn allow_fast_open(listener: &TcpListener) -> Result<()> {
    const QUEUE: i32 = 16;
    set_option(listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, QUEUE)
}

/// Connects with a SYN that asks for a cookie, or has one: then what is written first goes with it.
///
/// # Errors
/// When the kernel refuses, as where clients may not take part (`net.ipv4.tcp_fastopen`).
pub fn connect_fast_open(server: SocketAddr) -> Result<TcpStream> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
    rustix::net::connect(&socket, &server)?;
    Ok(socket.into())
}

/// Has closing a socket reset its connection at once, whatever is still to be sent.
///
/// # Errors
/// When the kernel refuses.
pub fn reset_on_close(socket: &impl AsFd) -> Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 })
}

/// What the kernel itself tells of a connection (TCP_INFO).
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpInfo {
    /// TCP_* of net/tcp_states.h.
    pub state: u8,
    /// Smoothed round trip, us.
    pub srtt_us: u32,
    /// How long there was data to send or to be acknowledged, us.
    pub busy_us: u64,
    /// How long the receiver's window kept it from sending, us.
    pub rwnd_limited_us: u64,
    /// How long its send buffer did, us.
    pub sndbuf_limited_us: u64,
}

/// Asks for TCP_INFO, of which the C library's structure has only the beginning.
///
/// # Errors
/// When the kernel refuses, or is older than 4.10.
pub fn tcp_info(stream: &impl AsFd) -> Result<TcpInfo> {
    // Places of `struct tcp_info` (linux/tcp.h), bytes.
    const RTT: usize = 68;
    const BUSY_TIME: usize = 168;
    const RWND_LIMITED: usize = 176;
    const SNDBUF_LIMITED: usize = 184;
    const END: usize = 192;
    let mut info = [0_u8; END];
    let mut length = END as libc::socklen_t;
    // SAFETY: the descriptor is open for the length of the borrow; the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("TCP_INFO");
    }
    ensure!(length as usize == END, "TCP_INFO has {length} bytes");
    let long = |at| u64::from_ne_bytes(std::array::from_fn(|i| info[at + i]));
    Ok(TcpInfo {
        state: info[0],
        srtt_us: u32::from_ne_bytes(std::array::from_fn(|i| info[RTT + i])),
        busy_us: long(BUSY_TIME),
        rwnd_limited_us: long(RWND_LIMITED),
        sndbuf_limited_us: long(SNDBUF_LIMITED),
    })
}

/// Prefers this thread, and those that it starts, to whatever else the machine does: for what is compared by time.
pub fn favour_this_thread() {
    // SAFETY: a plain system call. Where it is refused, the comparison is the stricter.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
}

/// Keeps this thread, and those that it starts, on the CPU that it is on.
///
/// # Errors
/// When the kernel refuses.
pub fn stay_on_this_cpu() -> Result<()> {
    // SAFETY: a plain system call.
    stay_on_cpu(usize::try_from(unsafe { libc::sched_getcpu() })?)
}

/// Keeps this thread, and those that it starts, on one CPU.
///
/// # Errors
/// When there is no such CPU.
pub fn stay_on_cpu(cpu: usize) -> Result<()> {
    ensure!(cpu < libc::CPU_SETSIZE as usize, "CPU {cpu}");
    // SAFETY: zeroes are an empty set, which has room for the number; pointer and length name the set.
    let result = unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("affinity");
    }
    Ok(())
}
