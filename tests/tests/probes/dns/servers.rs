//! Real servers and a real client, who know nothing of nettrace: dnsmasq, unbound and dig.

use super::{assert_nothing_lost, counts};
use nettrace::lab::{Lab, LabConfig, Role};
use nettrace::snapshot::Snapshot;
use nettrace_tests::{captured, truth};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What dig is asked, and the transactions that are to come of it: their codes, how many over TCP, with the TC bit,
/// with EDNS.
struct Dig {
    args: &'static [&'static str],
    transactions: u64,
    tcp: u64,
    truncated: u64,
    edns: u64,
}

const ONE: Dig = Dig { args: &[], transactions: 1, tcp: 0, truncated: 0, edns: 1 };

const DIGS: [Dig; 8] = [
    Dig { args: &["www.example.test", "A"], ..ONE },
    Dig { args: &["www.example.test", "A", "+noedns"], edns: 0, ..ONE },
    Dig { args: &["www.example.test", "A", "+tcp"], tcp: 1, ..ONE },
    Dig { args: &["nx.example.test", "AAAA"], ..ONE },
    Dig { args: &["www.elsewhere.test", "A", "+norecurse"], ..ONE },
    Dig { args: &["big.example.test", "TXT", "+noedns", "+ignore"], truncated: 1, edns: 0, ..ONE },
    // Truncated over UDP, asked again over TCP.
    Dig { args: &["big.example.test", "TXT", "+noedns"], transactions: 2, tcp: 1, truncated: 1, edns: 0 },
    // Whole over UDP, in fragments.
    Dig { args: &["big.example.test", "TXT", "+bufsize=4096"], ..ONE },
];

/// Asks everything, and yields the codes that dig prints, of its last answers.
fn dig_all(lab: &Lab) -> anyhow::Result<Vec<String>> {
    let server = format!("@{}", lab.pod(Role::Dns).ipv4);
    let netns = &lab.pod(Role::Client).netns;
    let code = |dig: &Dig| {
        let args = [&[server.as_str(), "+tries=1", "+time=3"], dig.args].concat();
        let text = truth::output(netns, "dig", "dnsutils", &args)?;
        let status = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
        status.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("dig says no status:\n{text}"))
    };
    DIGS.iter().map(code).collect()
}

fn assert_digs(snapshot: &Snapshot, codes: &[String]) {
    let dns = &snapshot.dns;
    let sum = |of: fn(&Dig) -> u64| DIGS.iter().map(of).sum::<u64>();
    assert_eq!((dns.transactions, dns.answered), (sum(|d| d.transactions), sum(|d| d.transactions)));
    assert_eq!((dns.tcp, dns.truncated), (sum(|d| d.tcp), sum(|d| d.truncated)));
    assert_eq!((dns.edns, dns.retries), (sum(|d| d.edns), 0));
    assert_eq!((codes[4].as_str(), snapshot.ip.fragments_in_v4), ("REFUSED", 2));
    // The answer that was truncated has the code of the whole one.
    let mut expected = BTreeMap::new();
    for (dig, code) in DIGS.iter().zip(codes) {
        *expected.entry(code.as_str()).or_default() += dig.transactions;
    }
    assert_eq!(counts(&dns.rcodes), expected);
    assert_nothing_lost(snapshot);
}

/// 2,000 bytes of text, in strings of 200.
fn big() -> Vec<String> {
    (0..10).map(|n| format!("{n}").repeat(200)).collect()
}

#[test]
fn dnsmasq_and_dig() {
    let (finished, codes) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let texts = big().join(",");
            let listen = format!("--listen-address={}", lab.pod(Role::Dns).ipv4);
            let text = format!("--txt-record=big.example.test,{texts}");
            let args = [
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--edns-packet-max=4096",
                "--bind-interfaces",
                "--pid-file=",
                "--user=root",
                "--local=/example.test/",
                "--host-record=www.example.test,192.0.2.1",
                &listen,
                &text,
            ];
            let netns = &lab.pod(Role::Dns).netns;
            let _dnsmasq = truth::Running::start(netns, "dnsmasq", "dnsmasq", &args)?;
            truth::wait_for_listener(netns, 53)?;
            dig_all(lab)
        },
    )
    .unwrap();
    assert_digs(&finished.snapshot, &codes);
}

#[test]
fn unbound_and_dig() {
    let file = std::env::temp_dir().join(format!("nettrace-unbound-{}.conf", std::process::id()));
    let (finished, codes) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let mut config = format!(
                "server:\n interface: {}\n access-control: 0.0.0.0/0 allow\n chroot: \"\"\n username: \"\"\n \
                 pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n module-config: \"iterator\"\n \
                 max-udp-size: 4096\n local-zone: \"example.test.\" static\n \
                 local-zone: \"elsewhere.test.\" refuse\n local-data: \"www.example.test. A 192.0.2.1\"\n",
                lab.pod(Role::Dns).ipv4
            );
            for text in big() {
                writeln!(config, " local-data: 'big.example.test. TXT \"{text}\"'")?;
            }
            std::fs::write(&file, config)?;
            let netns = &lab.pod(Role::Dns).netns;
            let args = ["-d", "-p", "-c", file.to_str().unwrap_or_default()];
            let _unbound = truth::Running::start(netns, "unbound", "unbound", &args)?;
            truth::wait_for_listener(netns, 53)?;
            dig_all(lab)
        },
    )
    .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_digs(&finished.snapshot, &codes);
}
