//! Queries for A and AAAA whose connections cannot both be in the table of connection tracking.

use anyhow::{Context as _, Result, ensure};
use nettrace::lab::{
    Lab, Pod, Role,
    dns::{DnsServer, PORT, Question, TYPE_A, TYPE_AAAA, decode, encode_query},
};
use nettrace_tests::truth;
use std::{
    net::{SocketAddr, UdpSocket},
    thread::sleep,
    time::Duration,
};

const NAME: &str = "race.example.test";
/// Of the type and the class that end a query, octets.
const TYPE_AND_CLASS: usize = 4;
const UDP_HEADER: usize = 8;

/// A resolver's socket and its two queries.
struct Lookup {
    a: Vec<u8>,
    aaaa: Vec<u8>,
}

impl Lookup {
    fn new(id: u16) -> Result<Self> {
        let query = |id, qtype| encode_query(id, &Question { name: NAME.to_owned(), qtype }, None);
        Ok(Self { a: query(id, TYPE_A)?, aaaa: query(id.wrapping_add(1), TYPE_AAAA)? })
    }

    /// Queries for A, as a rule of nft says it.
    fn held(&self) -> String {
        let bits = (UDP_HEADER + self.a.len() - TYPE_AND_CLASS) * 8;
        format!("udp dport {PORT} @th,{bits},16 {TYPE_A}")
    }
}

fn bind(pod: &Pod, port: u16) -> Result<UdpSocket> {
    let socket = pod.netns.run(|| UdpSocket::bind((pod.ipv4, port)))??;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

fn answered(socket: &UdpSocket, query: &[u8]) -> Result<()> {
    let mut bytes = [0; 512];
    let length = socket.recv(&mut bytes).context("no answer")?;
    ensure!(bytes[..2] == query[..2] && decode(&bytes[..length])?.response, "{:?}", &bytes[..length]);
    Ok(())
}

/// So many lookups of one socket each by a Service with two backends: A is held until AAAA has been answered, by the other
/// backend.
pub(super) fn of_one_socket(lab: &Lab, times: u16) -> Result<()> {
    let [client, server, dns] = [Role::Client, Role::Server, Role::Dns].map(|role| lab.pod(role));
    let _servers = [DnsServer::start(server)?, DnsServer::start(dns)?];
    let course = truth::Course {
        client: client.ipv4,
        held: &Lookup::new(0)?.held(),
        service: Some((PORT, [server.ipv4, dns.ipv4])),
        shared: None,
    };
    let races = truth::Races::on(&lab.node().netns, &course)?;
    let to = SocketAddr::from((truth::SERVICE, PORT));
    for n in 0..times {
        let lookup = Lookup::new(n.wrapping_mul(2))?;
        let socket = bind(client, 0)?;
        races.run(
            || Ok(socket.send_to(&lookup.a, to).map(drop)?),
            || {
                socket.send_to(&lookup.aaaa, to)?;
                answered(&socket, &lookup.aaaa)
            },
        )?;
        answered(&socket, &lookup.a)?;
    }
    Ok(())
}

/// So many lookups of two pods each, behind one address and from one port: the client's A is held until the other pod's AAAA
/// has been answered. The client asks again after a time.
pub(super) fn of_two_pods(lab: &Lab, times: u16) -> Result<()> {
    const RETRY: Duration = Duration::from_millis(500);
    let [client, other, dns] = [Role::Client, Role::Server, Role::Dns].map(|role| lab.pod(role));
    let _server = DnsServer::start(dns)?;
    let course = truth::Course {
        client: client.ipv4,
        held: &Lookup::new(0)?.held(),
        service: None,
        shared: Some(PORT),
    };
    let races = truth::Races::on(&lab.node().netns, &course)?;
    let to = SocketAddr::from((dns.ipv4, PORT));
    for n in 0..times {
        let lookup = Lookup::new(n.wrapping_mul(2))?;
        let socket = bind(client, 0)?;
        let ahead = bind(other, socket.local_addr()?.port())?;
        let ask = || Ok(socket.send_to(&lookup.a, to).map(drop)?);
        races.run(ask, || {
            ahead.send_to(&lookup.aaaa, to)?;
            answered(&ahead, &lookup.aaaa)
        })?;
        sleep(RETRY);
        // By now the port of the shared address is known to be taken, and it gets another one.
        races.run(ask, || Ok(()))?;
        answered(&socket, &lookup.a)?;
    }
    Ok(())
}
