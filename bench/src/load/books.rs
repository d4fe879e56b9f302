//! The books of one thread of a client. Everything in them is allocated before the first request.

use super::{
    LoadError,
    clock::nanos,
    error::Failure,
    outcome::{Errors, HIGHEST_NS, Mode, Outcome, SLICE},
    spec::{Load, Pace},
};
use crate::cpu::{Pinned, Used};
use hdrhistogram::Histogram;

/// What one thread saw.
pub(super) struct Books {
    /// Measured is what is intended from here on, ns since the start.
    pub(super) begin_ns: u64,
    /// And before this.
    pub(super) end_ns: u64,
    latency: Histogram<u64>,
    open: Option<Open>,
    begun: u64,
    answered: u64,
    all: u64,
    errors: Errors,
    sent_bytes: u64,
    received_bytes: u64,
    last_ns: u64,
    slices: Vec<u32>,
}

/// What there is to know of a schedule.
struct Open {
    service: Histogram<u64>,
    lateness: Histogram<u64>,
}

/// 3 digits, from 1 ns on.
fn histogram() -> Result<Histogram<u64>, LoadError> {
    Histogram::new_with_bounds(1, HIGHEST_NS, 3)
        .map_err(|e| LoadError::System { action: "make a histogram", source: std::io::Error::other(e) })
}

impl Books {
    pub(super) fn new(load: &Load) -> Result<Self, LoadError> {
        let begin_ns = nanos(load.times.warm_up);
        let slices = nanos(load.times.measure) / nanos(SLICE);
        let open = match load.pace {
            Pace::Closed => None,
            Pace::Open { .. } => Some(Open { service: histogram()?, lateness: histogram()? }),
        };
        Ok(Self {
            begin_ns,
            end_ns: begin_ns + nanos(load.times.measure),
            latency: histogram()?,
            open,
            begun: 0,
            answered: 0,
            all: 0,
            errors: Errors::default(),
            sent_bytes: 0,
            received_bytes: 0,
            last_ns: begin_ns,
            slices: vec![0; usize::try_from(slices).unwrap_or(0)],
        })
    }

    const fn measures(&self, intended_ns: u64) -> bool {
        self.begin_ns <= intended_ns && intended_ns < self.end_ns
    }

    /// A request went out.
    pub(super) fn sent(&mut self, intended_ns: u64, sent_ns: u64, bytes: u64) {
        if self.measures(intended_ns) {
            self.begun += 1;
            self.sent_bytes += bytes;
            if let Some(open) = &mut self.open {
                open.lateness.saturating_record(sent_ns.saturating_sub(intended_ns));
            }
        }
    }

    /// An answer came, to one that was sent.
    pub(super) fn answered(&mut self, intended_ns: u64, sent_ns: u64, now_ns: u64, bytes: u64) {
        self.all += 1;
        if self.measures(intended_ns) {
            self.latency.saturating_record(now_ns.saturating_sub(intended_ns));
            if let Some(open) = &mut self.open {
                open.service.saturating_record(now_ns.saturating_sub(sent_ns));
            }
            self.received_bytes += bytes;
            self.done(now_ns);
        }
    }

    /// A request of a closed loop went out when it was to, and its answer came: both at once, with one look at the time that is
    /// measured, and inlined, since the next request waits for it.
    #[inline(always)]
    pub(super) fn exchanged(&mut self, sent_ns: u64, now_ns: u64, sent_bytes: u64, received_bytes: u64) {
        self.all += 1;
        if self.measures(sent_ns) {
            self.begun += 1;
            self.sent_bytes += sent_bytes;
            self.received_bytes += received_bytes;
            self.latency.saturating_record(now_ns.saturating_sub(sent_ns));
            self.done(now_ns);
        }
    }

    /// The kernel took one that has no answer.
    pub(super) fn passed_on(&mut self, intended_ns: u64, now_ns: u64, bytes: u64) {
        self.all += 1;
        self.sent(intended_ns, now_ns, bytes);
        if self.measures(intended_ns) {
            self.done(now_ns);
        }
    }

    #[inline(always)]
    fn done(&mut self, now_ns: u64) {
        self.answered += 1;
        self.last_ns = self.last_ns.max(now_ns);
        let slice = now_ns.saturating_sub(self.begin_ns) / nanos(SLICE);
        if let Some(n) = usize::try_from(slice).ok().and_then(|n| self.slices.get_mut(n)) {
            *n += 1;
        }
    }

    /// One that was sent has no answer.
    pub(super) fn failed(&mut self, intended_ns: u64, now_ns: u64, failure: Failure) {
        if self.measures(intended_ns) {
            self.errors.count(failure);
            if matches!(failure, Failure::TimedOut | Failure::Unsent) {
                self.latency.saturating_record(now_ns.saturating_sub(intended_ns));
            }
        }
    }

    /// One could not be sent.
    pub(super) fn not_sent(&mut self, intended_ns: u64, now_ns: u64, failure: Failure) {
        if self.measures(intended_ns) {
            self.begun += 1;
            self.failed(intended_ns, now_ns, failure);
        }
    }

    /// Adds what another thread of the same load saw.
    pub(super) fn add(&mut self, other: &Self) {
        // Bounds and digits are the same, so that nothing is refused.
        let _ = self.latency.add(&other.latency);
        if let (Some(open), Some(others)) = (&mut self.open, &other.open) {
            let _ = open.service.add(&others.service);
            let _ = open.lateness.add(&others.lateness);
        }
        self.begun += other.begun;
        self.answered += other.answered;
        self.all += other.all;
        self.errors.add(&other.errors);
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.last_ns = self.last_ns.max(other.last_ns);
        self.slices.iter_mut().zip(&other.slices).for_each(|(sum, n)| *sum += n);
    }

    /// Closes the books. `over_ns` is when the last thread was done.
    pub(super) fn close(self, load: &Load, over_ns: u64, cpu: Used, pinned: Pinned) -> Outcome {
        let to_ns = self.last_ns.max(over_ns.min(self.end_ns));
        let elapsed_ns = to_ns.saturating_sub(self.begin_ns);
        let mut slices = self.slices;
        slices.truncate(usize::try_from(elapsed_ns / nanos(SLICE)).unwrap_or(usize::MAX));
        let (service, lateness) = self.open.map(|open| (open.service, open.lateness)).unzip();
        let latency = match load.kind.is_one_way() {
            // Writes that timed out are in the errors.
            true => Histogram::new_from(&self.latency),
            false => self.latency,
        };
        Outcome {
            mode: Mode::of(load),
            begun: self.begun,
            answered: self.answered,
            all: self.all,
            errors: self.errors,
            elapsed_ns,
            sent_bytes: self.sent_bytes,
            received_bytes: self.received_bytes,
            latency,
            service: service.filter(|_| !load.kind.is_one_way()),
            lateness,
            slices,
            cpu,
            pinned,
            partial: None,
        }
    }
}
