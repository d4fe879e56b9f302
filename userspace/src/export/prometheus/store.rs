//! The series: values by metric and labels, of bounded number.
//!
//! Labels that come from outside (interfaces, resolvers, reasons) can be any number. Where a new one finds no room, one that
//! nothing was counted in for an hour makes some; if there is none, it is counted in the series whose label values are
//! [`OTHER`]. A series that goes is no error to Prometheus: it counts as gone, and from 0 if it comes back.

use super::{
    buckets::{Bounds, Distribution, Exemplar},
    table::{Id, Kind, METRICS, Metric},
};
use crate::snapshot::Hist;
use std::{collections::BTreeMap, sync::Arc};

/// Label value of what has no series of its own.
pub(super) const OTHER: &str = "other";
/// A series in which nothing was counted for so long may make room, ns of measuring.
const IDLE_NS: u64 = 3_600_000_000_000;
/// Bytes of a label's value at the most, as the kernel's longest names have; a text from outside may be any length.
const VALUE_BYTES: usize = 200;

/// What a series holds.
#[derive(Debug)]
pub(crate) enum Value {
    /// A counter.
    Count(u64),
    /// A counter of seconds, in ns.
    Nanos(u128),
    /// A gauge, or the 1 of an info.
    Gauge(f64),
    /// A histogram.
    Histogram(Box<Distribution>),
}

#[derive(Debug)]
struct Entry {
    value: Value,
    touched_ns: u64,
}

type Key = (Id, Vec<String>);

/// One series: label values in the order of the metric's labels, and the value.
pub(crate) type Row<'a> = (&'a [String], &'a Value);

/// All series.
pub(super) struct Store {
    entries: BTreeMap<Key, Entry>,
    bounds: Arc<Bounds>,
    max_series: usize,
    /// Series of entries that are there whatever comes from outside, at the most.
    reserved: usize,
    /// Series of the others.
    open: usize,
    now_ns: u64,
    swept_ns: Option<u64>,
    overflow: u64,
    evicted: u64,
}

impl Store {
    pub(super) fn new(max_series: usize, classic_buckets: &[f64]) -> Self {
        let bounds = Arc::new(Bounds::new(classic_buckets));
        let reserved = METRICS.iter().map(|m| usize::from(m.rows) * series(m, &bounds)).sum();
        Self {
            entries: BTreeMap::new(),
            bounds,
            max_series,
            reserved,
            open: 0,
            now_ns: 0,
            swept_ns: None,
            overflow: 0,
            evicted: 0,
        }
    }

    pub(super) const fn set_max_series(&mut self, max_series: usize) {
        self.max_series = max_series;
    }

    pub(super) fn has_bounds(&self, classic_buckets: &[f64]) -> bool {
        Bounds::new(classic_buckets).le == self.bounds.le
    }

    /// A window begins, or what is told of the agent anew.
    pub(super) const fn pass(&mut self, duration_ns: u64) {
        self.now_ns = self.now_ns.saturating_add(duration_ns);
    }

    /// Entries that were counted in a series for others, and series that made room.
    pub(super) const fn overflow(&self) -> (u64, u64) {
        (self.overflow, self.evicted)
    }

    /// Adds to a counter: a number, or ns where it is one of seconds.
    pub(super) fn add(&mut self, id: Id, labels: &[&str], n: u64) {
        match &mut self.entry(id, labels).value {
            Value::Count(sum) => *sum = sum.saturating_add(n),
            Value::Nanos(sum) => *sum += u128::from(n),
            Value::Gauge(_) | Value::Histogram(_) => {}
        }
    }

    /// Sets a counter that somebody else counts.
    pub(super) fn count(&mut self, id: Id, labels: &[&str], n: u64) {
        self.entry(id, labels).value = Value::Count(n);
    }

    /// Sets a gauge.
    pub(super) fn set(&mut self, id: Id, labels: &[&str], value: f64) {
        self.entry(id, labels).value = Value::Gauge(value);
    }

    /// Adds a window's distribution, with its exact sum, ns.
    pub(super) fn record(&mut self, id: Id, labels: &[&str], hist: &Hist, sum_ns: u64) {
        if let Value::Histogram(all) = &mut self.entry(id, labels).value {
            all.add(hist, sum_ns);
        }
    }

