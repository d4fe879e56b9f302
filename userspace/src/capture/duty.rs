//! Probes whose hooks are too dear to stay: `rx.softirq` is attached for a tenth of the time.
//!
//! Its two hooks run for every softirq of the node, whatever it is for. What they measure, how long a CPU takes to
//! get to its NET_RX softirq, belongs to no packet, so that a sample of the time says as much as all of it.

use crate::{attach, load::Loaded};
use aya::programs::tp_btf::BtfTracePointLink;
use std::time::{Duration, Instant};

/// Attached for this long ...
const ON: Duration = Duration::from_millis(100);
/// ... out of this long.
const PERIOD: Duration = Duration::from_secs(1);

/// Attaches and detaches the hooks.
pub(super) struct Duty {
    cycles: bool,
    raise: Option<BtfTracePointLink>,
    entry: Option<BtfTracePointLink>,
    since: Instant,
}

impl Duty {
    /// Attaches them, if they are `wanted`; `cycles` is whether they come and go from then on.
    pub(super) fn start(loaded: &mut Loaded, wanted: bool, cycles: bool) -> Self {
        let mut duty = Self { cycles: wanted && cycles, raise: None, entry: None, since: Instant::now() };
        if wanted {
            duty.on(loaded);
        }
        duty
    }

    /// In this order, so that nothing is raised unseen by the second hook.
    fn on(&mut self, loaded: &mut Loaded) {
        self.entry = attach::hold(loaded, "softirq_entry");
        self.raise = attach::hold(loaded, "softirq_raise");
        self.since = Instant::now();
    }

    /// Moves on when it is time.
    pub(super) fn tick(&mut self, loaded: &mut Loaded) {
        if !self.cycles {
            return;
        }
        let elapsed = self.since.elapsed();
        if self.raise.is_some() {
            if elapsed >= ON {
                self.raise = None;
            }
        } else if self.entry.is_some() {
            // A tick later: whatever was raised has been entered by now, and none waits in the books.
            self.entry = None;
        } else if elapsed >= PERIOD {
            self.on(loaded);
        }
    }
}
