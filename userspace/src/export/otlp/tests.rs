use super::*;
use crate::{export::MetricsConfig, snapshot::sample};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    },
    metrics::v1::{AggregationTemporality, Metric, metric::Data, number_data_point},
};
use prost::Message as _;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{self, Receiver},
    thread,
};

/// A request's head and body.
type Told = (Vec<String>, Vec<u8>);

/// A collector that answers each request with the next of these, then with 200, and hands on what it was sent.
fn collector(answers: Vec<(u16, Vec<u8>)>) -> (SocketAddr, Receiver<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut answers = answers.into_iter();
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                head.push(line.trim_end().to_ascii_lowercase());
            }
            let length = head.iter().find_map(|l| l.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |l| l.parse().unwrap())];
            stream.read_exact(&mut body).unwrap();
            let (status, answer) = answers.next().unwrap_or((200, Vec::new()));
            let close = "connection: close\r\nretry-after: 0";
            let head_out =
                format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{close}\r\n\r\n", answer.len());
            stream.get_mut().write_all(&[head_out.as_bytes(), &answer].concat()).unwrap();
            if tell.send((head, body)).is_err() {
                break;
            }
        }
    });
    (address, told)
}

fn exporter(address: SocketAddr, change: impl FnOnce(&mut OtlpConfig)) -> Otlp {
    let mut config =
        OtlpConfig { endpoint: Some(format!("http://{address}/v1/metrics")), ..OtlpConfig::default() };
    change(&mut config);
    let resource = Resource { hostname: "node-1".to_owned(), version: "0.1.0".to_owned() };
    Otlp::start(&config, resource).unwrap().unwrap()
}

fn metrics(windows: usize) -> Metrics {
    let mut metrics = Metrics::new(&MetricsConfig::default());
    (0..windows).for_each(|_| metrics.observe(&sample::rich()));
    metrics
}

const PATIENCE: Duration = Duration::from_secs(20);

fn next(told: &Receiver<Told>) -> (Vec<String>, Vec<Metric>) {
    let (head, body) = told.recv_timeout(PATIENCE).expect("an export");
    let request =
        ExportMetricsServiceRequest::decode(body.as_slice()).expect("protobuf of the collector's type");
    let resource = request.resource_metrics.into_iter().next().unwrap();
    (head, resource.scope_metrics.into_iter().next().unwrap().metrics)
}

fn named<'a>(metrics: &'a [Metric], name: &str) -> &'a Data {
    metrics.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("{name}")).data.as_ref().unwrap()
}

fn sum(metrics: &[Metric], name: &str) -> i64 {
    let Data::Sum(sum) = named(metrics, name) else { panic!("{name}") };
    assert!(sum.is_monotonic);
    let value = |p: &number_data_point::Value| match p {
        number_data_point::Value::AsInt(n) => *n,
        number_data_point::Value::AsDouble(n) => panic!("{n}"),
    };
    sum.data_points.iter().map(|p| value(p.value.as_ref().unwrap())).sum()
}

/// Count and buckets of a histogram.
fn histogram(metrics: &[Metric], name: &str) -> (u64, u64, i32) {
    let Data::ExponentialHistogram(all) = named(metrics, name) else { panic!("{name}") };
    let (mut count, mut bucketed) = (0, 0);
    for point in &all.data_points {
        assert_eq!(point.scale, 3);
        assert!(point.start_time_unix_nano <= point.time_unix_nano && point.time_unix_nano > 0);
        count += point.count;
        bucketed += point.zero_count + point.positive.iter().flat_map(|b| &b.bucket_counts).sum::<u64>();
    }
    (count, bucketed, all.aggregation_temporality)
}

#[test]
fn a_collector_gets_every_series_with_its_numbers() {
    let (address, told) = collector(Vec::new());
    let mut otlp = exporter(address, |config| {
        config.headers.insert("x-key".to_owned(), "secret".to_owned());
    });
    otlp.tick(&metrics(1));
    let (head, exported) = next(&told);
    assert_eq!(head[0], "post /v1/metrics http/1.1");
    assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
    assert!(head.contains(&"x-key: secret".to_owned()), "{head:?}");
    assert_eq!(sum(&exported, "nettrace_dns_transactions"), 1_042);
    let Data::ExponentialHistogram(all) = named(&exported, "nettrace_rx_softirq") else { panic!() };
    let (point, row) = (&all.data_points[0], sample::rich());
    let row = row.signals.iter().find(|s| s.signal == "rx.softirq").unwrap();
    assert_eq!(point.count, row.hist.count());
    assert!((point.sum.unwrap() - row.sum_ns as f64 / 1e9).abs() < 1e-9);
    // The 99th percentile lies in the bucket that has it, by the collector's definition of buckets.
    let buckets = point.positive.as_ref().unwrap();
    let (mut at, mut left) = (buckets.offset, (0.99 * point.count as f64).ceil() as u64);
    for n in &buckets.bucket_counts {
        if left <= *n {
            break;
        }
        left -= n;
        at += 1;
    }
    let p99_s = row.hist.quantile_ns(0.99) as f64 / 1e9;
    let (lower, upper) = ((f64::from(at) / 8.0).exp2(), (f64::from(at + 1) / 8.0).exp2());
    assert!(lower * 0.995 <= p99_s && p99_s <= upper * 1.005, "{lower} {p99_s} {upper}");
    let softirq = exported.iter().find(|m| m.name == "nettrace_rx_softirq").unwrap();
    assert_eq!((softirq.unit.as_str(), softirq.description.is_empty()), ("s", false));
    // Not yet time for another.
    otlp.tick(&metrics(2));
    let stats = otlp.finish(PATIENCE);
    assert_eq!((stats.sent, stats.failed, stats.dropped), (1, 0, 0));
    assert!(told.try_recv().is_err());
}

