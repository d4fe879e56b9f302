//! Probes whose hooks are too dear to stay: they are attached for a tenth of the time.
//!
//! `rx.softirq`: its hooks run for every softirq of the node, whatever it is for, and what they measure, how long a CPU
//! takes to get to its NET_RX softirq, belongs to no packet. `nf.hook`, `ct.in`, `ct.confirm`: two programs for each
//! netfilter hook that a packet passes, and the same rules take about the same for each packet. A sample of the time says
//! as much as all of it.

use crate::{
    attach::{self, Attached, Failed, Held, Wanted},
    load::{Loaded, Types},
    probes::{self, Side, Stay, staying},
};
use nettrace_common::config::state;
use std::time::{Duration, Instant};

/// Attached for this long ...
const ON: Duration = Duration::from_millis(100);
/// ... out of this long.
const PERIOD: Duration = Duration::from_secs(1);

/// Attaches and detaches the hooks.
pub(super) struct Duty {
    cycles: bool,
    /// Programs that see begins, and those that see ends.
    begins: Vec<&'static str>,
    ends: Vec<&'static str>,
    /// What is attached of them.
    begun: Vec<(&'static str, Held)>,
    ending: Vec<(&'static str, Held)>,
    since: Instant,
    /// Whether it rests: what is attached goes, and nothing comes.
    rests: bool,
}

impl Duty {
    /// Attaches those that are ready; `cycles` is whether they come and go from then on. Where one cannot be, its probes go
    /// one source down.
    pub(super) fn start(
        loaded: &mut Loaded,
        types: &Types,
        wanted: Wanted<'_>,
        attached: &mut Attached,
        cycles: bool,
    ) -> Self {
        loop {
            let ready = |side| staying(Stay::Share(side)).filter(|name| attached.ok(name)).collect();
            let mut duty = Self {
                cycles,
                begins: ready(Side::Begin),
                ends: ready(Side::End),
                begun: Vec::new(),
                ending: Vec::new(),
                since: Instant::now(),
                rests: false,
            };
            let failed = duty.on(loaded);
            if failed.is_empty() {
                return duty;
            }
            duty.stop(loaded);
            attach::step_down(loaded, types, wanted, attached, failed);
            attach::attach(loaded, types, wanted, attached);
        }
    }

    /// In this order, so that nothing begins unseen by the program that sees its end. Ends that are seen before are no
    /// losses, and the programs are told from when on they are. Yields those that could not be attached, which are not
    /// tried again.
    fn on(&mut self, loaded: &mut Loaded) -> Failed {
        let mut failed = Failed::new();
        self.ending = hold(loaded, &mut self.ends, &mut failed);
        self.begun = hold(loaded, &mut self.begins, &mut failed);
        // Where one side failed, the other would see what it can make nothing of.
        let alone = |name: &str| failed.keys().any(|failed| probes::together(name, failed));
        for (names, held) in [(&mut self.ends, &mut self.ending), (&mut self.begins, &mut self.begun)] {
            held.retain(|(name, _)| !alone(name));
            names.retain(|name| !alone(name));
        }
        tell(loaded, !self.begun.is_empty());
        self.since = Instant::now();
        failed
    }

    /// Moves on when it is time.
    pub(super) fn tick(&mut self, loaded: &mut Loaded) {
        if !self.cycles {
            return;
        }
        let elapsed = self.since.elapsed();
        if !self.begun.is_empty() {
            if elapsed >= ON {
                tell(loaded, false);
                self.begun.clear();
            }
        } else if !self.ending.is_empty() {
            // A tick later: whatever has begun has ended by now, and none waits in the books.
            self.ending.clear();
        } else if elapsed >= PERIOD && !self.rests {
            for (name, reason) in self.on(loaded) {
                attach::failed(loaded, name, reason);
            }
        }
    }

    /// Says whether it is to rest from the next cycle on.
    pub(super) const fn rest(&mut self, rests: bool) {
        self.rests = rests;
    }

    /// Detaches all, so that what ends while they go is no loss.
    pub(super) fn stop(mut self, loaded: &mut Loaded) {
        tell(loaded, false);
        self.begun.clear();
        self.ending.clear();
    }
}

/// Says whether begins are seen.
fn tell(loaded: &mut Loaded, on: bool) {
    if let Err(error) = loaded.tell(state::BEGINS, on) {
        tracing::warn!("cannot tell the programs what is attached: {error}");
    }
}

/// Attaches all; those that cannot be go from `names` to `failed`.
fn hold(
    loaded: &mut Loaded,
    names: &mut Vec<&'static str>,
    failed: &mut Failed,
) -> Vec<(&'static str, Held)> {
    let mut held = Vec::with_capacity(names.len());
    names.retain(|name| {
        let link = attach::hold(loaded, name).map_err(|reason| failed.insert(name, reason));
        link.map(|link| held.push((*name, link))).is_ok()
    });
    held
}
