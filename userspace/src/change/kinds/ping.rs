//! Whether neighbours on a link answer packets of a length: ICMP echo (RFC 792, RFC 4443) that may not be cut.

use super::{super::sockopt, route, rtnl};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketAddrV6, SocketType, ipproto, recv, sendto,
        socket,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use std::{
    net::{IpAddr, Ipv6Addr},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// How long an answer may take: neighbours on a link are near.
const WAIT: Duration = Duration::from_millis(500);
/// Pings before a neighbour is taken to not answer.
const TRIES: u16 = 3;
/// More neighbours than this prove no more.
const MOST_NEIGHBOURS: usize = 8;
/// More that do not answer are not waited for: each takes its time.
const MOST_TRIED: usize = 16;
/// A short ping's data, bytes.
const SHORT_BYTES: usize = 56;
/// Of an echo, before its data, bytes.
const ICMP_BYTES: usize = 8;
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// `IP_PMTUDISC_PROBE`, `IPV6_PMTUDISC_PROBE`: may not be cut, whatever MTU the path is known to have.
const PROBE: libc::c_int = 3;

/// Attributes and states of neighbours (include/uapi/linux/neighbour.h), and of routes.
const NDA_DST: u16 = 1;
const NUD_USED: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;
const NDMSG_BYTES: usize = 12;
const RTMSG_BYTES: usize = 12;
const RTA_GATEWAY: u16 = 5;

/// Neighbours on a link that answer short pings.
pub(super) fn neighbours(index: i32, link: &str) -> Result<Vec<IpAddr>, String> {
    let known = known(index)?;
    if known.is_empty() {
        return Err(format!(
            "nobody is known on {link} who could tell whether longer packets arrive; ping a neighbour there, and try again"
        ));
    }
    let mut answering = Vec::new();
    for address in known.iter().take(MOST_TRIED) {
        if answers(link, index, *address, SHORT_BYTES).is_ok() {
            answering.push(*address);
        }
        if answering.len() == MOST_NEIGHBOURS {
            break;
        }
    }
    if answering.is_empty() {
        return Err(format!(
            "none of {} neighbours on {link} answers pings, so that whether longer packets arrive cannot be known",
            known.len().min(MOST_TRIED)
        ));
    }
    Ok(answering)
}

/// Whether all of them answer packets of `mtu` bytes, the IP header among them.
pub(super) fn all_answer(link: &str, neighbours: &[IpAddr], mtu: u32) -> Result<(), String> {
    let index = super::link(link).map_err(|error| error.to_string())?.index;
    for address in neighbours {
        let head = if address.is_ipv4() { 20 } else { 40 };
        let data = (mtu as usize).saturating_sub(head + ICMP_BYTES);
        answers(link, index, *address, data)
            .map_err(|why| format!("{address} answers short pings, but none of {mtu} bytes: {why}"))?;
    }
    Ok(())
}

/// Addresses of gateways and neighbours on a link, gateways first.
fn known(index: i32) -> Result<Vec<IpAddr>, String> {
    let dump = |kind, head| super::dump("list neighbours", kind, head).map_err(|error| error.to_string());
    let mut found: Vec<IpAddr> = Vec::new();
    for route in dump(libc::RTM_GETROUTE, vec![0; RTMSG_BYTES])? {
        if route::link(&route) == Some(index) {
            let gateway = rtnl::attributes(&route.payload, RTMSG_BYTES).filter(|(k, _)| *k == RTA_GATEWAY);
            found.extend(gateway.filter_map(|(_, value)| address(value)));
        }
    }
    for neighbour in dump(libc::RTM_GETNEIGH, vec![0; NDMSG_BYTES])? {
        let bytes = &neighbour.payload;
        let on = bytes.get(4..).and_then(rtnl::word) == Some(index.cast_unsigned());
        let state = bytes.get(8..10).map_or(0, |s| u16::from_ne_bytes([s[0], s[1]]));
        if on && state & NUD_USED != 0 {
            let of_it = rtnl::attributes(bytes, NDMSG_BYTES).filter(|(kind, _)| *kind == NDA_DST);
            found.extend(of_it.filter_map(|(_, value)| address(value)));
        }
    }
    found.retain(|a| !a.is_multicast() && !a.is_unspecified() && !a.is_loopback());
    let mut once = Vec::new();
    found.into_iter().for_each(|a| {
        if !once.contains(&a) {
            once.push(a);
        }
    });
    Ok(once)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(value).map(IpAddr::from).ok();
    v4().or_else(|| <[u8; 16]>::try_from(value).map(IpAddr::from).ok())
}

/// Whether a neighbour answers a ping with so much data; tried a few times.
fn answers(link: &str, index: i32, to: IpAddr, data: usize) -> Result<(), String> {
    let id = std::process::id() as u16;
    let mut why = "no answer".to_owned();
    for sequence in 1..=TRIES {
        match ping(link, index, to, data, (id, sequence)) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(errno) => why = std::io::Error::from(errno).to_string(),
        }
    }
    Err(why)
}

