//! `wire`: the parser at the interfaces, on headers of every kind, on hostile packets, and by XDP.

use anyhow::{Result, ensure};
use nettrace::{
    lab::{
        Family, Lab, LabConfig, Role, Topology,
        dns::{Client, DnsServer, NOERROR, Query, Question, TYPE_A, decode, encode_query, encode_response},
        traffic::udp::{self, Datagrams},
    },
    snapshot::{DnsName, Snapshot},
};
use nettrace_tests::{captured, captured_in, lost, raw::Injector};
use std::{net::UdpSocket, process::Command, thread::sleep, time::Duration};

const ETH_IPV4: u16 = 0x0800;
const ETH_IPV6: u16 = 0x86dd;
const ETH_VLAN: u16 = 0x8100;
const ETH_QINQ: u16 = 0x88a8;
const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SIT: u8 = 41;
/// Last part of the addresses of the client and of the DNS pod, and of nobody.
const CLIENT: u8 = 2;
const DNS: u8 = 4;
const NOBODY: u8 = 0x99;

fn ethernet(from: u8, to: u8, ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mac = |host| [2, 0, 0, 0, 0, host];
    [&mac(to)[..], &mac(from), &ethertype.to_be_bytes(), rest].concat()
}

/// What follows the EtherType of a tag.
fn tag(ethertype: u16, rest: &[u8]) -> Vec<u8> {
    [&[0, 7], &ethertype.to_be_bytes()[..], rest].concat()
}

fn ipv4(from: u8, to: u8, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16 + 20).to_be_bytes();
    let mut header =
        [0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0, 10, 244, 0, from, 10, 244, 0, to];
    let words = header.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header, rest].concat()
}

fn ipv6(from: u8, to: u8, next: u8, rest: &[u8]) -> Vec<u8> {
    let address = |host| [0xfd, 0, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, host];
    let length = (rest.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next, 64], &address(from)[..], &address(to), rest].concat()
}

/// An IPv6 extension header of 8 bytes (PadN), or of 16.
fn extension(next: u8, long: bool, rest: &[u8]) -> Vec<u8> {
    let body: &[u8] =
        if long { &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] } else { &[0, 1, 4, 0, 0, 0, 0] };
    [&[next], body, rest].concat()
}

fn udp(sport: u16, dport: u16, rest: &[u8]) -> Vec<u8> {
    let length = rest.len() as u16 + 8;
    [sport, dport, length, 0].iter().flat_map(|n| n.to_be_bytes()).chain(rest.iter().copied()).collect()
}

/// Wraps the UDP datagram of a DNS message, from one host to another, into a frame.
type Wrap = fn(u8, u8, &[u8]) -> Vec<u8>;

/// Every outer header that is recognised, around a datagram.
const WRAPS: [(&str, Wrap); 12] = [
    ("plain", |a, b, d| ethernet(a, b, ETH_IPV4, &ipv4(a, b, UDP, d))),
    ("plain6", |a, b, d| ethernet(a, b, ETH_IPV6, &ipv6(a, b, UDP, d))),
    ("vlan", |a, b, d| ethernet(a, b, ETH_VLAN, &tag(ETH_IPV4, &ipv4(a, b, UDP, d)))),
    ("qinq", |a, b, d| ethernet(a, b, ETH_QINQ, &tag(ETH_VLAN, &tag(ETH_IPV6, &ipv6(a, b, UDP, d))))),
    ("hopbyhop", |a, b, d| ethernet(a, b, ETH_IPV6, &ipv6(a, b, 0, &extension(UDP, true, d)))),
    ("options", |a, b, d| {
        let options = extension(43, false, &extension(60, false, &extension(UDP, true, d)));
        ethernet(a, b, ETH_IPV6, &ipv6(a, b, 0, &options))
    }),
    ("vxlan", |a, b, d| {
        let inner = ethernet(a, b, ETH_IPV4, &ipv4(a, b, UDP, d));
        let outer = udp(50_000, 4789, &[&[8, 0, 0, 0, 0, 0, 42, 0], &inner[..]].concat());
        ethernet(a, b, ETH_IPV4, &ipv4(a, b, UDP, &outer))
    }),
    ("vxlan6", |a, b, d| {
        let inner = ethernet(a, b, ETH_VLAN, &tag(ETH_IPV6, &ipv6(a, b, UDP, d)));
        let outer = udp(50_000, 8472, &[&[8, 0, 0, 0, 0, 0, 42, 0], &inner[..]].concat());
        ethernet(a, b, ETH_IPV6, &ipv6(a, b, UDP, &outer))
    }),
    ("geneve", |a, b, d| {
        let inner = ethernet(a, b, ETH_IPV4, &ipv4(a, b, UDP, d));
        // Version 0, two words of options, an Ethernet frame within.
        let outer = udp(50_000, 6081, &[&[2, 0, 0x65, 0x58, 0, 0, 42, 0], &[0; 8][..], &inner].concat());
        ethernet(a, b, ETH_IPV4, &ipv4(a, b, UDP, &outer))
    }),
    ("ipip", |a, b, d| ethernet(a, b, ETH_IPV4, &ipv4(a, b, IPIP, &ipv4(a, b, UDP, d)))),
    ("sit", |a, b, d| ethernet(a, b, ETH_IPV4, &ipv4(a, b, SIT, &ipv6(a, b, UDP, d)))),
    ("ip6ip6", |a, b, d| ethernet(a, b, ETH_IPV6, &ipv6(a, b, SIT, &ipv6(a, b, UDP, d)))),
];

