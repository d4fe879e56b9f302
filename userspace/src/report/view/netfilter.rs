//! Netfilter: what rules and connection tracking take of a packet's time, by hook.

use super::{
    super::units,
    Cell, Kind, Section, Table,
    latency::{QUANTILES, quantiles},
    nothing,
};
use crate::snapshot::{SignalData, Snapshot};
use nettrace_common::{Signal, probes::netfilter::HOOKS};

/// The section on netfilter.
pub(super) fn section(snapshot: &Snapshot) -> Section {
    let mut section = Section::new("netfilter", "Netfilter");
    let rows = rows(snapshot);
    if rows.is_empty() {
        let probes = [Signal::NfHook, Signal::CtIn, Signal::CtConfirm].map(Signal::name);
        section.line(nothing(snapshot, "No packet passed a hook that has rules", &probes));
        return section;
    }
    section.line(
        "Measured a tenth of the time. A packet for this node passes prerouting and input, one from it output and \
         postrouting, one that it forwards prerouting, forward and postrouting. Connection tracking runs inside hooks.",
    );
    let mut columns = vec![("hook", Kind::Text)];
    columns.extend(QUANTILES);
    section.table(Table::of("", &columns, &rows, usize::MAX, |(name, data)| {
        let mut row = vec![Cell::text(name)];
        row.extend(quantiles(data));
        row
    }));
    if let Some(entered) = &snapshot.conntrack_entered {
        let part = |n| units::count(n);
        section.line(format!(
            "Of {} meanwhile, {} have their destination translated (Services), {} their source.",
            units::plural(entered.connections, "new connection", "new connections"),
            part(entered.destination_nat),
            part(entered.source_nat),
        ));
    }
    section
}

/// Hooks in a packet's order, then connection tracking; empty ones are left out.
fn rows(snapshot: &Snapshot) -> Vec<(&'static str, &SignalData)> {
    let hooks = HOOKS.iter().map(|hook| (*hook, by_hook(snapshot, hook)));
    let tracking =
        [(Signal::CtIn, "tracking: lookup (ct.in)"), (Signal::CtConfirm, "tracking: entry (ct.confirm)")]
            .map(|(signal, name)| (name, snapshot.signal(signal)));
    hooks
        .chain(tracking)
        .filter_map(|(name, data)| Some((name, data.filter(|data| !data.hist.is_empty())?)))
        .collect()
}

/// Times of one hook.
pub(super) fn by_hook<'a>(snapshot: &'a Snapshot, hook: &str) -> Option<&'a SignalData> {
    snapshot.signals.iter().find(|s| s.signal == Signal::NfHook.name() && s.scope == hook)
}
