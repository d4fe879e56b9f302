//! What a bench runs on, and what that is set to: two runs say little of a change where something else differs.
//!
//! Needs nothing but to read. Yields names and values; what cannot be read is not there.

use crate::{
    iface::Namespace,
    node::{Before, Node},
};
use nettrace_bench::result::Environment;
use rustix::system::uname;
use std::{collections::BTreeMap, fs, path::Path};

/// Directories of kernel settings whose files are all read; those below them are of single interfaces.
const SYSCTL_DIRS: &[&str] =
    &["/proc/sys/net/core", "/proc/sys/net/ipv4", "/proc/sys/net/ipv6", "/proc/sys/net/netfilter"];
/// Settings that change by themselves, or are secrets.
const LEFT_OUT: &[&str] = &["nf_conntrack_count", "tcp_fastopen_key", "flush"];
/// Longer values are not settings, bytes.
const LONGEST: usize = 256;

/// Of these namespaces, and the machine.
#[must_use]
pub fn of(namespaces: &[Namespace]) -> Environment {
    let node = Node::read(namespaces, &Before::read(namespaces));
    let mut environment = Environment { machine: machine(&node), settings: BTreeMap::new() };
    for setting in &node.host {
        if let Some(value) = &setting.value {
            environment.settings.insert(setting.name.clone(), value.clone());
        }
    }
    for namespace in namespaces {
        for (name, value) in namespace.within(settings).unwrap_or_default() {
            environment.settings.insert(format!("{}: {name}", namespace.name), value);
        }
    }
    for settings in &node.namespaces {
        for link in settings.links.iter().filter(|link| link.up) {
            let name = |what: &str| format!("{}: {what} of {}", settings.netns, link.name);
            environment.settings.insert(name("MTU"), link.mtu_bytes.to_string());
            environment.settings.insert(name("queue"), queue(&link.qdisc, link.leaves.as_deref()));
        }
    }
    environment
}

fn queue(root: &str, leaves: Option<&[String]>) -> String {
    let mut leaves = leaves.unwrap_or_default().to_vec();
    leaves.dedup();
    let same = leaves.is_empty() || leaves == [root];
    if same { root.to_owned() } else { format!("{root} of {}", leaves.join(", ")) }
}

fn machine(node: &Node) -> BTreeMap<String, String> {
    let kernel = uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let mut machine = BTreeMap::from([
        ("kernel".to_owned(), text(kernel.release())),
        ("architecture".to_owned(), text(kernel.machine())),
    ]);
    if let Ok(cpus) = nettrace_bench::cpu::allowed() {
        machine.insert("CPUs".to_owned(), cpus.len().to_string());
    }
    let first = |file: &str, key: &str| {
        let text = fs::read_to_string(file).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'))?;
        Some(value.trim().to_owned())
    };
    let known = [
        ("CPU", first("/proc/cpuinfo", "model name")),
        ("memory", first("/proc/meminfo", "MemTotal")),
        ("clock source", read(Path::new("/sys/devices/system/clocksource/clocksource0/current_clocksource"))),
    ];
    machine.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    for nic in node.nics.iter().flatten() {
        let speed = nic.speed_mbit_s.map(|s| format!(", {s} Mbit/s")).unwrap_or_default();
        let driver = nic.driver.as_deref().unwrap_or("unknown driver");
        machine.insert(format!("NIC {}", nic.name), format!("{driver}{speed}"));
    }
    machine
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ");
    (text.len() <= LONGEST).then_some(text)
}

/// All kernel settings of the calling thread's namespace that are not of a single interface.
fn settings() -> BTreeMap<String, String> {
    let files = SYSCTL_DIRS.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let of = |entry: fs::DirEntry| {
        let path = entry.path();
        let name = path.strip_prefix("/proc/sys").ok()?.display().to_string().replace('/', ".");
        if !entry.file_type().ok()?.is_file() || LEFT_OUT.iter().any(|end| name.ends_with(end)) {
            return None;
        }
        Some((name, read(&path)?))
    };
    files.filter_map(of).collect()
}
