//! The block that user space fills before load. What is a `u32` in it, programs carry in their instructions: user space
//! writes it there, in the place of a [`PLACEHOLDER`]. The rest they read from a frozen map. Of both, the verifier knows
//! every value, and prunes what is switched off.

use crate::{
    Signal,
    filter::{Filter, MAX_NETS, MAX_PORTS, Net},
    probes::dns,
};

/// What an instruction `r = imm` (64 bits) of the object has in its upper half when user space is to replace its operand
/// by a member of [`Config`]; the lower half is the member's offset in bytes. No other constant of the object is like it,
/// and no offset of a kernel structure is this large: an object that was not treated does not pass the verifier.
pub const PLACEHOLDER: u32 = 0x4e54_0000;

/// Set in the lower half of a placeholder where the program asks whether the kernel has the member, see [`ABSENT`]. One
/// that does not ask is of no use without it.
pub const ASKED: u32 = 0x8000;

/// An offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Byte offsets of kernel structure members, resolved from the kernel's BTF; [`ABSENT`] where there is no such member.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// `sk_buff.dev`
    pub skb_dev: u32,
    /// `sk_buff.sk`
    pub skb_sk: u32,
    /// `sk_buff.len`
    pub skb_len: u32,
    /// `sk_buff.head`
    pub skb_head: u32,
    /// `sk_buff.data`
    pub skb_data: u32,
    /// `sk_buff.network_header`
    pub skb_network_header: u32,
    /// `sk_buff.protocol`
    pub skb_protocol: u32,
    /// `sk_buff.skb_iif`
    pub skb_iif: u32,
    /// `sk_buff.tstamp`
    pub skb_tstamp: u32,
    /// Byte that holds `sk_buff.tstamp_type` or `mono_delivery_time`.
    pub skb_tstamp_type: u32,
    /// Mask of that bit field within its byte; 0 before 5.18, where a stamp on a TCP send is always monotonic.
    pub skb_tstamp_type_mask: u32,
    /// What the masked byte is for a monotonic stamp.
    pub skb_tstamp_type_mono: u32,
    /// Byte that holds `sk_buff.cloned`.
    pub skb_cloned: u32,
    /// Mask of that bit within its byte.
    pub skb_cloned_mask: u32,
    /// `net_device.ifindex`
    pub dev_ifindex: u32,
    /// `net_device.nd_net.net`
    pub dev_net: u32,
    /// `net_device.qdisc`
    pub dev_qdisc: u32,
    /// `Qdisc.enqueue`
    pub qdisc_enqueue: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `sock.__sk_common.skc_family`
    pub sk_family: u32,
    /// `sock.__sk_common.skc_state`
    pub sk_state: u32,
    /// `sock.__sk_common.skc_num`
    pub sk_num: u32,
    /// `sock.__sk_common.skc_dport`
    pub sk_dport: u32,
    /// `sock.__sk_common.skc_daddr`
    pub sk_daddr: u32,
    /// `sock.__sk_common.skc_rcv_saddr`
    pub sk_saddr: u32,
    /// `sock.__sk_common.skc_v6_daddr`
    pub sk_daddr6: u32,
    /// `sock.__sk_common.skc_v6_rcv_saddr`
    pub sk_saddr6: u32,
    /// `sock.__sk_common.skc_net.net`
    pub sk_net: u32,
    /// `sock.sk_protocol`
    pub sk_protocol: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `sock.sk_err`
    pub sk_err: u32,
    /// `sock.sk_receive_queue.prev`
    pub sk_receive_queue_prev: u32,
    /// `sock.sk_receive_queue.qlen`
    pub sk_receive_queue_qlen: u32,
    /// `udp_sock.reader_queue.qlen`
    pub up_reader_queue_qlen: u32,
    /// `tcp_sock.srtt_us`
    pub tp_srtt_us: u32,
    /// Byte that holds `inet_connection_sock.icsk_ca_state`, in its lowest bits.
    pub icsk_ca_state: u32,
    /// Mask of that bit field within its byte.
    pub icsk_ca_state_mask: u32,
    /// `tcp_sock.chrono_start`
    pub tp_chrono_start: u32,
    /// `tcp_sock.chrono_stat`
    pub tp_chrono_stat: u32,
    /// Byte that holds `tcp_sock.chrono_type`.
    pub tp_chrono_type: u32,
    /// Mask of that bit field within its byte.
    pub tp_chrono_type_mask: u32,
    /// Its lowest bit within its byte.
    pub tp_chrono_type_shift: u32,
    /// `sk_buff.cb`
    pub skb_cb: u32,
    /// `tcp_skb_cb.tcp_gso_segs`, from `sk_buff.cb` on.
    pub cb_gso_segs: u32,
    /// `nf_hook_state.hook`
    pub nf_hook: u32,
    /// `nf_hook_state.pf`
    pub nf_pf: u32,
    /// `nf_hook_state.net`
    pub nf_net: u32,
    /// `sk_buff._nfct`
    pub skb_nfct: u32,
    /// `nf_conn.status`
    pub ct_status: u32,
}

