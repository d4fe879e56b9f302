//! What a record costs on the user side: decoding and aggregating, merging histograms, parsing DNS. And what many are: metrics of
//! ten thousand series, the snapshots of a thousand nodes.
#![expect(clippy::unwrap_used, reason = "a benchmark's own input is well-formed; a panic is its failure")]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nettrace::{
    aggregate::Aggregator,
    export::{Metrics, MetricsConfig},
    probes::dns::{DnsConfig, message::Message},
    snapshot::{Hist, SignalData, Snapshot, sample, union},
};
use nettrace_common::{
    Signal,
    probes::{dns::DnsMessage, drop::Drop},
    wire::{Cause, Direction, Flow, Header, Kind, Measure, Record},
};
use std::{hint::black_box, time::Duration};

/// Records in a batch, as a busy ring holds between two looks.
const RECORDS: u64 = 1000;

/// A record's bytes.
fn bytes_of<T: Record>(value: &T) -> &[u8] {
    // SAFETY: `Record` promises a type without padding, so all its bytes are initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// As the kernel lays a record into the ring: length, a word that nobody reads, the record, room to a multiple of 8.
fn frame(batch: &mut Vec<u8>, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    batch.extend_from_slice(&u32::try_from(len).unwrap().to_ne_bytes());
    batch.extend_from_slice(&[0; 4]);
    parts.iter().for_each(|p| batch.extend_from_slice(p));
    batch.resize(batch.len().next_multiple_of(8), 0);
}

fn header(kind: Kind, len: usize, n: u64, direction: Direction) -> Header {
    let (len, ts_ns) = (u16::try_from(len).unwrap(), 1_000_000 + n * 1000);
    Header {
        ts_ns,
        kind: kind as u8,
        direction: direction as u8,
        len,
        ifindex: 2,
        scope: 2,
        ..Header::default()
    }
}

/// One of a hundred flows.
fn flow(n: u64, protocol: u8, dport: u16) -> Flow {
    let mut saddr = [0; 16];
    saddr[..4].copy_from_slice(&[10, 244, 0, 2]);
    let sport = u16::try_from(40_000 + n % 100).unwrap();
    Flow { saddr, daddr: saddr, sport, dport, protocol, family: 4, ..Flow::default() }
}

fn measures() -> Bytes {
    let mut batch = Vec::new();
    for n in 0..RECORDS {
        let record = Measure {
            header: header(Kind::Measure, size_of::<Measure>(), n, Direction::None),
            flow: flow(n, 6, 443),
            latency_ns: 1_000_000 + n * 977 % 100_000,
            bytes: 66,
            signal: Signal::RxTotal as u8,
            cause: Cause::Exemplar as u8,
            pad: [0; 2],
        };
        frame(&mut batch, &[bytes_of(&record)]);
    }
    batch.into()
}

fn drops() -> Bytes {
    let mut batch = Vec::new();
    for n in 0..RECORDS {
        let header = header(Kind::Drop, size_of::<Drop>(), n, Direction::None);
        frame(&mut batch, &[bytes_of(&Drop { header, flow: flow(n, 17, 53), reason: 3, ..Drop::default() })]);
    }
    batch.into()
}

/// `a0.default.svc.cluster.local A`, as query or answer.
fn message(id: u16, answer: bool) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(if answer { &[0x81, 0x80, 0, 1, 0, 1] } else { &[1, 0, 0, 1, 0, 0] });
    message.extend_from_slice(&[0; 4]);
    for label in [&format!("a{}", id % 50), "default", "svc", "cluster", "local"] {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    if answer {
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 96, 0, 10]);
    }
    message
}

