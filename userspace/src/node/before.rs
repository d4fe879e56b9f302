//! Counters that the kernel has kept since it started, as they are when the measurement begins: what came of them since then
//! is of the time that was measured.
//!
//! Needs: to be able to enter the namespaces, and procfs of the host. Yields: [`Before`]. What cannot be read is not there, and
//! its difference is not known then.

use super::{CpuReceive, machine, sockets::Drops};
use crate::{
    files::{Files, counter},
    iface::Namespace,
};
use std::{collections::HashMap, path::Path};

/// Source: net/ipv4/proc.c and net/ipv6/proc.c, which show the counters of the network namespace that is asked.
const SNMP: &str = "/proc/thread-self/net/snmp";
const SNMP6: &str = "/proc/thread-self/net/snmp6";

/// Counters as they were before.
#[derive(Debug, Default)]
pub struct Before {
    /// What listeners had dropped.
    pub(super) drops: Drops,
    /// What each CPU had received.
    pub(super) receive: Vec<CpuReceive>,
    /// Fragments that had been made, by namespace.
    fragments: HashMap<String, u64>,
}

impl Before {
    /// Of the machine that this runs on, and these of its namespaces, as they are now.
    #[must_use]
    pub fn read(namespaces: &[Namespace]) -> Self {
        let files = Files::new(Path::new("/"));
        let fragments = |namespace: &Namespace| {
            let made = namespace.within(|| fragments_made(&files)).ok()??;
            Some((namespace.name.clone(), made))
        };
        Self {
            drops: Drops::read(namespaces),
            receive: machine::receive(&files, &mut Vec::new()),
            fragments: namespaces.iter().filter_map(fragments).collect(),
        }
    }

    /// Fragments that the namespace that this thread is in, which reports call `netns`, made since then.
    pub(super) fn fragments_since(&self, netns: &str) -> Option<u64> {
        let now = fragments_made(&Files::new(Path::new("/")))?;
        Some(now.saturating_sub(*self.fragments.get(netns)?))
    }
}

/// A kernel without IPv6 has no counters of it.
fn fragments_made(files: &Files) -> Option<u64> {
    let v4 = counter(&files.text(SNMP).ok()?, "Ip:", "FragCreates")?;
    let v6 = files.text(SNMP6).ok().and_then(|text| {
        let value = text.lines().find_map(|line| line.strip_prefix("Ip6FragCreates"))?;
        value.trim().parse::<u64>().ok()
    });
    Some(v4.saturating_add(v6.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn fragments_of_both_families_are_added_and_what_is_not_there_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        assert_eq!(fragments_made(&files), None);
        let net = root.path().join("proc/thread-self/net");
        fs::create_dir_all(&net).unwrap();
        fs::write(net.join("snmp"), "Ip: FragOKs FragCreates\nIp: 3 6\n").unwrap();
        assert_eq!(fragments_made(&files), Some(6));
        fs::write(net.join("snmp6"), "Ip6FragOKs \t1\nIp6FragCreates                  \t4\n").unwrap();
        assert_eq!(fragments_made(&files), Some(10));
        fs::write(net.join("snmp6"), "Ip6FragCreates x\n").unwrap();
        assert_eq!(fragments_made(&files), Some(6));
    }

    #[test]
    fn what_came_since_is_known_of_namespaces_that_were_read_before() {
        let host = [Namespace::host()];
        let before = Before::read(&host);
        assert!(before.fragments_since(&host[0].name).is_some());
        assert_eq!(before.fragments_since("another"), None);
        assert!(!before.receive.is_empty());
    }
}
