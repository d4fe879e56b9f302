//! Advice: which of the usual settings this node needs, why, and which would do nothing.
//!
//! Needs a [`Snapshot`], with what the node is set to in it, and nothing else: a rule is a pure function of it, so that what
//! is advised can be checked on another machine and later. Yields a [`Finding`] for each rule of [`RULES`], the one table.
//! A rule rests on the measured cause. Where that was not measured it says `cannot tell`, and what to run.

mod cluster;
mod cni;
mod conntrack;
mod dns;
mod docs;
mod host;
mod json;
mod kube_proxy;
mod markdown;
mod mtu;
mod nic;
mod path;
mod tcp;
mod tcp_idle;
mod text;
mod tunnel;

pub use docs::page as rules_page;
pub use json::{Advice, render as json, schema_json};
pub use markdown::render as markdown;
pub use text::{explain, render as text};

use crate::{
    node::Node,
    report::units,
    snapshot::{Probe, SignalData, Snapshot},
};
use nettrace_common::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is said of a setting.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What was measured calls for it.
    Apply,
    /// What was measured may call for it; it takes a person who knows more to decide.
    Consider,
    /// What was measured shows no use for it.
    NotNeeded,
    /// What would tell was not measured.
    CannotTell,
}

impl Verdict {
    /// Whether something is to be done, or to be decided.
    #[must_use]
    pub const fn is_urgent(self) -> bool {
        matches!(self, Self::Apply | Self::Consider)
    }

    /// Whether it is as grave as another one, for who waits for a decision: what cannot be told comes before what is not
    /// needed. Lists have these two the other way round.
    #[must_use]
    pub const fn is_as_grave_as(self, other: Self) -> bool {
        self.gravity() <= other.gravity()
    }

    const fn gravity(self) -> u8 {
        match self {
            Self::Apply => 0,
            Self::Consider => 1,
            Self::CannotTell => 2,
            Self::NotNeeded => 3,
        }
    }

    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Consider => "consider",
            Self::NotNeeded => "not needed",
            Self::CannotTell => "cannot tell",
        }
    }
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The kernel counted the cause itself.
    High,
    /// The cause follows from what was measured.
    Medium,
    /// Few cases were seen, or another cause may look the same.
    Low,
}

impl Confidence {
    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// What a change may do to traffic when it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Nothing that works now.
    Low,
    /// Some traffic, for a time.
    Medium,
    /// All traffic, or until somebody mends it.
    High,
}

impl Risk {
    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// One figure that a verdict rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// What was measured.
    pub what: String,
    /// How much, with its unit.
    pub value: String,
    /// From where on it counts, with its unit; none for a figure that only explains.
    pub threshold: Option<String>,
}

/// As reports write it.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.value)?;
        self.threshold.as_ref().map_or(Ok(()), |threshold| write!(f, " (from {threshold} on)"))
    }
}

/// A change of a setting, and how to take it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Where: a network namespace, or whoever it is up to.
    pub scope: String,
    /// What to do.
    pub apply: String,
    /// How it is undone.
    pub undo: String,
    /// The same as `nettrace apply --set` takes it; none for what is done by hand.
    #[serde(default)]
    pub setting: Option<String>,
    /// Who sets the value otherwise, and would set it back; none where nobody is known to.
    pub owner: Option<String>,
}

/// What is said of one setting of the usual advice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Short name.
    pub id: String,
    /// The setting, as the usual advice has it.
    pub advice: String,
    /// What is said of it.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub because: String,
    /// The figures.
    pub evidence: Vec<Evidence>,
    /// How sure it is.
    pub confidence: Confidence,
    /// What it is expected to bring, as a range, and what that rests on; none where nothing is to be changed.
    pub effect: Option<String>,
    /// What may go wrong.
    pub risk: Risk,
    /// When not to.
    pub when_not: String,
    /// What to change.
    pub changes: Vec<Change>,
    /// What to run to be able to tell.
    pub to_tell: Option<String>,
    /// Where to read more.
    pub source: String,
}

