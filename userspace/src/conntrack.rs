//! What connection tracking counts: its table's use, and what went wrong, by CPU. No hook is needed.
//!
//! Needs: conntrack in use in the namespace, and CAP_NET_ADMIN for netlink. Yields: one [`ConntrackTable`] a namespace,
//! with differences of two readings.
//! Source: net/netfilter/nf_conntrack_core.c, nf_conntrack_netlink.c, nf_conntrack_standalone.c.

mod netlink;
mod procfs;

use crate::{
    iface::Namespace,
    snapshot::{ConntrackCounts, ConntrackTable},
};
use std::path::Path;

/// Where the counters can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `IPCTNL_MSG_CT_GET_STATS_CPU`: all of them.
    Netlink,
    /// `/proc/net/stat/nf_conntrack`: what the kernel's version puts there.
    Procfs,
}

/// Where connection tracking is configured, once there is any.
const SYSCTL: &str = "proc/sys/net/netfilter";

/// Whether netlink can be asked, below a root directory, without the kernel loading a module for it.
///
/// # Errors
/// Why not.
pub fn netlink_there(root: &Path) -> Result<(), String> {
    loaded(root)?;
    let module = |name: &str| root.join("sys/module").join(name);
    // A module has a state there, what is built in has none. Netlink for it would be built in as well.
    let is_module = module("nf_conntrack").join("initstate").exists();
    if is_module && !module("nf_conntrack_netlink").exists() {
        return Err("the module nf_conntrack_netlink is not loaded".to_owned());
    }
    Ok(())
}

/// Whether the kernel's file is there.
///
/// # Errors
/// Why not.
pub fn procfs_there(root: &Path) -> Result<(), String> {
    loaded(root)?;
    match root.join(procfs::FILE).exists() {
        true => Ok(()),
        false => Err(format!("there is no /{}", procfs::FILE)),
    }
}

fn loaded(root: &Path) -> Result<(), String> {
    match root.join(SYSCTL).join("nf_conntrack_max").exists() {
        true => Ok(()),
        false => Err("this kernel has no connection tracking, or has not loaded it".to_owned()),
    }
}

/// One reading of several namespaces.
#[derive(Clone, Debug, Default)]
pub struct Reading(Vec<ConntrackTable>);

impl Reading {
    /// Of these namespaces. One that cannot be read is left out.
    #[must_use]
    pub fn of(namespaces: &[Namespace], way: Way) -> Self {
        let mut tables = Vec::new();
        for namespace in namespaces {
            let name = &namespace.name;
            match namespace.within(|| table(name, way)) {
                Ok(Ok(table)) => tables.push(table),
                Ok(Err(reason)) => tracing::debug!("connection tracking of {name} cannot be read: {reason}"),
                Err(reason) => tracing::debug!("connection tracking of {name} cannot be read: {reason}"),
            }
        }
        Self(tables)
    }

    /// The tables as they are, with what was counted since an earlier reading.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Vec<ConntrackTable> {
        for table in &mut self.0 {
            let before = earlier.0.iter().find(|t| t.netns == table.netns);
            for counts in &mut table.cpus {
                // A CPU or namespace that is new began at zero.
                let before = before.and_then(|t| t.cpus.iter().find(|c| c.cpu == counts.cpu));
                *counts = difference(*counts, before.copied().unwrap_or_default());
            }
        }
        self.0
    }
}

/// The kernel's counters are 32 bits wide.
fn difference(mut now: ConntrackCounts, mut before: ConntrackCounts) -> ConntrackCounts {
    for (_, field) in ConntrackCounts::FIELDS {
        let earlier = field(&mut before).unwrap_or(0);
        let value = field(&mut now);
        *value = value.map(|n| u64::from((n as u32).wrapping_sub(earlier as u32)));
    }
    now
}

/// Of the namespace that this thread is in.
fn table(netns: &str, way: Way) -> Result<ConntrackTable, netlink::StatsError> {
    let cpus = match way {
        Way::Netlink => netlink::by_cpu()?,
        Way::Procfs => procfs::by_cpu()?,
    };
    let setting = |name: &str| {
        let text = std::fs::read_to_string(Path::new("/").join(SYSCTL).join(name)).ok()?;
        text.trim().parse().ok()
    };
    Ok(ConntrackTable {
        netns: netns.to_owned(),
        entries: setting("nf_conntrack_count"),
        max: setting("nf_conntrack_max"),
        buckets: setting("nf_conntrack_buckets"),
        cpus,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(counts: &[(u32, u64)]) -> Reading {
        let cpus = counts.iter().map(|(cpu, drop)| ConntrackCounts {
            cpu: *cpu,
            drop: Some(*drop),
            ..Default::default()
        });
        Reading(vec![ConntrackTable { netns: "node".into(), cpus: cpus.collect(), ..Default::default() }])
    }

    #[test]
    fn differences_are_by_cpu_and_survive_a_counter_that_wraps() {
        let before = reading(&[(0, 10), (1, u64::from(u32::MAX))]);
        let after = reading(&[(0, 12), (1, 4), (2, 7)]).since(&before);
        let drops: Vec<_> = after[0].cpus.iter().map(|c| c.drop).collect();
        assert_eq!(drops, [Some(2), Some(5), Some(7)]);
        assert_eq!(after[0].total().drop, Some(14));
        assert_eq!(after[0].total().clash_resolve, None);
    }

    #[test]
    fn netlink_is_not_asked_where_that_would_load_a_module() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "1\n").unwrap();
        };
        assert!(netlink_there(root.path()).unwrap_err().contains("no connection tracking"));
        make("proc/sys/net/netfilter/nf_conntrack_max");
        assert_eq!(netlink_there(root.path()), Ok(()), "built in");
        make("sys/module/nf_conntrack/initstate");
        assert!(netlink_there(root.path()).unwrap_err().contains("nf_conntrack_netlink"));
        assert!(procfs_there(root.path()).is_err());
        make("sys/module/nf_conntrack_netlink/initstate");
        make("proc/net/stat/nf_conntrack");
        assert_eq!((netlink_there(root.path()), procfs_there(root.path())), (Ok(()), Ok(())));
    }
}
