//! Rules of Services: what walking them costs a new flow, and what they cost as a map.
//!
//! The rules are those that kube-proxy writes for Services with one endpoint each. The one that the load asks is the last, so
//! that all others are walked. Only the first packet of a flow walks them: open connections feel nothing.

use super::super::{Layout, Need, Place, Program, Scenario, Script, Setting, Step, Workload};
use super::FORGET;
use nettrace_bench::load::args::{KindName, LoadArgs};
use std::{fmt::Write as _, net::Ipv4Addr, time::Duration};

/// The Service that is asked, and where it leads.
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 255, 254);
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 3);
pub(super) const PORT: u16 = 9000;
/// Addresses of pods, which kube-proxy does not masquerade.
const PODS: &str = "10.244.0.0/16";

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "tcp_crr",
        args: || LoadArgs::of(KindName::TcpCrr),
        port: PORT,
        service: Some(SERVICE),
        least: Duration::from_secs(1),
        warms_up: true,
    },
    Workload {
        name: "udp_new",
        args: || LoadArgs::of(KindName::UdpNew),
        port: PORT,
        service: Some(SERVICE),
        least: Duration::from_secs(1),
        warms_up: true,
    },
];
const ANSWERS: &[&str] = &["tcp_crr.p50", "tcp_crr.throughput", "udp_new.p50", "udp_new.throughput"];
const IPTABLES: &[Need] = &[Need::Program(Program::IptablesRestore)];
const BOTH: &[Need] = &[Need::Program(Program::IptablesRestore), Need::Program(Program::Nft)];

const fn count(name: &'static str, arms: [&'static str; 2], setup: &'static [Step]) -> Scenario {
    Scenario {
        name,
        advice: "keep the number of Services small, where kube-proxy writes iptables rules",
        arms,
        layout: Layout::Node,
        setup,
        settings: &[Setting::Rules(Place::Node, [all_iptables, one_iptables])],
        workloads: WORKLOADS,
        answers: ANSWERS,
        needs: IPTABLES,
        made: None,
    }
}

const fn mode(name: &'static str, arms: [&'static str; 2], setup: &'static [Step]) -> Scenario {
    Scenario {
        name,
        advice: "have kube-proxy write nftables rules (--proxy-mode=nftables)",
        arms,
        layout: Layout::Node,
        setup,
        settings: &[
            Setting::Rules(Place::Node, [all_iptables, no_iptables]),
            Setting::Rules(Place::Node, [no_nft, all_nft]),
        ],
        workloads: WORKLOADS,
        answers: ANSWERS,
        needs: BOTH,
        made: None,
    }
}

pub(super) const COUNT_1000: Scenario = count(
    "services-iptables-1000",
    ["1,000 Services in iptables", "one"],
    &[Step::Script(Place::Node, iptables::<1000>), FORGET[0], FORGET[1]],
);
pub(super) const COUNT_5000: Scenario = count(
    "services-iptables-5000",
    ["5,000 Services in iptables", "one"],
    &[Step::Script(Place::Node, iptables::<5000>), FORGET[0], FORGET[1]],
);
pub(super) const COUNT_10000: Scenario = count(
    "services-iptables-10000",
    ["10,000 Services in iptables", "one"],
    &[Step::Script(Place::Node, iptables::<10_000>), FORGET[0], FORGET[1]],
);
pub(super) const MODE_1000: Scenario = mode(
    "services-mode-1000",
    ["1,000 Services in iptables", "in a verdict map of nftables"],
    &[
        Step::Script(Place::Node, iptables::<1000>),
        Step::Script(Place::Node, nft::<1000>),
        FORGET[0],
        FORGET[1],
    ],
);
pub(super) const MODE_5000: Scenario = mode(
    "services-mode-5000",
    ["5,000 Services in iptables", "in a verdict map of nftables"],
    &[
        Step::Script(Place::Node, iptables::<5000>),
        Step::Script(Place::Node, nft::<5000>),
        FORGET[0],
        FORGET[1],
    ],
);
pub(super) const MODE_10000: Scenario = mode(
    "services-mode-10000",
    ["10,000 Services in iptables", "in a verdict map of nftables"],
    &[
        Step::Script(Place::Node, iptables::<10_000>),
        Step::Script(Place::Node, nft::<10_000>),
        FORGET[0],
        FORGET[1],
    ],
);
pub(super) const MAP_10000: Scenario = Scenario {
    name: "services-map-10000",
    advice: "keep the number of Services small, where kube-proxy writes nftables rules",
    arms: ["10,000 Services in a verdict map of nftables", "one"],
    layout: Layout::Node,
    setup: &[Step::Script(Place::Node, nft::<10_000>), FORGET[0], FORGET[1]],
    settings: &[Setting::Rules(Place::Node, [all_nft, one_nft])],
    workloads: WORKLOADS,
    answers: ANSWERS,
    needs: &[Need::Program(Program::Nft)],
    made: None,
};

/// Others' Services: address and endpoint.
fn others(count: u32) -> impl Iterator<Item = (u32, Ipv4Addr, Ipv4Addr)> {
    (0..count).map(|n| {
        let [_, _, high, low] = (n + 1).to_be_bytes();
        (n, Ipv4Addr::new(10, 96, high, low), Ipv4Addr::new(10, 245, high, low))
    })
}

/// One Service in iptables, as kube-proxy has it: a rule in the list, a chain of its own, a chain of its endpoint.
struct Chains {
    list: &'static str,
    key: String,
    protocol: &'static str,
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
}

impl Chains {
    fn names(&self, text: &mut String) {
        let _ = writeln!(text, ":KUBE-SVC-{0} - [0:0]\n:KUBE-SEP-{0} - [0:0]", self.key);
    }