/// Thresholds: [`Thresholds::of`] each profile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Time in a queue of packets, of one packet in twenty, ns.
    pub queue_ns: u64,
    /// Latency of a DNS server, of one answer in two, ns.
    pub dns_ns: u64,
    /// Time at a netfilter hook, of one packet in a hundred, ns.
    pub hook_ns: u64,
    /// Time that the receive softirq waits, of one in a hundred, ns.
    pub softirq_ns: u64,
    /// Share of the time in which connections were busy that a buffer kept them from sending.
    pub limited_share: f64,
    /// Share of segments that were sent again.
    pub loss_share: f64,
}

/// What advice is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned text for a terminal.
    #[default]
    Text,
    /// GitHub-flavoured Markdown, for issues and pull requests.
    #[value(alias = "md")]
    Markdown,
    /// For programs, see `docs/advice.schema.json`.
    Json,
}

/// What the node is to be good at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Short answers, at the cost of throughput.
    Latency,
    /// Much data, at the cost of latency.
    Throughput,
    /// Both.
    #[default]
    Balanced,
}

impl Thresholds {
    /// Those of a profile.
    #[must_use]
    pub const fn of(profile: Profile) -> Self {
        let balanced = Self {
            queue_ns: 5_000_000,
            dns_ns: 10_000_000,
            hook_ns: 20_000,
            softirq_ns: 2_000_000,
            limited_share: 0.1,
            loss_share: 0.01,
        };
        match profile {
            Profile::Balanced => balanced,
            Profile::Latency => Self {
                queue_ns: 1_000_000,
                dns_ns: 5_000_000,
                hook_ns: 10_000,
                softirq_ns: 1_000_000,
                ..balanced
            },
            Profile::Throughput => {
                Self { queue_ns: 20_000_000, softirq_ns: 5_000_000, limited_share: 0.05, ..balanced }
            }
        }
    }
}

/// One rule.
pub struct Rule {
    /// Short name: family and matter.
    pub id: &'static str,
    /// The setting, as the usual advice has it.
    pub advice: &'static str,
    /// What it looks at, and from where on it speaks up.
    pub looks_at: &'static str,
    /// What may go wrong.
    pub risk: Risk,
    /// When not to.
    pub when_not: &'static str,
    /// Where to read more.
    pub source: &'static str,
    /// Probes without which it cannot tell.
    pub needs: &'static [&'static str],
    judge: fn(&Seen<'_>) -> Judgement,
}

/// All rules, family by family.
pub const RULES: &[&[Rule]] = &[
    conntrack::RULES,
    dns::RULES,
    mtu::RULES,
    tunnel::RULES,
    tcp::RULES,
    tcp_idle::RULES,
    kube_proxy::RULES,
    cni::RULES,
    path::RULES,
    nic::RULES,
    host::RULES,
    cluster::RULES,
];

/// Probes that are known by single events. What others tell of is counted in the kernel: exact, whatever became of events.
const BY_EVENTS: &[&str] = &[
    Signal::DnsLatency.name(),
    Signal::TcpConnect.name(),
    Signal::TcpAccept.name(),
    // Its histogram is the kernel's; by peer it is made of events.
    Signal::TcpSrtt.name(),
    "tcp.limited",
    "ip.black_hole",
    "ip.packet_too_big",
];
/// Share of all events that could not be kept, from which on those that are missing may have been the ones that matter.
const LOST_SHARE: f64 = 0.01;

/// Names of all rules.
pub fn ids() -> impl Iterator<Item = &'static str> {
    RULES.iter().copied().flatten().map(|rule| rule.id)
}

/// What rules see.
struct Seen<'a> {
    snapshot: &'a Snapshot,
    node: &'a Node,
    limits: Thresholds,
    profile: Profile,
}

impl<'a> Seen<'a> {
    /// A signal over all interfaces; where it has fewer latencies than a rule rests on, what that says.
    fn enough(&self, signal: Signal, count: u64) -> Result<&'a SignalData, Box<Judgement>> {
        let row = self.snapshot.signal(signal);
        row.filter(|row| row.hist.count() >= count).ok_or_else(|| {
            let has = row.map_or(0, |row| row.hist.count());
            Box::new(Judgement::cannot_tell(
                format!("{} was measured {} times, {count} are needed", signal.name(), units::count(has)),
                format!("nettrace run -d 1m --signals {}, while there is traffic", signal.name()),
            ))
        })
    }
}

