//! Packet rules of a network namespace: how many there are, by engine and table, and whether they are kube-proxy's.
//!
//! Needs: to be in the namespace, and CAP_NET_ADMIN there. Yields: [`PacketRules`]. Sources: nftables by netlink, which has
//! iptables-nft's tables too; iptables-legacy by getsockopt; IPVS by procfs. Nothing is asked for that would make the
//! kernel load a module, and only counts are kept of rules.

mod legacy;
mod nftables;

use super::NodeLink;
use crate::deadline::Deadline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
};

/// Services and their servers; of the namespace of the thread that asks.
const IPVS: &str = "/proc/thread-self/net/ip_vs";
/// A longer list is not read to its end, bytes.
const IPVS_BYTES: u64 = 64 << 20;
/// kube-proxy's interface in IPVS mode, which bears all service addresses.
const IPVS_INTERFACE: &str = "kube-ipvs0";

/// Packet rules of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketRules {
    /// Tables that have a chain or a rule.
    pub tables: Vec<RuleTable>,
    /// Load balancing by IPVS; none where the kernel has it not loaded.
    pub ipvs: Option<Ipvs>,
    /// How kube-proxy forwards here, where its traces are seen: `iptables`, `nftables` or `ipvs`.
    pub kube_proxy: Option<KubeProxy>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

/// One table of packet rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleTable {
    /// `nftables` (which iptables-nft uses too), `iptables-legacy` or `ip6tables-legacy`.
    pub engine: String,
    /// Family and name: `ip nat`.
    pub table: String,
    /// Rules; of iptables-legacy entries, in which each chain counts for one or two.
    pub rules: u64,
    /// Chains; none where only entries are counted.
    pub chains: Option<u64>,
    /// Of these, chains by which kube-proxy names a service (`KUBE-SVC-`, in nftables `service-`).
    pub service_chains: u64,
    /// Of these, chains of network policies, by the names that Calico, kube-router and Weave Net give them.
    pub policy_chains: u64,
    /// Whether it has kube-proxy's first chain, `KUBE-SERVICES`, or is its table in nftables.
    pub is_kube_proxy: bool,
}

/// Load balancing by IPVS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ipvs {
    /// Services.
    pub services: u64,
    /// Servers of all services.
    pub destinations: u64,
}

/// kube-proxy, as its traces show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KubeProxy {
    /// `iptables`, `nftables` or `ipvs`.
    pub mode: String,
    /// The trace.
    pub from: String,
}

impl PacketRules {
    /// Of the namespace that this thread is in, whose interfaces these are: sysfs shows those of another one.
    pub(super) fn read(links: &[NodeLink], deadline: Deadline) -> Self {
        let (tables, error) = nftables::tables(deadline);
        let unread = error.map(|error| format!("nftables: {error}"));
        let mut rules = Self { tables, unread: unread.into_iter().collect(), ..Self::default() };
        for family in legacy::FAMILIES {
            for table in legacy::tables(family, deadline).unwrap_or_else(|error| vec![Err(error)]) {
                match table {
                    Ok(table) => rules.tables.push(table),
                    Err(error) => rules.unread.push(format!("{}: {error}", family.engine)),
                }
            }
        }
        match File::open(IPVS) {
            Ok(file) => match ipvs(&mut BufReader::new(file.take(IPVS_BYTES)), deadline) {
                Ok(ipvs) => rules.ipvs = Some(ipvs),
                Err(error) => rules.unread.push(format!("{IPVS}: {error}")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => rules.unread.push(format!("{IPVS}: {error}")),
        }
        rules.kube_proxy = rules.proxy(links.iter().any(|link| link.name == IPVS_INTERFACE));
        rules
    }

    /// All rules.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.tables.iter().fold(0, |sum, table| sum.saturating_add(table.rules))
    }

    /// Chains of network policies.
    #[must_use]
    pub fn policy_chains(&self) -> u64 {
        self.tables.iter().fold(0, |sum, table| sum.saturating_add(table.policy_chains))
    }

    /// kube-proxy has chains of the same names in its modes for iptables and IPVS. A kubelet has some, too
    /// (`KUBE-FIREWALL`), which say nothing of kube-proxy.
    fn proxy(&self, has_ipvs_interface: bool) -> Option<KubeProxy> {
        let seen = |mode: &str, from: String| Some(KubeProxy { mode: mode.to_owned(), from });
        if has_ipvs_interface {
            return seen("ipvs", format!("interface {IPVS_INTERFACE}"));
        }
        let table = self.tables.iter().find(|table| table.is_kube_proxy)?;
        let from = format!("{} table {}", table.engine, table.table);
        match self.ipvs {
            _ if table.table.ends_with(" kube-proxy") => seen("nftables", from),
            Some(ipvs) if ipvs.services > 0 && table.service_chains == 0 => seen("ipvs", IPVS.to_owned()),
            _ => seen("iptables", from),
        }
    }
}

impl RuleTable {
    fn new(engine: &str, table: String) -> Self {
        Self { engine: engine.to_owned(), table, ..Self::default() }
    }

