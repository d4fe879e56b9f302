//! Reading kernel structures: offsets come with the instructions (see `cfg_get`), loads are direct.
//!
//! In tp_btf and fentry programs the verifier knows what an argument points to and checks a direct load at
//! `pointer + constant` against the kernel's BTF; a fault reads as zero. Packet bytes (`skb->head`) have no such
//! type and are read with a helper.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use core::{
    arch::asm,
    ptr::{addr_of, read_volatile},
};
use nettrace_common::{
    config::{ABSENT, Config, PLACEHOLDER, flag},
    wire::{Encap, Flow},
};

/// What user space configures.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::NONE;

/// One `u32` of the configuration as a `u64`: a placeholder that user space replaces by the member's value before load
/// (see [`nettrace_common::config::PLACEHOLDER`]). The verifier knows it, and running programs have nothing to load.
macro_rules! cfg_get {
    ($($member:tt)+) => {
        $crate::kernel::immediate::<{ core::mem::offset_of!(nettrace_common::config::Config, $($member)+) as u32 }>()
    };
}
pub(crate) use cfg_get;

/// An offset that this kernel may not have. With [`cfg_get`] instead, user space does not load a program of which a kernel
/// lacks a member.
macro_rules! cfg_find {
    ($($member:tt)+) => {
        $crate::kernel::known($crate::kernel::immediate::<
            {
                core::mem::offset_of!(nettrace_common::config::Config, $($member)+) as u32
                    | nettrace_common::config::ASKED
            },
        >())
    };
}
pub(crate) use cfg_find;

/// The placeholder of the member at an offset.
#[inline(always)]
pub fn immediate<const AT: u32>() -> u64 {
    let value: u64;
    // SAFETY: one register is set.
    unsafe {
        asm!("{0} = {1}", out(reg) value, const PLACEHOLDER | AT, options(pure, nomem, nostack));
    }
    value
}

/// Reads a member of the frozen block that is not a `u32`.
macro_rules! cfg_read {
    ($($member:tt)+) => {
        $crate::kernel::frozen(&$crate::kernel::CONFIG.$($member)+)
    };
}
pub(crate) use cfg_read;

/// Reads a member of the frozen block, as a constant to the verifier; volatile, because user space writes the block
/// before load.
#[inline(always)]
pub fn frozen<T: Copy>(member: &T) -> T {
    // SAFETY: a reference is readable.
    unsafe { read_volatile(member) }
}

/// Whether a switch of the block is on.
#[inline(always)]
pub fn flag_set(bit: u32) -> bool {
    cfg_get!(flags) & u64::from(bit) != 0
}

/// Whether programs are to return at once (bench only).
#[inline(always)]
pub fn empty() -> bool {
    flag_set(flag::EMPTY)
}

/// An offset, if this kernel has the member.
#[inline(always)]
pub fn known(offset: u64) -> Option<u64> {
    if offset == u64::from(ABSENT) { None } else { Some(offset) }
}

/// Loads a member of a BTF-typed structure.
#[inline(always)]
pub fn load<T: Copy>(base: *const u8, offset: u64) -> T {
    // SAFETY: `base` is a typed kernel pointer; the verifier checks the offset against its type, or makes the load
    // fault-tolerant where it cannot.
    unsafe { read_volatile(base.add(offset as usize).cast::<T>()) }
}

/// Loads a member that is a pointer.
#[inline(always)]
pub fn load_ptr(base: *const u8, offset: u64) -> *const u8 {
    load::<*const u8>(base, offset)
}

/// How a program reads kernel structures: by what the verifier knows of its arguments, or by a helper.
pub trait Access {
    /// A member.
    fn get<T: Copy + Default>(base: *const u8, offset: u64) -> T;

    /// A member that is a pointer.
    #[inline(always)]
    fn ptr(base: *const u8, offset: u64) -> *const u8 {
        Self::get::<u64>(base, offset) as *const u8
    }

    /// A key for what a pointer points to.
    fn key(p: *const u8) -> u64;
}

/// In tp_btf, fentry and fexit programs.
pub struct Typed;

