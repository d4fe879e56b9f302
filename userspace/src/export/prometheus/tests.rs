use super::*;
use crate::{
    recommend::{Profile, advise},
    snapshot::{DnsServer, Drop, Exemplar, Hist, SignalData, sample},
};
use nettrace_common::Signal;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::LazyLock,
};

static RICH: LazyLock<Snapshot> = LazyLock::new(sample::rich);
static LATENCIES: LazyLock<Hist> =
    LazyLock::new(|| sample::hist(10, [1_000, 2_000, 3_000, 4_000, 5_000, 6_000]));

const OPEN_METRICS: &str = "application/openmetrics-text";

fn text(metrics: &Metrics, accept: Option<&str>) -> String {
    String::from_utf8(metrics.encode(accept).body.to_vec()).unwrap()
}

/// Samples of the classic text by series.
fn samples(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = text(metrics, None);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(s, v)| (s.to_owned(), v.parse().unwrap()))
        .collect()
}

fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    let of =
        |series: &str| series == name || series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
    samples.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
}

fn all() -> Metrics {
    let mut metrics = Metrics::new(&MetricsConfig::default());
    let mut window = RICH.clone();
    window.tcp.listen_drops = Some(1);
    metrics.observe(&window);
    metrics.set_status(&Status {
        budget: crate::agent::Budget {
            cpu_share: Some(0.01),
            memory_bytes: Some(1 << 26),
            ..Default::default()
        },
        web: crate::agent::Counts::default().totals(),
        ..Status::default()
    });
    metrics.set_findings(&advise(&window, Profile::Balanced));
    metrics.set_changes(&[ChangeRow {
        change: 7,
        id: "tcp.backlog".to_owned(),
        why: String::new(),
        at_unix_ms: 1_700_000_000_500,
        active: true,
        steps: Vec::new(),
    }]);
    metrics.set_otlp(crate::export::OtlpStats::default());
    metrics
}

#[test]
fn the_page_is_made_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    if std::env::var_os("NETTRACE_UPDATE_SCHEMA").is_some() {
        std::fs::write(path, metrics_page()).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        metrics_page(),
        "NETTRACE_UPDATE_SCHEMA=1 writes it anew"
    );
}

