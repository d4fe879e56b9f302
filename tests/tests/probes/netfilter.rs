//! `netfilter`: nf.hook, ct.in and ct.confirm, against packets that pass hooks with rules, from every source; and what
//! long lists of rules take, which needs a virtual machine for steady time.

use anyhow::Result;
use nettrace::{
    capture::{Capture, Options},
    filter,
    lab::{Lab, LabConfig, Role, Topology},
    probes::{self, Forced},
    snapshot::{ConntrackEntered, Snapshot},
};
use nettrace_common::{Signal, probes::netfilter::HOOKS};
use nettrace_tests::{captured, captured_in, count, count_in, in_guest, options, truth};
use std::{fs, net::UdpSocket};

const PORT: u16 = 7100;

/// What is measured; with `rx.softirq`, which works on a machine without kprobes and fentry, too.
const NAMES: [&str; 3] = [Signal::NfHook.name(), Signal::CtIn.name(), Signal::CtConfirm.name()];

/// Packets pass the node, where the rules are.
fn routed() -> LabConfig {
    LabConfig { topology: Topology::Routed, ..LabConfig::default() }
}

/// Other namespaces may have hooks of their own.
fn only_the_node(options: &mut Options) {
    options.namespaces.retain(|namespace| namespace.name == "node");
}

/// One datagram of each of so many sockets, from the client through the node to a server that does not answer.
fn flows(lab: &Lab, count: u64) -> Result<()> {
    let (client, server) = (lab.pod(Role::Client), lab.pod(Role::Server));
    let _listener = server.netns.run(|| UdpSocket::bind((server.ipv4, PORT)))??;
    client.netns.run(|| {
        (0..count).try_for_each(|_| {
            let socket = UdpSocket::bind((client.ipv4, 0))?;
            socket.send_to(b"through", (server.ipv4, PORT)).map(drop)
        })
    })??;
    Ok(())
}

/// Counts by hook, then ct.in and ct.confirm.
fn counts(snapshot: &Snapshot) -> [u64; 7] {
    let hooks = HOOKS.map(|hook| count_in(snapshot, Signal::NfHook, hook));
    let tracking = [Signal::CtIn, Signal::CtConfirm].map(|signal| count(snapshot, signal));
    let mut all = [0; 7];
    all[..5].copy_from_slice(&hooks);
    all[5..].copy_from_slice(&tracking);
    all
}

/// The probes of netfilter's times that are measured, and why the others are not.
fn measured(snapshot: &Snapshot) -> Vec<&str> {
    let (on, off): (Vec<_>, Vec<_>) =
        snapshot.probes.iter().filter(|p| NAMES.contains(&p.name.as_str())).partition(|p| p.source.is_some());
    for probe in off {
        println!("{} is off: {}", probe.name, probe.reason.as_deref().unwrap_or("no reason is told"));
    }
    on.iter().map(|p| p.name.as_str()).collect()
}

/// Every source is translated, and every second destination.
fn translate(lab: &Lab) -> Result<()> {
    let other = lab.pod(Role::Dns).ipv4;
    truth::nft_script(
        &lab.node().netns,
        &format!(
            "table ip n {{
                chain pre {{
                    type nat hook prerouting priority -100;
                    udp dport {PORT} numgen inc mod 2 == 0 dnat to {other}
                }}
                chain post {{
                    type nat hook postrouting priority 100;
                    udp dport {PORT} snat to 10.99.0.1
                }}
            }}"
        ),
    )
}

/// K datagrams of K connections that the node forwards and tracks: K times at prerouting, forward and postrouting, K
/// lookups and K entries, from each source that works; and as many of these are translated as rules say. In the virtual machines at least one does for each signal.
#[test]
fn packets_are_counted_at_each_hook() {
    const FLOWS: u64 = 30;
    let mut worked = std::collections::BTreeSet::new();
    for rung in probes::rungs(Signal::NfHook.name()) {
        let (finished, tracked) = captured(
            routed(),
            |options| {
                options.always = true;
                options.signals =
                    [&NAMES[..], &["rx.softirq"]].concat().into_iter().map(str::to_owned).collect();
                let force = |probe: &str| Forced { probe: probe.to_owned(), rung: rung.to_owned() };
                options.sources = NAMES.map(force).to_vec();
                only_the_node(options);
                options.programs.filter = filter::parse("udp and port 7100").unwrap();
            },
            |lab| {
                let hook = "type filter hook forward priority 0";
                let rules = &["ct state established accept"];
                truth::nft(&lab.node().netns, &truth::Nft { hook, rules })?;
                translate(lab)?;
                flows(lab, FLOWS)?;
                truth::output(&lab.node().netns, "conntrack", "conntrack", &["-S"])
            },
        )
        .unwrap();
        let on: Vec<_> = measured(&finished.snapshot).into_iter().map(str::to_owned).collect();
        println!("from {rung}: {on:?}");
        let is = |name: &str, n| if on.iter().any(|on| on == name) { n } else { 0 };
        let hook = is("nf.hook", FLOWS);
        let expected = [hook, 0, hook, 0, hook, is("ct.in", FLOWS), is("ct.confirm", FLOWS)];
        let counts = counts(&finished.snapshot);
        println!("{counts:?} of {expected:?}");
        // The kernel passes over a kprobe that is hit while the handler of another one is interrupted.
        let missed = if rung == "kprobe" { 1 } else { 0 };
        let agrees = counts
            .iter()
            .zip(expected)
            .all(|(n, expected)| (expected.saturating_sub(missed)..=expected).contains(n));
        let Snapshot { conntrack_entered, losses, .. } = &finished.snapshot;
        assert!(
            agrees,
            "{rung}: {counts:?} of {expected:?}; {conntrack_entered:?}, {losses:?}, the kernel itself: {tracked}"
        );
        if let Some(entered) = finished.snapshot.conntrack_entered {
            let ConntrackEntered { connections, source_nat, destination_nat } = entered;
            assert!((FLOWS - missed..=FLOWS).contains(&connections), "{entered:?}");
            assert_eq!(source_nat, connections, "{entered:?}");
            assert!((FLOWS / 2 - missed..=FLOWS / 2).contains(&destination_nat), "{entered:?}");
        }
        assert_eq!(finished.snapshot.conntrack_entered.is_some(), is("ct.confirm", 1) == 1);
        worked.extend(on);
    }
    assert!(worked.len() == 3 || !in_guest(), "only {worked:?} could be measured");
}