impl Access for Typed {
    #[inline(always)]
    fn get<T: Copy + Default>(base: *const u8, offset: u64) -> T {
        load(base, offset)
    }

    #[inline(always)]
    fn ptr(base: *const u8, offset: u64) -> *const u8 {
        load_ptr(base, offset)
    }

    #[inline(always)]
    fn key(p: *const u8) -> u64 {
        key(p)
    }
}

/// In kprobe and raw_tp programs, whose arguments are numbers.
pub struct Probed;

impl Access for Probed {
    #[inline(always)]
    fn get<T: Copy + Default>(base: *const u8, offset: u64) -> T {
        read(address(base), offset)
    }

    /// The verifier forbids to subtract a pointer from a number, and has nothing against the number.
    #[inline(always)]
    fn key(p: *const u8) -> u64 {
        address(p)
    }
}

/// Reads kernel memory without a type; zero when it cannot be read.
#[inline(always)]
pub fn read<T: Copy + Default>(addr: u64, offset: u64) -> T {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((addr + offset) as *const T) }.unwrap_or_default()
}

/// A kernel address as a number. The verifier forbids arithmetic on typed pointers but for the difference of two,
/// so a key is the distance from a fixed place.
#[inline(always)]
pub fn key(p: *const u8) -> u64 {
    (p as u64).wrapping_sub(addr_of!(CONFIG) as u64)
}

/// AF_INET
pub const AF_INET: u16 = 2;
/// AF_INET6
pub const AF_INET6: u16 = 10;

/// The flow of a socket, local -> remote.
#[inline(always)]
pub fn sock_flow<A: Access>(sk: *const u8, protocol: u8, flow: &mut Flow) {
    let family: u16 = A::get(sk, cfg_get!(offsets.sk_family));
    flow.sport = A::get(sk, cfg_get!(offsets.sk_num));
    flow.dport = u16::from_be(A::get(sk, cfg_get!(offsets.sk_dport)));
    flow.protocol = protocol;
    flow.encap = Encap::None as u8;
    flow.pad = 0;
    if family == AF_INET {
        flow.family = 4;
        flow.saddr = v4(A::get(sk, cfg_get!(offsets.sk_saddr)));
        flow.daddr = v4(A::get(sk, cfg_get!(offsets.sk_daddr)));
        return;
    }
    let s6 = cfg_get!(offsets.sk_saddr6);
    let d6 = cfg_get!(offsets.sk_daddr6);
    let words = [A::get(sk, s6), A::get(sk, s6 + 4), A::get(sk, s6 + 8), A::get(sk, s6 + 12)];
    let wordd = [A::get(sk, d6), A::get(sk, d6 + 4), A::get(sk, d6 + 8), A::get(sk, d6 + 12)];
    set_v6(flow, words, wordd);
}

/// IPv6 addresses of a dual-stack socket may be mapped IPv4 ones (RFC 4291, 2.5.5.2): those are shown as IPv4.
#[inline(always)]
fn set_v6(flow: &mut Flow, s: [u32; 4], d: [u32; 4]) {
    const MAPPED: u32 = 0xffff_u32.to_be();
    if d[0] == 0 && d[1] == 0 && d[2] == MAPPED {
        flow.family = 4;
        flow.saddr = v4(s[3]);
        flow.daddr = v4(d[3]);
    } else {
        flow.family = 6;
        flow.saddr = bytes(s);
        flow.daddr = bytes(d);
    }
}

#[inline(always)]
fn v4(addr: u32) -> [u8; 16] {
    bytes([addr, 0, 0, 0])
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are 16 plain bytes.
    unsafe { core::mem::transmute(words) }
}

/// The flow of a packet whose network header offset is set.
#[inline(always)]
pub fn skb_flow<A: Access>(skb: *const u8, flow: &mut Flow) {
    let head: u64 = A::get(skb, cfg_get!(offsets.skb_head));
    let network: u16 = A::get(skb, cfg_get!(offsets.skb_network_header));
    packet_flow(head + u64::from(network), flow);
}

