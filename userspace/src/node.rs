//! What this node is set to: kernel settings of each network namespace that is measured, and of the host.
//!
//! Needs: to be in the namespace, most settings of which are its own. Yields: a [`Node`] in the snapshot, as it is when the
//! measurement ends, with the file of each value, or why it cannot be read. Nothing is changed and no module is loaded.
//! Cluster objects (ConfigMaps, Services) are to come beside it: advice asks a [`Node`] for names, not for files.

mod before;
mod cluster;
mod links;
mod machine;
mod nic;
mod qdiscs;
mod routes;
mod rules;
mod sockets;

pub use crate::cni::Clue;
pub use before::Before;
pub use cluster::{Cluster, Tunnel, plugin_of};
pub use links::NodeLink;
pub use machine::{CpuReceive, IdleState, Machine, Resolver};
pub use nic::{Channels, Coalescing, Nic, Offloads, Rings};
pub use routes::{LimitedInterface, Routes, TunedRoute};
pub use rules::{Ipvs, KubeProxy, PacketRules, RuleTable};
pub use sockets::{Listener, NodeSockets, PortUse};

use crate::{
    deadline::{self, Deadline, PATIENCE, Pending},
    files::Files,
    iface::Namespace,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    path::Path,
};

/// Longer files hold no setting, bytes.
const MAX_BYTES: u64 = 4096;

/// Kernel settings of a network namespace, by their names for `sysctl`.
pub const SYSCTLS: &[&str] = &[
    "net.core.somaxconn",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_fastopen",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.ip_local_port_range",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
];

/// Kernel settings of the whole machine, by their names for `sysctl`.
pub const HOST_SYSCTLS: &[&str] =
    &["net.core.netdev_max_backlog", "net.core.default_qdisc", "net.core.netdev_budget"];

