//! Datagrams that race into connection tracking: one is held on its way through a node, behind the choice of its
//! addresses and before its connection is entered into the table, until another one has entered its own.

use super::{Queue, nft_script};
use anyhow::Result;
use nettrace::lab::Netns;
use std::net::Ipv4Addr;

/// A Service, whose datagrams go to one of two backends.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Where datagrams of several clients seem to come from.
pub const SHARED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Where the client's seem to come from while they are held.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Number of the netfilter queue.
const QUEUE: u16 = 7;

/// Who races, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    /// Who sends what is held.
    pub client: Ipv4Addr,
    /// What is held, as a rule of nft says it.
    pub held: &'a str,
    /// Port of [`SERVICE`], and its backends, which have the turn one after the other.
    pub service: Option<(u16, [Ipv4Addr; 2])>,
    /// Port, datagrams to which come from [`SHARED`], whoever sends them, and from the sender's port while it is free.
    pub shared: Option<u16>,
}

/// A node on which datagrams can be held.
#[derive(Debug)]
pub struct Races(Queue);

impl Course<'_> {
    /// Old kernels (6.1) look a packet up once more when it is released, by its addresses, and would have it join the
    /// connection that is there by then; so it has another address meanwhile.
    fn rules(&self) -> String {
        let Self { client, held, service, shared } = self;
        let pre = service.map_or_else(String::new, |(port, [first, second])| {
            let turns = format!("numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }}");
            format!(
                "chain pre {{
                    type nat hook prerouting priority -100;
                    ip daddr {SERVICE} udp dport {port} dnat to {turns}
                }}"
            )
        });
        let shared = shared.map_or_else(String::new, |port| format!("udp dport {port} snat to {SHARED};"));
        format!(
            "table ip race {{
                {pre}
                chain post {{ type nat hook postrouting priority 100; {shared} }}
                chain hold {{
                    type filter hook postrouting priority 200;
                    {held} ip saddr {client} ip saddr set {ELSEWHERE}
                    {held} queue num {QUEUE}
                }}
                chain back {{
                    type filter hook postrouting priority 201;
                    ip saddr {ELSEWHERE} ip saddr set {client}
                }}
            }}"
        )
    }
}

impl Races {
    /// Sets a node up for it.
    ///
    /// # Errors
    /// When the kernel has no netfilter queues, or nft is missing.
    pub fn on(node: &Netns, course: &Course<'_>) -> Result<Self> {
        nft_script(node, &course.rules())?;
        Queue::open(node, QUEUE).map(Self)
    }

    /// Sends a datagram that is held, has another one overtake it, and lets it go on. When this returns, the kernel has
    /// taken it as far as it goes on its way through the node.
    ///
    /// # Errors
    /// When either fails, or what was sent is not held.
    pub fn run<T>(&self, held: impl FnOnce() -> Result<()>, ahead: impl FnOnce() -> Result<T>) -> Result<T> {
        held()?;
        let packet = self.0.take()?;
        let said = ahead()?;
        self.0.release(packet)?;
        Ok(said)
    }
}