/// A query for a name, and its answer.
fn messages(name: &str, id: u16) -> Result<[Vec<u8>; 2]> {
    let query = encode_query(id, &Question { name: name.to_owned(), qtype: TYPE_A }, None)?;
    let answer = encode_response(&decode(&query)?, NOERROR, false, &[[192, 0, 2, 1].into()])?;
    Ok([query, answer])
}

fn injector(lab: &Lab, role: Role) -> Result<Injector> {
    let pod = lab.pod(role);
    Ok(pod.netns.run(|| Injector::open(pod.eth0.index))??)
}

fn name<'a>(snapshot: &'a Snapshot, name: &str) -> &'a DnsName {
    let found = snapshot.dns.names.iter().find(|n| n.name == name);
    found.unwrap_or_else(|| panic!("{name} is not among {:?}", snapshot.dns.names))
}

/// A DNS transaction is found behind every kind of header: each once, with its name and its answer's code.
#[test]
fn a_transaction_is_found_behind_every_header() {
    let (finished, ()) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let (client, dns) = (injector(lab, Role::Client)?, injector(lab, Role::Dns)?);
            for (i, (name, wrap)) in WRAPS.iter().enumerate() {
                let [query, answer] = messages(&format!("{name}.lab"), i as u16)?;
                client.send(&wrap(CLIENT, DNS, &udp(40_000, 53, &query)))?;
                sleep(Duration::from_millis(2));
                dns.send(&wrap(DNS, CLIENT, &udp(53, 40_000, &answer)))?;
            }
            sleep(Duration::from_millis(20));
            Ok(())
        },
    )
    .unwrap();
    let snapshot = &finished.snapshot;
    for (wrap, _) in WRAPS {
        let row = name(snapshot, &format!("{wrap}.lab"));
        let rcodes: Vec<_> = row.rcodes.iter().map(|c| (c.name.as_str(), c.count)).collect();
        assert_eq!((row.transactions, row.timeouts, &rcodes[..]), (1, 0, &[("NOERROR", 1)][..]), "{wrap}");
        assert!(row.mean_ns >= 2_000_000, "{wrap}: {} ns", row.mean_ns);
    }
    let all = WRAPS.len() as u64;
    assert_eq!((snapshot.dns.transactions, snapshot.dns.answered), (all, all));
    assert_eq!(lost(snapshot, "unparsable"), 0);
}