/// The flow of a packet that has just been received: its data starts at the network header.
#[inline(always)]
pub fn skb_flow_received(skb: *const u8, flow: &mut Flow) {
    packet_flow(load(skb, cfg_get!(offsets.skb_data)), flow);
}

/// Reads addresses and ports at an IP header. A fragment that is not the first has no ports: what is at their place
/// is payload.
#[inline(always)]
fn packet_flow(ip: u64, flow: &mut Flow) {
    *flow = Flow::default();
    let first: u8 = read(ip, 0);
    let transport = match first >> 4 {
        4 => {
            flow.family = 4;
            flow.protocol = read(ip, 9);
            flow.saddr = v4(read(ip, 12));
            flow.daddr = v4(read(ip, 16));
            if u16::from_be(read(ip, 6)) & 0x1fff != 0 {
                return;
            }
            u64::from(first & 15) * 4
        }
        6 => {
            flow.family = 6;
            flow.saddr = read(ip, 8);
            flow.daddr = read(ip, 24);
            match extensions(ip, flow) {
                Some(transport) => transport,
                None => return,
            }
        }
        _ => return,
    };
    if flow.protocol == TCP || flow.protocol == UDP {
        let ports: [u16; 2] = read(ip, transport);
        flow.sport = u16::from_be(ports[0]);
        flow.dport = u16::from_be(ports[1]);
    }
}

/// Sets the protocol behind an IPv6 packet's extension headers, and yields where its header is; none in a fragment
/// that is not the first.
#[inline(always)]
fn extensions(ip: u64, flow: &mut Flow) -> Option<u64> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DEST_OPTS: u8 = 60;
    const MAX_EXTENSIONS: u32 = 4;
    let mut at = 40;
    flow.protocol = read(ip, 6);
    for _ in 0..MAX_EXTENSIONS {
        let header = flow.protocol;
        match header {
            HOP_BY_HOP | ROUTING | DEST_OPTS | FRAGMENT => {}
            _ => break,
        }
        let [next, length]: [u8; 2] = read(ip, at);
        flow.protocol = next;
        if header == FRAGMENT {
            if u16::from_be(read(ip, at + 2)) & 0xfff8 != 0 {
                return None;
            }
            at += 8;
        } else {
            at += (u64::from(length) + 1) * 8;
        }
    }
    Some(at)
}

/// IPPROTO_TCP
pub const TCP: u8 = 6;
/// IPPROTO_UDP
pub const UDP: u8 = 17;

/// Low half of the address of a packet's data.
#[inline(always)]
pub fn skb_head(skb: *const u8) -> u32 {
    // The whole pointer: the verifier refuses to load a part of one.
    load::<u64>(skb, cfg_get!(offsets.skb_head)) as u32
}

/// Whether a packet shares its data with another `sk_buff`: a copy that a bridge floods, or that a capture looks at.
#[inline(always)]
pub fn skb_cloned(skb: *const u8) -> bool {
    u64::from(load::<u8>(skb, cfg_get!(offsets.skb_cloned))) & cfg_get!(offsets.skb_cloned_mask) != 0
}

/// A kernel address as the helper that reads it wants it.
#[inline(always)]
pub fn address(p: *const u8) -> u64 {
    p as u64
}

/// TCP's smoothed round trip, us; 0 when there is none yet. Call it for a whole `tcp_sock` only.
#[inline(always)]
pub fn srtt_us(sk: *const u8) -> u32 {
    // A helper, because the verifier knows the argument as a `sock`, which is shorter.
    read::<u32>(address(sk), cfg_get!(offsets.tp_srtt_us)) >> 3
}

/// Whether a flow passes the filter. A function of its own: it is rarely called, and the stack is small.
#[inline(never)]
pub fn filter_matches(flow: &Flow) -> bool {
    // The compiler must not take the initial value of the static for its value.
    let filter = core::hint::black_box(addr_of!(CONFIG.filter));
    // SAFETY: a pointer to a member of a static.
    nettrace_common::filter::matches(unsafe { &*filter }, flow)
}
