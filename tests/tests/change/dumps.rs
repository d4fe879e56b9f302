//! What a namespace is set to, as others than nettrace read it.

use anyhow::{Context as _, Result};
use nettrace::lab::Netns;
use nettrace_tests::truth::output;
use std::{collections::BTreeMap, fs, path::Path};

/// Values by what they are of: kernel settings by file, and the output of tools by command.
pub(crate) type Dump = BTreeMap<String, String>;

/// Settings whose values change by themselves.
const RESTLESS: [&str; 3] = ["nf_conntrack_count", "fastopen_key", "/flush"];

/// Everything that a change may touch.
pub(crate) fn dump(netns: &Netns, link: &str) -> Result<Dump> {
    dump_of(netns, link, "")
}

/// A part of it: values of which the name has this in it. Programs take their time where processors are emulated.
pub(crate) fn dump_of(netns: &Netns, link: &str, part: &str) -> Result<Dump> {
    let mut all = Dump::new();
    netns.run(|| settings(Path::new("/proc/sys/net"), part, &mut all))?;
    let rps = format!("/sys/class/net/{link}/queues/rx-0/rps_cpus");
    let commands: [(&str, &str, &[&str]); 8] = [
        ("tc", "iproute2", &["-j", "qdisc", "show", "dev", link]),
        ("ip", "iproute2", &["-j", "-d", "link", "show", "dev", link]),
        ("ip", "iproute2", &["-j", "-d", "addr", "show", "dev", link]),
        ("ip", "iproute2", &["-j", "-d", "route"]),
        ("ip", "iproute2", &["-j", "-d", "-6", "route"]),
        ("ethtool", "ethtool", &["-g", link]),
        ("ethtool", "ethtool", &["-c", link]),
        ("ip", "iproute2", &["netns", "exec", netns.name(), "cat", &rps]),
    ];
    for (program, package, args) in commands {
        let name = format!("{program} {}", args.join(" "));
        if name.contains(part) {
            // A driver that has no rings says so in the same words each time.
            let said = output(netns, program, package, args).unwrap_or_else(|error| format!("{error:#}"));
            all.insert(name, said);
        }
    }
    Ok(all)
}

fn settings(dir: &Path, part: &str, all: &mut Dump) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.display().to_string();
        if path.is_dir() {
            settings(&path, part, all);
        } else if name.contains(part) && !RESTLESS.iter().any(|end| name.ends_with(end)) {
            // Some can only be written.
            if let Ok(text) = fs::read(&path) {
                all.insert(name, String::from_utf8_lossy(&text).into_owned());
            }
        }
    }
}

/// What differs, by name; both values.
pub(crate) fn differences(one: &Dump, other: &Dump) -> Vec<String> {
    let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
    let differs = |name: &&String| one.get(*name) != other.get(*name);
    names.filter(differs).map(|n| format!("{n}: {:?} and {:?}", one.get(n), other.get(n))).collect()
}

/// One value of a dump.
pub(crate) fn value<'a>(dump: &'a Dump, name: &str) -> Result<&'a str> {
    let found = dump.iter().find(|(key, _)| key.contains(name)).with_context(|| format!("no {name}"))?;
    Ok(found.1.trim())
}
