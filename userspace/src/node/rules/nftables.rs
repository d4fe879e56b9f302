//! Rules and chains of nftables, by netlink.
//!
//! Needs: to be in the namespace. Yields: a [`RuleTable`] for each table that has chains. Source: NFT_MSG_GETCHAIN and
//! NFT_MSG_GETRULE (include/uapi/linux/netfilter/nf_tables.h).

use super::RuleTable;
use crate::{
    modules,
    netlink::{DumpError, NFGENMSG_BYTES, dump_each, nfgenmsg},
};
use rtnetlink::{
    packet_core::{
        DecodeError, DefaultNla, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, Nla as _,
        NlasIterator, Parseable as _,
    },
    sys::protocols::NETLINK_NETFILTER,
};
use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

/// `NFNL_SUBSYS_NFTABLES << 8`
const SUBSYSTEM: u16 = 10 << 8;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
/// `NFTA_CHAIN_TABLE` and `NFTA_RULE_TABLE`.
const TABLE: u16 = 1;
/// `NFTA_CHAIN_NAME`; the same number is a rule's handle.
const CHAIN_NAME: u16 = 3;

/// Why nftables does not tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum NftablesError {
    /// Over netlink.
    #[error(transparent)]
    Netlink(#[from] DumpError),
    /// Asking might load it.
    #[error("whether the kernel has loaded it cannot be told: {0}")]
    Unknown(std::io::Error),
}

/// Either way.
#[derive(Debug)]
enum Message {
    /// What to list: chains or rules.
    Question(u16),
    Chain {
        table: String,
        name: String,
    },
    Rule {
        table: String,
    },
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Question(kind) => *kind,
            Self::Chain { .. } => GET_CHAIN,
            Self::Rule { .. } => GET_RULE,
        }
    }

    fn buffer_len(&self) -> usize {
        NFGENMSG_BYTES
    }

    /// Any family, version 0.
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (head, attributes) = nfgenmsg(payload)?;
        let is_rule = header.message_type == NEW_RULE;
        let (mut table, mut name) = (String::new(), String::new());
        for attribute in NlasIterator::new(attributes) {
            let attribute = DefaultNla::parse(&attribute?)?;
            match attribute.kind() {
                TABLE => table = text(&attribute),
                CHAIN_NAME if !is_rule => name = text(&attribute),
                _ => {}
            }
        }
        let table = format!("{} {table}", family(head[0]));
        Ok(if is_rule { Self::Rule { table } } else { Self::Chain { table, name } })
    }
}

/// A value up to its end, a zero byte.
fn text(attribute: &DefaultNla) -> String {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// `NFPROTO_*`, as `nft` names them.
const fn family(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "?",
    }
}

/// Tables of the namespace that this thread is in; none where the kernel has not loaded nftables.
///
/// # Errors
/// When the kernel does not answer, or whether it is loaded is not known.
pub(super) fn tables() -> Result<Vec<RuleTable>, NftablesError> {
    if !modules::is_there(Path::new("/"), "nf_tables").map_err(NftablesError::Unknown)? {
        return Ok(Vec::new());
    }
    let mut tables = BTreeMap::new();
    for kind in [GET_CHAIN, GET_RULE] {
        dump_each(NETLINK_NETFILTER, Message::Question(kind), |message| {
            count(&mut tables, message);
            ControlFlow::Continue(())
        })?;
    }
    Ok(tables.into_values().collect())
}

fn count(tables: &mut BTreeMap<String, RuleTable>, message: Message) {
    let mut of = |table: String, what: &dyn Fn(&mut RuleTable)| {
        what(tables.entry(table.clone()).or_insert_with(|| RuleTable::new("nftables", table)));
    };
    match message {
        Message::Question(_) => {}
        Message::Chain { table, name } => of(table, &|table| table.chain(&name)),
        Message::Rule { table } => of(table, &|table| table.rules += 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{message, take};

    #[test]
    fn rules_and_chains_are_counted_by_table() {
        let head = [2, 0, 0, 0];
        let (table, chain) = ((1, &b"nat\0"[..]), (3, &b"KUBE-SERVICES\0\0\0"[..]));
        let handle = (3, &[0; 8][..]);
        let bytes = [
            message(SUBSYSTEM | 3, &head, &[table, chain]),
            message(NEW_RULE, &head, &[table, handle]),
            message(NEW_RULE, &head, &[table, handle]),
        ]
        .concat();
        let mut answers = Vec::new();
        assert!(!take::<Message>(&bytes, &mut answers).unwrap());
        let mut tables = BTreeMap::new();
        answers.into_iter().for_each(|answer| count(&mut tables, answer));
        let nat = &tables["ip nat"];
        assert_eq!((nat.rules, nat.chains, nat.is_kube_proxy), (2, Some(1), true));
        for len in 17..20 {
            assert!(take::<Message>(&bytes[..len], &mut Vec::new()).is_err(), "{len} bytes");
        }
    }
}