/// Others of the machine: a name of ours, and the file.
const HOST_FILES: &[(&str, &str)] = &[
    (SELINUX, "/sys/fs/selinux/enforce"),
    (GOVERNOR, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    (CLOCK, "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    (TUNED, "/etc/tuned/active_profile"),
];

/// `1` where SELinux is enforced, `0` where it only logs.
pub const SELINUX: &str = "selinux";
/// How the first CPU's frequency is governed.
pub const GOVERNOR: &str = "cpu governor";
/// The clock source in use.
pub const CLOCK: &str = "clock source";
/// The profile that tuned has set, where it is installed.
pub const TUNED: &str = "tuned profile";

/// Sockets of a namespace in TIME_WAIT, each of which holds a local port towards its peer.
pub const TIME_WAIT: &str = "sockets in TIME_WAIT";
const SOCKSTAT: &str = "/proc/thread-self/net/sockstat";

/// What a node is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// Settings of the whole machine.
    pub host: Vec<Setting>,
    /// Settings by network namespace, of those that were measured.
    pub namespaces: Vec<Settings>,
    /// What of the cluster's network this node shows; none in older snapshots.
    #[serde(default)]
    pub cluster: Option<Cluster>,
    /// What matters of the machine beside its kernel's settings; none in older snapshots.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// The host's hardware interfaces; none where they could not be listed, and in older snapshots.
    #[serde(default)]
    pub nics: Option<Vec<Nic>>,
}

/// What a network namespace is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// Network namespace: a name, or `host`.
    pub netns: String,
    /// Its settings.
    pub values: Vec<Setting>,
    /// Its interfaces.
    #[serde(default)]
    pub links: Vec<NodeLink>,
    /// Why its interfaces cannot all be listed.
    #[serde(default)]
    pub links_error: Option<String>,
    /// Its packet rules; none in older snapshots, and of a namespace that could not be entered.
    #[serde(default)]
    pub rules: Option<PacketRules>,
    /// Its TCP sockets.
    #[serde(default)]
    pub sockets: NodeSockets,
    /// Its routes; none in older snapshots, and of a namespace that could not be entered.
    #[serde(default)]
    pub routes: Option<Routes>,
    /// Fragments that the kernel made of what is sent here while it was measured (FragCreates of IPv4 and IPv6), of all
    /// packets, whatever the filter; none where that is not known.
    #[serde(default)]
    pub fragments_made: Option<u64>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Setting {
    /// Its name, for `sysctl` where it is one.
    pub name: String,
    /// Its value; none where it cannot be read.
    pub value: Option<String>,
    /// The file that it was read from.
    pub from: String,
    /// Why it cannot be read.
    pub error: Option<String>,
}

impl Node {
    /// Of the machine that this runs on, and these of its namespaces; with what came since `before`. What cannot be read within
    /// some seconds says so.
    #[must_use]
    pub fn read(namespaces: &[Namespace], before: &Before) -> Self {
        Self::read_by(Deadline::after(PATIENCE), namespaces, before)
    }

    /// Each part has a thread, so that none waits for one that hangs. Tunnels and NICs are the host's, whichever namespaces are
    /// measured.
    fn read_by(deadline: Deadline, namespaces: &[Namespace], before: &Before) -> Self {
        let host = Namespace::host();
        let root = Path::new("/");
        let values = deadline::start(&host, || {
            let files = HOST_FILES.iter().map(|(name, path)| Setting::file(name, path));
            HOST_SYSCTLS.iter().map(|name| Setting::sysctl(name)).chain(files).collect()
        });
        let receive = before.receive.clone();
        let machine = deadline::start(&host, move || Machine::read(&Files::new(root), &receive));
        let cluster = deadline::start(&host, move || {
            let (links, error) = links::list(deadline);
            Cluster::read(root, &links, error.as_deref())
        });
        let nics = deadline::start(&host, move || {
            let (links, error) = links::list(deadline);
            (error.is_none() || !links.is_empty()).then(|| nic::read(root, &links))
        });
        let start = |namespace| (namespace, Settings::start(namespace, before, deadline));
        let settings: Vec<(&Namespace, Pending<Settings>)> = namespaces.iter().map(start).collect();
        let unread = |name: &str, path: &str, error: &io::Error| Setting::new(name, path, Err(error));
        Self {
            host: values.wait(deadline).unwrap_or_else(|error| {
                let sysctls = HOST_SYSCTLS.iter().map(|name| unread(name, &sysctl_file(name), &error));
                sysctls.chain(HOST_FILES.iter().map(|(name, path)| unread(name, path, &error))).collect()
            }),
            machine: Some(machine.wait(deadline).unwrap_or_else(|error| Machine::unread(&error))),
            cluster: Some(cluster.wait(deadline).unwrap_or_else(|error| Cluster::unread(&error))),
            nics: nics.wait(deadline).ok().flatten(),
            namespaces: settings
                .into_iter()
                .map(|(of, read)| {
                    read.wait(deadline).unwrap_or_else(|error| Settings::unread(&of.name, &error))
                })
                .collect(),
        }
    }

    /// Packet rules by namespace: of each that is known.
    pub fn rules(&self) -> impl Iterator<Item = (&str, &PacketRules)> {
        self.namespaces.iter().filter_map(|s| Some((s.netns.as_str(), s.rules.as_ref()?)))
    }

    /// An interface by the scope that measurements have: `NAMESPACE/NAME`, or its name alone in the host's.
    #[must_use]
    pub fn link(&self, scope: &str) -> Option<&NodeLink> {
        let (netns, name) = scope.rsplit_once('/').unwrap_or(("host", scope));
        self.namespace(netns)?.links.iter().find(|link| link.name == name)
    }

    /// A namespace that was measured.
    #[must_use]
    pub fn namespace(&self, netns: &str) -> Option<&Settings> {
        self.namespaces.iter().find(|s| s.netns == netns)
    }

    /// A setting of the machine.
    #[must_use]
    pub fn of_host(&self, name: &str) -> Option<&str> {
        find(&self.host, name)
    }

    /// A setting by namespace: of each that is known.
    pub fn of_each<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.namespaces.iter().filter_map(move |s| Some((s.netns.as_str(), find(&s.values, name)?)))
    }
}

impl Settings {
    /// Addresses of its interfaces.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.links.iter().flat_map(|link| link.addresses.iter().copied())
    }

    /// One of its settings.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        find(&self.values, name)
    }

    /// Has those of a namespace read.
    fn start(namespace: &Namespace, before: &Before, deadline: Deadline) -> Pending<Self> {
        let netns = namespace.name.clone();
        let before = before.of(&netns);
        deadline::start(namespace, move || {
            // Of the time that was measured: whatever else takes long is not.
            let fragments_made = before.fragments_since();
            let sysctls = SYSCTLS.iter().map(|name| Setting::sysctl(name));
            let values = sysctls.chain([Setting::time_wait()]).collect();
            let (links, links_error) = links::read(deadline);
            Self {
                netns,
                values,
                sockets: sockets::read(before.drops.as_ref(), deadline),
                // What may be much comes last, so that it leaves time for the rest.
                routes: Some(Routes::read(deadline)),
                rules: Some(PacketRules::read(&links, deadline)),
                links,
                links_error,
                fragments_made,
            }
        })
    }

    /// Of a namespace that cannot be entered, or did not answer in time: each part says so.
    fn unread(netns: &str, error: &io::Error) -> Self {
        let why = Some(error.to_string());
        Self {
            netns: netns.to_owned(),
            values: SYSCTLS.iter().map(|name| Setting::new(name, &sysctl_file(name), Err(error))).collect(),
            links_error: why.clone(),
            sockets: NodeSockets { error: why, ..NodeSockets::default() },
            ..Self::default()
        }
    }
}

