//! What of the cluster's network this node shows: who connects the pods, and tunnels between nodes.
//!
//! Needs: the host's files and its interfaces. Yields: a [`Cluster`]. Sources: the CNI's configuration, and names and kinds
//! of interfaces. Routes between nodes that need no tunnel leave no interface: none is listed then.

use super::NodeLink;
use crate::{
    cni::{self, Clue},
    files::Files,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

/// Of the cluster's network, what this node shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    /// Hints at the plugin that connects the pods (CNI), the strongest first.
    pub cni: Vec<Clue>,
    /// Configurations that could not be read, and why.
    pub unread: Vec<String>,
    /// Tunnels of the host that are up.
    pub tunnels: Vec<Tunnel>,
    /// Why the host's interfaces could not be listed, so that tunnels are not known; none when they were.
    pub tunnels_error: Option<String>,
}

/// An interface that wraps packets into others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tunnel {
    /// The interface.
    pub interface: String,
    /// How: `vxlan`, `ipip`, `geneve`, `wireguard`, ...
    pub encapsulation: String,
    /// Whose it is, by its name; none where the name is nobody's.
    pub plugin: Option<String>,
}

/// Whose tunnels are, by the name's begin.
const PLUGINS: &[(&str, &str)] = &[
    ("flannel", "Flannel"),
    ("vxlan.calico", "Calico"),
    ("vxlan-v6.calico", "Calico"),
    ("wireguard.cali", "Calico"),
    ("wg-v6.cali", "Calico"),
    // The kernel's own name for the first IPIP tunnel, which Calico uses as it is.
    ("tunl0", "Calico"),
    ("cilium_", "Cilium"),
    ("antrea-", "Antrea"),
    ("genev_sys", "OVN-Kubernetes"),
    ("vxlan_sys", "Open vSwitch"),
    ("weave", "Weave Net"),
    ("kube-dummy", "kube-router"),
];

impl Cluster {
    /// Of the machine that this runs on, whose interfaces these are.
    pub(super) fn read(root: &Path, links: &[NodeLink], links_error: Option<&str>) -> Self {
        let clues = cni::clues(&Files::new(root));
        Self {
            cni: clues.found,
            unread: clues.unread,
            tunnels: links.iter().filter_map(tunnel).collect(),
            tunnels_error: links_error.map(str::to_owned),
        }
    }

    /// Of a machine of which nothing was read.
    pub(super) fn unread(error: &io::Error) -> Self {
        let why = error.to_string();
        Self { unread: vec![why.clone()], tunnels_error: Some(why), ..Self::default() }
    }

    /// Whether something here tells who connects the pods. What many plugins make use of tells nothing of them, nor do
    /// interfaces that other programs have, too.
    #[must_use]
    pub fn is_known(&self) -> bool {
        let by_file = |clue: &Clue| clue.from.starts_with(cni::CONFIG_DIR) && clue.plugin != "Multus";
        let general = ["bridge plugin", "Cilium or LXC", "kube-proxy (IPVS)", "Multus"];
        let by_interface = |clue: &Clue| !general.contains(&clue.plugin.as_str());
        self.tunnels.iter().any(|tunnel| tunnel.plugin.is_some())
            || self.cni.iter().any(|clue| by_file(clue) || by_interface(clue))
    }

    /// Whether there is a hint at a plugin, by its name.
    #[must_use]
    pub fn has(&self, plugin: &str) -> bool {
        let by_tunnel = self.tunnels.iter().any(|tunnel| tunnel.plugin.as_deref() == Some(plugin));
        by_tunnel || self.cni.iter().any(|clue| clue.plugin.starts_with(plugin))
    }
}

/// One that is down is what the kernel makes when the tunnel's module is loaded, and nobody uses.
fn tunnel(link: &NodeLink) -> Option<Tunnel> {
    let kind = link.kind.as_deref().filter(|_| link.up && link.is_tunnel())?;
    Some(Tunnel {
        interface: link.name.clone(),
        encapsulation: kind.to_owned(),
        plugin: plugin_of(&link.name).map(str::to_owned),
    })
}

/// Whose a tunnel is, by its name; none where the name is nobody's.
#[must_use]
pub fn plugin_of(tunnel: &str) -> Option<&'static str> {
    PLUGINS.iter().find(|(begin, _)| tunnel.starts_with(begin)).map(|(_, plugin)| *plugin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_told_by_kind_and_owner_and_unused_ones_are_none() {
        let link = |name: &str, kind: &str, up| NodeLink {
            name: name.to_owned(),
            kind: Some(kind.to_owned()),
            up,
            ..NodeLink::default()
        };
        let links = [
            link("flannel.1", "vxlan", true),
            link("tunl0", "ipip", false),
            link("cilium_wg0", "wireguard", true),
            link("vx7", "vxlan", true),
            link("cali12", "veth", true),
            NodeLink { name: "eth0".to_owned(), up: true, ..NodeLink::default() },
        ];
        let cluster = Cluster::read(Path::new("/nowhere"), &links, None);
        let tunnels: Vec<_> = cluster
            .tunnels
            .iter()
            .map(|t| (t.interface.as_str(), t.encapsulation.as_str(), t.plugin.as_deref()))
            .collect();
        assert_eq!(
            tunnels,
            [
                ("flannel.1", "vxlan", Some("Flannel")),
                ("cilium_wg0", "wireguard", Some("Cilium")),
                ("vx7", "vxlan", None)
            ]
        );
        assert!(cluster.is_known());
        assert!(cluster.has("Flannel") && cluster.has("Cilium") && !cluster.has("Calico"));
        let by = |plugin: &str, from: &str| Cluster {
            cni: vec![Clue { plugin: plugin.to_owned(), from: from.to_owned() }],
            ..Cluster::default()
        };
        for plugin in ["bridge plugin", "Cilium or LXC", "kube-proxy (IPVS)"] {
            assert!(!by(plugin, "interface x").is_known(), "{plugin}");
        }
        assert!(by("bridge plugin", "/etc/cni/net.d/10-bridge.conf").is_known());
        assert!(!by("Multus", "/etc/cni/net.d/00-multus.conf").is_known(), "it calls another one");
        assert!(by("Calico", "interface cali12").is_known() && !Cluster::default().is_known());
        // There is no directory of interfaces below that root, and it says so.
        assert!(cluster.unread[0].contains("/sys/class/net"), "{:?}", cluster.unread);
    }
}