/// The same through a VXLAN device of the kernel's own, whose packets are known by what is in them: the TCP round trips
/// are those of the inner connection.
#[test]
fn a_tunnels_packets_are_known_by_what_is_in_them() {
    const QUERIES: u64 = 10;
    let (finished, ()) = captured(
        LabConfig::default(),
        |options| options.programs.sample_every = 1,
        |lab| {
            for (role, here, there) in [(Role::Client, 2, 4), (Role::Dns, 4, 2)] {
                let link =
                    format!("link add vx0 type vxlan id 42 remote 10.244.0.{there} dstport 4789 dev eth0");
                for command in [&link, &format!("addr add 10.50.0.{here}/24 dev vx0"), "link set vx0 up"] {
                    let netns = lab.pod(role).netns.name();
                    let done = Command::new("ip").args(["-n", netns]).args(command.split(' ')).status()?;
                    ensure!(done.success(), "ip {command}");
                }
            }
            let bind = |role: Role, address: &str| {
                let socket = lab.pod(role).netns.run(|| UdpSocket::bind(address))??;
                socket.set_read_timeout(Some(Duration::from_secs(5)))?;
                anyhow::Ok(socket)
            };
            let (client, server) = (bind(Role::Client, "10.50.0.2:0")?, bind(Role::Dns, "10.50.0.4:53")?);
            for id in 0..QUERIES {
                let [query, answer] = messages("tunnel.lab", id as u16)?;
                client.send_to(&query, "10.50.0.4:53")?;
                let (_, from) = server.recv_from(&mut [0; 512])?;
                server.send_to(&answer, from)?;
                client.recv(&mut [0; 512])?;
            }
            let listener =
                lab.pod(Role::Dns).netns.run(|| std::net::TcpListener::bind("10.50.0.4:7000"))??;
            let connect = || std::net::TcpStream::connect("10.50.0.4:7000");
            drop(lab.pod(Role::Client).netns.run(connect)??);
            drop(listener);
            Ok(())
        },
    )
    .unwrap();
    let snapshot = &finished.snapshot;
    let row = name(snapshot, "tunnel.lab");
    assert_eq!((row.transactions, row.timeouts, snapshot.dns.transactions), (QUERIES, 0, QUERIES));
    let rtts: Vec<_> = snapshot.exemplars.iter().filter(|e| e.signal == "net.rtt").map(|e| &e.flow).collect();
    let inner = |flow: &&&String| flow.contains("10.50.0.4:7000") && flow.ends_with(" tcp in vxlan");
    assert!(!rtts.is_empty() && rtts.iter().all(|flow| inner(&flow)), "{rtts:?}");
}

/// Frames whose headers are cut off or contradict themselves.
fn broken() -> Vec<Vec<u8>> {
    let v4 = |rest: &[u8]| ethernet(CLIENT, NOBODY, ETH_IPV4, rest);
    let v6 = |rest: &[u8]| ethernet(CLIENT, NOBODY, ETH_IPV6, rest);
    let good = ipv4(CLIENT, DNS, UDP, &udp(40_000, 53, b"0123456789"));
    let with = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        v4(&packet)
    };
    let mut inner = ipv4(CLIENT, DNS, UDP, &udp(40_000, 53, b"0123456789"));
    inner.truncate(10);
    vec![
        v4(&good[..10]),
        v4(&good[..22]),
        // A header of 16 bytes; version 6; a total length below the header's.
        with(0, 0x44),
        with(0, 0x65),
        v4(&[&good[..2], &[0, 19], &good[4..]].concat()),
        v4(&ipv4(CLIENT, DNS, TCP, &[0; 12])),
        // Data that would begin before the header's end; a header longer than the packet.
        v4(&ipv4(CLIENT, DNS, TCP, &[&[0; 12], &[0x40, 0][..], &[0; 6]].concat())),
        v4(&ipv4(CLIENT, DNS, TCP, &[&[0; 12], &[0xf0, 0][..], &[0; 6]].concat())),
        v4(&ipv4(CLIENT, DNS, IPIP, &inner)),
        v4(&ipv4(CLIENT, DNS, UDP, &udp(1, 4789, &[8, 0, 0, 0, 0, 0, 42, 0, 1, 2, 3]))),
        v6(&ipv6(CLIENT, DNS, UDP, &[])[..30]),
        v6(&ipv6(CLIENT, DNS, 0, &[UDP, 200, 1, 4, 0, 0, 0, 0])),
    ]
}