/// The last word of a value as a number: of three sizes the largest.
#[must_use]
pub fn last_number(value: &str) -> Option<u64> {
    value.split_whitespace().last()?.parse().ok()
}

fn find<'a>(settings: &'a [Setting], name: &str) -> Option<&'a str> {
    settings.iter().find(|s| s.name == name)?.value.as_deref()
}

fn sysctl_file(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

impl Setting {
    fn sysctl(name: &str) -> Self {
        Self::file(name, &sysctl_file(name))
    }

    fn file(name: &str, path: &str) -> Self {
        let value = text(Path::new(path));
        Self::new(name, path, value.as_deref())
    }

    /// `TCP: inuse 5 orphan 0 tw 12 alloc 7 mem 1`
    fn time_wait() -> Self {
        let words = text(Path::new(SOCKSTAT)).map(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
            line.split_whitespace().skip_while(|word| *word != "tw").nth(1).unwrap_or("?").to_owned()
        });
        Self::new(TIME_WAIT, SOCKSTAT, words.as_deref())
    }

    fn new(name: &str, path: &str, value: Result<&str, &io::Error>) -> Self {
        Self {
            name: name.to_owned(),
            value: value.ok().map(str::to_owned),
            from: path.to_owned(),
            error: value.err().map(ToString::to_string),
        }
    }
}

/// What a file says, whatever bytes are in it, without the white space around.
fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_there_is_read_and_what_is_not_says_why() {
        let host = [Namespace::host()];
        let node = Node::read(&host, &Before::read(&host));
        assert_eq!(node.namespaces.len(), 1);
        assert!(node.namespaces[0].fragments_made.is_some(), "it was read before");
        let (netns, value) = node.of_each("net.core.somaxconn").next().unwrap();
        assert_eq!(netns, "host");
        assert_eq!(value, std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim());
        for setting in node.host.iter().chain(&node.namespaces[0].values) {
            assert_ne!(setting.value.is_some(), setting.error.is_some(), "{setting:?}");
        }
        let machine = node.machine.unwrap();
        assert!(!machine.unread.iter().any(|why| why.contains("not all was read")));
        assert_eq!(machine.received.len(), machine.receive.len());
        let missing = Setting::file("x", "/proc/sys/net/no/such");
        assert!(missing.value.is_none() && missing.error.unwrap().contains("No such file"));
    }

    #[test]
    fn what_is_not_read_in_time_says_so_part_by_part() {
        let begun = std::time::Instant::now();
        let deadline = Deadline::after(Duration::ZERO);
        let node = Node::read_by(deadline, &[Namespace::host()], &Before::default());
        assert!(begun.elapsed() < PATIENCE);
        let late = |why: &Option<String>| {
            why.as_ref().is_some_and(|why| why.contains("not all was read within 0ns"))
        };
        let Settings { links_error, sockets, rules, routes, .. } = &node.namespaces[0];
        // Nothing at all is there of a thread that was slower than its grace.
        assert!(late(links_error) && (late(&sockets.error) || late(&sockets.cut)), "{:?}", node.namespaces);
        assert!(routes.as_ref().is_none_or(|routes| late(&routes.error)), "{routes:?}");
        let loaded = crate::modules::is_there(Path::new("/"), "nf_tables").is_ok_and(|there| there);
        assert!(
            !loaded || rules.as_ref().is_none_or(|rules| late(&rules.unread.first().cloned())),
            "{rules:?}"
        );
        assert!(late(&node.cluster.unwrap().tunnels_error));
        let error = io::Error::from(deadline.check().unwrap_err());
        let unread = Settings::unread("pod", &error);
        assert!(unread.values.iter().all(|setting| late(&setting.error)), "{unread:?}");
        assert!(late(&unread.links_error) && late(&unread.sockets.error) && unread.routes.is_none());
        assert!(Machine::unread(&error).unread[0].contains("not all was read"));
    }

    #[test]
    fn numbers_are_read_from_whatever_a_file_holds() {
        let cases = [
            ("4096 131072 6291456", Some(6_291_456)),
            ("-1", None),
            ("", None),
            ("99999999999999999999", None),
        ];
        for (text, number) in cases {
            assert_eq!(last_number(text), number, "{text}");
        }
    }
}
