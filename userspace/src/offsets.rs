//! Fills the programs' offsets from the kernel's BTF, and says what is missing.

use crate::btf::Btf;
use nettrace_common::config::Offsets;
use std::path::Path;

/// Offsets, and the members that this kernel does not have.
pub struct Resolved {
    /// For the programs.
    pub offsets: Offsets,
    /// Paths that were not found.
    pub missing: Vec<&'static str>,
}

/// One entry of the table below: where it goes, and the member's names, newest kernel first.
type Entry = (fn(&mut Offsets) -> &mut u32, &'static [&'static str]);

const TABLE: &[Entry] = &[
    (|o| &mut o.skb_dev, &["sk_buff.dev"]),
    (|o| &mut o.skb_sk, &["sk_buff.sk"]),
    (|o| &mut o.skb_len, &["sk_buff.len"]),
    (|o| &mut o.skb_head, &["sk_buff.head"]),
    (|o| &mut o.skb_data, &["sk_buff.data"]),
    (|o| &mut o.skb_network_header, &["sk_buff.network_header"]),
    (|o| &mut o.skb_protocol, &["sk_buff.protocol"]),
    (|o| &mut o.skb_iif, &["sk_buff.skb_iif"]),
    (|o| &mut o.skb_tstamp, &["sk_buff.tstamp"]),
    (|o| &mut o.dev_ifindex, &["net_device.ifindex"]),
    (|o| &mut o.dev_net, &["net_device.nd_net.net"]),
    (|o| &mut o.dev_qdisc, &["net_device.qdisc"]),
    (|o| &mut o.qdisc_enqueue, &["Qdisc.enqueue"]),
    (|o| &mut o.net_inum, &["net.ns.inum"]),
    (|o| &mut o.sk_family, &["sock.__sk_common.skc_family"]),
    (|o| &mut o.sk_state, &["sock.__sk_common.skc_state"]),
    (|o| &mut o.sk_num, &["sock.__sk_common.skc_num"]),
    (|o| &mut o.sk_dport, &["sock.__sk_common.skc_dport"]),
    (|o| &mut o.sk_daddr, &["sock.__sk_common.skc_daddr"]),
    (|o| &mut o.sk_saddr, &["sock.__sk_common.skc_rcv_saddr"]),
    (|o| &mut o.sk_daddr6, &["sock.__sk_common.skc_v6_daddr"]),
    (|o| &mut o.sk_saddr6, &["sock.__sk_common.skc_v6_rcv_saddr"]),
    (|o| &mut o.sk_net, &["sock.__sk_common.skc_net.net"]),
    (|o| &mut o.sk_protocol, &["sock.sk_protocol"]),
    (|o| &mut o.socket_sk, &["socket.sk"]),
    (|o| &mut o.sk_err, &["sock.sk_err"]),
    (|o| &mut o.sk_receive_queue_prev, &["sock.sk_receive_queue.prev"]),
    (|o| &mut o.sk_receive_queue_qlen, &["sock.sk_receive_queue.qlen"]),
    (|o| &mut o.up_reader_queue_qlen, &["udp_sock.reader_queue.qlen"]),
    (|o| &mut o.tp_srtt_us, &["tcp_sock.srtt_us"]),
    (|o| &mut o.skb_cb, &["sk_buff.cb"]),
    (|o| &mut o.cb_gso_segs, &["tcp_skb_cb.tcp_gso_segs"]),
    (|o| &mut o.nf_hook, &["nf_hook_state.hook"]),
    (|o| &mut o.nf_pf, &["nf_hook_state.pf"]),
    (|o| &mut o.nf_net, &["nf_hook_state.net"]),
    (|o| &mut o.skb_nfct, &["sk_buff._nfct"]),
];

/// Members of structures that are a module's own where nothing in the kernel itself uses them, with the module.
const IN_MODULES: &[(&str, Entry)] = &[("nf_conntrack", (|o| &mut o.ct_status, &["nf_conn.status"]))];

/// Bit fields, whose masks are kept beside them.
const BIT_FIELDS: &[Entry] = &[
    (|o| &mut o.skb_cloned, &["sk_buff.cloned"]),
    (|o| &mut o.icsk_ca_state, &["inet_connection_sock.icsk_ca_state"]),
    (|o| &mut o.skb_tstamp_type, &["sk_buff.tstamp_type"]),
    (|o| &mut o.tp_chrono_type, &["tcp_sock.chrono_type"]),
];

/// The member whose offset is so many bytes from the beginning of [`Offsets`].
#[must_use]
pub fn name_at(at: usize) -> Option<&'static str> {
    let mut offsets = Offsets::NONE;
    let base = std::ptr::from_ref(&offsets) as usize;
    let is_there = |(place, _): &&Entry| std::ptr::from_mut(place(&mut offsets)) as usize - base == at;
    let in_modules = IN_MODULES.iter().map(|(_, entry)| entry);
    TABLE
        .iter()
        .chain(BIT_FIELDS)
        .chain(in_modules)
        .find(is_there)
        .and_then(|(_, paths)| paths.first().copied())
}

