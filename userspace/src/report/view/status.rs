//! How far the report can be trusted, and what it cost: losses, probes, overhead.

use super::{super::units, Cell, Kind, Section, Table, clean};
use crate::snapshot::{Probe, Snapshot};

/// The section on losses; the ring's books are always shown.
pub(super) fn losses(snapshot: &Snapshot) -> Section {
    let mut section = Section::new("losses", "Losses");
    let ring = &snapshot.ring;
    if snapshot.losses.iter().all(|loss| loss.count == 0) && ring.lost == 0 {
        section.line("Nothing was lost.");
    } else {
        let lost: Vec<_> = snapshot.losses.iter().filter(|loss| loss.count > 0).collect();
        let columns =
            [("reason", Kind::Text), ("side", Kind::Text), ("count", Kind::Number), ("meaning", Kind::Text)];
        section.table(Table::of("", &columns, &lost, usize::MAX, |l| {
            vec![Cell::text(&l.reason), Cell::text(&l.side), Cell::count(l.count), Cell::text(&l.meaning)]
        }));
        let others = snapshot.losses.len() - lost.len();
        if others > 0 {
            let what = units::plural(others as u64, "other reason", "other reasons");
            section.line(format!("Nothing was lost for {what}."));
        }
    }
    let held = ring.received.saturating_add(ring.lost);
    let not_held = match ring.emitted.saturating_sub(held) {
        0 => String::new(),
        n => format!(", {} no longer in the recording", units::count(n)),
    };
    section.line(format!(
        "Ring buffer ({}): {} emitted, {} received, {} lost{not_held}.",
        units::bytes(ring.size_bytes),
        units::plural(ring.emitted, "record", "records"),
        units::count(ring.received),
        units::count(ring.lost),
    ));
    section
}

/// The section on probes, all of them.
pub(super) fn probes(snapshot: &Snapshot) -> Section {
    let mut section = Section::new("probes", "Probes");
    if snapshot.probes.is_empty() {
        section.line("No probe was registered.");
    }
    // What a probe yields is told only where it is more than the probe's own name.
    let names = |p: &Probe| match p.yields.as_slice() {
        [one] if *one == p.name => clean(&p.name),
        many => format!("{}: {}", clean(&p.name), clean(&many.join(", "))),
    };
    let columns = [("probe", Kind::Text), ("source", Kind::Text), ("remark", Kind::Text)];
    let (left_out, shown): (Vec<_>, Vec<_>) = snapshot.probes.iter().partition(|p| is_left_out(p));
    if !left_out.is_empty() {
        let names: Vec<_> = left_out.iter().map(|p| clean(&p.name)).collect();
        section.line(format!("Not selected: {}.", names.join(", ")));
    }
    section.table(Table::of("", &columns, &shown, usize::MAX, |p| {
        vec![
            Cell::text(&names(p)),
            Cell::text(p.source.as_deref().unwrap_or("off")),
            Cell::maybe(p.reason.as_deref()),
        ]
    }));
    section
}

/// Whether a probe is off because `--signals` leaves it out: who asked for that need not be told as of a lack.
pub(super) fn is_left_out(probe: &Probe) -> bool {
    probe.source.is_none() && probe.reason.as_deref() == Some(Probe::NOT_SELECTED)
}

/// The section on what measuring cost.
pub(super) fn cost(snapshot: &Snapshot, top: usize) -> Section {
    let cost = &snapshot.overhead;
    let mut section = Section::new("cost", "Own cost");
    section.line(format!(
        "CPU, as a share of one: {}; {} in nettrace itself ({} user, {} system).",
        match kernel_share(snapshot) {
            Some(share) => format!(
                "{share} in kernel programs (extrapolated from {} of the run)",
                units::percent(cost.stats_share)
            ),
            None => "not measured in kernel programs".to_owned(),
        },
        units::percent(own_share(snapshot)),
        units::duration(cost.user_cpu_ns),
        units::duration(cost.system_cpu_ns),
    ));
    section.line(format!(
        "Memory: {} resident at most, {} in kernel maps.",
        units::bytes(cost.max_rss_bytes),
        units::bytes(cost.map_bytes),
    ));
    let columns = [("program", Kind::Text), ("runs sampled", Kind::Number), ("time per run", Kind::Number)];
    section.table(Table::of("Kernel programs", &columns, &cost.programs, top, |p| {
        vec![
            Cell::text(&p.program),
            Cell::count(p.runs),
            Cell {
                text: units::duration_f64(p.ns_per_run),
                sort: Some(p.ns_per_run).filter(|ns| ns.is_finite()),
            },
        ]
    }));
    section
}

/// CPU time in kernel programs as a share of one CPU; none when the kernel kept no statistics.
pub(super) fn kernel_share(snapshot: &Snapshot) -> Option<String> {
    let cost = &snapshot.overhead;
    (cost.stats_share > 0.0).then(|| units::percent(cost.kernel_cpu_share))
}

/// CPU time of this process, in user space and in system calls, as a share of one CPU.
pub(super) fn own_share(snapshot: &Snapshot) -> f64 {
    let cost = &snapshot.overhead;
    match snapshot.meta.duration_ns {
        0 => 0.0,
        ns => cost.user_cpu_ns.saturating_add(cost.system_cpu_ns) as f64 / ns as f64,
    }
}
