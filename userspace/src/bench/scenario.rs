//! Ready scenarios: for each row of the usual advice a small network that has the trouble, and the setting that is said to cure
//! it.
//!
//! Needs root, for namespaces of its own; the host is never changed. Yields a [`Running`] scenario, whose arm can be changed
//! within a second or so, as often as wanted: [`Arm::A`] is the network as people have it, [`Arm::B`] the same with the setting.
//! The settings that nettrace can make on a node are made here by the same engine ([`crate::change`]); rules of packet filters
//! by the programs that everybody makes them with. [`all`] is the one table; another scenario is a row in a file of `table/`.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use nettrace::bench::scenario::{Arm, LoadOptions, find};
//!
//! let scenario = find("accept-queue")?;
//! let mut running = scenario.start()?;
//! for arm in [Arm::A, Arm::B, Arm::B, Arm::A] {
//!     running.set(arm)?;
//!     for workload in scenario.workloads {
//!         let parts = running.load(workload, &LoadOptions::default())?;
//!         println!("{arm:?} {}: {} answered", workload.name, parts[0].client.answered);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod cache;
mod error;
mod ground;
mod need;
mod program;
mod running;
mod setting;
mod table;
mod workload;

use running::Difference;

pub use error::ScenarioError;
pub use ground::{Layout, Place};
pub use need::{FastPath, Need};
pub use program::{Program, Script};
pub use running::Running;
pub use setting::{Cache, Setting, Step};
pub use workload::{LoadOptions, Part, Workload};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arm {
    /// As people have it.
    A,
    /// With the setting.
    B,
}

/// One row of the usual advice.
#[derive(Debug)]
pub struct Scenario {
    /// As it is typed.
    pub name: &'static str,
    /// What people are told to do, as the rest of a sentence.
    pub advice: &'static str,
    /// What the arms are: A, B.
    pub arms: [&'static str; 2],
    /// The network.
    pub layout: Layout,
    /// What is made of it before the arms, for both.
    pub setup: &'static [Step],
    /// What tells the arms apart.
    pub settings: &'static [Setting],
    /// The loads that feel it, one after the other.
    pub workloads: &'static [Workload],
    /// The metrics that answer whether it helps, `LOAD.METRIC` as comparisons name them; the others are beside the question.
    pub answers: &'static [&'static str],
    /// What the machine must have.
    pub needs: &'static [Need],
    /// Where the case is made in another way than it comes about on a node: how, and why. None where it is the thing itself.
    pub made: Option<&'static str>,
}

/// All scenarios, in the order in which reports show them.
#[must_use]
pub fn all() -> &'static [Scenario] {
    table::ALL
}

/// One by its name.
///
/// # Errors
/// [`ScenarioError::NoSuch`], with the nearest name.
pub fn find(name: &str) -> Result<&'static Scenario, ScenarioError> {
    let names = || all().iter().map(|scenario| scenario.name);
    all().iter().find(|scenario| scenario.name == name).ok_or_else(|| ScenarioError::NoSuch {
        name: name.to_owned(),
        hint: crate::change::nearest(name, names()).map(|near| format!(" (`{near}`?)")).unwrap_or_default(),
        names: names().collect::<Vec<_>>().join(", "),
    })
}

impl Scenario {
    /// Why this machine cannot run it; none where it can.
    #[must_use]
    pub fn unavailable(&self) -> Option<String> {
        let of_layout = self.layout.needs().iter();
        of_layout.chain(self.needs).find_map(Need::missing)
    }

    /// Makes the network, in arm A.
    ///
    /// # Errors
    /// [`ScenarioError::Unavailable`] where the machine lacks something; else what went wrong. Nothing is left then.
    pub fn start(&'static self) -> Result<Running, ScenarioError> {
        self.begin(Difference::Own)
    }

    /// The same with other changes in arm B instead of the scenario's own settings: what is tried is whether they help with
    /// its trouble. Each is `KIND:KEY=VALUE`, as [`crate::change`] takes it, and where.
    ///
    /// # Errors
    /// As [`Scenario::start`]. Whether the changes can be made shows when the arm is set.
    pub fn start_with(&'static self, changes: Vec<(Place, String)>) -> Result<Running, ScenarioError> {
        self.begin(Difference::Others(changes))
    }

    fn begin(&'static self, difference: Difference) -> Result<Running, ScenarioError> {
        if let Some(why) = self.unavailable() {
            return Err(ScenarioError::Unavailable { scenario: self.name, why });
        }
        Running::start(self, difference)
    }

    /// What the change engine sets in arm B, as it would be typed: `KIND:KEY=VALUE`, and where.
    pub fn changes(&self) -> impl Iterator<Item = (Place, &'static str)> {
        let of = |setting: &Setting| match setting {
            Setting::Change(changes) => *changes,
            _ => &[],
        };
        self.settings.iter().flat_map(of).copied()
    }
}

#[cfg(test)]
mod tests;
