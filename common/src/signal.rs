//! The signals: every latency that nettrace measures, by the name that reports, metrics and documents use.

/// A latency with a definition (from -> to), unit ns.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// netif_receive_skb -> queued on the socket.
    RxStack = 0,
    /// Queued on the socket -> copied to the application.
    RxSocket = 1,
    /// netif_receive_skb -> copied to the application.
    RxTotal = 2,
    /// NET_RX softirq raised -> running.
    RxSoftirq = 3,
    /// The transport hands the segment down -> enters the qdisc.
    TxStack = 4,
    /// Enters the qdisc -> handed to the driver.
    TxQdisc = 5,
    /// Handed to the driver -> freed on completion (veth, lo: received by the peer).
    TxDriver = 6,
    /// Received on one interface -> handed to another one's driver.
    FwdHost = 7,
    /// Passive round trip seen on the wire.
    NetRtt = 8,
    /// TCP's own smoothed round trip.
    TcpSrtt = 9,
    /// First fragment -> datagram complete.
    IpReassembly = 10,
    /// Inside the rules of one netfilter hook.
    NfHook = 11,
    /// Inside connection tracking's lookup.
    CtIn = 12,
    /// Inside connection tracking's insertion.
    CtConfirm = 13,
    /// SYN sent -> established.
    TcpConnect = 14,
    /// SYN answered -> established.
    TcpAccept = 15,
    /// DNS query -> answer.
    DnsLatency = 16,
    /// Inside the function that cuts a datagram into fragments and hands them on.
    IpFragmenting = 17,
    /// Inside the function that takes the fragment which completes a datagram.
    IpDefragmenting = 18,
}

impl Signal {
    /// All signals, in the order of their numbers.
    pub const ALL: [Self; 19] = [
        Self::RxStack,
        Self::RxSocket,
        Self::RxTotal,
        Self::RxSoftirq,
        Self::TxStack,
        Self::TxQdisc,
        Self::TxDriver,
        Self::FwdHost,
        Self::NetRtt,
        Self::TcpSrtt,
        Self::IpReassembly,
        Self::NfHook,
        Self::CtIn,
        Self::CtConfirm,
        Self::TcpConnect,
        Self::TcpAccept,
        Self::DnsLatency,
        Self::IpFragmenting,
        Self::IpDefragmenting,
    ];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
    /// The first so many have in-kernel histograms (the per-packet lane); the others ride the event lane.
    pub const IN_KERNEL: usize = 14;

    /// The name used everywhere: `rx.stack`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RxStack => "rx.stack",
            Self::RxSocket => "rx.socket",
            Self::RxTotal => "rx.total",
            Self::RxSoftirq => "rx.softirq",
            Self::TxStack => "tx.stack",
            Self::TxQdisc => "tx.qdisc",
            Self::TxDriver => "tx.driver",
            Self::FwdHost => "fwd.host",
            Self::NetRtt => "net.rtt",
            Self::TcpSrtt => "tcp.srtt",
            Self::IpReassembly => "ip.reassembly",
            Self::NfHook => "nf.hook",
            Self::CtIn => "ct.in",
            Self::CtConfirm => "ct.confirm",
            Self::TcpConnect => "tcp.connect",
            Self::TcpAccept => "tcp.accept",
            Self::DnsLatency => "dns.latency",
            Self::IpFragmenting => "ip.fragmenting",
            Self::IpDefragmenting => "ip.defragmenting",
        }
    }

    /// From where to where it measures, for people.
    #[must_use]
    pub const fn definition(self) -> &'static str {
        match self {
            Self::RxStack => "netif_receive_skb -> queued on the socket",
            Self::RxSocket => "queued on the socket -> copied to the application",
            Self::RxTotal => "netif_receive_skb -> copied to the application",
            Self::RxSoftirq => "NET_RX softirq raised -> running, whole node, a tenth of the time",
            Self::TxStack => "TCP hands the segment down -> enters the qdisc",
            Self::TxQdisc => "enters the qdisc -> handed to the driver",
            Self::TxDriver => "handed to the driver -> freed on completion (veth, lo: received by the peer)",
            Self::FwdHost => "received on one interface -> handed to another one's driver",
            Self::NetRtt => "data leaves an interface -> its acknowledgement comes in there",
            Self::TcpSrtt => "TCP's smoothed round trip, at one segment in eight sent",
            Self::IpReassembly => "first fragment -> datagram complete",
            Self::NfHook => "a packet enters a netfilter hook -> its rules are done",
            Self::CtIn => "connection tracking looks a packet up -> done",
            Self::CtConfirm => "a connection's first packet enters it into the table -> done",
            Self::TcpConnect => "SYN sent -> established",
            Self::TcpAccept => "SYN answered -> established",
            Self::DnsLatency => "query -> answer",
            Self::IpFragmenting => "a datagram is to be cut -> all its fragments are handed on",
            Self::IpDefragmenting => "the last missing fragment comes -> the datagram is put together",
        }
    }

    /// The signal of a number from the wire.
    #[must_use]
    pub const fn from_u8(n: u8) -> Option<Self> {
        if (n as usize) < Self::COUNT { Some(Self::ALL[n as usize]) } else { None }
    }

    /// The signal of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_order_of_all_and_names_do_not_repeat() {
        for (i, s) in Signal::ALL.into_iter().enumerate() {
            assert_eq!(s as usize, i);
            assert_eq!(Signal::from_u8(i as u8), Some(s));
            assert_eq!(Signal::from_name(s.name()), Some(s));
        }
        assert_eq!(Signal::from_u8(Signal::COUNT as u8), None);
    }
}