/// One ping; whether it was answered in time.
fn ping(link: &str, index: i32, to: IpAddr, data: usize, tag: (u16, u16)) -> Result<bool, Errno> {
    let socket = open(link, to)?;
    let echo = echo(to, data, tag);
    match to {
        IpAddr::V4(v4) => sendto(&socket, &echo, SendFlags::empty(), &SocketAddrV4::new(v4, 0))?,
        IpAddr::V6(v6) => {
            let scope = if is_link_local(v6) { index.cast_unsigned() } else { 0 };
            sendto(&socket, &echo, SendFlags::empty(), &SocketAddrV6::new(v6, 0, 0, scope))?
        }
    };
    let started = Instant::now();
    let mut packet = vec![0; data + 128];
    while started.elapsed() < WAIT {
        let length = match recv(&socket, &mut packet[..], RecvFlags::empty()) {
            Ok((_, length)) => length.min(packet.len()),
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        if is_reply(to, packet.get(..length).unwrap_or_default(), tag, data) {
            return Ok(true);
        }
    }
    Ok(false)
}

const fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

fn open(link: &str, to: IpAddr) -> Result<OwnedFd, Errno> {
    let (family, protocol) = if to.is_ipv4() {
        (AddressFamily::INET, ipproto::ICMP)
    } else {
        (AddressFamily::INET6, ipproto::ICMPV6)
    };
    let socket = socket(family, SocketType::RAW, Some(protocol))?;
    let (level, name) = if to.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    };
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    sockopt::set(&socket, level, name, PROBE).map_err(errno)?;
    if to.is_ipv6() {
        sockopt::set(&socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1).map_err(errno)?;
    }
    sockopt::bind_to_device(&socket, link).map_err(errno)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(WAIT))?;
    Ok(socket)
}

/// An echo request; of IPv6 the kernel fills the sum in.
fn echo(to: IpAddr, data: usize, (id, sequence): (u16, u16)) -> Vec<u8> {
    let mut echo = vec![0; ICMP_BYTES + data];
    echo[0] = if to.is_ipv4() { ECHO } else { ECHO_V6 };
    echo[4..6].copy_from_slice(&id.to_be_bytes());
    echo[6..8].copy_from_slice(&sequence.to_be_bytes());
    if to.is_ipv4() {
        let sum = checksum(&echo);
        echo[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    echo
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Of all that was sent: some answer with less. Raw sockets of IPv4 see the IP header, too.
fn is_reply(to: IpAddr, packet: &[u8], (id, sequence): (u16, u16), data: usize) -> bool {
    let icmp = if to.is_ipv4() {
        let head = usize::from(packet.first().copied().unwrap_or(0) & 0xf) * 4;
        packet.get(head..).unwrap_or_default()
    } else {
        packet
    };
    let kind = if to.is_ipv4() { ECHO_REPLY } else { ECHO_REPLY_V6 };
    let tag = [id.to_be_bytes(), sequence.to_be_bytes()].concat();
    icmp.first() == Some(&kind) && icmp.get(4..8) == Some(&tag) && icmp.len() == ICMP_BYTES + data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_by_their_tag() {
        let v4: IpAddr = [127, 0, 0, 1].into();
        let sent = echo(v4, 3, (7, 9));
        assert_eq!(checksum(&sent), 0, "a packet with its sum sums up to nothing");
        let mut answer = [vec![0x45; 1], vec![0; 19], sent.clone()].concat();
        assert!(!is_reply(v4, &answer, (7, 9), 3), "a request is no reply");
        answer[20] = ECHO_REPLY;
        assert!(is_reply(v4, &answer, (7, 9), 3));
        assert!(!is_reply(v4, &answer, (7, 8), 3));
        assert!(!is_reply(v4, &answer, (7, 9), 4), "a reply that was cut is none");
        for length in 0..answer.len() {
            let _ = is_reply(v4, &answer[..length], (7, 9), 3);
        }
    }
}
