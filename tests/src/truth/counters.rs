//! The kernel's own protocol counters of a namespace: /proc/net/snmp, netstat and snmp6.

use anyhow::{Context, Result, bail};
use nettrace::lab::{Lab, Netns};
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

/// Counters by the names that `nstat` gives them: `TcpRetransSegs`, `Ip6ReasmOKs`.
pub type Counters = BTreeMap<String, u64>;

/// Reads all of them.
///
/// # Errors
/// When the namespace cannot be entered or the files cannot be read.
pub fn counters(netns: &Netns) -> Result<Counters> {
    netns.run(|| {
        let read =
            |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).context("counters");
        let mut all = Counters::new();
        for text in [read("snmp")?, read("netstat")?] {
            add_tables(&text, &mut all);
        }
        for line in read("snmp6")?.lines() {
            if let Some((name, value)) = line.split_once(char::is_whitespace) {
                all.insert(name.to_owned(), value.trim().parse()?);
            }
        }
        Ok(all)
    })?
}

/// Two lines a group: names, values. Some values (Tcp: MaxConn) are negative and no counters.
fn add_tables(text: &str, all: &mut Counters) {
    let lines: Vec<_> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let (Some((group, names)), Some((_, values))) = (pair[0].split_once(": "), pair[1].split_once(": "))
        else {
            continue;
        };
        for (name, value) in names.split(' ').zip(values.split(' ')) {
            all.extend(value.parse().ok().map(|value| (format!("{group}{name}"), value)));
        }
    }
}

/// A counter's sum over all namespaces of a lab.
///
/// # Errors
/// When there is no such counter.
pub fn sum_counters(lab: &Lab, name: &str) -> Result<u64> {
    let mut sum = 0;
    for netns in lab.pods().iter().map(|pod| &pod.netns).chain([&lab.node().netns]) {
        sum += counters(netns)?.get(name).copied().with_context(|| format!("no counter {name}"))?;
    }
    Ok(sum)
}

/// Waits until something listens to a UDP port.
///
/// # Errors
/// When nothing does within five seconds.
pub fn wait_for_listener(netns: &Netns, port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let pattern = format!(":{port:04X} ");
    while Instant::now() < deadline {
        let table = netns.run(|| fs::read_to_string("/proc/thread-self/net/udp"))??;
        if table.contains(&pattern) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nothing listens to port {port}")
}
