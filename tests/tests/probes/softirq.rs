//! `softirq`: the wait of NET_RX softirqs for their CPU.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use nettrace::lab::{
    Family, Lab, LabConfig, Role,
    traffic::udp::{self, RequestResponse},
};
use nettrace_common::Signal;
use nettrace_tests::{Rung, from_every_rung};
use std::fs;

/// NET_RX softirqs that have run, over all CPUs.
fn ran() -> u64 {
    let text = fs::read_to_string("/proc/softirqs").unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with("NET_RX:")).unwrap();
    line.split_whitespace().skip(1).map(|n| n.parse::<u64>().unwrap()).sum()
}

/// Each wait has its raise and its run, from every source: no more waits are counted than NET_RX softirqs ran by the
/// kernel's own count, and, since each of the packets makes one run that was raised, no fewer than half of those that ran
/// meanwhile.
#[test]
fn waits_are_counted_as_softirqs_run() {
    let name = Signal::RxSoftirq.name();
    let mut before = ran();
    let work = |lab: &Lab| {
        let before = ran();
        let path = lab.path(Role::Client, Role::Server, Family::V4)?;
        let what = RequestResponse { requests: 500, ..RequestResponse::default() };
        assert_eq!(udp::request_response(&path, &what)?.answered, 500);
        Ok(ran() - before)
    };
    from_every_rung(name, &[name], LabConfig::default(), work, |Rung { name, snapshot, said: inside }| {
        let after = ran();
        let outside = after - std::mem::replace(&mut before, after);
        let row = snapshot.signal(Signal::RxSoftirq).unwrap();
        let count = row.hist.count();
        println!("{name}: {count}, NET_RX ran {inside} to {outside}, p50 {} ns", row.hist.quantile_ns(0.5));
        assert!(inside > 0 && count <= outside, "{name}: {count} of at most {outside}");
        assert!(count >= inside / 2, "{name}: {count} of at least {inside}");
        assert!(row.sum_ns >= count && row.max_ns <= snapshot.meta.duration_ns);
    })
    .unwrap();
}
