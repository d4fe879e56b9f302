//! Hours of an agent's life, made up: a queue that was long until a change, and resolvers that did not answer for a while.
//! The same on every run but for noise that is a hash of the time.

use nettrace::{
    agent::{Budget, ChangeRow, FlightStatus, HistoryStatus, Hub, Status},
    recommend::{Change, Confidence, Evidence, Finding, Profile, Risk, Verdict, advise},
    snapshot::{Hist, Snapshot, sample},
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
/// Length of a window.
const WINDOW_NS: u64 = 5 * S;
/// When the last window ended: 2026-03-12 03:12:00 UTC.
const END_NS: u64 = 1_773_285_120 * S;
/// When the queue was made short, and when resolvers failed, minutes before the end.
const SHORTER_MIN: u64 = 70;
const FAILED_MIN: std::ops::Range<u64> = 9..21;
/// Distributions that windows are put together from.
const KINDS: usize = 16;

/// Noise between 0 and 1 that depends on two numbers alone (SplitMix64).
fn noise(a: u64, b: u64) -> f64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(b.wrapping_mul(0xbf58_476d_1ce4_e5b9));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A distribution like another one, with all latencies times a factor.
fn scaled(hist: &Hist, factor: f64) -> Hist {
    let at = |q| (hist.quantile_ns(q) as f64 * factor) as u64;
    sample::hist(hist.count().clamp(40, 240), [at(0.0), at(0.5), at(0.9), at(0.99), at(0.999), at(1.0)])
}

/// A node with an agent on it.
struct Life {
    /// Of each signal of [`sample::rich`], some distributions, faster ones first.
    kinds: Vec<Vec<Hist>>,
    rich: Snapshot,
}

impl Life {
    fn new() -> Self {
        let rich = sample::rich();
        let spread = |i: usize| 0.72 * 1.09_f64.powi(i as i32);
        let kinds = rich.signals.iter().map(|s| (0..KINDS).map(|i| scaled(&s.hist, spread(i))).collect());
        Self { kinds: kinds.collect(), rich }
    }

    /// The window that ended so many before the last one.
    fn window(&self, before: u64) -> Snapshot {
        let mut window = self.rich.clone();
        let minute = before * WINDOW_NS / (60 * S);
        let failing = FAILED_MIN.contains(&minute);
        let load = 0.7 + 0.3 * (before as f64 / 190.0).sin() + 0.05 * noise(before, 0);
        window.meta.start_unix_ns = END_NS - (before + 1) * WINDOW_NS;
        window.meta.duration_ns = WINDOW_NS;
        window.packets.begun = (160_000.0 * load) as u64;
        window.packets.untimed = 0;
        for (i, (signal, kinds)) in window.signals.iter_mut().zip(&self.kinds).enumerate() {
            // Slow waves that differ by signal, with some noise: 0 to 1.
            let wave = 0.5 + 0.33 * (before as f64 / (90.0 + 13.0 * i as f64)).sin();
            let mut at = (wave + 0.2 * (noise(before, i as u64 + 1) - 0.5)) * (KINDS - 5) as f64;
            match signal.signal.as_str() {
                "tx.qdisc" if minute < SHORTER_MIN => at = at.mul_add(0.2, 0.0),
                "tx.qdisc" => at = (KINDS - 1) as f64,
                "dns.latency" if failing => at = (KINDS - 1) as f64,
                "dns.latency" => at *= 0.25,
                _ => {}
            }
            signal.hist = kinds[(at.max(0.0) as usize).min(KINDS - 1)].clone();
            if signal.signal == "tx.qdisc" && minute < SHORTER_MIN {
                signal.hist = sample::hist(240, [300, 700, 1_200, 9_000, 60_000, 400_000]);
            }
            if signal.signal == "dns.latency" && !failing {
                let p99 = 2 * MS + (4.0 * MS as f64 * noise(before, 99)) as u64;
                signal.hist = sample::hist(170, [90_000, 420_000, MS, p99, 2 * p99, 3 * p99]);
            }
            signal.max_ns = signal.hist.quantile_ns(1.0);
        }
        self.events(&mut window, before, load, failing);
        window
    }

    fn events(&self, window: &mut Snapshot, before: u64, load: f64, failing: bool) {
        let some = |what: u64, most: f64| (most * noise(before, what)) as u64;
        let dns = &mut window.dns;
        dns.transactions = (340.0 * load) as u64;
        dns.timeouts = if failing { 4 + some(20, 9.0) } else { 0 };
        dns.retries = dns.timeouts * 2 + some(21, 2.0);
        for (i, name) in dns.names.iter_mut().enumerate() {
            name.transactions = 20 + some(22 + i as u64, 30.0);
            name.timeouts = if failing && i < 2 { 1 + some(25, 3.0) } else { 0 };
            name.max_ns =
                if failing { 4_800 * MS - some(26, 9e8) } else { 2 * MS + some(27 + i as u64, 4e6) };
        }
        for server in &mut dns.servers {
            let udp = server.transport == "udp";
            server.transactions = if udp { dns.transactions - 2 } else { 2 };
            server.timeouts = if udp { dns.timeouts } else { 0 };
            server.hist = window.signals.last().map_or_else(Hist::new, |s| s.hist.clone());
        }
        let tcp = &mut window.tcp;
        tcp.connects = (210.0 * load) as u64;
        tcp.accepts = (190.0 * load) as u64 + some(30, 12.0);
        tcp.connect_failures =
            u64::from(noise(before, 31) > 0.97) + u64::from(failing && noise(before, 32) > 0.6);
        tcp.retransmits = 30 + some(33, 24.0);
        (tcp.resets_sent, tcp.resets_received) = (some(34, 3.0), some(35, 4.0));
        tcp.listen_overflows = Some(0);
        for (i, peer) in tcp.peers.iter_mut().enumerate() {
            (peer.connections, peer.resets) = (20 + some(36 + i as u64, 30.0), some(38, 2.0));
            (peer.failures, peer.retransmits) =
                (if i == 0 { tcp.connect_failures } else { 0 }, some(39, 20.0));
        }
        for (i, table) in window.conntrack.iter_mut().enumerate() {
            table.entries = Some(if i == 0 { 61_900 + some(45, 400.0) } else { 7 });
            for counts in &mut table.cpus {
                (counts.drop, counts.early_drop, counts.insert_failed) =
                    (Some(0), Some(u64::from(i == 0)), Some(0));
            }
        }
        for (i, drop) in window.drops.iter_mut().enumerate() {
            drop.count = if i == 0 { 4 + some(40, 9.0) } else { some(41 + i as u64, 2.2) };
        }
        window.drops.retain(|drop| drop.count > 0);
        for loss in &mut window.losses {
            loss.count = if loss.reason == "unmatched" { some(50, 4.0) } else { 0 };
        }
        let overhead = &mut window.overhead;
        overhead.kernel_cpu_share = 0.0042 * load + 0.0008 * noise(before, 60);
        overhead.user_cpu_ns = (11.0 * MS as f64 * load) as u64 + some(61, 3e6);
        overhead.system_cpu_ns = 6 * MS + some(62, 2e6);
        overhead.max_rss_bytes = (29 << 20) + some(63, 9e5);
    }
}

/// An agent that has lived for so many minutes.
pub(crate) fn lived(hub: &Hub, minutes: u64) {
    let life = Life::new();
    (0..minutes * 12).rev().for_each(|before| hub.put_window(Arc::new(life.window(before))));
    let mut findings = findings();
    // The rest of the rules, as they judge it.
    let rest = advise(&life.rich, Profile::Balanced).into_iter();
    findings.extend(rest.filter(|finding| !finding.verdict.is_urgent()));
    hub.put_findings(findings);
    let change = |change, id: &str, why: &str, minutes_ago: u64, active, step: &str| ChangeRow {
        change,
        id: id.to_owned(),
        why: why.to_owned(),
        at_unix_ms: (END_NS - minutes_ago * 60 * S) / MS,
        active,
        steps: vec![step.to_owned()],
    };
    hub.put_changes(vec![
        change(
            1,
            "tcp.accept-queue",
            "tried by hand",
            100,
            false,
            "sysctl net.core.somaxconn in host: 4096 -> 8192",
        ),
        change(
            2,
            "qdisc.queue",
            "the queue of eth0 held packets for long",
            SHORTER_MIN,
            true,
            "qdisc eth0 in host: pfifo -> fq_codel",
        ),
        change(
            3,
            "dns.search",
            "search domains were tried first",
            FAILED_MIN.start,
            true,
            "resolv ndots in host: 5 -> 1",
        ),
    ]);
    hub.update(|status| *status = self::status(minutes * 12));
}

/// One to apply and one to consider, as rules write them.
fn findings() -> Vec<Finding> {
    let figure = |what: &str, value: &str, threshold: Option<&str>| Evidence {
        what: what.to_owned(),
        value: value.to_owned(),
        threshold: threshold.map(ToOwned::to_owned),
    };
    let sysctl = |name: &str, from: &str, to: &str, owner: Option<&str>| Change {
        scope: "host".to_owned(),
        apply: format!("sysctl -w {name}={to}"),
        undo: format!("sysctl -w {name}={from}"),
        setting: Some(format!("sysctl:{name}={to}")),
        owner: owner.map(ToOwned::to_owned),
    };
    let mut apply = Finding {
        id: "conntrack.max".to_owned(),
        advice: "raise nf_conntrack_max to 1048576".to_owned(),
        verdict: Verdict::Apply,
        because: "the table of connections threw out 61 of them to make room, and dropped 307 packets"
            .to_owned(),
        evidence: vec![
            figure("packets dropped because the table was full", "307", Some("1")),
            figure("connections in the table", "62,114 of 65,536", Some("90 %")),
        ],
        confidence: Confidence::High,
        effect: Some("no drops of new connections; none of the latency of those that exist".to_owned()),
        risk: Risk::Low,
        when_not: "the table is not what fills up: entries take memory, some 300 bytes each".to_owned(),
        changes: vec![sysctl("net.netfilter.nf_conntrack_max", "65536", "1048576", Some("kube-proxy"))],
        to_tell: None,
        source: "Linux: networking/nf_conntrack-sysctl".to_owned(),
    };
    let mut consider = apply.clone();
    consider.id = "tcp.slow-start-after-idle".to_owned();
    consider.advice = "set net.ipv4.tcp_slow_start_after_idle to 0".to_owned();
    consider.verdict = Verdict::Consider;
    consider.because = "connections that rest between requests begin with a small window again".to_owned();
    consider.evidence =
        vec![figure("connections that rested for longer than their timeout", "38 %", Some("10 %"))];
    consider.confidence = Confidence::Medium;
    consider.effect = Some("0 to 2 round trips of a long answer after a pause".to_owned());
    consider.when_not =
        "the way is narrow or shared: the first packets after a pause come in a burst".to_owned();
    consider.changes = vec![sysctl("net.ipv4.tcp_slow_start_after_idle", "1", "0", None)];
    apply.evidence.push(figure("connections thrown out before their time", "61", None));
    vec![apply, consider]
}

/// One window more.
pub(crate) fn another(hub: &Hub) {
    let mut window = Life::new().window(0);
    let latest = hub.windows().borrow().clone();
    let end = latest.map_or(END_NS, |last| last.meta.start_unix_ns + last.meta.duration_ns);
    window.meta.start_unix_ns = end;
    hub.put_window(Arc::new(window));
}

fn status(windows: u64) -> Status {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    Status {
        version: "0.1.0".to_owned(),
        hostname: "node-1".to_owned(),
        kernel: "6.12.48+deb13-amd64".to_owned(),
        ready: true,
        since_unix_ms: now_ms - 9 * 86_400_000,
        interval_ms: WINDOW_NS / MS,
        windows,
        config: Some("/etc/nettrace/nettrace.toml".into()),
        reloads: 1,
        budget: Budget {
            cpu_share: Some(0.01),
            memory_bytes: Some(64 << 20),
            used_cpu_share: 0.0078,
            used_memory_bytes: 38 << 20,
            step: 1,
            reduced: vec!["exemplar threshold 10ms -> 20ms".to_owned()],
            changes: 3,
        },
        history: HistoryStatus {
            dir: Some("/var/lib/nettrace/history".into()),
            written: windows / 12,
            size_bytes: 212 << 20,
            ..HistoryStatus::default()
        },
        flight: FlightStatus { seconds: Some(30), written: 1, suppressed: 2, ..FlightStatus::default() },
        privileges: vec![
            "CAP_BPF".to_owned(),
            "CAP_PERFMON".to_owned(),
            "no new privileges".to_owned(),
            "seccomp".to_owned(),
        ],
        ..Status::default()
    }
}