/// Bits of [`Config::flags`].
pub mod flag {
    /// A filter is given.
    pub const FILTER: u32 = 1;
    /// `kfree_skb` carries a reason (5.17 on).
    pub const DROP_REASON: u32 = 2;
    /// Programs return at once: what an empty hook costs (bench only).
    pub const EMPTY: u32 = 4;
    /// `tcp_retransmit_skb` also tells of attempts that failed, with their errno (6.16 on).
    pub const RETRANSMIT_ERROR: u32 = 8;
}

/// What the programs at interfaces look for: bits of [`Config::wire`].
pub mod wire {
    /// Round trips: `net.rtt`.
    pub const RTT: u32 = 1;
    /// Segments that are too long for their path: `ip.black_hole`.
    pub const BLACK_HOLE: u32 = 2;
    /// DNS messages: `dns.latency`.
    pub const DNS: u32 = 4;
    /// Fragments: `ip.fragment`, `ip.reassembly`.
    pub const FRAGMENTS: u32 = 8;
    /// ICMP's word that a packet is too long: `ip.packet_too_big`.
    pub const TOO_BIG: u32 = 16;
    /// Everything.
    pub const ALL: u32 = 31;
}

/// Everything that kernel programs need to know.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// A latency from here on sends an exemplar, by signal, ns; `u64::MAX` for never.
    pub exemplar_ns: [u64; Signal::COUNT],
    /// Member offsets.
    pub offsets: Offsets,
    /// See [`flag`].
    pub flags: u32,
    /// One packet in so many is sent as a sample: 0 for none, 1 for every one.
    pub sample_every: u32,
    /// Scope of interfaces that are not in the table.
    pub default_scope: u32,
    /// `SKB_DROP_REASON_QUEUE_PURGE` of this kernel; 0 when it has none.
    pub purge_reason: u32,
    /// Of up to so many packets a second, each CPU times every one; of more, about so many. 0 for no limit.
    pub packets_per_second: u32,
    /// Length of a jiffy, us.
    pub tick_us: u32,
    /// See [`wire`].
    pub wire: u32,
    /// Ports taken for DNS; 0 for none.
    pub dns_ports: [u16; dns::MAX_PORTS],
    /// Compiled `--filter`.
    pub filter: Filter,
}

impl Config {
    /// Nothing known, nothing on.
    pub const NONE: Self = Self {
        exemplar_ns: [u64::MAX; Signal::COUNT],
        offsets: Offsets::NONE,
        flags: 0,
        sample_every: 0,
        default_scope: 0,
        purge_reason: 0,
        packets_per_second: 0,
        tick_us: 0,
        wire: 0,
        dns_ports: [0; dns::MAX_PORTS],
        filter: Filter {
            nets: [Net { addr: [0; 16], mask: [0; 16] }; MAX_NETS],
            net_family: [0; MAX_NETS],
            net_count: 0,
            ports: [0; MAX_PORTS],
            port_count: 0,
            protocol: 0,
        },
    };
}

impl Offsets {
    /// No member known.
    pub const NONE: Self = Self {
        skb_dev: ABSENT,
        skb_sk: ABSENT,
        skb_len: ABSENT,
        skb_head: ABSENT,
        skb_data: ABSENT,
        skb_network_header: ABSENT,
        skb_protocol: ABSENT,
        skb_iif: ABSENT,
        skb_tstamp: ABSENT,
        skb_tstamp_type: ABSENT,
        skb_tstamp_type_mask: 0,
        skb_tstamp_type_mono: 0,
        skb_cloned: ABSENT,
        skb_cloned_mask: 0,
        dev_ifindex: ABSENT,
        dev_net: ABSENT,
        dev_qdisc: ABSENT,
        qdisc_enqueue: ABSENT,
        net_inum: ABSENT,
        sk_family: ABSENT,
        sk_state: ABSENT,
        sk_num: ABSENT,
        sk_dport: ABSENT,
        sk_daddr: ABSENT,
        sk_saddr: ABSENT,
        sk_daddr6: ABSENT,
        sk_saddr6: ABSENT,
        sk_net: ABSENT,
        sk_protocol: ABSENT,
        socket_sk: ABSENT,
        sk_err: ABSENT,
        sk_receive_queue_prev: ABSENT,
        sk_receive_queue_qlen: ABSENT,
        up_reader_queue_qlen: ABSENT,
        tp_srtt_us: ABSENT,
        icsk_ca_state: ABSENT,
        icsk_ca_state_mask: 0,
        tp_chrono_start: ABSENT,
        tp_chrono_stat: ABSENT,
        tp_chrono_type: ABSENT,
        tp_chrono_type_mask: 0,
        tp_chrono_type_shift: 0,
        skb_cb: ABSENT,
        cb_gso_segs: ABSENT,
        nf_hook: ABSENT,
        nf_pf: ABSENT,
        nf_net: ABSENT,
        skb_nfct: ABSENT,
        ct_status: ABSENT,
    };
}