/// Each broken frame is counted once, where it comes in, and nothing else is: pods that are routed to see nothing of it,
/// whereas a bridge passes some on.
#[test]
fn broken_packets_are_counted() {
    const TIMES: usize = 20;
    let frames = broken();
    let (finished, ()) = captured(
        LabConfig { topology: Topology::Routed, ..LabConfig::default() },
        |_| {},
        |lab| {
            let injector = injector(lab, Role::Client)?;
            (0..TIMES).try_for_each(|_| frames.iter().try_for_each(|f| injector.send(f)))?;
            sleep(Duration::from_millis(20));
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(lost(&finished.snapshot, "unparsable"), (TIMES * frames.len()) as u64);
    assert_eq!(finished.snapshot.dns.transactions, 0);
}

/// Thousands of random mutations of good frames do no harm: a good flow beside them is counted exactly, and the books
/// balance.
#[test]
fn mutations_do_no_harm() {
    const MUTATIONS: u32 = 6000;
    const QUERIES: u64 = 40;
    let seeds: Vec<_> = WRAPS
        .iter()
        .map(|(_, wrap)| wrap(CLIENT, NOBODY, &udp(40_000, 53, &messages("seed.lab", 7).unwrap()[0])))
        .chain(broken())
        .collect();
    let (finished, ()) = captured(
        LabConfig::default(),
        |options| options.programs.sample_every = 1,
        |lab| {
            let _server = DnsServer::start(lab.pod(Role::Dns))?;
            let injector = injector(lab, Role::Client)?;
            let client = Client::new(DnsServer::address(lab.pod(Role::Dns), Family::V4)?);
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            let mut random = move |below: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % below as u64) as usize
            };
            for number in 0..MUTATIONS {
                let mut frame = seeds[random(seeds.len())].clone();
                // The addresses stay, so that the bridge learns nothing wrong.
                for _ in 0..=random(4) {
                    let at = 14 + random(frame.len() - 14);
                    frame[at] = random(256) as u8;
                }
                frame.truncate(14 + random(frame.len() - 13));
                injector.send(&frame)?;
                if number % (MUTATIONS / QUERIES as u32) == 0 {
                    let ask = || client.ask(&Query::new("good.lab", TYPE_A));
                    ensure!(lab.pod(Role::Client).netns.run(ask)??.rcode == Some(NOERROR));
                }
            }
            Ok(())
        },
    )
    .unwrap();
    let snapshot = &finished.snapshot;
    let good = name(snapshot, "good.lab");
    let rcodes: Vec<_> = good.rcodes.iter().map(|c| (c.name.as_str(), c.count)).collect();
    assert_eq!((good.transactions, good.timeouts, &rcodes[..]), (QUERIES, 0, &[("NOERROR", QUERIES)][..]));
    assert!(lost(snapshot, "unparsable") > u64::from(MUTATIONS) / 10, "{}", lost(snapshot, "unparsable"));
    assert_eq!(lost(snapshot, "bad_record"), 0);
    let ring = &snapshot.ring;
    assert_eq!((ring.emitted, ring.lost), (ring.received, 0));
    assert_eq!(
        snapshot.dns.transactions,
        snapshot.dns.answered + snapshot.dns.timeouts + snapshot.dns.pending
    );
}

/// By XDP and by filters of a clsact qdisc (before Linux 6.6) the same is counted as by tcx, the interfaces' rows say
/// which it was, and a clsact qdisc that was added is gone afterwards.
#[test]
fn every_way_to_attach_counts_the_same() {
    let seen = |xdp: bool, clsact: bool| {
        let lab = Lab::start(LabConfig::default()).unwrap();
        let (finished, ()) = captured_in(
            &lab,
            |options| {
                options.selection.xdp = xdp;
                options.selection.clsact = clsact;
            },
            |lab| {
                let _server = DnsServer::start(lab.pod(Role::Dns))?;
                for &family in lab.families() {
                    let client = Client::new(DnsServer::address(lab.pod(Role::Dns), family)?);
                    lab.pod(Role::Client).netns.run(|| {
                        (0..15).try_for_each(|_| client.ask(&Query::new("xdp.lab", TYPE_A)).map(drop))
                    })??;
                    let path = lab.path(Role::Client, Role::Server, family)?;
                    let what = Datagrams { count: 8, bytes: 4000, ..Datagrams::default() };
                    ensure!(udp::datagrams(&path, &what)?.received == 8);
                }
                Ok(())
            },
        )
        .unwrap();
        let snapshot = finished.snapshot;
        for row in snapshot.interfaces.iter().filter(|row| row.name.starts_with("veth")) {
            let expected: &[&str] = match (xdp, clsact) {
                (true, _) => &["xdp", "tcx"],
                (_, true) => &["clsact"],
                _ => &["tcx"],
            };
            assert_eq!(row.attached, expected, "{row:?}");
        }
        let left = qdiscs(&lab).unwrap();
        assert!(!left.contains("clsact"), "{left}");
        let unparsable = lost(&snapshot, "unparsable");
        (snapshot.dns.transactions, snapshot.dns.answered, snapshot.ip, unparsable)
    };
    let by_tcx = seen(false, false);
    assert_eq!((by_tcx.0, by_tcx.1, by_tcx.2.reassembled), (30, 30, 16));
    assert_eq!(seen(true, false), by_tcx);
    assert_eq!(seen(false, true), by_tcx);
}

/// What `tc qdisc show` lists in the node.
fn qdiscs(lab: &Lab) -> Result<String> {
    let show = || Command::new("tc").args(["qdisc", "show"]).output();
    Ok(String::from_utf8(lab.node().netns.run(show)??.stdout)?)
}
