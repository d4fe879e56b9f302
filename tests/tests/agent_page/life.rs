//! Hours of an agent's life, made up: a queue that was long until a change, and resolvers that did not answer for a while.
//! The same on every run but for noise that is a hash of the time.

use nettrace::{
    agent::{Budget, ChangeRow, FlightStatus, HistoryStatus, Hub, Status},
    recommend::{Profile, advise},
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
        let load = 0.7 + 0.3 * (before as f64 / 190.0).sin() + 0.12 * noise(before, 0);
        window.meta.start_unix_ns = END_NS - (before + 1) * WINDOW_NS;
        window.meta.duration_ns = WINDOW_NS;
        window.packets.begun = (160_000.0 * load) as u64;
        window.packets.untimed = 0;
        for (i, (signal, kinds)) in window.signals.iter_mut().zip(&self.kinds).enumerate() {
            // Slow waves that differ by signal, with some noise: 0 to 1.
            let wave = 0.5 + 0.33 * (before as f64 / (90.0 + 13.0 * i as f64)).sin();
            let mut at = (wave + 0.4 * (noise(before, i as u64 + 1) - 0.5)) * (KINDS - 5) as f64;
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
            server.timeouts = if server.transport == "udp" { dns.timeouts } else { 0 };
            server.hist = window.signals.last().map_or_else(Hist::new, |s| s.hist.clone());
        }
        let tcp = &mut window.tcp;
        tcp.connects = (210.0 * load) as u64;
        tcp.accepts = (190.0 * load) as u64 + some(30, 12.0);
        tcp.connect_failures =
            u64::from(noise(before, 31) > 0.97) + u64::from(failing && noise(before, 32) > 0.6);
        tcp.retransmits = 20 + some(33, 60.0);
        tcp.listen_overflows = Some(0);
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
    hub.put_findings(advise(&life.rich, Profile::Balanced));
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