/// Queries, each followed by its answer.
fn dns() -> Bytes {
    let mut batch = Vec::new();
    for n in 0..RECORDS {
        let answer = n % 2 == 1;
        let payload = message(u16::try_from(n / 2).unwrap(), answer);
        let len = size_of::<DnsMessage>() + payload.len();
        let there = flow(n / 2, 17, 53);
        let back = Flow { sport: there.dport, dport: there.sport, ..there };
        let record = DnsMessage {
            header: header(Kind::Dns, len, n, if answer { Direction::In } else { Direction::Out }),
            flow: if answer { back } else { there },
            payload_len: u32::try_from(payload.len()).unwrap(),
            captured: u16::try_from(payload.len()).unwrap(),
            ..DnsMessage::default()
        };
        frame(&mut batch, &[bytes_of(&record), &payload]);
    }
    batch.into()
}

/// Decoding and aggregating: the time shown is for [`RECORDS`] of them.
fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_and_aggregate");
    group.throughput(Throughput::Elements(RECORDS));
    for (name, batch) in [("measures", measures()), ("drops", drops()), ("dns", dns())] {
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || Aggregator::new(DnsConfig::default()),
                |aggregator| assert_eq!(aggregator.feed(batch.clone()), RECORDS),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn histograms(c: &mut Criterion) {
    let mut some = Hist::new();
    (0..10_000_u64).for_each(|n| some.record(1000 + n * 7919 % 1_000_000));
    c.bench_function("histogram_merge", |b| {
        b.iter_batched_ref(|| some.clone(), |sum| sum.merge(black_box(&some)), BatchSize::SmallInput);
    });
}

fn parsing(c: &mut Criterion) {
    let answer = message(7, true);
    c.bench_function("dns_parse_answer", |b| {
        b.iter(|| Message::parse(black_box(&answer), answer.len()).unwrap());
    });
}

/// A window of a node with so many pods that its metrics are ten thousand series, a histogram counting for 17.
fn many_series() -> Metrics {
    const SERIES: usize = 10_000;
    // Some are kept for what is told of the agent itself.
    let mut metrics = Metrics::new(&MetricsConfig { max_series: SERIES + 400, ..MetricsConfig::default() });
    let mut window = sample::rich();
    let all = window.signals.iter().find(|row| row.signal == Signal::FwdHost.name()).unwrap().clone();
    window.signals.retain(|row| row.signal != all.signal);
    let pods = (0..SERIES).map(|n| SignalData { scope: format!("pod-{n:05}/eth0"), ..all.clone() });
    window.signals.extend(pods.take(600));
    window.signals.push(all);
    metrics.observe(&window);
    assert!(metrics.series() >= SERIES, "{}", metrics.series());
    metrics
}

/// A scrape, by format; the throughput is of bytes, so that it tells the size, too.
fn scrapes(c: &mut Criterion) {
    let metrics = many_series();
    let mut group = c.benchmark_group("scrape_10k_series");
    let protobuf =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    for (name, accept) in
        [("classic", ""), ("openmetrics", "application/openmetrics-text"), ("protobuf", protobuf)]
    {
        let encoded = metrics.encode(Some(accept));
        let bytes = encoded.body.len();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("{name}, {} kB", bytes / 1000), |b| {
            b.iter(|| black_box(&metrics).encode(Some(accept)));
        });
    }
    group.finish();
    let mut metrics = many_series();
    let window = sample::rich();
    c.bench_function("observe_window", |b| b.iter(|| metrics.observe(black_box(&window))));
}

/// Snapshots of nodes come one after the other, as from files.
fn fleet(c: &mut Criterion) {
    const NODES: u64 = 1_000;
    let one = sample::rich();
    let node = |n: u64| {
        let mut snapshot: Snapshot = one.clone();
        snapshot.meta.hostname = format!("node-{n}");
        snapshot
    };
    let mut group = c.benchmark_group("union");
    group.sample_size(10).throughput(Throughput::Elements(NODES));
    group.bench_function("1000_nodes", |b| b.iter(|| union((0..NODES).map(node)).unwrap()));
    group.finish();
}

criterion_group! {
    name = user_side;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = records, histograms, parsing, scrapes, fleet
}
criterion_main!(user_side);
