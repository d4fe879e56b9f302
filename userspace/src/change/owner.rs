//! Who else sets a value, and will set it again: what is changed beside them does not last, and the plan says so.

use super::{
    Place,
    kinds::{self, tuned},
};
use std::{fs, path::PathBuf};

/// Where systemd-sysctl(8) and procps read settings from, and the order in which names count.
const SYSCTL_DIRS: &[&str] =
    &["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];
const SYSCTL_FILE: &str = "/etc/sysctl.conf";
/// By interface index: what NetworkManager and systemd-networkd do with an interface.
const NETWORK_MANAGER: &str = "/run/NetworkManager/devices";
const NETWORKD: &str = "/run/systemd/netif/links";
/// Where the CNI's configuration is.
const CNI_DIR: &str = "/etc/cni/net.d";
/// Settings that kube-proxy sets at its start, and then each time it changes its mind (its --conntrack-* options).
const KUBE_PROXY: &[&str] = &[
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_tcp_",
];

/// One line for each.
pub(super) fn of(kind: &str, key: &str, place: &Place) -> Vec<String> {
    match kind {
        "sysctl" if place.is_own() => {
            [kube_proxy(key), tuned_profile(key)].into_iter().flatten().chain(sysctl_files(key)).collect()
        }
        "mtu" | "ring" | "coalesce" => {
            let link = key.split(':').next().unwrap_or(key);
            let index = place.within(|| kinds::link(link)).map(|link| link.index);
            let managed = index.ok().filter(|_| place.is_own()).and_then(|index| managed(index, link));
            managed.into_iter().chain(cni(kind)).collect()
        }
        "qdisc" => tuned_profile("net.core.default_qdisc").into_iter().collect(),
        _ => Vec::new(),
    }
}

fn kube_proxy(name: &str) -> Option<String> {
    let runs = || process("kube-proxy");
    (KUBE_PROXY.iter().any(|prefix| name.starts_with(prefix)) && runs()).then(|| {
        "kube-proxy runs here and sets it when it starts: to last, it has to be in its configuration (conntrack: maxPerCore, \
         min, tcpEstablishedTimeout; 0 leaves the kernel's value alone)"
            .to_owned()
    })
}

/// Whether a process of that name runs.
pub(super) fn process(name: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .map(|p| p.path().join("comm"))
        .any(|comm| fs::read_to_string(comm).is_ok_and(|c| c.trim() == name))
}

/// Files that set the same, with the line.
fn sysctl_files(name: &str) -> Vec<String> {
    let in_dirs = SYSCTL_DIRS.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let conf = |path: &PathBuf| path.extension().is_some_and(|e| e == "conf");
    let mut files: Vec<_> = in_dirs.map(|entry| entry.path()).filter(conf).collect();
    files.push(SYSCTL_FILE.into());
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    files.dedup_by(|a, b| fs::canonicalize(a).ok() == fs::canonicalize(b).ok());
    let mut found = Vec::new();
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (n, line) in text.lines().enumerate() {
            let set = line.trim_start_matches(['-', ' ']).split_once('=');
            let is_it = set.is_some_and(|(key, _)| key.trim().replace('/', ".") == name.replace('/', "."));
            if is_it && !path.to_string_lossy().contains("zz-nettrace-") {
                found.push(format!(
                    "{}:{} sets it at the next start: `{}`",
                    path.display(),
                    n + 1,
                    line.trim()
                ));
            }
        }
    }
    found
}

/// The active profile of tuned, where that sets it.
fn tuned_profile(name: &str) -> Option<String> {
    let active = fs::read_to_string(tuned::ACTIVE).ok()?;
    let sets = |profile: &&str| {
        let files = tuned::PROFILES.iter().map(|dir| format!("{dir}/{profile}/tuned.conf"));
        files
            .filter_map(|file| fs::read_to_string(file).ok())
            .any(|text| text.lines().any(|l| l.split_once('=').is_some_and(|(key, _)| key.trim() == name)))
    };
    let profile = active.split_whitespace().find(sets)?;
    Some(format!("tuned's profile {profile} sets it: to last, it has to be in a profile"))
}

/// Who brings the interface up.
fn managed(index: i32, link: &str) -> Option<String> {
    let of = |dir: &str| fs::read_to_string(format!("{dir}/{index}")).unwrap_or_default();
    if of(NETWORK_MANAGER).lines().any(|line| line == "managed=true") {
        return Some(format!(
            "NetworkManager has {link} and sets it when it brings it up: to last, `nmcli connection modify` (802-3-ethernet.mtu, \
             ethtool.*)"
        ));
    }
    let file = of(NETWORKD).lines().find_map(|line| line.strip_prefix("NETWORK_FILE=").map(str::to_owned))?;
    Some(format!(
        "systemd-networkd has {link} and sets it when it brings it up: to last, [Link] in {file}, or a .link file"
    ))
}

fn cni(kind: &str) -> Option<String> {
    let there = fs::read_dir(CNI_DIR).is_ok_and(|mut files| files.next().is_some());
    (kind == "mtu" && there)
        .then(|| format!("the CNI of {CNI_DIR} sets the MTU of pods it makes: to last, `mtu` there"))
}