    fn rules(&self, text: &mut String) {
        let Self { list, key, protocol: p, from: (vip, port), to: (ip, to_port) } = self;
        let comment = format!("-m comment --comment \"default/{key} cluster IP\"");
        let _ = write!(
            text,
            "-A {list} -d {vip}/32 -p {p} {comment} -m {p} --dport {port} -j KUBE-SVC-{key}\n\
             -A KUBE-SVC-{key} ! -s {PODS} -d {vip}/32 -p {p} {comment} -m {p} --dport {port} -j KUBE-MARK-MASQ\n\
             -A KUBE-SVC-{key} {comment} -j KUBE-SEP-{key}\n\
             -A KUBE-SEP-{key} -s {ip}/32 {comment} -j KUBE-MARK-MASQ\n\
             -A KUBE-SEP-{key} -p {p} {comment} -m {p} -j DNAT --to-destination {ip}:{to_port}\n"
        );
    }
}

/// The list of all Services, `KUBE-SERVICES`, and one with none but those that are asked, `KUBE-ONE`; nobody walks either yet.
fn iptables<const COUNT: u32>() -> Script {
    let mut chains: Vec<_> = others(COUNT)
        .map(|(n, vip, ip)| Chains {
            list: "KUBE-SERVICES",
            key: format!("{n:016X}"),
            protocol: "tcp",
            from: (vip, 80),
            to: (ip, 8080),
        })
        .collect();
    for (list, protocol, key) in [
        ("KUBE-SERVICES", "tcp", "ASKEDTCP"),
        ("KUBE-SERVICES", "udp", "ASKEDUDP"),
        ("KUBE-ONE", "tcp", "ASKEDTCPONE"),
        ("KUBE-ONE", "udp", "ASKEDUDPONE"),
    ] {
        let key = key.to_owned();
        chains.push(Chains { list, key, protocol, from: (SERVICE, PORT), to: (ENDPOINT, PORT) });
    }
    let mut text = String::from(
        "*filter\n:KUBE-FORWARD - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n\
         -A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES\n-A FORWARD -j KUBE-FORWARD\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n\
         *nat\n:KUBE-SERVICES - [0:0]\n:KUBE-ONE - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n",
    );
    chains.iter().for_each(|chain| chain.names(&mut text));
    text.push_str(
        "-A POSTROUTING -j KUBE-POSTROUTING\n-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n-A KUBE-POSTROUTING -j MASQUERADE\n",
    );
    chains.iter().for_each(|chain| chain.rules(&mut text));
    text.push_str("COMMIT\n");
    Script::tables(text)
}

/// Has packets walk a list, or none.
fn walk(list: Option<&str>) -> Script {
    let jump = list.map(|list| format!("-A PREROUTING -j {list}\n")).unwrap_or_default();
    Script::rules(format!("*nat\n-F PREROUTING\n{jump}COMMIT\n"))
}

fn all_iptables() -> Script {
    walk(Some("KUBE-SERVICES"))
}

fn one_iptables() -> Script {
    walk(Some("KUBE-ONE"))
}

fn no_iptables() -> Script {
    walk(None)
}

/// The same Services as kube-proxy's nftables mode has them: one lookup in a map, which leads to the Service's chain. Nobody
/// asks the maps yet.
fn nft<const COUNT: u32>() -> Script {
    let (mut chains, mut elements) = (String::new(), String::new());
    for (n, vip, ip) in others(COUNT) {
        let _ = writeln!(
            chains,
            "chain endpoint-{n} {{\nip saddr {ip} jump mark-for-masquerade\nmeta l4proto tcp dnat to {ip}:8080\n}}\n\
             chain service-{n} {{\ngoto endpoint-{n}\n}}"
        );
        let _ = writeln!(elements, "{vip} . tcp . 80 : goto service-{n},");
    }
    let mut asked = String::new();
    for protocol in ["tcp", "udp"] {
        let _ = writeln!(
            chains,
            "chain endpoint-{protocol} {{\nip saddr {ENDPOINT} jump mark-for-masquerade\n\
             meta l4proto {protocol} dnat to {ENDPOINT}:{PORT}\n}}\n\
             chain service-{protocol} {{\nip saddr != {PODS} jump mark-for-masquerade\ngoto endpoint-{protocol}\n}}"
        );
        let _ = writeln!(asked, "{SERVICE} . {protocol} . {PORT} : goto service-{protocol},");
    }
    let map = |name: &str, elements: &str| {
        format!(
            "map {name} {{\ntype ipv4_addr . inet_proto . inet_service : verdict\nelements = {{\n{elements}}}\n}}\n"
        )
    };
    Script::nft(format!(
        "table ip kube-proxy {{\nchain mark-for-masquerade {{\nmark set mark or 0x4000\n}}\n{chains}{}{}\
         chain nat-prerouting {{\ntype nat hook prerouting priority dstnat\n}}\n\
         chain nat-postrouting {{\ntype nat hook postrouting priority srcnat\nmark and 0x4000 == 0x4000 masquerade\n}}\n}}\n",
        map("service-ips", &format!("{elements}{asked}")),
        map("one-ip", &asked),
    ))
}

/// Has packets looked up in a map, or in none.
fn look_up(map: Option<&str>) -> Script {
    let chain = "ip kube-proxy nat-prerouting";
    let rule = map.map(|map| format!("add rule {chain} ip daddr . meta l4proto . th dport vmap @{map}\n"));
    Script::nft(format!("flush chain {chain}\n{}", rule.unwrap_or_default()))
}

fn all_nft() -> Script {
    look_up(Some("service-ips"))
}

fn one_nft() -> Script {
    look_up(Some("one-ip"))
}

fn no_nft() -> Script {
    look_up(None)
}
