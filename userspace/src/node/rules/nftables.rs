//! Rules and chains of nftables, by netlink.
//!
//! Needs: to be in the namespace. Yields: a [`RuleTable`] for each table that has chains. Source: NFT_MSG_GETCHAIN and
//! NFT_MSG_GETRULE (include/uapi/linux/netfilter/nf_tables.h).

use super::RuleTable;
use crate::{
    deadline::Deadline,
    modules,
    netlink::{DumpError, NFGENMSG_BYTES, dump_each, nfgenmsg, settled},
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
/// Chains and rules are counted up to so many of each, which takes a second or two: for each datagram the kernel walks a chain
/// from its begin. kube-proxy has some rules for each Service.
const MOST: u64 = 50_000;
/// Tables that are told apart.
const MAX_TABLES: u64 = 256;
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
    /// There are too many.
    #[error("{what} after the first {most} are not counted")]
    Cut {
        /// Of what.
        what: &'static str,
        /// How many are.
        most: u64,
    },
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

/// Tables of the namespace that this thread is in, and why these are not all; none where the kernel has not loaded nftables.
pub(super) fn tables(deadline: Deadline) -> (Vec<RuleTable>, Option<NftablesError>) {
    match modules::is_there(Path::new("/"), "nf_tables") {
        Ok(true) => {}
        Ok(false) => return (Vec::new(), None),
        Err(error) => return (Vec::new(), Some(NftablesError::Unknown(error))),
    }
    let (books, error) = settled(Books::default, |books| {
        [GET_CHAIN, GET_RULE].into_iter().try_for_each(|kind| {
            books.left = MOST;
            dump_each(NETLINK_NETFILTER, Message::Question(kind), deadline, |message| books.take(message))
        })
    });
    (books.tables.into_values().collect(), error.map(NftablesError::from).or(books.cut))
}

/// What is kept of chains and rules while they pass.
#[derive(Default)]
struct Books {
    tables: BTreeMap<String, RuleTable>,
    /// How many more of a kind are counted.
    left: u64,
    cut: Option<NftablesError>,
}

impl Books {
    fn take(&mut self, message: Message) -> ControlFlow<()> {
        let Some(left) = self.left.checked_sub(1) else {
            self.cut = Some(NftablesError::Cut { what: "chains and rules", most: MOST });
            return ControlFlow::Break(());
        };
        self.left = left;
        match message {
            Message::Question(_) => {}
            Message::Chain { table, name } => self.count(table, |table| table.chain(&name)),
            Message::Rule { table } => self.count(table, |table| table.rules += 1),
        }
        ControlFlow::Continue(())
    }

    fn count(&mut self, table: String, what: impl FnOnce(&mut RuleTable)) {
        if self.tables.len() as u64 >= MAX_TABLES && !self.tables.contains_key(&table) {
            self.cut = Some(NftablesError::Cut { what: "tables", most: MAX_TABLES });
            return;
        }
        what(self.tables.entry(table.clone()).or_insert_with(|| RuleTable::new("nftables", table)));
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
        let mut books = Books { left: 10, ..Books::default() };
        answers.into_iter().for_each(|answer| assert!(books.take(answer).is_continue()));
        let nat = &books.tables["ip nat"];
        assert_eq!((nat.rules, nat.chains, nat.is_kube_proxy), (2, Some(1), true));
        for len in 17..20 {
            assert!(take::<Message>(&bytes[..len], &mut Vec::new()).is_err(), "{len} bytes");
        }
    }
    #[test]
    fn what_is_too_much_is_cut_and_said() {
        let rule = |table: usize| Message::Rule { table: format!("ip {table}") };
        let mut books = Books { left: 3, ..Books::default() };
        let taken: Vec<_> = (0..5).map(|_| books.take(rule(0)).is_continue()).collect();
        assert_eq!((taken, books.tables["ip 0"].rules), (vec![true, true, true, false, false], 3));
        let why = |books: &Books| books.cut.as_ref().map(ToString::to_string);
        assert_eq!(why(&books).as_deref(), Some("chains and rules after the first 50000 are not counted"));
        let mut books = Books { left: MOST, ..Books::default() };
        (0..300).for_each(|table| assert!(books.take(rule(table)).is_continue()));
        assert_eq!(books.tables.len() as u64, MAX_TABLES);
        assert_eq!(why(&books).as_deref(), Some("tables after the first 256 are not counted"));
        let late = tables(Deadline::after(std::time::Duration::ZERO));
        assert!(late.1.is_some() || !modules::is_there(Path::new("/"), "nf_tables").unwrap_or(true));
    }
}
