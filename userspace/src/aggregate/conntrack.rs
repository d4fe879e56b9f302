//! Packets that connection tracking had trouble with, in all and by flow.

use super::{ROWS, flow::flow_text, tables::Bounded};
use crate::{
    kernel_state::KernelState,
    snapshot::{ConntrackEntered, ConntrackFlow, ConntrackTrouble},
};
use nettrace_common::{
    Counter,
    probes::conntrack::{Trouble, What},
    wire::Flow,
};

/// The books of that.
pub(super) struct ConntrackBook {
    told: ConntrackTrouble,
    flows: Bounded<(Flow, u32)>,
}

impl ConntrackBook {
    pub(super) fn new(max: usize) -> Self {
        Self { told: ConntrackTrouble::default(), flows: Bounded::new(max) }
    }

    /// Takes a record. Returns whether it is one.
    pub(super) fn feed(&mut self, trouble: &Trouble) -> bool {
        let Some(what) = What::from_u8(trouble.what) else { return false };
        *count_of(&mut self.told, what) += 1;
        self.flows.add((trouble.flow, u32::from(trouble.what)));
        true
    }

    pub(super) const fn overflow(&self) -> u64 {
        self.flows.overflow()
    }

    /// The kernel's exact counts, or without them what the records came to; and the rows.
    pub(super) fn finish(self, kernel: Option<&KernelState>) -> (ConntrackTrouble, Vec<ConntrackFlow>) {
        let mut total = self.told;
        if let Some(kernel) = kernel {
            for what in What::ALL {
                *count_of(&mut total, what) = kernel.counter(what.counter());
            }
        }
        (total, rows(self.flows))
    }
}

/// New connections; none where there were none, or no program looked.
pub(super) fn entered(kernel: &KernelState) -> Option<ConntrackEntered> {
    let entered = ConntrackEntered {
        connections: kernel.counter(Counter::ConntrackEntered),
        source_nat: kernel.counter(Counter::ConntrackSourceNat),
        destination_nat: kernel.counter(Counter::ConntrackDestinationNat),
    };
    (entered.connections > 0).then_some(entered)
}

fn count_of(trouble: &mut ConntrackTrouble, what: What) -> &mut u64 {
    match what {
        What::Resolved => &mut trouble.clashes_resolved,
        What::Clash => &mut trouble.clashes_dropped,
        What::Full => &mut trouble.table_full,
    }
}

fn rows(flows: Bounded<(Flow, u32)>) -> Vec<ConntrackFlow> {
    let known = |((flow, what), count): ((Flow, u32), u64)| {
        let what = What::from_u8(u8::try_from(what).ok()?)?;
        Some(ConntrackFlow { flow: flow_text(&flow), what: what.name().to_owned(), count })
    };
    flows.into_rows(ROWS).into_iter().filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(what: u8, sport: u16) -> Trouble {
        let flow = Flow { sport, family: 4, protocol: 17, ..Flow::default() };
        Trouble { what, flow, ..Trouble::default() }
    }

    #[test]
    fn flows_are_told_apart_by_what_happened_to_them() {
        let mut book = ConntrackBook::new(8);
        for (what, sport) in [(0, 1), (1, 2), (1, 2), (2, 1)] {
            assert!(book.feed(&trouble(what, sport)));
        }
        assert!(!book.feed(&trouble(3, 1)));
        let (total, rows) = book.finish(None);
        let expected = ConntrackTrouble { clashes_resolved: 1, clashes_dropped: 2, table_full: 1 };
        assert_eq!(total, expected);
        let told: Vec<_> = rows.iter().map(|r| (r.what.as_str(), r.count)).collect();
        assert_eq!(told, [("clash dropped", 2), ("clash resolved", 1), ("table full", 1)]);
    }

    #[test]
    fn the_kernels_counts_are_those_that_hold() {
        let mut book = ConntrackBook::new(1);
        assert!(book.feed(&trouble(2, 1)) && book.feed(&trouble(2, 2)));
        assert_eq!(book.overflow(), 1);
        let mut counters = vec![0; Counter::COUNT];
        counters[Counter::ConntrackFull as usize] = 9;
        let (total, rows) = book.finish(Some(&KernelState { counters, ..KernelState::default() }));
        assert_eq!((total.table_full, rows.len()), (9, 1));
    }
}
