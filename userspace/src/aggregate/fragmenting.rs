//! Datagrams that the kernel cuts and puts together: how long it takes, and why it fails.

use super::{flow::flow_text, tcp::errno_name};
use crate::snapshot::FragmentFailure;
use nettrace_common::{
    Signal,
    probes::fragmenting::{Fragmenting, Work},
};
use std::{cmp::Reverse, collections::BTreeMap};

/// Failures by what was tried and what came of it; there are few of either. Each with the first flow that it happened to.
#[derive(Default)]
pub(super) struct Failures(BTreeMap<(u8, i32), (String, u64)>);

impl Failures {
    /// Takes an event; one that did not fail yields its time.
    pub(super) fn feed(&mut self, event: &Fragmenting) -> Option<(Signal, u64)> {
        let work = Work::from_u8(event.work)?;
        if work.failed(event.result) {
            let failure = self.0.entry((event.work, event.result));
            failure.or_insert_with(|| (flow_text(&event.flow), 0)).1 += 1;
            return None;
        }
        let signal = match work {
            Work::Cut => Signal::IpFragmenting,
            Work::Join => Signal::IpDefragmenting,
        };
        Some((signal, event.latency_ns))
    }

    /// The most frequent ones, most first.
    pub(super) fn into_rows(self, rows: usize) -> Vec<FragmentFailure> {
        let mut failures: Vec<_> = self
            .0
            .into_iter()
            .map(|((work, result), (flow, count))| FragmentFailure {
                work: if work == Work::Cut as u8 { "cut" } else { "put together" }.to_owned(),
                reason: reason(result),
                flow,
                count,
            })
            .collect();
        failures.sort_by_key(|failure| Reverse(failure.count));
        failures.truncate(rows);
        failures
    }
}

/// What a result means: a negative errno, or what a device's queue says (include/linux/netdevice.h).
fn reason(result: i32) -> String {
    match result {
        1 => "NET_XMIT_DROP".to_owned(),
        2 => "NET_XMIT_CN".to_owned(),
        // `ipv6_frag_rcv` has no other word for an overlap, a missing header and a full table.
        -1 => "refused".to_owned(),
        _ => errno_name(result.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_by_work_and_reason_and_have_no_latency() {
        let mut failures = Failures::default();
        let event = |work: Work, result| Fragmenting {
            work: work as u8,
            result,
            latency_ns: 5,
            ..Fragmenting::default()
        };
        assert_eq!(failures.feed(&event(Work::Cut, 0)), Some((Signal::IpFragmenting, 5)));
        assert_eq!(failures.feed(&event(Work::Join, 1)), Some((Signal::IpDefragmenting, 5)), "as IPv6 says");
        for event in [event(Work::Cut, 1), event(Work::Join, -libc::ENOMEM), event(Work::Join, -libc::ENOMEM)]
        {
            assert_eq!(failures.feed(&event), None);
        }
        let rows = failures.into_rows(10);
        let told: Vec<_> = rows.iter().map(|r| (r.work.as_str(), r.reason.as_str(), r.count)).collect();
        assert_eq!(told, [("put together", "ENOMEM", 2), ("cut", "NET_XMIT_DROP", 1)]);
    }
}
