//! The two lanes from the kernel, and the books of the ring between them.

use nettrace::{
    aggregate::{Finished, SignalBook},
    lab::{
        Family, LabConfig, Role, Topology,
        traffic::udp::{self, Datagrams},
    },
    snapshot::{Ring, SignalData},
};
use nettrace_common::{SCOPE_OTHER, Signal};
use nettrace_tests::{captured, lost};
use std::{collections::BTreeMap, time::Duration};

/// With every packet sampled and a ring that holds them, the kernel's own histograms and what user space makes of the
/// single records are the same distributions: for each signal and each interface equal in every bucket, in sum and in
/// maximum. The traffic is TCP, UDP, DNS and fragments, over IPv4 and IPv6, on all CPUs.
#[test]
fn the_kernels_histograms_are_those_of_the_records() {
    for topology in Topology::ALL {
        let (finished, totals) = captured(
            LabConfig { topology, ..LabConfig::default() },
            |options| {
                options.programs.sample_every = 1;
                options.programs.ring_bytes = 64 << 20;
            },
            |lab| Ok(lab.demo_traffic(Duration::from_secs(1))?),
        )
        .unwrap();
        assert!(totals.reassembled_datagrams > 0 && totals.udp_responses > 0 && totals.tcp_requests > 0);
        let Ring { emitted, received, lost, .. } = finished.snapshot.ring;
        assert_eq!((emitted, lost), (received, 0), "{topology:?}");
        same_by_both_lanes(&finished);
        for signal in
            [Signal::RxTotal, Signal::TxQdisc, Signal::FwdHost, Signal::NetRtt, Signal::IpReassembly]
        {
            let scopes = rows(&finished, signal).count();
            assert!(scopes > 1, "{} has {scopes} rows: nothing to compare", signal.name());
        }
    }
}

fn rows(finished: &Finished, signal: Signal) -> impl Iterator<Item = &SignalData> {
    finished.snapshot.signals.iter().filter(move |row| row.signal == signal.name())
}

/// Compares each row of the in-kernel signals with the records of its signal and scope.
fn same_by_both_lanes(finished: &Finished) {
    for signal in Signal::ALL.into_iter().take(Signal::IN_KERNEL) {
        let scoped: BTreeMap<u16, &SignalBook> = finished
            .event_lane
            .iter()
            .filter(|((s, _), _)| *s == signal as u8)
            .map(|((_, scope), book)| (*scope, book))
            .collect();
        let mut all = SignalBook::default();
        scoped.values().for_each(|book| all.merge(book));
        // As the snapshot has them: all scopes together, then each, in order, unless all is in `other`.
        let mut expected = Vec::new();
        if !scoped.is_empty() {
            expected.push(&all);
        }
        if !scoped.keys().all(|scope| *scope == SCOPE_OTHER) {
            expected.extend(scoped.values());
        }
        let rows: Vec<_> = rows(finished, signal).collect();
        assert_eq!(rows.len(), expected.len(), "scopes of {}", signal.name());
        for (row, book) in rows.iter().zip(expected) {
            let what = format!("{} in {}", signal.name(), row.scope);
            let (kernel, records): (Vec<_>, Vec<_>) =
                (row.hist.buckets().collect(), book.hist.buckets().collect());
            assert_eq!(row.hist.count(), book.hist.count(), "count of {what}");
            assert_eq!(kernel, records, "buckets of {what}");
            assert_eq!((row.sum_ns, row.max_ns), (book.sum_ns, book.max_ns), "sum and maximum of {what}");
        }
    }
}

/// A ring of one page, with every packet sampled, cannot hold a flood: what does not fit is counted, every record of it,
/// and the kernel's histograms do not suffer.
#[test]
fn a_ring_that_overflows_counts_every_record_that_is_lost() {
    const COUNT: u32 = 20_000;
    let (finished, delivery) = captured(
        LabConfig::default(),
        |options| {
            options.programs.sample_every = 1;
            options.programs.ring_bytes = 4096;
        },
        |lab| {
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            let flood = Datagrams { count: COUNT, rate: None, record: false, ..Datagrams::default() };
            Ok(udp::datagrams(&path, &flood)?)
        },
    )
    .unwrap();
    let ring = &finished.snapshot.ring;
    assert_eq!(ring.size_bytes, 4096);
    assert!(ring.lost > 0 && ring.received > 0, "{ring:?}");
    assert_eq!(ring.emitted, ring.received + ring.lost, "{ring:?}");
    assert_eq!(lost(&finished.snapshot, "ring_full"), ring.lost);
    let total = finished.snapshot.signal(Signal::RxTotal).unwrap().hist.count();
    let unmeasured = lost(&finished.snapshot, "evicted") + lost(&finished.snapshot, "unmatched");
    // A datagram that lost its start may be missed where it is queued and again where it is read.
    assert!(total <= delivery.received, "{total} reads measured of {}", delivery.received);
    assert!(total + unmeasured >= delivery.received, "{total} and {unmeasured} of {}", delivery.received);
}
