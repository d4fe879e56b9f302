//! `--filter` works in the kernel, on every signal and both lanes: what does not match is neither measured nor counted,
//! and what does loses nothing for it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use anyhow::{Result, ensure};
use nettrace::{
    aggregate::Finished,
    filter,
    lab::{
        Family, Lab, LabConfig, Role,
        dns::{Client, DnsServer, Query, TYPE_A},
        traffic::{
            packets_of_datagram, tcp,
            udp::{self, Datagrams},
        },
    },
};
use nettrace_common::Signal;
use nettrace_tests::{captured, count, raw::set_receive_buffer};
use std::{net::UdpSocket, thread::sleep, time::Duration};

const UDP: u32 = 30;
const TCP: u32 = 20;
pub(crate) const DNS: usize = 10;
pub(crate) const FRAGMENTED: u32 = 5;
const FRAGMENTED_BYTES: usize = 4000;
/// Ports of the servers: the one that filters name, and the others.
const PORT: u16 = 7000;

/// The same mix over each family: UDP and TCP exchanges with the server, DNS, and datagrams in fragments.
pub(crate) fn mix(lab: &Lab) -> Result<()> {
    let _server = DnsServer::start(lab.pod(Role::Dns))?;
    for &family in lab.families() {
        let path = lab.path(Role::Client, Role::Server, family)?;
        let udp = udp::RequestResponse { requests: UDP, port: PORT, ..udp::RequestResponse::default() };
        ensure!(udp::request_response(&path, &udp)?.answered == u64::from(UDP));
        let tcp = tcp::RequestResponse { requests: TCP, port: PORT + 1, ..tcp::RequestResponse::default() };
        ensure!(tcp::request_response(&path, &tcp)?.requests == u64::from(TCP));
        let whole =
            Datagrams { count: FRAGMENTED, bytes: FRAGMENTED_BYTES, port: PORT + 2, ..Datagrams::default() };
        ensure!(udp::datagrams(&path, &whole)?.received == u64::from(FRAGMENTED));
        let client = Client::new(DnsServer::address(lab.pod(Role::Dns), family)?);
        lab.pod(Role::Client).netns.run(|| {
            (0..DNS).try_for_each(|i| client.ask(&Query::new(&format!("name{i}.lab"), TYPE_A)).map(drop))
        })??;
    }
    Ok(())
}

/// What a filter lets through, as the snapshot counts it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// rx.total: reads of datagrams and segments.
    reads: u64,
    /// net.rtt measured at all.
    rtt: bool,
    connects: u64,
    dns: u64,
    fragments: (u64, u64),
    reassembled: u64,
}

fn seen(expression: &str) -> Seen {
    let (finished, ()) = captured(
        LabConfig::default(),
        |options| {
            options.programs.filter = filter::parse(expression).unwrap();
            options.programs.sample_every = 1;
            options.programs.ring_bytes = 32 << 20;
        },
        mix,
    )
    .unwrap();
    both_lanes_agree(&finished);
    let s = &finished.snapshot;
    Seen {
        reads: count(s, Signal::RxTotal),
        rtt: count(s, Signal::NetRtt) > 0,
        connects: s.tcp.connects,
        dns: s.dns.transactions,
        fragments: (s.ip.fragments_in_v4, s.ip.fragments_in_v6),
        reassembled: s.ip.reassembled,
    }
}

fn both_lanes_agree(finished: &Finished) {
    let ring = &finished.snapshot.ring;
    assert_eq!((ring.emitted, ring.lost), (ring.received, 0));
    for signal in Signal::ALL.into_iter().take(Signal::IN_KERNEL) {
        let records = finished.event_lane.iter().filter(|((s, _), _)| *s == signal as u8);
        let records: u64 = records.map(|(_, book)| book.hist.count()).sum();
        assert_eq!(records, count(&finished.snapshot, signal), "{}", signal.name());
    }
}

/// Each kind of term, alone and together, over both families: exactly the packets that match are counted, as reads, as
/// connections, as DNS transactions and as fragments.
#[test]
fn only_what_matches_is_counted() {
    let (udp, tcp, dns) = (u64::from(UDP), u64::from(TCP), DNS as u64);
    let fragments =
        |family| u64::from(FRAGMENTED * packets_of_datagram(family, 1500, FRAGMENTED_BYTES as u32));
    let (v4, v6) = (fragments(Family::V4), fragments(Family::V6));
    let whole = u64::from(FRAGMENTED);
    let nothing = Seen { reads: 0, rtt: false, connects: 0, dns: 0, fragments: (0, 0), reassembled: 0 };
    // Requests and responses; queries and answers; datagrams that were put together.
    let udp_reads = 2 * udp + 2 * dns + whole;
    assert_eq!(
        seen("udp"),
        Seen { reads: 2 * udp_reads, dns: 2 * dns, fragments: (v4, v6), reassembled: 2 * whole, ..nothing }
    );
    assert_eq!(seen("tcp"), Seen { reads: 4 * tcp, rtt: true, connects: 2, ..nothing });
    assert_eq!(seen("udp and port 7000"), Seen { reads: 4 * udp, ..nothing });
    assert_eq!(seen("port 53"), Seen { reads: 4 * dns, dns: 2 * dns, ..nothing });
    assert_eq!(seen("host 10.244.0.4"), Seen { reads: 2 * dns, dns, ..nothing });
    assert_eq!(
        seen("net fd00:10:244::/64 and udp"),
        Seen { reads: udp_reads, dns, fragments: (0, v6), reassembled: whole, ..nothing }
    );
    assert_eq!(
        seen("net 10.244.0.0/24 and tcp and port 7001"),
        Seen { reads: 2 * tcp, rtt: true, connects: 1, ..nothing }
    );
    assert_eq!(seen("host 192.0.2.1"), nothing);
}

/// One socket that is sent to by two hosts, of which the filter wants one: the reads of the others' datagrams take
/// nothing from those that are measured. The wanted ones wait 50 ms, the others 300.
#[test]
fn a_socket_that_both_kinds_are_sent_to_mixes_nothing_up() {
    const EACH: u64 = 20;
    let (finished, ()) = captured(
        LabConfig::default(),
        |options| options.programs.filter = filter::parse("host 10.244.0.4").unwrap(),
        |lab| {
            let bind = |role: Role| {
                let pod = lab.pod(role);
                let socket = pod.netns.run(|| UdpSocket::bind((pod.ipv4, 0)))??;
                set_receive_buffer(&socket, 1 << 20)?;
                socket.set_read_timeout(Some(Duration::from_secs(5)))?;
                anyhow::Ok(socket)
            };
            let (server, other, wanted) = (bind(Role::Server)?, bind(Role::Client)?, bind(Role::Dns)?);
            let to = server.local_addr()?;
            (0..EACH).try_for_each(|_| other.send_to(b"other", to).map(drop))?;
            sleep(Duration::from_millis(200));
            (0..EACH).try_for_each(|_| wanted.send_to(b"wanted", to).map(drop))?;
            // The others' are read at once, the wanted ones last, after 50 ms.
            (0..EACH).try_for_each(|_| server.recv(&mut [0; 8]).map(drop))?;
            sleep(Duration::from_millis(50));
            (0..EACH).try_for_each(|_| server.recv(&mut [0; 8]).map(drop))?;
            Ok(())
        },
    )
    .unwrap();
    let total = finished.snapshot.signal(Signal::RxTotal).unwrap();
    assert_eq!(total.hist.count(), EACH);
    assert!(total.hist.min_ns() >= 50_000_000, "{} ns: another datagram's read", total.hist.min_ns());
}
