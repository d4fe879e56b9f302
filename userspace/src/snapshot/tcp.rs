//! What the kernel's own counters tell of TCP and no event does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A counter: its name in `TcpExt` of `/proc/net/netstat` (as `nstat` has it, without `TcpExt`), its place here, and what
/// it counts.
pub type TcpCounter = (&'static str, fn(&mut TcpCounters) -> &mut Option<u64>, &'static str);

/// What kept connections from sending, as TCP timed it: of those that were established and ended while measuring, over all
/// of their lives. Each is known to a jiffy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TcpLimited {
    /// Connections that ended.
    pub connections: u64,
    /// Of these, how many a send buffer kept from sending for a time.
    pub connections_sndbuf: u64,
    /// Of these, how many a receiver's window kept from sending for a time.
    pub connections_rwnd: u64,
    /// How long they had data to send or to be acknowledged, us.
    pub busy_us: u64,
    /// Of this, how long a receiver's window was full, us.
    pub rwnd_limited_us: u64,
    /// Of this, how long a send buffer was full and all of it sent, us.
    pub sndbuf_limited_us: u64,
}

impl TcpLimited {
    /// A part of the busy time as a share of it; none when nothing was sent.
    #[must_use]
    pub fn share(&self, part_us: u64) -> Option<f64> {
        (self.busy_us > 0).then(|| part_us as f64 / self.busy_us as f64)
    }
}

/// Counters of all namespaces that are measured, over the time of the measurement; none where the kernel has no such
/// counter or it could not be read, and with a filter, which they do not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TcpCounters {
    /// SYN dropped because the queue of half-open connections was full (TCPReqQFullDrop).
    pub syn_queue_drops: Option<u64>,
    /// SYN answered with a cookie because the queue of half-open connections was full (TCPReqQFullDoCookies).
    pub syn_cookies: Option<u64>,
    /// Receive windows that were closed (TCPToZeroWindowAdv).
    pub zero_windows: Option<u64>,
    /// Retransmission timeouts that ran out (TCPTimeouts).
    pub timeouts: Option<u64>,
    /// Retransmission timeouts that proved needless (TCPSpuriousRTOs).
    pub spurious_timeouts: Option<u64>,
    /// Segments sent again before a timeout (TCPFastRetrans).
    pub fast_retransmits: Option<u64>,
    /// Segments sent again in slow start, after a timeout (TCPSlowStartRetrans).
    pub slow_start_retransmits: Option<u64>,
    /// Probes of a tail that may be lost (TCPLossProbes).
    pub loss_probes: Option<u64>,
    /// Segments that were lost again when they were sent again (TCPLostRetransmit).
    pub lost_retransmits: Option<u64>,
    /// Segments dropped because a socket's backlog was full (TCPBacklogDrop).
    pub backlog_drops: Option<u64>,
    /// Times that TCP ran short of memory (TCPMemoryPressures).
    pub memory_pressures: Option<u64>,
    /// Connections given up after too many timeouts (TCPAbortOnTimeout).
    pub timeout_aborts: Option<u64>,
    /// Connections opened with data in their SYN that the server took (TCPFastOpenActive).
    pub fast_open_active: Option<u64>,
    /// Connections accepted with data in their SYN (TCPFastOpenPassive).
    pub fast_open_passive: Option<u64>,
    /// SYN received that ask for a cookie of fast open, whether it is given or not (TCPFastOpenCookieReqd).
    pub fast_open_asked: Option<u64>,
}

/// What the kernel's own counters tell of one network namespace, over the time of the measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TcpNamespace {
    /// Network namespace: a name, `host`, or `net:[INODE]` for one that is not measured, whose listeners dropped.
    pub netns: String,
    /// Connections dropped because an accept queue was full (TcpExtListenOverflows).
    pub listen_overflows: u64,
    /// SYN dropped by listeners for any reason (TcpExtListenDrops).
    pub listen_drops: u64,
    /// The others; none of them with a filter, which they do not know.
    pub counters: TcpCounters,
}

impl TcpCounters {
    /// All counters, in the order to show them.
    pub const ALL: [TcpCounter; 15] = [
        (
            "TCPReqQFullDrop",
            |c| &mut c.syn_queue_drops,
            "SYN dropped: the queue of half-open connections was full",
        ),
        (
            "TCPReqQFullDoCookies",
            |c| &mut c.syn_cookies,
            "SYN answered with a cookie: the queue of half-open connections was full",
        ),
        (
            "TCPToZeroWindowAdv",
            |c| &mut c.zero_windows,
            "receive windows closed: an application does not read fast enough",
        ),
        ("TCPTimeouts", |c| &mut c.timeouts, "retransmission timeouts that ran out"),
        (
            "TCPSpuriousRTOs",
            |c| &mut c.spurious_timeouts,
            "retransmission timeouts that proved needless: nothing was lost",
        ),
        (
            "TCPFastRetrans",
            |c| &mut c.fast_retransmits,
            "segments sent again before a timeout: acknowledgements told of the loss",
        ),
        ("TCPSlowStartRetrans", |c| &mut c.slow_start_retransmits, "segments sent again after a timeout"),
        ("TCPLossProbes", |c| &mut c.loss_probes, "probes of a tail that may be lost"),
        ("TCPLostRetransmit", |c| &mut c.lost_retransmits, "segments lost again when sent again"),
        ("TCPBacklogDrop", |c| &mut c.backlog_drops, "segments dropped: a socket's backlog was full"),
        ("TCPMemoryPressures", |c| &mut c.memory_pressures, "times that TCP ran short of memory"),
        ("TCPAbortOnTimeout", |c| &mut c.timeout_aborts, "connections given up after too many timeouts"),
        (
            "TCPFastOpenActive",
            |c| &mut c.fast_open_active,
            "connections opened with data in their SYN (fast open)",
        ),
        ("TCPFastOpenPassive", |c| &mut c.fast_open_passive, "connections accepted with data in their SYN"),
        (
            "TCPFastOpenCookieReqd",
            |c| &mut c.fast_open_asked,
            "SYN received that ask for a cookie of fast open",
        ),
    ];

    /// Counters with their values, in that order; those that are not there are left out.
    pub fn values(mut self) -> impl Iterator<Item = (&'static str, u64, &'static str)> {
        Self::ALL
            .into_iter()
            .filter_map(move |(name, field, meaning)| Some((name, (*field(&mut self))?, meaning)))
    }

    /// Adds what came since an earlier reading of the same namespace.
    pub fn add_since(&mut self, mut now: Self, mut before: Self) {
        for (_, field, _) in Self::ALL {
            if let Some(n) = *field(&mut now) {
                let sum = field(self);
                let came = n.saturating_sub(field(&mut before).unwrap_or(0));
                *sum = Some(sum.unwrap_or(0).saturating_add(came));
            }
        }
    }
}
