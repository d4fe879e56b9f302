//! What connection tracking counted, by network namespace and CPU.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One namespace's connection tracking table, and what was counted while measuring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConntrackTable {
    /// Network namespace: a name, or `host`.
    pub netns: String,
    /// Connections in the table at the end; none when it could not be read.
    pub entries: Option<u64>,
    /// Connections that the table takes (`nf_conntrack_max`); none when it could not be read.
    pub max: Option<u64>,
    /// Hash buckets (`nf_conntrack_buckets`), which all namespaces share; none when it could not be read.
    pub buckets: Option<u64>,
    /// By CPU, in order.
    pub cpus: Vec<ConntrackCounts>,
}

/// What one CPU counted. A counter that the source does not tell is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConntrackCounts {
    /// The CPU.
    pub cpu: u32,
    /// Packets that belong to no connection and cannot begin one.
    pub invalid: Option<u64>,
    /// Connections that could not be entered: another packet had entered the same one first and the two could not be
    /// made one, or see `chain_too_long`. The packet is dropped.
    pub insert_failed: Option<u64>,
    /// Packets dropped: the table was full, a race was lost, or the packet did not fit the state of its connection.
    pub drop: Option<u64>,
    /// Connections thrown out before their time to make room in a full table.
    pub early_drop: Option<u64>,
    /// ICMP and other packets whose checksum or length is wrong.
    pub error: Option<u64>,
    /// Lookups that began again because an entry was moved to another bucket meanwhile.
    pub search_restart: Option<u64>,
    /// Packets that raced to enter the same connection and were made one: nothing was lost.
    pub clash_resolve: Option<u64>,
    /// Connections that were not entered because their hash chain was too long (Linux 5.15).
    pub chain_too_long: Option<u64>,
}

/// One counter of [`ConntrackCounts`], by name.
pub type ConntrackField = (&'static str, fn(&mut ConntrackCounts) -> &mut Option<u64>);

impl ConntrackCounts {
    /// All counters, in the order to show them, as `conntrack -S` names them.
    pub const FIELDS: [ConntrackField; 8] = [
        ("drop", |c| &mut c.drop),
        ("insert_failed", |c| &mut c.insert_failed),
        ("chaintoolong", |c| &mut c.chain_too_long),
        ("early_drop", |c| &mut c.early_drop),
        ("clash_resolve", |c| &mut c.clash_resolve),
        ("search_restart", |c| &mut c.search_restart),
        ("invalid", |c| &mut c.invalid),
        ("error", |c| &mut c.error),
    ];
}

/// Connections that came to be entered into the table while that was looked at: a tenth of the time, see `ct.confirm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConntrackEntered {
    /// All of them.
    pub connections: u64,
    /// Those whose source is translated (SNAT, masquerading).
    pub source_nat: u64,
    /// Those whose destination is translated (DNAT, Services).
    pub destination_nat: u64,
}

/// Packets that connection tracking had trouble with, as they are seen one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConntrackTrouble {
    /// Packets whose connection another packet had entered first, and that were let through all the same.
    pub clashes_resolved: u64,
    /// Packets dropped because another one had entered their connection first, or one that is answered the same.
    pub clashes_dropped: u64,
    /// Packets dropped because their connection found no room in the table.
    pub table_full: u64,
}

/// A flow that connection tracking had trouble with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConntrackFlow {
    /// `10.0.0.1:40000 -> 10.0.0.2:53 udp`; where addresses are translated, as they are at that place.
    pub flow: String,
    /// What happened to its packets: `clash resolved`, `clash dropped` or `table full`.
    pub what: String,
    /// Packets.
    pub count: u64,
}

impl ConntrackTable {
    /// From this share on a table is nearly full.
    pub const NEARLY_FULL_SHARE: f64 = 0.9;

    /// Over all CPUs; its `cpu` says nothing.
    #[must_use]
    pub fn total(&self) -> ConntrackCounts {
        let mut total = ConntrackCounts::default();
        for counts in &self.cpus {
            let mut counts = *counts;
            for (_, field) in ConntrackCounts::FIELDS {
                if let Some(n) = *field(&mut counts) {
                    let sum = field(&mut total);
                    *sum = Some(sum.unwrap_or(0).saturating_add(n));
                }
            }
        }
        total
    }

    /// Packets dropped that lost no race: because the table was full where [`Self::was_full`] says so; others do not fit the
    /// state of their connection. The kernel counts a lost race as `drop` and as `insert_failed`, a chain that is too long
    /// as `insert_failed` and as `chain_too_long`. Source: nf_ct_resolve_clash, __nf_conntrack_confirm, nf_conntrack_in.
    #[must_use]
    pub fn dropped_full(&self) -> u64 {
        self.total().drop.unwrap_or(0).saturating_sub(self.dropped_raced())
    }

    /// Packets dropped because they lost a race to enter the same connection.
    #[must_use]
    pub fn dropped_raced(&self) -> u64 {
        let total = self.total();
        total.insert_failed.unwrap_or(0).saturating_sub(total.chain_too_long.unwrap_or(0))
    }

    /// Whether its own figures show that the table was full: it made room, or has hardly any at the end.
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.total().early_drop.is_some_and(|n| n > 0) || self.is_nearly_full()
    }

    /// Whether it has hardly any room at the end.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.used_share().is_some_and(|share| share >= Self::NEARLY_FULL_SHARE)
    }

    /// How full the table is at the end, 0 to 1; none when it is not known, or the table has no limit.
    #[must_use]
    pub fn used_share(&self) -> Option<f64> {
        let max = self.max.filter(|max| *max > 0)?;
        Some(self.entries? as f64 / max as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_told_apart() {
        let counts = ConntrackCounts {
            drop: Some(10),
            insert_failed: Some(5),
            chain_too_long: Some(2),
            ..ConntrackCounts::default()
        };
        let table = ConntrackTable { cpus: vec![counts], ..ConntrackTable::default() };
        assert_eq!((table.dropped_full(), table.dropped_raced()), (7, 3));
        assert_eq!(ConntrackTable::default().dropped_full(), 0);
    }

    #[test]
    fn cpus_are_added_up_and_the_unknown_stays_unknown() {
        let cpu = |cpu, drop| ConntrackCounts { cpu, drop: Some(drop), ..ConntrackCounts::default() };
        let table = ConntrackTable { cpus: vec![cpu(0, 2), cpu(1, 5)], ..ConntrackTable::default() };
        assert_eq!(table.total(), cpu(0, 7));
        assert_eq!(table.used_share(), None);
        let half = ConntrackTable { entries: Some(50), max: Some(100), ..table };
        assert_eq!(half.used_share(), Some(0.5));
    }
}