/// Tracing of functions, off until this is dropped: fentry programs are verified then, and cannot be attached.
struct Untraceable;

const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";

impl Untraceable {
    fn set() -> Result<Self> {
        fs::write(FTRACE, "0")?;
        Ok(Self)
    }
}

impl Drop for Untraceable {
    fn drop(&mut self) {
        fs::write(FTRACE, "1").unwrap();
    }
}

/// Where programs are accepted and cannot be attached, the next source measures the same, and the report says why.
#[test]
fn what_cannot_be_attached_is_measured_from_the_next_source() {
    const FLOWS: u64 = 20;
    if !in_guest() {
        println!("skipped: tracing of functions is the whole machine's, and this one is not a test's own");
        return;
    }
    let lab = Lab::start(routed()).unwrap();
    let mut options = options(&lab);
    options.always = true;
    options.signals = vec![Signal::NfHook.name().to_owned()];
    only_the_node(&mut options);
    options.programs.filter = filter::parse("udp and port 7100").unwrap();
    let hook = "type filter hook forward priority 0";
    truth::nft(&lab.node().netns, &truth::Nft { hook, rules: &["counter name n accept"] }).unwrap();
    // Kernels of 7.x do not let it be switched off.
    let untraceable = match Untraceable::set() {
        Ok(untraceable) => untraceable,
        Err(error) => return println!("skipped: {FTRACE}: {error}"),
    };
    let capture = Capture::start(options).unwrap();
    // What is attached by then is called again.
    drop(untraceable);
    flows(&lab, FLOWS).unwrap();
    let snapshot = capture.stop().unwrap().snapshot;
    let row = snapshot.probes.iter().find(|p| p.name == Signal::NfHook.name()).unwrap();
    println!("{row:?}");
    assert_eq!(count_in(&snapshot, Signal::NfHook, "forward"), FLOWS, "{row:?}");
    let source = row.source.as_deref().unwrap();
    if source.starts_with("fentry") {
        println!("not compared: this kernel attaches programs to functions all the same");
        return;
    }
    assert_eq!(source, "kprobe nf_hook_slow, kretprobe nf_hook_slow");
    let reason = row.reason.as_deref().unwrap();
    assert!(reason.starts_with("nf_hook_begin: ") && reason.contains("busy"), "{reason}");
}

/// Median time at prerouting with rules for so many Services, ns.
fn prerouting_ns(lab: &Lab, count: u32, map: bool) -> Result<u64> {
    const FLOWS: u64 = 40;
    truth::nft_script(&lab.node().netns, &truth::services(count, map))?;
    let (finished, ()) = captured_in(
        lab,
        |options| {
            options.always = true;
            options.signals = vec![Signal::NfHook.name().to_owned()];
            only_the_node(options);
            options.programs.filter = filter::parse("udp and port 7100").unwrap();
        },
        |lab| flows(lab, FLOWS),
    )?;
    truth::nft_script(&lab.node().netns, "delete table ip nat")?;
    let snapshot = &finished.snapshot;
    assert_eq!(count_in(snapshot, Signal::NfHook, "prerouting"), FLOWS);
    let row = snapshot.signals.iter().find(|row| row.signal == "nf.hook" && row.scope == "prerouting");
    Ok(row.map_or(0, |row| row.hist.quantile_ns(0.5)))
}

/// A connection's first packet looks at each Service's rule in turn, so that nf.hook grows with their number; a map of as
/// many costs about what none does.
#[test]
fn rules_in_a_list_take_their_time_and_a_map_does_not() {
    if !in_guest() {
        println!("skipped: times are steady in a virtual machine alone");
        return;
    }
    let lab = Lab::start(routed()).unwrap();
    let [none, some, many] = [0, 1000, 5000].map(|count| prerouting_ns(&lab, count, false).unwrap());
    let map = prerouting_ns(&lab, 5000, true).unwrap();
    println!(
        "at prerouting: {none} ns without Services, {some} with 1,000, {many} with 5,000, {map} with a map of 5,000"
    );
    assert!(some > 3 * none && many > 3 * some, "{none}, {some}, {many} ns");
    assert!(map < some / 2, "{map} ns by map, {some} by 1,000 rules");
    assert!(map < 2 * none, "{map} ns by map, {none} without any rule");
}
