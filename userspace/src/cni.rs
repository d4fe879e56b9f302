//! Who connects the pods: a guess from the configuration that the container runtime reads and from interfaces that
//! bear a plugin's name. Needs the node's files; yields [`Clues`], for `nettrace doctor` and for the snapshot.

use crate::files::{FileError, Files};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where container runtimes look for configurations, by default.
pub(crate) const CONFIG_DIR: &str = "/etc/cni/net.d";
/// Interfaces of this network namespace.
pub(crate) const INTERFACE_DIR: &str = "/sys/class/net";

/// A hint at who connects the pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clue {
    /// What it hints at.
    pub plugin: String,
    /// The file or interface.
    pub from: String,
}

/// All hints, the strongest first.
#[derive(Debug, Default)]
pub(crate) struct Clues {
    /// At least what was found.
    pub(crate) found: Vec<Clue>,
    /// What could not be read; a directory that is not there hints at nothing, and is not in here.
    pub(crate) unread: Vec<String>,
}

/// Plugins by `type` in a configuration.
const TYPES: &[(&str, &str)] = &[
    ("antrea", "Antrea"),
    ("aws-cni", "AWS VPC CNI"),
    ("azure-vnet", "Azure CNI"),
    ("bridge", "bridge plugin"),
    ("calico", "Calico"),
    ("cilium-cni", "Cilium"),
    ("flannel", "Flannel"),
    ("multus", "Multus"),
    ("ovn-k8s-cni-overlay", "OVN-Kubernetes"),
    ("weave-net", "Weave Net"),
];

/// Configurations known by their network's name, whose plugins are general ones.
const NAMES: &[(&str, &str)] = &[("kindnet", "kindnet"), ("cbr0", "Flannel")];

/// Plugins by interface; `*` at the end stands for any rest.
const INTERFACES: &[(&str, &str)] = &[
    ("antrea-gw0", "Antrea"),
    ("cali*", "Calico"),
    ("vxlan.calico", "Calico"),
    ("cilium_*", "Cilium"),
    ("lxc*", "Cilium or LXC"),
    ("flannel*", "Flannel"),
    ("cni0", "bridge plugin"),
    ("weave", "Weave Net"),
    ("ovn-k8s-mp0", "OVN-Kubernetes"),
    ("kube-bridge", "kube-router"),
    ("kube-ipvs0", "kube-proxy (IPVS)"),
];

/// Looks for hints.
#[must_use]
pub(crate) fn clues(files: &Files) -> Clues {
    let mut clues = Clues::default();
    let mut names = |path| match files.names(path) {
        Ok(names) => names,
        Err(error) => {
            if !error.is_absent() || path == INTERFACE_DIR {
                clues.unread.push(error.to_string());
            }
            Vec::new()
        }
    };
    let (configs, interfaces) = (names(CONFIG_DIR), names(INTERFACE_DIR));
    // The endings that libcni reads.
    let read = |name: &&String| [".conflist", ".conf", ".json"].iter().any(|end| name.ends_with(end));
    for name in configs.iter().filter(read) {
        let path = format!("{CONFIG_DIR}/{name}");
        match plugin_of(files, &path) {
            Ok(plugin) => clues.found.push(Clue { plugin, from: path }),
            Err(error) => clues.unread.push(error.to_string()),
        }
    }
    for (pattern, plugin) in INTERFACES {
        let matches = |name: &&String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        // Of a hundred `cali*` one is enough.
        if let Some(name) = interfaces.iter().find(matches) {
            clues.found.push(Clue { plugin: (*plugin).to_owned(), from: format!("interface {name}") });
        }
    }
    clues
}

/// What a configuration is of. Source: CNI specification 1.1, section 1: a list has `plugins`, a single one `type`.
fn plugin_of(files: &Files, path: &str) -> Result<String, FileError> {
    let bytes = files.bytes(path)?;
    let wrong = |expected| FileError::Content {
        path: path.to_owned(),
        expected,
        found: String::from_utf8_lossy(&bytes).chars().take(20).collect(),
    };
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| wrong("JSON"))?;
    let name = json["name"].as_str().unwrap_or_default();
    if let Some((_, plugin)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok((*plugin).to_owned());
    }
    let kind = json["plugins"][0]["type"].as_str().or_else(|| json["type"].as_str());
    let kind = kind.ok_or_else(|| wrong("a CNI configuration"))?;
    let known = TYPES.iter().find(|(known, _)| *known == kind);
    Ok(known.map_or_else(|| kind.to_owned(), |(_, plugin)| (*plugin).to_owned()))
}