#[test]
fn numbers_are_since_the_start_or_since_the_export_before() {
    for (temporality, counts) in [(Temporality::Cumulative, [412, 824]), (Temporality::Delta, [412, 412])] {
        let (address, told) = collector(Vec::new());
        let mut otlp = exporter(address, |config| config.temporality = temporality);
        let rtt: u64 =
            sample::rich().signals.iter().filter(|s| s.signal == "net.rtt").map(|s| s.hist.count()).sum();
        let start_ns = otlp.start_unix_ns;
        for (n, connects) in counts.into_iter().enumerate() {
            otlp.export(&metrics(n + 1), start_ns + 1_000 * (n as u64 + 1));
            let (_, exported) = next(&told);
            assert_eq!(sum(&exported, "nettrace_tcp_connects"), connects);
            let (count, bucketed, told_as) = histogram(&exported, "nettrace_net_rtt");
            assert_eq!((count, bucketed), (rtt * connects as u64 / 412, count));
            let as_wanted = match temporality {
                Temporality::Cumulative => AggregationTemporality::Cumulative,
                Temporality::Delta => AggregationTemporality::Delta,
            };
            assert_eq!(told_as, as_wanted as i32);
        }
        assert_eq!(otlp.finish(PATIENCE).sent, 2);
    }
}

#[test]
fn what_fails_for_a_time_is_tried_again_and_what_is_refused_is_not() {
    let partial = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 3,
            error_message: "too old".to_owned(),
        }),
    };
    let answers =
        vec![(503, Vec::new()), (429, Vec::new()), (200, partial.encode_to_vec()), (400, Vec::new())];
    let (address, told) = collector(answers);
    let mut otlp = exporter(address, |_| {});
    otlp.export(&metrics(1), now_unix_ns());
    let bodies: Vec<_> = (0..3).map(|_| told.recv_timeout(PATIENCE).unwrap().1).collect();
    assert!(bodies[0] == bodies[1] && bodies[1] == bodies[2], "the same export again");
    otlp.export(&metrics(1), now_unix_ns());
    let stats = otlp.finish(PATIENCE);
    let expected = OtlpStats { sent: 1, failed: 1, retried: 2, rejected: 3, dropped: 0 };
    assert_eq!(stats, expected);
}

#[test]
fn a_collector_that_is_away_costs_a_bounded_queue_and_no_delta() {
    // Nobody listens here any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut otlp = exporter(address, |config| {
        config.queue = 2;
        config.temporality = Temporality::Delta;
    });
    for n in 0..10 {
        otlp.export(&metrics(1), now_unix_ns() + n);
    }
    let stats = otlp.stats();
    assert!((7..=8).contains(&stats.dropped), "two wait, and one may be tried: {stats:?}");
    assert_eq!(otlp.finish(Duration::ZERO).sent, 0);
}

#[test]
fn what_cannot_be_used_is_said_at_the_start() {
    let start = |change: fn(&mut OtlpConfig)| {
        let mut config = OtlpConfig::default();
        change(&mut config);
        Otlp::start(&config, Resource::default()).map(|o| o.is_some()).map_err(|e| e.to_string())
    };
    assert_eq!(start(|_| {}), Ok(false), "off");
    for endpoint in ["localhost:4318", "https://x/v1/metrics", "http://", "grpc://x:1", "http://a b/"] {
        let config = OtlpConfig { endpoint: Some(endpoint.to_owned()), ..OtlpConfig::default() };
        let error = Otlp::start(&config, Resource::default()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(endpoint) && error.contains("http://HOST:PORT"), "{error}");
    }
    let error = start(|config| {
        config.endpoint = Some("http://127.0.0.1:1/v1/metrics".to_owned());
        config.headers.insert("bad name".to_owned(), "x".to_owned());
    });
    assert!(error.unwrap_err().contains("bad name"));
    let parsed: OtlpConfig = toml::from_str("interval = '10s'\ntemporality = 'delta'").unwrap();
    assert_eq!((parsed.interval, parsed.temporality), (Duration::from_secs(10), Temporality::Delta));
    assert!(toml::from_str::<OtlpConfig>("endpoints = 'x'").is_err());
}
