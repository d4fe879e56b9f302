//! The lab: a node and three pods made of network namespaces, with real traffic between them.
//!
//! Needs CAP_NET_ADMIN and CAP_SYS_ADMIN. Nothing is put into the host's own network namespace: the node is a
//! namespace too, so that any number of labs run side by side with the same addresses. Yields packets of every kind
//! that nettrace measures, with exact counts of what was sent, for the demonstration, the tests and the benchmarks.
//! All calls block: from asynchronous code, go by `spawn_blocking`.
//!
//! ```no_run
//! # fn main() -> Result<(), nettrace::lab::LabError> {
//! use nettrace::lab::{Lab, LabConfig};
//!
//! let lab = Lab::start(LabConfig::default())?;
//! let totals = lab.demo_traffic(std::time::Duration::from_secs(5))?;
//! println!("{totals:?}");
//! lab.stop()
//! # }
//! ```

pub mod delay;
pub mod dns;
mod error;
mod netlink;
pub mod netns;
pub mod pair;
mod state;
pub mod topology;
pub mod traffic;

pub use delay::{Line, LineConfig, LineCounts};
pub use error::LabError;
pub use netns::Netns;
pub use pair::{Pair, PairConfig, Wire};
pub use state::{STATE_DIR, remove_leftovers};
pub use topology::{Interface, NarrowLeg, Node, Pod, Role, Topology};
pub use traffic::{Family, Path, TrafficTotals};

use state::State;
use std::time::Duration;

/// What a lab is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabConfig {
    /// How the pods are joined.
    pub topology: Topology,
    /// MTU of every link, bytes.
    pub mtu: u32,
    /// A leg with a smaller MTU.
    pub narrow_leg: Option<NarrowLeg>,
    /// Whether there is IPv6.
    pub ipv6: bool,
    /// Whether what pods send passes a queue (pfifo_fast), as at a node's network card, or none, as a veth has it.
    pub queues: bool,
}

impl Default for LabConfig {
    /// A bridge, an MTU of 1500 bytes, queues, and IPv6 where the kernel has it.
    fn default() -> Self {
        Self {
            topology: Topology::Bridge,
            mtu: 1500,
            narrow_leg: None,
            ipv6: kernel_has_ipv6(),
            queues: true,
        }
    }
}

impl LabConfig {
    fn validate(&self) -> Result<(), LabError> {
        if self.ipv6 && !kernel_has_ipv6() {
            return Err(LabError::NoIpv6);
        }
        // Below 1280 bytes the kernel takes IPv6 off the interface; below 576 hosts need not take IPv4 datagrams.
        let min = if self.ipv6 { 1280 } else { 576 };
        let legs = self.narrow_leg.map(|leg| (leg.mtu, self.mtu));
        for (mtu, max) in std::iter::once((self.mtu, 65_535)).chain(legs) {
            if !(min..=max).contains(&mtu) {
                return Err(LabError::Mtu { mtu, min, max });
            }
        }
        Ok(())
    }
}

fn kernel_has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6/conf").exists()
}

/// A running lab. Dropping it removes everything, and the next start removes what a killed one left behind.
#[derive(Debug)]
pub struct Lab {
    // The order is that of removal: the state file stays locked until the namespaces are gone.
    node: Node,
    pods: [Pod; 3],
    state: State,
    config: LabConfig,
}

impl Lab {
    /// Makes a lab, all links up and all pods in reach of each other, and removes what dead labs left behind.
    ///
    /// # Errors
    /// [`LabError::MissingCapability`] without the rights, [`LabError::Mtu`] and [`LabError::NoIpv6`] for a
    /// configuration that cannot be; else what the kernel refused. Nothing is left behind then.
    pub fn start(config: LabConfig) -> Result<Self, LabError> {
        check_capabilities()?;
        config.validate()?;
        let state = State::register()?;
        let (node, pods) = topology::build(&config, state.id())?;
        Ok(Self { node, pods, state, config })
    }

    /// Names this lab among all of this machine: its namespaces are `nettrace-ID-node`, `-client`, `-server`, `-dns`.
    pub fn id(&self) -> &str {
        self.state.id()
    }

    /// The file that marks this lab as living.
    pub fn state_file(&self) -> &std::path::Path {
        self.state.path()
    }

    /// A directory for what belongs to this lab, which goes with it; whoever needs it makes it.
    pub(crate) fn directory(&self) -> std::path::PathBuf {
        self.state.directory()
    }

    /// What it was started with.
    pub fn config(&self) -> &LabConfig {
        &self.config
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// All pods, in the order of [`Role::ALL`].
    pub fn pods(&self) -> &[Pod; 3] {
        &self.pods
    }

    /// One pod.
    pub fn pod(&self, role: Role) -> &Pod {
        &self.pods[role.index()]
    }

    /// What a capture is to look at: the node sees every packet at the pods' veths, and the pods' own ends, whose
    /// packets are the same ones, need no second look.
    pub fn namespaces(&self) -> Vec<crate::iface::Namespace> {
        let of = |name: &str, netns: &Netns, wire| crate::iface::Namespace {
            name: name.to_owned(),
            path: Some(netns.path().to_owned()),
            wire,
        };
        let mut all = vec![of("node", &self.node.netns, true)];
        all.extend(self.pods.iter().map(|pod| of(pod.role.name(), &pod.netns, false)));
        all
    }

    /// A way from one pod to another.
    ///
    /// # Errors
    /// [`LabError::NoIpv6`] when the lab has no IPv6 and it is asked for.
    pub fn path(&self, from: Role, to: Role, family: Family) -> Result<Path<'_>, LabError> {
        Path::new(self.pod(from), self.pod(to), family)
    }

    /// The address families that this lab has.
    pub fn families(&self) -> &'static [Family] {
        if self.config.ipv6 { &[Family::V4, Family::V6] } else { &[Family::V4] }
    }

    /// Runs a representative mix of traffic for about `duration`: what has begun is finished. Yields exactly what was
    /// done.
    ///
    /// # Errors
    /// The first failure of a part of the traffic; the other parts run to their end all the same.
    pub fn demo_traffic(&self, duration: Duration) -> Result<TrafficTotals, LabError> {
        traffic::demo::run(self, duration)
    }

    /// Removes the lab and says how that went. Dropping it does the same, and logs failures.
    ///
    /// # Errors
    /// [`LabError::File`] for the first namespace that could not be removed; the others are removed all the same.
    pub fn stop(self) -> Result<(), LabError> {
        let Self { node, pods, state, .. } = self;
        let removed = pods.map(|pod| pod.netns.remove());
        let result = removed.into_iter().fold(node.netns.remove(), Result::and);
        drop(state);
        result
    }
}

fn check_capabilities() -> Result<(), LabError> {
    use caps::{CapSet, Capability};
    for (capability, name) in
        [(Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"), (Capability::CAP_SYS_ADMIN, "CAP_SYS_ADMIN")]
    {
        // Where the set cannot be read, the first call that needs it says so.
        if matches!(caps::has_cap(None, CapSet::Effective, capability), Ok(false)) {
            return Err(LabError::MissingCapability { capability: name });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_that_ipv6_cannot_have_is_refused() {
        let config = LabConfig { mtu: 1000, ipv6: false, ..LabConfig::default() };
        assert!(config.validate().is_ok());
        let leg = NarrowLeg { pod: Role::Server, mtu: 1400, pod_knows: true };
        let wider = LabConfig { narrow_leg: Some(leg), ..config };
        assert!(matches!(wider.validate(), Err(LabError::Mtu { mtu: 1400, max: 1000, .. })));
    }
}