    fn chain(&mut self, name: &str) {
        *self.chains.get_or_insert(0) += 1;
        let in_kube_proxy = self.table.ends_with(" kube-proxy");
        if name.starts_with("KUBE-SVC-") || in_kube_proxy && name.starts_with("service-") {
            self.service_chains += 1;
        }
        let policies = ["cali-pi-", "cali-po-", "KUBE-NWPLCY-", "KUBE-POD-FW-", "WEAVE-NPC"];
        if policies.iter().any(|part| name.contains(part)) {
            self.policy_chains += 1;
        }
        self.is_kube_proxy |= in_kube_proxy || name == "KUBE-SERVICES" || name.starts_with("KUBE-SVC-");
    }
}

/// Below three lines of headings, a line for each service and each of its servers (net/netfilter/ipvs/ip_vs_ctl.c).
fn ipvs(lines: &mut impl io::BufRead, deadline: Deadline) -> io::Result<Ipvs> {
    let mut ipvs = Ipvs::default();
    for line in lines.lines().skip(3) {
        deadline.check()?;
        match line?.trim_start().starts_with("->") {
            true => ipvs.destinations += 1,
            false => ipvs.services += 1,
        }
    }
    Ok(ipvs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIST: &str = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:01BB rr
  -> 0A000002:192B      Masq    1      0          0
  -> 0A000003:192B      Masq    1      0          0
UDP  0A60000A:0035 rr
";

    fn table(name: &str, chains: &[&str]) -> RuleTable {
        let mut table = RuleTable::new("nftables", name.to_owned());
        chains.iter().for_each(|chain| table.chain(chain));
        table
    }

    #[test]
    fn services_of_ipvs_are_told_from_their_servers() {
        let two = Ipvs { services: 2, destinations: 2 };
        let soon = Deadline::after(Duration::from_secs(60));
        assert_eq!(ipvs(&mut LIST.as_bytes(), soon).unwrap(), two);
        assert_eq!(ipvs(&mut "".as_bytes(), soon).unwrap(), Ipvs::default());
        let late = ipvs(&mut LIST.as_bytes(), Deadline::after(Duration::ZERO)).unwrap_err();
        assert_eq!(late.to_string(), "not all was read within 0ns");
    }

    #[test]
    fn kube_proxy_is_named_by_its_own_traces_only() {
        let mode = |tables: Vec<RuleTable>, ipvs, interface| {
            let rules = PacketRules { tables, ipvs, ..PacketRules::default() };
            rules.proxy(interface).map(|proxy| proxy.mode)
        };
        let iptables = || table("ip nat", &["KUBE-SERVICES", "KUBE-SVC-A", "KUBE-SEP-B"]);
        let busy = Some(Ipvs { services: 3, destinations: 3 });
        assert_eq!(mode(vec![iptables()], None, false).as_deref(), Some("iptables"));
        assert_eq!(mode(vec![iptables()], busy, false).as_deref(), Some("iptables"));
        assert_eq!(mode(vec![table("ip nat", &["KUBE-SERVICES"])], busy, false).as_deref(), Some("ipvs"));
        assert_eq!(mode(vec![iptables()], None, true).as_deref(), Some("ipvs"));
        assert_eq!(
            mode(vec![table("ip kube-proxy", &["services"])], None, false).as_deref(),
            Some("nftables")
        );
        // A kubelet alone, another load balancer, somebody's firewall.
        assert_eq!(mode(vec![table("ip filter", &["KUBE-FIREWALL", "INPUT"])], busy, false), None);
        assert_eq!(iptables().service_chains, 1);
        assert_eq!(table("ip filter", &["cali-pi-x", "cali-tw-y"]).policy_chains, 1);
    }

    #[test]
    fn reading_fails_in_no_namespace() {
        let rules = PacketRules::read(&[], Deadline::after(Duration::from_secs(60)));
        assert!(rules.tables.iter().all(|table| !table.table.is_empty()), "{rules:?}");
    }
}