#[test]
fn every_metric_of_the_table_is_there_once_there_is_something_to_tell() {
    let metrics = all();
    let told: BTreeSet<_> = metrics.families().iter().map(|(m, _)| m.name).collect();
    // What the rich sample has nothing of.
    let nothing = ["nettrace_ip_fragmenting", "nettrace_ip_defragmenting"];
    let missing: Vec<_> =
        METRICS.iter().map(|m| m.name).filter(|n| !told.contains(n) && !nothing.contains(n)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn no_metric_has_more_series_of_its_own_than_the_table_says() {
    for window in [sample::rich(), sample::hostile()] {
        let mut metrics = all();
        metrics.reconfigure(&MetricsConfig { max_series: 0, ..MetricsConfig::default() });
        metrics.observe(&window);
        metrics.set_findings(&advise(&window, Profile::Balanced));
        for (metric, rows) in metrics.families() {
            let open = |(labels, _): &Row<'_>| labels.iter().take(metric.open.into()).any(|l| l != "other");
            let own = rows.iter().filter(|row| !open(row)).count();
            assert!(own <= metric.rows.into(), "{}: {own} of {}", metric.name, metric.rows);
        }
    }
}

#[test]
fn windows_add_up_and_every_number_is_the_snapshots() {
    let mut metrics = Metrics::new(&MetricsConfig::default());
    let mut window = RICH.clone();
    // In the sample scopes do not add up to all; here what they lack of it is `other`.
    for signal in Signal::ALL {
        let mut scopes = Hist::new();
        let rows = window.signals.iter().filter(|s| s.signal == signal.name() && s.scope != "all");
        rows.for_each(|row| scopes.merge(&row.hist));
        if let Some(all) = window.signals.iter_mut().find(|s| s.signal == signal.name() && s.scope == "all") {
            all.hist.merge(&scopes);
        }
    }
    metrics.observe(&window);
    metrics.observe(&window);
    let samples = samples(&metrics);
    let twice = |n: u64| 2.0 * n as f64;
    for signal in Signal::ALL {
        // In the sample more is told by server than in all.
        let Some(row) = window.signal(signal).filter(|_| signal != Signal::DnsLatency) else { continue };
        let name = table::Id::of_signal(signal).metric().full_name();
        assert_eq!(sum(&samples, &format!("{name}_count")), twice(row.hist.count()), "{name}");
    }
    assert_eq!(sum(&samples, "nettrace_dns_transactions_total"), twice(window.dns.transactions));
    assert_eq!(sum(&samples, "nettrace_dns_latency_seconds_count"), twice(1_037 + 2));
    assert_eq!(sum(&samples, "nettrace_dns_answers_total"), twice(window.dns.answered));
    assert_eq!(sum(&samples, "nettrace_dns_timeouts_total"), twice(window.dns.timeouts));
    assert_eq!(samples["nettrace_dns_pending"], 2.0);
    assert_eq!(sum(&samples, "nettrace_tcp_retransmits_total"), twice(window.tcp.retransmits));
    assert_eq!(sum(&samples, "nettrace_tcp_connect_failures_total"), twice(window.tcp.connect_failures));
    assert_eq!(samples["nettrace_tcp_listen_overflows_total"], 10.0);
    assert!(!samples.contains_key("nettrace_tcp_listen_drops_total"), "not known is not 0");
    assert_eq!(samples["nettrace_tcp_kernel_events_total{counter=\"TCPTimeouts\"}"], 46.0);
    assert_eq!(sum(&samples, "nettrace_ip_fragments_total"), twice(188));
    assert_eq!(samples["nettrace_conntrack_entries{netns=\"host\"}"], 65_536.0);
    assert_eq!(samples["nettrace_conntrack_events_total{netns=\"host\",event=\"drop\"}"], twice(307));
    assert_eq!(samples["nettrace_drops_total{reason=\"NO_SOCKET\",interface=\"eth0\"}"], 12.0);
    assert_eq!(sum(&samples, "nettrace_packets_total"), twice(1_000_000));
    assert_eq!(samples["nettrace_measurements_lost_total{side=\"kernel\",reason=\"unmatched\"}"], 82.0);
    assert_eq!(samples["nettrace_observed_seconds_total"], 60.0);
    assert!((samples["nettrace_cpu_seconds_total{mode=\"user\"}"] - 0.168).abs() < 1e-9);
    assert!((samples["nettrace_cpu_seconds_total{mode=\"kernel_programs\"}"] - 0.1872).abs() < 1e-6);
    assert_eq!(samples["nettrace_series"], metrics.series() as f64);
    assert_eq!(samples.len(), metrics.series());
}

#[test]
fn exemplars_have_the_flow_where_the_format_has_them() {
    let metrics = all();
    let open = text(&metrics, Some(OPEN_METRICS));
    let line = open
        .lines()
        .find(|l| l.starts_with("nettrace_rx_socket_seconds_bucket{interface=\"eth0\",le=\"0.05\"}"));
    let line = line.unwrap();
    assert!(
        line.ends_with("# {flow=\"10.0.0.2:5432 -> 10.0.0.7:41822 tcp\"} 0.038 1767225614.235"),
        "{line}"
    );
    assert!(open.ends_with("# EOF\n") && open.contains("# UNIT nettrace_rx_socket_seconds seconds\n"));
    assert!(
        open.contains("# TYPE nettrace_dns_retries counter\n")
            && open.contains("\nnettrace_dns_retries_total 7\n")
    );
    let classic = text(&metrics, None);
    assert!(!classic.contains("# {") && !classic.contains("# EOF") && !classic.contains("# UNIT"));
    assert!(classic.contains("# TYPE nettrace_dns_retries_total counter\n"));
    assert!(classic.contains("# TYPE nettrace_build_info gauge\nnettrace_build_info{version=\"0.1.0\"} 1\n"));
}

/// Windows with names that no other one has.
fn churn(n: usize) -> Snapshot {
    let mut window = sample::empty();
    let row = |scope: String| SignalData {
        signal: "tx.qdisc".to_owned(),
        definition: String::new(),
        scope,
        sum_ns: 20_000,
        max_ns: 6_000,
        hist: LATENCIES.clone(),
    };
    window.signals = vec![row("all".to_owned()), row(format!("veth{n}"))];
    let server = IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
    window.dns.transactions = 10;
    window.dns.servers =
        vec![DnsServer { server, transactions: 10, hist: Hist::new(), ..RICH.dns.servers[0].clone() }];
    window.drops =
        vec![Drop { reason: format!("R{n}"), location: String::new(), scope: "eth0".to_owned(), count: 3 }];
    window.exemplars = vec![Exemplar { scope: format!("veth{n}"), ..RICH.exemplars[2].clone() }];
    window
}

#[test]
fn the_number_of_series_is_bounded_and_nothing_is_lost_by_it() {
    const WINDOWS: usize = 500;
    let config = MetricsConfig { max_series: 1_000, ..MetricsConfig::default() };
    let mut metrics = Metrics::new(&config);
    for n in 0..WINDOWS {
        let mut window = churn(n);
        // So that nothing is idle for an hour.
        window.meta.duration_ns = 1_000_000;
        metrics.observe(&window);
        assert!(metrics.series() <= config.max_series, "{} after {n}", metrics.series());
    }
    let samples = samples(&metrics);
    assert_eq!(samples.len(), metrics.series());
    let windows = WINDOWS as f64;
    assert_eq!(sum(&samples, "nettrace_tx_qdisc_seconds_count"), 10.0 * windows);
    assert_eq!(sum(&samples, "nettrace_dns_transactions_total"), 10.0 * windows);
    assert_eq!(sum(&samples, "nettrace_drops_total"), 3.0 * windows);
    assert!(samples["nettrace_drops_total{reason=\"other\",interface=\"other\"}"] > 0.0);
    assert!(samples["nettrace_tx_qdisc_seconds_count{interface=\"other\"}"] > 0.0);
    assert!(samples["nettrace_series_overflow_total"] > windows);
    assert_eq!(samples["nettrace_series_evicted_total"], 0.0);
}

#[test]
fn series_that_were_idle_for_an_hour_make_room() {
    let config = MetricsConfig { max_series: 1_000, ..MetricsConfig::default() };
    let mut metrics = Metrics::new(&config);
    (0..100).for_each(|n| metrics.observe(&churn(n)));
    let before = samples(&metrics);
    assert!(!before.contains_key("nettrace_drops_total{reason=\"R5000\",interface=\"eth0\"}"));
    let mut window = churn(5_000);
    window.meta.duration_ns = 3_601_000_000_000;
    metrics.observe(&window);
    let after = samples(&metrics);
    assert_eq!(after["nettrace_drops_total{reason=\"R5000\",interface=\"eth0\"}"], 3.0);
    assert!(!after.contains_key("nettrace_drops_total{reason=\"R0\",interface=\"eth0\"}"));
    assert!(after["nettrace_series_evicted_total"] > 0.0);
    // Of what makes no room all goes on.
    for (name, value) in &before {
        let gauge = ["nettrace_series", "nettrace_ring_size_bytes"].contains(&name.as_str());
        if let Some(now) = after.get(name).filter(|_| !gauge) {
            assert!(now >= value, "{name}: {value} -> {now}");
        }
    }
}

#[test]
fn counters_go_on_when_the_configuration_changes() {
    let mut metrics = all();
    let before = samples(&metrics);
    let config = MetricsConfig { max_series: 100, native: false, classic_buckets: vec![1.0] };
    metrics.reconfigure(&config);
    metrics.observe(&sample::empty());
    let after = samples(&metrics);
    for (name, value) in before.iter().filter(|(name, _)| name.contains("_total") || name.contains("_bucket"))
    {
        assert!(after[name] >= *value, "{name}");
    }
    assert_eq!(
        metrics
            .encode(Some(
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            ))
            .content_type,
        "text/plain; version=0.0.4; charset=utf-8"
    );
}

#[test]
fn exports_go_on_counting_when_an_exporter_is_followed_by_another() {
    let mut metrics = Metrics::new(&MetricsConfig::default());
    let stats = |sent, failed| crate::export::OtlpStats { sent, failed, ..Default::default() };
    for told in [stats(5, 1), stats(7, 1), stats(0, 0), stats(2, 0)] {
        metrics.set_otlp(told);
    }
    let samples = samples(&metrics);
    assert_eq!(samples["nettrace_otlp_exports_total{result=\"sent\"}"], 9.0);
    assert_eq!(samples["nettrace_otlp_exports_total{result=\"failed\"}"], 1.0);
}

#[test]
fn hostile_texts_stay_within_their_labels() {
    let mut metrics = Metrics::new(&MetricsConfig::default());
    metrics.observe(&sample::hostile());
    for accept in [None, Some(OPEN_METRICS)] {
        for line in text(&metrics, accept).lines().filter(|l| !l.starts_with('#')) {
            assert!(line.starts_with("nettrace_"), "{line}");
            let value = line.split(" # {").next().unwrap().rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
