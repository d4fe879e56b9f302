//! Metrics as a real Prometheus reads them.

use crate::prometheus::{Endpoint, Prometheus, is_off, promtool};
use nettrace::{
    agent::Status,
    export::{Kind, METRICS, Metrics, MetricsConfig},
    lab::{
        Family, LabConfig, Role,
        traffic::udp::{self, RequestResponse},
    },
    recommend::{Profile, advise},
    snapshot::{Hist, Snapshot, sample},
};
use nettrace_common::Signal;
use nettrace_tests::captured;
use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How much a native bucket's end lies above its begin.
const NATIVE_WIDTH: f64 = 1.090_508;
/// How wrong the bound of a bucket may be.
const BOUND: f64 = 1.004;

fn of(windows: &[&Snapshot]) -> Metrics {
    let mut metrics = Metrics::new(&MetricsConfig::default());
    for window in windows {
        metrics.observe(window);
        metrics.set_findings(&advise(window, Profile::Balanced));
    }
    metrics.set_status(&Status::default());
    metrics
}

#[test]
fn promlint_finds_nothing() {
    if is_off("promlint_finds_nothing") {
        return;
    }
    for window in [sample::rich(), sample::empty(), sample::hostile()] {
        let text = of(&[&window]).encode(None).body;
        let output = promtool(&["check", "metrics"], &text);
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}

/// What a distribution's quantile can be, s: what lies at the ranks beside it, since libraries differ in how they round these.
fn around(hist: &Hist, q: f64) -> (f64, f64) {
    let count = hist.count() as f64;
    let at = |rank: f64| hist.quantile_ns((rank / count).clamp(0.0, 1.0)) as f64 / 1e9;
    (at((q * count).floor() - 1.0), at((q * count).ceil() + 1.0))
}

fn assert_same(server: &Prometheus, window: &Snapshot) {
    let mut compared = 0;
    for signal in Signal::ALL {
        let Some(row) = window.signal(signal) else { continue };
        let name = METRICS
            .iter()
            .find(|m| m.kind == Kind::Histogram && m.help == signal.definition())
            .unwrap()
            .full_name();
        let ask =
            |query: String| server.query(&query).unwrap().unwrap_or_else(|| panic!("nothing for {query}"));
        let count = row.hist.count() as f64;
        assert_eq!(ask(format!("histogram_count(sum({name}{{job=\"native\"}}))")), count, "{name}");
        assert_eq!(ask(format!("sum({name}_count{{job=\"classic\"}})")), count, "{name}");
        for query in [
            format!("histogram_sum(sum({name}{{job=\"native\"}}))"),
            format!("sum({name}_sum{{job=\"classic\"}})"),
        ] {
            let sum_s = row.sum_ns as f64 / 1e9;
            assert!((ask(query) - sum_s).abs() <= 1e-6 * sum_s.max(1e-3), "{name}: {sum_s}");
        }
        for q in [0.5, 0.9, 0.99] {
            let (low, high) = around(&row.hist, q);
            let native = ask(format!("histogram_quantile({q}, sum({name}{{job=\"native\"}}))"));
            let width = NATIVE_WIDTH * BOUND;
            assert!(low / width <= native && native <= high * width, "{name} {q}: {native}, {low} to {high}");
            let classic =
                ask(format!("histogram_quantile({q}, sum by (le) ({name}_bucket{{job=\"classic\"}}))"));
            let bounds = MetricsConfig::default().classic_buckets;
            let below = bounds.iter().rev().find(|b| **b * BOUND < low).copied().unwrap_or(0.0);
            // What lies above all bounds is told as the last of them.
            let above = bounds.iter().find(|b| **b / BOUND > high).or(bounds.last()).copied().unwrap();
            assert!(below <= classic && classic <= above, "{name} {q}: {classic}, {below} to {above}");
            compared += 1;
        }
    }
    assert!(compared >= 9, "{compared} quantiles");
}

/// The lab's traffic as it is captured; needs root.
#[test]
fn prometheus_tells_the_quantiles_of_a_lab_load() {
    if is_off("prometheus_tells_the_quantiles_of_a_lab_load") {
        return;
    }
    const REQUESTS: u32 = 5_000;
    let (finished, ()) = captured(
        LabConfig::default(),
        |options| options.programs.exemplar_ns = [1; Signal::COUNT],
        |lab| {
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            let what = RequestResponse {
                requests: REQUESTS,
                read_delay: Duration::ZERO,
                ..RequestResponse::default()
            };
            udp::request_response(&path, &what)?;
            Ok(())
        },
    )
    .unwrap();
    let window = finished.snapshot;
    assert!(window.signal(Signal::RxTotal).unwrap().hist.count() >= u64::from(REQUESTS));
    let endpoint = Endpoint::of(of(&[&window]));
    let server =
        Prometheus::start(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus-lab"), endpoint.address)
            .unwrap();
    assert_same(&server, &window);
    let interfaces = window.signals.iter().filter(|s| s.signal == "fwd.host" && s.scope != "all").count();
    let told = server.query("count(nettrace_fwd_host_seconds_count{job=\"classic\"})").unwrap();
    assert!(told >= Some(interfaces as f64), "{told:?} of {interfaces}");
}

/// Every signal and every kind of series; needs no root.
#[test]
fn prometheus_takes_every_series_in_all_formats() {
    if is_off("prometheus_takes_every_series_in_all_formats") {
        return;
    }
    let mut window = sample::rich();
    // Exemplars of the future are refused, and so are those of long ago.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    window.meta.start_unix_ns = u64::try_from(now).unwrap() - window.meta.duration_ns;
    // In the sample neither scopes nor servers add up to all.
    window.signals.retain(|row| row.scope == "all");
    let mut answered = Hist::new();
    window.dns.servers.iter().for_each(|server| answered.merge(&server.hist));
    let all = window.signals.iter_mut().find(|row| row.signal == Signal::DnsLatency.name()).unwrap();
    (all.hist, window.dns.answered) = (answered.clone(), answered.count());
    let metrics = of(&[&window]);
    let series = metrics.series() as f64;
    let endpoint = Endpoint::of(metrics);
    let server =
        Prometheus::start(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus-all"), endpoint.address)
            .unwrap();
    assert_same(&server, &window);
    let scraped = server.query("scrape_samples_scraped{job=\"classic\"}").unwrap();
    assert_eq!(scraped, Some(series));
    assert_eq!(server.query("nettrace_build_info{job=\"native\"}").unwrap(), Some(1.0));
    assert_eq!(server.query("sum(nettrace_dns_transactions_total{job=\"native\"})").unwrap(), Some(1_042.0));
    for job in ["native", "classic"] {
        let name = if job == "native" {
            "nettrace_dns_latency_seconds"
        } else {
            "nettrace_dns_latency_seconds_bucket"
        };
        let exemplars = server.exemplars(&format!("{name}{{job=\"{job}\"}}")).unwrap().to_string();
        assert!(exemplars.contains("\"flow\":\"10.0.0.7 -> 10.0.0.10 udp\""), "{job}: {exemplars}");
    }
}