/// What a rule says; the rest of a finding is the rule's own.
struct Judgement {
    verdict: Verdict,
    because: String,
    evidence: Vec<Evidence>,
    confidence: Confidence,
    effect: Option<String>,
    changes: Vec<Change>,
    to_tell: Option<String>,
}

impl Judgement {
    fn new(verdict: Verdict, because: impl Into<String>) -> Self {
        Self {
            verdict,
            because: because.into(),
            evidence: Vec::new(),
            confidence: Confidence::High,
            effect: None,
            changes: Vec::new(),
            to_tell: None,
        }
    }

    fn apply(because: impl Into<String>) -> Self {
        Self::new(Verdict::Apply, because)
    }

    fn consider(because: impl Into<String>) -> Self {
        Self::new(Verdict::Consider, because)
    }

    fn not_needed(because: impl Into<String>) -> Self {
        Self::new(Verdict::NotNeeded, because)
    }

    fn cannot_tell(because: impl Into<String>, to_tell: impl Into<String>) -> Self {
        Self { to_tell: Some(to_tell.into()), ..Self::new(Verdict::CannotTell, because) }
    }

    fn seen(mut self, what: &str, value: String, threshold: Option<String>) -> Self {
        self.evidence.push(Evidence { what: what.to_owned(), value, threshold });
        self
    }

    /// A figure that only explains.
    fn with(self, what: &str, value: String) -> Self {
        self.seen(what, value, None)
    }

    fn sure(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }

    /// What shows no use for a change is known of the traffic that was measured, and by events of what was kept of it.
    fn qualified(mut self, snapshot: &Snapshot, needs: &[&str]) -> Self {
        if self.verdict != Verdict::NotNeeded {
            return self;
        }
        if is_idle(snapshot) {
            return Self::cannot_tell("there was no traffic", "nettrace run -d 1m, while there is traffic");
        }
        if needs.iter().any(|probe| BY_EVENTS.contains(probe)) {
            if let Some(why) = incomplete(snapshot) {
                return Self { evidence: self.evidence, ..why };
            }
            if snapshot.ring.lost > 0 {
                let lost = units::plural(snapshot.ring.lost, "event", "events");
                self.because += &format!(", but {lost} of all could not be kept");
                self.confidence = Confidence::Low;
            }
        }
        if let Some(filter) = &snapshot.meta.filter {
            self.because += &format!(", in the traffic of the filter `{filter}`");
            self.confidence = Confidence::Low;
        }
        self
    }

    fn brings(mut self, effect: impl Into<String>) -> Self {
        self.effect = Some(effect.into());
        self
    }

    fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

/// `sysctl -w NAME=VALUE` in a namespace, and back to what it was.
fn sysctl(netns: &str, name: &str, value: &str, before: &str, owner: Option<&str>) -> Change {
    let set = |value: &str| format!("sysctl -w {name}={}", quoted(value));
    Change {
        scope: netns.to_owned(),
        apply: set(value),
        undo: set(before),
        setting: Some(format!("sysctl:{name}={value}")),
        owner: owner.map(str::to_owned),
    }
}

/// A word for a shell: names of interfaces and values come from outside, and may be anything.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._@:-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A change that is no setting of the kernel.
fn by_hand(scope: &str, apply: &str, undo: &str) -> Change {
    Change {
        scope: scope.to_owned(),
        apply: apply.to_owned(),
        undo: undo.to_owned(),
        setting: None,
        owner: None,
    }
}

/// Findings of all rules, most urgent first; those of one verdict in the table's order.
#[must_use]
pub fn advise(snapshot: &Snapshot, profile: Profile) -> Vec<Finding> {
    let seen = Seen { snapshot, node: &snapshot.node, limits: Thresholds::of(profile), profile };
    let judge = |rule: &Rule| {
        let judgement = match missing(snapshot, rule) {
            Some(cannot) => cannot,
            None if rule.needs.is_empty() => (rule.judge)(&seen),
            None => (rule.judge)(&seen).qualified(snapshot, rule.needs),
        };
        finding(rule, judgement)
    };
    let mut findings: Vec<_> = RULES.iter().copied().flatten().map(judge).collect();
    findings.sort_by_key(|f| f.verdict);
    findings
}

/// Of a snapshot that cannot be read: nothing can be told, and why.
#[must_use]
pub fn unknown(why: &str) -> Vec<Finding> {
    let judgement = || Judgement::cannot_tell(why, "nettrace run -o new.json, with this version of nettrace");
    RULES.iter().copied().flatten().map(|rule| finding(rule, judgement())).collect()
}

/// Whether nothing passed while it was measured.
fn is_idle(snapshot: &Snapshot) -> bool {
    let Snapshot { tcp, ip, dns, .. } = snapshot;
    let counts = [
        snapshot.packets.begun,
        dns.transactions,
        tcp.connects,
        tcp.connect_failures,
        tcp.accepts,
        tcp.retransmits,
        tcp.segments_sent.unwrap_or(0),
        tcp.limited.connections,
        ip.fragments_in_v4,
        ip.fragments_in_v6,
        ip.fragments_out_v4,
        ip.fragments_out_v6,
    ];
    snapshot.signals.is_empty() && snapshot.drops.is_empty() && total(counts) == 0
}

/// Why events tell nothing of what they do not show: too many are missing.
fn incomplete(snapshot: &Snapshot) -> Option<Judgement> {
    let ring = &snapshot.ring;
    if let Some(rotated) = snapshot.meta.rotated {
        let files = units::plural(u64::from(rotated.files), "file", "files");
        return Some(Judgement::cannot_tell(
            format!("the recording's start was rotated away ({files}), and its events with it"),
            "nettrace run, or nettrace record with a larger --max-size",
        ));
    }
    if ring.lost == 0 || (ring.lost as f64) < LOST_SHARE * ring.emitted as f64 {
        return None;
    }
    Some(Judgement::cannot_tell(
        format!("of the events {} could not be kept", of(ring.lost, ring.emitted)),
        "nettrace run with a larger --ring-size, fewer --signals, or a --filter",
    ))
}

/// Why a rule cannot tell: a probe that it needs was off.
fn missing(snapshot: &Snapshot, rule: &Rule) -> Option<Judgement> {
    let on = |name: &str| snapshot.probes.iter().any(|p| p.name == name && p.source.is_some());
    let name = rule.needs.iter().find(|name| !on(name))?;
    let row = snapshot.probes.iter().find(|p| p.name == *name);
    Some(match row.and_then(|p| p.reason.as_deref()) {
        Some(Probe::NOT_SELECTED) => Judgement::cannot_tell(
            format!("{name} was not selected"),
            format!("nettrace run --signals {}", rule.needs.join(",")),
        ),
        Some(why) => Judgement::cannot_tell(format!("{name} was off: {why}"), "nettrace doctor"),
        None => Judgement::cannot_tell(format!("{name} was not measured"), "nettrace run"),
    })
}

fn finding(rule: &Rule, said: Judgement) -> Finding {
    let Judgement { verdict, because, evidence, confidence, effect, changes, to_tell } = said;
    Finding {
        id: rule.id.to_owned(),
        advice: rule.advice.to_owned(),
        verdict,
        because,
        evidence,
        confidence,
        effect,
        risk: rule.risk,
        when_not: rule.when_not.to_owned(),
        changes,
        to_tell,
        source: rule.source.to_owned(),
    }
}

/// A sum; counts come from outside, and may be anything.
fn total(counts: impl IntoIterator<Item = u64>) -> u64 {
    counts.into_iter().fold(0, u64::saturating_add)
}

/// A share of a whole: `3 of 40 (7.5 %)`.
fn of(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    format!("{} of {} ({})", units::count(part), units::count(whole), units::percent(share))
}

#[cfg(test)]
mod tests;