    /// Keeps a slow packet with a distribution that is there.
    pub(super) fn exemplar(&mut self, id: Id, labels: &[&str], exemplar: Exemplar) {
        let key = key(id, labels);
        let other = others(&key);
        let key = if self.entries.contains_key(&key) { key } else { other };
        if let Some(Entry { value: Value::Histogram(all), .. }) = self.entries.get_mut(&key) {
            all.exemplar(exemplar);
        }
    }

    /// Takes all series of a metric away, whose labels are to be told anew.
    pub(super) fn clear(&mut self, id: Id) {
        let size = series(id.metric(), &self.bounds);
        let open = &mut self.open;
        self.entries.retain(|key, _| {
            let goes = key.0 == id;
            *open -= if goes && is_open(key) { size } else { 0 };
            !goes
        });
    }

    fn entry(&mut self, id: Id, labels: &[&str]) -> &mut Entry {
        let mut key = key(id, labels);
        if is_open(&key) && !self.entries.contains_key(&key) {
            let size = series(id.metric(), &self.bounds);
            if self.has_room(size) {
                self.open += size;
            } else {
                self.overflow += 1;
                key = others(&key);
            }
        }
        let (bounds, now_ns) = (&self.bounds, self.now_ns);
        let entry =
            self.entries.entry(key).or_insert_with(|| Entry { value: empty(id, bounds), touched_ns: 0 });
        entry.touched_ns = now_ns;
        entry
    }

    fn has_room(&mut self, size: usize) -> bool {
        let fits = |open: usize| open + size + self.reserved <= self.max_series;
        if fits(self.open) {
            return true;
        }
        // Once a window: all series are looked at.
        if self.swept_ns == Some(self.now_ns) {
            return false;
        }
        self.swept_ns = Some(self.now_ns);
        let before_ns = self.now_ns.saturating_sub(IDLE_NS);
        let (mut freed, mut evicted) = (0, 0);
        let bounds = &self.bounds;
        self.entries.retain(|key, entry| {
            let goes = is_open(key) && entry.touched_ns < before_ns;
            if goes {
                freed += series(key.0.metric(), bounds);
                evicted += 1;
            }
            !goes
        });
        self.open -= freed;
        self.evicted += evicted;
        self.open + size + self.reserved <= self.max_series
    }

    pub(super) fn series(&self) -> usize {
        self.entries.keys().map(|(id, _)| series(id.metric(), &self.bounds)).sum()
    }

    pub(super) fn families(&self) -> Vec<(&'static Metric, Vec<Row<'_>>)> {
        let mut families: Vec<(&'static Metric, Vec<Row<'_>>)> = Vec::new();
        for ((id, labels), entry) in &self.entries {
            let metric = id.metric();
            let row = (labels.as_slice(), &entry.value);
            match families.last_mut() {
                Some((last, rows)) if last.name == metric.name => rows.push(row),
                _ => families.push((metric, vec![row])),
            }
        }
        families
    }
}

/// Series that one entry of a metric is in a text format.
fn series(metric: &Metric, bounds: &Bounds) -> usize {
    if metric.kind == Kind::Histogram { Distribution::series(bounds) } else { 1 }
}

fn empty(id: Id, bounds: &Arc<Bounds>) -> Value {
    let metric = id.metric();
    match metric.kind {
        Kind::Counter if metric.unit == super::Unit::Seconds => Value::Nanos(0),
        Kind::Counter => Value::Count(0),
        Kind::Gauge | Kind::Info => Value::Gauge(0.0),
        Kind::Histogram => Value::Histogram(Box::new(Distribution::new(bounds.clone()))),
    }
}

fn key(id: Id, labels: &[&str]) -> Key {
    debug_assert_eq!(id.metric().labels.len(), labels.len(), "{}", id.metric().name);
    (id, labels.iter().map(|value| value[..value.floor_char_boundary(VALUE_BYTES)].to_owned()).collect())
}

/// Whether a label's value is one from outside.
fn is_open((id, labels): &Key) -> bool {
    labels.iter().take(usize::from(id.metric().open)).any(|value| value != OTHER)
}

fn others((id, labels): &Key) -> Key {
    let open = usize::from(id.metric().open);
    let value = |(n, value): (usize, &String)| if n < open { OTHER.to_owned() } else { value.clone() };
    (*id, labels.iter().enumerate().map(value).collect())
}
