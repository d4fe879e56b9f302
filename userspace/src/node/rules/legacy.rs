//! Entries of iptables-legacy, by getsockopt.
//!
//! Needs: to be in the namespace, and CAP_NET_ADMIN there. Yields: a [`RuleTable`] for each table that the kernel has there.
//! Source: IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES (include/uapi/linux/netfilter_ipv4/ip_tables.h, and the same for IPv6).
//! Only tables are asked for that are listed: a question about another one makes the kernel load its module.

use super::RuleTable;
use crate::deadline::Deadline;
use rustix::net::{AddressFamily, Protocol, SocketType, ipproto, socket};
use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::{AsRawFd as _, OwnedFd},
};

/// IPv4's or IPv6's.
pub(super) struct Family {
    pub(super) engine: &'static str,
    prefix: &'static str,
    names: &'static str,
    address: AddressFamily,
    protocol: Protocol,
    level: libc::c_int,
    /// Where an entry has the lengths of itself, bytes from its begin: `struct ipt_entry`, `struct ip6t_entry`.
    target_offset: usize,
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        engine: "iptables-legacy",
        prefix: "ip",
        names: "/proc/thread-self/net/ip_tables_names",
        address: AddressFamily::INET,
        protocol: ipproto::RAW,
        level: libc::IPPROTO_IP,
        target_offset: 88,
    },
    Family {
        engine: "ip6tables-legacy",
        prefix: "ip6",
        names: "/proc/thread-self/net/ip6_tables_names",
        address: AddressFamily::INET6,
        protocol: ipproto::RAW,
        level: libc::IPPROTO_IPV6,
        target_offset: 140,
    },
];

/// `IPT_SO_GET_INFO`, `IP6T_SO_GET_INFO`
const GET_INFO: libc::c_int = 64;
/// `IPT_SO_GET_ENTRIES`, `IP6T_SO_GET_ENTRIES`
const GET_ENTRIES: libc::c_int = 65;
/// `XT_TABLE_MAXNAMELEN`
const NAME_BYTES: usize = 32;
/// `struct ipt_getinfo`: name, six words and five, `num_entries`, `size`.
const INFO_BYTES: usize = 84;
/// `struct ipt_get_entries` before the entries: name, size, and what makes 8 bytes whole.
const ENTRIES_HEAD_BYTES: usize = 40;
/// A namespace has a table for each of these: raw, mangle, nat, filter, security. What lists more is something else.
const MAX_TABLES: usize = 64;
/// Tables with longer entries are counted, and not looked into for chains, bytes.
const MOST_BYTES: usize = 64 << 20;
/// The name within a target: behind its length.
const TARGET_NAME: usize = 2;
/// What a target says behind its head, for `ERROR`: the name of the chain that begins there.
const TARGET_DATA: usize = 32;

/// Tables of the namespace that this thread is in, and those that cannot be read.
///
/// # Errors
/// When they cannot be listed.
pub(super) fn tables(family: &Family, deadline: Deadline) -> io::Result<Vec<io::Result<RuleTable>>> {
    let names = match fs::read_to_string(family.names) {
        Ok(names) => names,
        // Not loaded: no table.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = names.lines().take(MAX_TABLES);
    Ok(names
        .map(|name| deadline.check().map_err(io::Error::from).and_then(|()| table(family, name)))
        .collect())
}

fn table(family: &Family, name: &str) -> io::Result<RuleTable> {
    let socket = socket(family.address, SocketType::RAW, Some(family.protocol))?;
    let mut table = RuleTable::new(family.engine, format!("{} {name}", family.prefix));
    let mut info = vec![0; INFO_BYTES];
    named(&mut info, name)?;
    ask(&socket, family, GET_INFO, &mut info)?;
    table.rules = u64::from(word(&info, 76)?);
    let bytes = word(&info, 80)?;
    if bytes as usize > MOST_BYTES {
        return Ok(table);
    }
    let mut entries = vec![0; ENTRIES_HEAD_BYTES + bytes as usize];
    named(&mut entries, name)?;
    entries[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&bytes.to_ne_bytes());
    match ask(&socket, family, GET_ENTRIES, &mut entries) {
        Ok(()) => chains(&entries[ENTRIES_HEAD_BYTES..], family.target_offset, |chain| table.chain(chain)),
        // The table has changed since its size was told.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
        Err(error) => return Err(error),
    }
    Ok(table)
}

/// A table's name goes where the question begins, and ends with a zero byte.
fn named(question: &mut [u8], name: &str) -> io::Result<()> {
    if name.len() >= NAME_BYTES {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("a table's name of {} bytes", name.len()),
        ));
    }
    question[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    word.map(u32::from_ne_bytes).ok_or_else(|| io::Error::from(ErrorKind::UnexpectedEof))
}

fn ask(socket: &OwnedFd, family: &Family, what: libc::c_int, value: &mut [u8]) -> io::Result<()> {
    let mut len = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, which is as long, and the new length to `len`.
    let code = unsafe {
        libc::getsockopt(socket.as_raw_fd(), family.level, what, value.as_mut_ptr().cast(), &raw mut len)
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Names of chains that are not the kernel's own: each begins with an entry whose target is `ERROR`. The last entry of a
/// table is one too, whose name is `ERROR` again.
fn chains(mut entries: &[u8], target_offset: usize, mut what: impl FnMut(&str)) {
    let half = |bytes: &[u8], at: usize| {
        let half = bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
        half.map(|bytes| usize::from(u16::from_ne_bytes(bytes)))
    };
    let text = |bytes: Option<&[u8]>| {
        let bytes = bytes.unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    while let (Some(target), Some(next)) = (half(entries, target_offset), half(entries, target_offset + 2)) {
        let Some((entry, rest)) = entries.split_at_checked(next).filter(|_| next > target_offset) else {
            return;
        };
        let target = entry.get(target..).unwrap_or_default();
        if text(target.get(TARGET_NAME..TARGET_DATA - 1)) == "ERROR" {
            let name = text(target.get(TARGET_DATA..));
            if name != "ERROR" {
                what(&name);
            }
        }
        entries = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of IPv4 without matches.
    fn entry(target: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 112 + TARGET_DATA + data.len()];
        let len = bytes.len() as u16;
        bytes[88..90].copy_from_slice(&112_u16.to_ne_bytes());
        bytes[90..92].copy_from_slice(&len.to_ne_bytes());
        bytes[114..114 + target.len()].copy_from_slice(target.as_bytes());
        bytes[112 + TARGET_DATA..].copy_from_slice(data);
        bytes
    }

    #[test]
    fn chains_are_found_between_rules_and_nothing_is_read_past_the_end() {
        let entries = [
            entry("", &[0; 8]),
            entry("ERROR", b"KUBE-SERVICES\0\0\0"),
            entry("DNAT", &[0; 24]),
            entry("ERROR", b"KUBE-SVC-A\0\0\0\0\0\0"),
            entry("ERROR", b"ERROR\0\0\0"),
        ]
        .concat();
        let names = |bytes: &[u8]| {
            let mut names = Vec::new();
            chains(bytes, 88, |name| names.push(name.to_owned()));
            names
        };
        assert_eq!(names(&entries), ["KUBE-SERVICES", "KUBE-SVC-A"]);
        for len in 0..entries.len() {
            assert!(names(&entries[..len]).len() <= 2);
        }
        assert_eq!(names(&[0; 500]), Vec::<String>::new());
        assert_eq!(names(&[0xff; 500]), Vec::<String>::new());
    }
}
