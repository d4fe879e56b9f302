//! The table of probes.

use super::*;

#[test]
fn what_costs_at_each_packet_is_measured_for_a_share_of_the_time() {
    let shared: Vec<_> = PROBES.iter().map(|p| p.name).filter(|name| is_shared(name)).collect();
    assert_eq!(shared, ["rx.softirq", "nf.hook", "ct.in", "ct.confirm"]);
    assert!(!is_shared("no.such"));
}

#[test]
fn every_signal_has_one_probe_and_names_do_not_repeat() {
    for signal in Signal::ALL {
        assert_eq!(PROBES.iter().filter(|p| p.name == signal.name()).count(), 1, "{}", signal.name());
    }
    for (i, probe) in PROBES.iter().enumerate() {
        assert!(!probe.sources.is_empty(), "{} has no source", probe.name);
        assert!(PROBES[i + 1..].iter().all(|p| p.name != probe.name), "{} twice", probe.name);
    }
}

#[test]
fn programs_at_interfaces_look_for_what_is_selected() {
    let bits =
        |names: &[&str]| at_interfaces(&select(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()));
    assert_eq!(bits(&[]), wire::ALL);
    assert_eq!(bits(&["dns.latency", "rx"]), wire::DNS);
    assert_eq!(bits(&["rx"]), 0);
    for probe in PROBES.iter().filter(|p| p.sources.iter().any(|s| s.has("wire_in"))) {
        assert_ne!(at_interfaces(&[probe]), 0, "{}", probe.name);
    }
}

#[test]
fn a_program_has_one_hook() {
    let mut hooks = std::collections::HashMap::new();
    for p in programs() {
        assert_eq!(*hooks.entry(p.name).or_insert(*p), *p);
    }
}

#[test]
fn a_source_is_told_by_its_hooks() {
    let told: Vec<_> = DELIVERY.iter().chain(WIRE).map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "tp_btf netif_receive_skb sk_data_ready skb_copy_datagram_iovec sock_recv_length",
            "tp_btf netif_receive_skb skb_copy_datagram_iovec, fentry sock_def_readable, \
             fexit inet_recvmsg inet6_recvmsg",
            "tc",
        ]
    );
}

#[test]
fn a_forced_rung_is_the_only_one() {
    let forced = |probe: &str, rung: &str| Forced { probe: probe.to_owned(), rung: rung.to_owned() };
    let left = |name: &str, forced: &[Forced]| {
        let probe = PROBES.iter().find(|p| p.name == name).unwrap();
        allowed(probe, forced).map(Source::rung).collect::<Vec<_>>()
    };
    assert_eq!(left("rx.total", &[]), ["tp_btf", "fentry"]);
    assert_eq!(left("rx.total", &[forced("rx", "fentry")]), ["fentry"]);
    assert_eq!(left("tcp.srtt", &[forced("tcp", "raw_tp")]), ["tp_btf"], "it has no such rung");
    assert_eq!(left("rx.total", &[forced("rx", "fentry"), forced("rx.total", "tp_btf")]), ["tp_btf"]);
    assert_eq!(rungs("rx"), ["fentry", "raw_tp", "tp_btf"]);
    assert_eq!(rungs("dns.latency"), ["tc"]);
}

#[test]
fn selection_is_by_name_or_group() {
    let names = |v: &[&str]| select(&v.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).len();
    assert_eq!(names(&[]), PROBES.len());
    assert_eq!(names(&["rx.total"]), 1);
    assert_eq!(names(&["rx"]), 4);
    assert_eq!(names(&["r"]), 0);
}