/// Bits of the one word of the map `STATE`, which user space sets while a capture runs.
pub mod state {
    /// `tx_xmit` is attached.
    pub const XMIT: u32 = 1;
    /// Programs that see begins are attached: an end that finds none is a loss.
    pub const BEGINS: u32 = 2;

    /// Lowest bit of the power of two, 6 bits wide, by which the thresholds of exemplars are raised; with 63 there are none.
    const EXEMPLARS: u32 = 8;
    /// Lowest bit of the power of two, 5 bits wide, by which the budget of packets is divided.
    const PACKETS: u32 = 16;

    /// By which power of two thresholds of exemplars are raised.
    #[inline(always)]
    #[must_use]
    pub const fn exemplar_shift(word: u32) -> u32 {
        word >> EXEMPLARS & 63
    }

    /// By which power of two the budget of packets is divided.
    #[inline(always)]
    #[must_use]
    pub const fn packet_shift(word: u32) -> u32 {
        word >> PACKETS & 31
    }

    /// The word with other limits: exemplars from 2^`exemplars` times their threshold on (63: none), and the budget of packets
    /// divided by 2^`packets`.
    #[must_use]
    pub const fn with_limits(word: u32, exemplars: u32, packets: u32) -> u32 {
        let bare = word & !(63 << EXEMPLARS | 31 << PACKETS);
        bare | (exemplars & 63) << EXEMPLARS | (packets & 31) << PACKETS
    }
}

/// Buckets of the interface table; a power of two.
pub const IFACE_SLOTS: u32 = 1 << 15;

/// One interface that has a scope of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IfaceSlot {
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Interface index; an all-zero slot is empty.
    pub ifindex: u32,
    /// Its scope.
    pub scope: u32,
    /// See [`iface_flag`].
    pub flags: u32,
}

/// Bits of [`IfaceSlot::flags`].
pub mod iface_flag {
    /// Packets start with their IP header (tun, WireGuard, IPIP devices).
    pub const NO_ETHERNET: u32 = 1;
    /// A TC or XDP program looks at its received packets.
    pub const WATCHED: u32 = 2;
    /// Of a pair whose other end is a pod or a virtual machine: what it receives is sent on this machine.
    pub const HOST_END: u32 = 4;
}

/// Slots that an interface may have: where one is taken by another interface it has another one. All of them are looked at, so
/// that they may be left empty in any order.
pub const IFACE_WAYS: u32 = 3;

/// Slot of an interface in the interface table, the `way`th of [`IFACE_WAYS`]. `ifindex` 0 stands for the sockets of a namespace,
/// `netns` 0 for the interfaces that TC and XDP programs see, whose context does not tell the namespace.
#[inline(always)]
#[must_use]
pub const fn iface_slot(netns: u32, ifindex: u32, way: u32) -> u32 {
    // Both count up from a common start: multiplied by odd numbers they are spread, and by another turn of the sum for each way.
    let mixed = netns.wrapping_mul(0x9E37_79B1) ^ ifindex.wrapping_mul(0x85EB_CA6B);
    (mixed ^ mixed >> 15).rotate_left(way * 11) & (IFACE_SLOTS - 1)
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only; the one gap (before `filter`) is none, see the assertion below.
unsafe impl aya::Pod for Config {}
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, no padding.
unsafe impl aya::Pod for IfaceSlot {}

const _: () = assert!(size_of::<Config>() == 19 * 8 + 49 * 4 + 16 + 4 + 4 + 4 + 8 + 152);
const _: () = assert!(size_of::<Config>() < ASKED as usize);
