//! On a kernel without BTF what reads no kernel structure is measured as ever, and everything else says why it is not.

use crate::filter::{DNS, FRAGMENTED, mix};
use nettrace::{
    btf,
    doctor::{Basis, examine},
    lab::LabConfig,
    load::ProgramOptions,
    preflight::{Host, Needs},
    probes::{CONNTRACK, PROBES},
};
use nettrace_common::Signal;
use nettrace_tests::{captured, count, lost};

/// What reads no kernel structure, and the rung that it is on.
const LEFT: [(&str, &str); 10] = [
    ("rx.softirq", "raw_tp"),
    ("net.rtt", "tc"),
    ("tcp.listen_overflow", "procfs"),
    ("tcp.counters", "procfs"),
    ("dns.latency", "tc"),
    ("ip.fragment", "tc"),
    ("ip.reassembly", "tc"),
    ("ip.packet_too_big", "tc"),
    ("ip.path_mtu", "netlink"),
    ("ip.black_hole", "tc"),
];

/// Programs for a kernel that does not tell its types.
fn untyped() -> ProgramOptions {
    ProgramOptions { btf: "/sys/kernel/btf/of-no-kernel".into(), ..ProgramOptions::default() }
}

#[test]
fn what_reads_no_kernel_structure_is_measured() {
    let change = |options: &mut nettrace::capture::Options| {
        options.programs.btf = untyped().btf;
        options.always = true;
    };
    let (finished, ()) = captured(LabConfig::default(), change, mix).unwrap();
    let snapshot = &finished.snapshot;
    // Whether the machine has connection tracking is its own affair.
    for row in snapshot.probes.iter().filter(|row| row.name != CONNTRACK) {
        let rung = LEFT.iter().find(|(name, _)| *name == row.name).map(|(_, rung)| *rung);
        let source = row.source.as_deref().map(|source| source.split(' ').next().unwrap());
        assert_eq!(source, rung, "{row:?}");
        let kprobes = "this kernel has no kprobes (CONFIG_KPROBE_EVENTS)";
        let reason = row.reason.as_deref();
        let expected = [btf::NONE.to_owned(), format!("{}; {kprobes}", btf::NONE), kprobes.to_owned()];
        let is_told = reason.is_some_and(|reason| expected.iter().any(|e| e == reason));
        assert!(is_told || (rung.is_some() && reason.is_none()), "{row:?}");
    }
    assert_eq!(snapshot.probes.len(), PROBES.len());
    let each_family = |n: usize| 2 * n as u64;
    assert_eq!(snapshot.dns.transactions, each_family(DNS));
    assert_eq!(count(snapshot, Signal::DnsLatency), each_family(DNS));
    assert_eq!(count(snapshot, Signal::IpReassembly), each_family(FRAGMENTED as usize));
    for signal in [Signal::NetRtt, Signal::RxSoftirq] {
        assert!(count(snapshot, signal) > 0, "{}", signal.name());
    }
    for signal in [Signal::RxTotal, Signal::TxStack, Signal::TcpConnect, Signal::NfHook] {
        assert_eq!(count(snapshot, signal), 0, "{}", signal.name());
    }
    assert_eq!((lost(snapshot, "ring_full"), lost(snapshot, "unparsable")), (0, 0));
}

#[test]
fn the_doctor_says_what_is_left() {
    let diagnosis = examine(&Host, Needs::default(), &untyped());
    assert!(diagnosis.ready && diagnosis.basis == Basis::Verifier, "{diagnosis:?}");
    let on = diagnosis.signals.iter().filter(|row| row.source.is_some() && row.name != CONNTRACK);
    let on: Vec<_> = on.map(|row| row.name.as_str()).collect();
    assert_eq!(on, LEFT.map(|(name, _)| name));
}
