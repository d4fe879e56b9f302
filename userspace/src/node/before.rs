//! Counters that the kernel has kept since it started, as they are when the measurement begins: what came of them since then
//! is of the time that was measured.
//!
//! Needs: to be able to enter the namespaces, and procfs of the host. Yields: [`Before`]. What cannot be read is not there, and
//! its difference is not known then; what hangs is not waited for.

use super::{CpuReceive, machine, sockets};
use crate::{
    deadline::{self, Deadline, PATIENCE},
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
    /// What each CPU had received.
    pub(super) receive: Vec<CpuReceive>,
    /// By namespace.
    namespaces: HashMap<String, Counts>,
}

/// Counters of a network namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// How often each listener had dropped, by socket.
    pub(super) drops: Option<HashMap<u64, u32>>,
    /// Fragments that had been made.
    fragments: Option<u64>,
}

impl Before {
    /// Of the machine that this runs on, and these of its namespaces, as they are now.
    #[must_use]
    pub fn read(namespaces: &[Namespace]) -> Self {
        Self::read_by(Deadline::after(PATIENCE), namespaces)
    }

    fn read_by(deadline: Deadline, namespaces: &[Namespace]) -> Self {
        let receive = deadline::start(&Namespace::host(), || machine::receive(&root(), &mut Vec::new()));
        let start = |namespace: &Namespace| {
            (namespace.name.clone(), deadline::start(namespace, move || Counts::read(deadline)))
        };
        let pending: Vec<_> = namespaces.iter().map(start).collect();
        Self {
            receive: receive.wait(deadline).unwrap_or_default(),
            namespaces: pending
                .into_iter()
                .filter_map(|(netns, counts)| Some((netns, counts.wait(deadline).ok()?)))
                .collect(),
        }
    }

    /// Those of the namespace that reports call `netns`.
    pub(super) fn of(&self, netns: &str) -> Counts {
        self.namespaces.get(netns).cloned().unwrap_or_default()
    }
}

impl Counts {
    /// Of the namespace that this thread is in. What may be much comes last.
    fn read(deadline: Deadline) -> Self {
        Self { fragments: fragments_made(&root()), drops: sockets::drops(deadline) }
    }

    /// Fragments that the namespace that this thread is in made since then.
    pub(super) fn fragments_since(&self) -> Option<u64> {
        Some(fragments_made(&root())?.saturating_sub(self.fragments?))
    }
}

fn root() -> Files {
    Files::new(Path::new("/"))
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
        assert!(before.of(&host[0].name).fragments_since().is_some());
        assert_eq!(before.of("another").fragments_since(), None);
        assert!(!before.receive.is_empty());
    }

    #[test]
    fn what_is_not_read_in_time_is_not_waited_for_and_not_known() {
        let begun = std::time::Instant::now();
        let host = [Namespace::host()];
        let before = Before::read_by(Deadline::after(std::time::Duration::ZERO), &host);
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(before.of(&host[0].name).drops, None);
    }
}