/// Resolves every member; without types, none is known, and none is missing. Types of modules are beside the file of the
/// kernel's own, in `modules`.
#[must_use]
pub fn resolve(btf: Option<&Btf>, modules: &Path) -> Resolved {
    let mut resolved = Resolved { offsets: Offsets::NONE, missing: Vec::new() };
    let Some(btf) = btf else { return resolved };
    for (place, paths) in TABLE {
        match paths.iter().find_map(|p| btf.member(p)) {
            Some(member) => *place(&mut resolved.offsets) = member.byte(),
            None => resolved.missing.extend(paths.first()),
        }
    }
    for (module, (place, paths)) in IN_MODULES {
        let own = || {
            let joined = btf.with_module(&modules.join(module)).ok()?;
            paths.iter().find_map(|path| joined.member(path))
        };
        match paths.iter().find_map(|path| btf.member(path)).or_else(own) {
            Some(member) => *place(&mut resolved.offsets) = member.byte(),
            // Of a module that is not loaded nothing is read.
            None if !modules.join(module).exists() => {}
            None => resolved.missing.extend(paths.first()),
        }
    }
    match btf.member("sk_buff.cloned") {
        Some(member) => {
            resolved.offsets.skb_cloned = member.byte();
            resolved.offsets.skb_cloned_mask = member.mask();
        }
        None => resolved.missing.push("sk_buff.cloned"),
    }
    // A bit field that does not begin its byte would need a shift; it always has.
    match btf.member("inet_connection_sock.icsk_ca_state").filter(|member| member.bit_offset % 8 == 0) {
        Some(member) => {
            resolved.offsets.icsk_ca_state = member.byte();
            resolved.offsets.icsk_ca_state_mask = member.mask();
        }
        None => resolved.missing.push("inet_connection_sock.icsk_ca_state"),
    }
    timestamp_kind(btf, &mut resolved.offsets);
    chrono(btf, &mut resolved);
    resolved
}

/// What TCP times of a connection. The three members are of use together only; `chrono_type` is two bits of a byte, and on
/// newer kernels a whole one.
fn chrono(btf: &Btf, resolved: &mut Resolved) {
    const START: &str = "tcp_sock.chrono_start";
    const STAT: &str = "tcp_sock.chrono_stat";
    const TYPE: &str = "tcp_sock.chrono_type";
    let [start, stat, kind] = [START, STAT, TYPE].map(|path| btf.member(path));
    // A mask is of one byte: a field that went over into the next would be read in part.
    let kind = kind.filter(|kind| kind.bit_offset % 8 + kind.bits <= 8);
    if let (Some(start), Some(stat), Some(kind)) = (start, stat, kind) {
        let offsets = &mut resolved.offsets;
        (offsets.tp_chrono_start, offsets.tp_chrono_stat) = (start.byte(), stat.byte());
        offsets.tp_chrono_type = kind.byte();
        offsets.tp_chrono_type_mask = if kind.bits == 0 { 0xff } else { kind.mask() };
        offsets.tp_chrono_type_shift = kind.bit_offset % 8;
    } else {
        let found = [(START, start), (STAT, stat), (TYPE, kind)];
        resolved.missing.extend(found.iter().filter(|(_, m)| m.is_none()).map(|(path, _)| *path));
    }
}

/// How `skb->tstamp` says that it is monotonic: `tstamp_type == SKB_CLOCK_MONOTONIC` (6.11), the bit
/// `mono_delivery_time` (5.18), and before that nothing: a stamp on the way out is monotonic.
fn timestamp_kind(btf: &Btf, offsets: &mut Offsets) {
    const SKB_CLOCK_MONOTONIC: u32 = 1;
    if let Some(member) = btf.member("sk_buff.tstamp_type") {
        offsets.skb_tstamp_type = member.byte();
        offsets.skb_tstamp_type_mask = member.mask();
        offsets.skb_tstamp_type_mono = SKB_CLOCK_MONOTONIC << (member.bit_offset % 8);
    } else if let Some(member) = btf.member("sk_buff.mono_delivery_time") {
        offsets.skb_tstamp_type = member.byte();
        offsets.skb_tstamp_type_mask = member.mask();
        offsets.skb_tstamp_type_mono = member.mask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn members_are_known_by_their_place() {
        assert_eq!(name_at(0), Some("sk_buff.dev"));
        assert_eq!(name_at(offset_of!(Offsets, nf_net)), Some("nf_hook_state.net"));
        assert_eq!(name_at(offset_of!(Offsets, skb_cloned)), Some("sk_buff.cloned"));
        assert_eq!(name_at(offset_of!(Offsets, skb_cloned_mask)), None);
    }
}
