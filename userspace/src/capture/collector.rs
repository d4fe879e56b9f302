//! The thread that empties the ring, feeds the aggregator and writes the recording.

use super::{EndFrame, StartFrame, monotonic_ns};
use crate::{
    aggregate::Aggregator,
    flight::Memory,
    iface::lock,
    recording::{Kind, WriteError, Writer},
    ring::{MAX_BATCH, RingReader},
    snapshot::Hist,
};
use bytes::BytesMut;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long to wait after a look that found nothing, and after one that found something. A longer wait costs ring
/// room, a shorter one CPU time; producers never wake us.
const IDLE: Duration = Duration::from_millis(10);
const BUSY: Duration = Duration::from_millis(2);

/// How much of a recording a crash may cost.
const TICK: Duration = Duration::from_secs(1);

/// Written now and then.
#[derive(Serialize)]
struct TickFrame {
    /// Records received so far.
    received: u64,
    /// Time of the latest one, CLOCK_MONOTONIC, ns.
    latest_ns: u64,
}

/// What the thread leaves.
pub(super) struct Collected {
    pub(super) aggregator: Aggregator,
    pub(super) writer: Option<Writer>,
    /// Why something is not in the recording; the first reason.
    pub(super) unwritten: Option<WriteError>,
}

struct Shared {
    stop: AtomicBool,
    received: AtomicU64,
    /// Whether somebody asks, for those who look often.
    asked: AtomicBool,
    talk: Mutex<Talk>,
    answered: Condvar,
}

/// What is asked of the thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// The distributions so far.
    Histograms,
    /// A window ends: its books.
    Turn,
}

/// What it says.
enum Answer {
    Histograms(Histograms),
    Turned(Box<Aggregator>),
}

/// A question that waits for its answer, and then that.
#[derive(Default)]
struct Talk {
    ask: Option<Ask>,
    answer: Option<Answer>,
}

/// Distributions of the event lane, by signal and scope.
pub(super) type Histograms = BTreeMap<(u8, u16), Hist>;

/// How long the thread may take to answer: it is asleep for [`IDLE`], or at work on a full ring.
const ANSWER: Duration = Duration::from_secs(5);

/// The thread.
pub(super) struct Collector {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Collected>>,
}

impl Collector {
    pub(super) fn start(
        ring: RingReader,
        kernel_log: Option<KernelLog>,
        aggregator: Aggregator,
        writer: Option<Writer>,
        flight: Option<Memory>,
        start: &StartFrame,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            received: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            talk: Mutex::default(),
            answered: Condvar::new(),
        });
        let mut work = Work {
            ring,
            kernel_log,
            buffer: BytesMut::new(),
            aggregator,
            turned: 0,
            writer,
            flight,
            unwritten: None,
        };
        work.write_json(Kind::Start, start);
        let theirs = shared.clone();
        let thread =
            std::thread::Builder::new().name("collector".to_owned()).spawn(move || work.run(&theirs))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// The distributions so far, of everything that was emitted before. None when the thread is gone.
    pub(super) fn histograms(&self) -> Option<Histograms> {
        match self.ask(Ask::Histograms)? {
            Answer::Histograms(histograms) => Some(histograms),
            Answer::Turned(_) => None,
        }
    }

    /// Ends a window with everything that was emitted before; its books. None when the thread is gone.
    pub(super) fn turn(&self) -> Option<Aggregator> {
        match self.ask(Ask::Turn)? {
            Answer::Turned(aggregator) => Some(*aggregator),
            Answer::Histograms(_) => None,
        }
    }

    fn ask(&self, ask: Ask) -> Option<Answer> {
        let mut talk = lock(&self.shared.talk);
        *talk = Talk { ask: Some(ask), answer: None };
        self.shared.asked.store(true, Ordering::Release);
        let waited = self.shared.answered.wait_timeout_while(talk, ANSWER, |talk| talk.answer.is_none());
        let mut talk = waited.unwrap_or_else(PoisonError::into_inner).0;
        // What was not answered in time is not to be answered later: nobody would take a window's books.
        talk.ask = None;
        talk.answer.take()
    }

    /// Empties the ring for the last time. None when the thread panicked.
    pub(super) fn stop(mut self) -> Option<Collected> {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// What programs built with `--kernel-log` say.
pub(super) type KernelLog = aya_log::EbpfLogger<&'static dyn log::Log>;

struct Work {
    ring: RingReader,
    kernel_log: Option<KernelLog>,
    buffer: BytesMut,
    aggregator: Aggregator,
    /// Records of windows that ended.
    turned: u64,
    writer: Option<Writer>,
    flight: Option<Memory>,
    unwritten: Option<WriteError>,
}

impl Work {
    fn run(mut self, shared: &Shared) -> Collected {
        let mut ticked = Instant::now();
        // Taken since it was asked, bytes.
        let mut behind = 0;
        loop {
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick();
            }
            // Read before the look: what was emitted before the stop is then seen by this look or the next one.
            let last = shared.stop.load(Ordering::Acquire);
            let asked = shared.asked.load(Ordering::Acquire);
            let bytes = self.look();
            behind = if asked { behind + bytes } else { 0 };
            // After a look that began when the question was there already, and that came to the ring's end; where more comes
            // than it can take, when it has taken all that there was.
            if asked && (bytes < MAX_BATCH || behind >= self.ring.capacity()) {
                shared.asked.store(false, Ordering::Relaxed);
                self.answer(&mut lock(&shared.talk));
                shared.answered.notify_all();
            }
            if let Some(log) = &mut self.kernel_log {
                log.flush();
            }
            shared.received.store(self.turned + self.aggregator.received(), Ordering::Relaxed);
            match (bytes > 0, last) {
                (false, true) => break,
                (false, false) => std::thread::sleep(IDLE),
                (true, false) => std::thread::sleep(BUSY),
                (true, true) => {}
            }
        }
        Collected { aggregator: self.aggregator, writer: self.writer, unwritten: self.unwritten }
    }

    fn answer(&mut self, talk: &mut Talk) {
        talk.answer = talk.ask.take().map(|ask| match ask {
            Ask::Histograms => Answer::Histograms(self.aggregator.histograms()),
            Ask::Turn => {
                let closed = self.aggregator.turn(monotonic_ns());
                self.turned += closed.received();
                Answer::Turned(Box::new(closed))
            }
        });
    }

    /// Takes what there is; how much, bytes.
    fn look(&mut self) -> usize {
        let bytes = self.ring.drain(&mut self.buffer);
        if bytes == 0 {
            return 0;
        }
        let batch = self.buffer.split().freeze();
        self.write(Kind::Batch, &batch);
        if let Some(memory) = &self.flight {
            memory.push(monotonic_ns(), batch.clone());
        }
        self.aggregator.feed(batch);
        bytes
    }

    /// A sign of life, with which the recording so far goes to its file.
    fn tick(&mut self) {
        let received = self.turned + self.aggregator.received();
        let tick = TickFrame { received, latest_ns: self.aggregator.latest_ns() };
        self.write_json(Kind::Tick, &tick);
    }

    fn write_json(&mut self, kind: Kind, value: &impl Serialize) {
        if self.writer.is_none() {
            return;
        }
        match serde_json::to_vec(value) {
            Ok(json) => self.write(kind, &json),
            Err(error) => tracing::error!("cannot encode a frame: {error}"),
        }
    }

    fn write(&mut self, kind: Kind, payload: &[u8]) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = writer.frame(kind, payload) {
            // A frame that alone is too large is refused; those after it may fit.
            if !writer.is_open() {
                self.writer = None;
            }
            self.unwritten.get_or_insert(error);
        }
    }
}

/// The last frame.
///
/// # Errors
/// When it cannot be written, so that the recording has no end.
pub(super) fn write_end(mut writer: Writer, end: &EndFrame) -> Result<(), WriteError> {
    match serde_json::to_vec(end) {
        Ok(json) => writer.frame(Kind::End, &json)?,
        Err(error) => tracing::error!("cannot encode a frame: {error}"),
    }
    let stats = writer.finish()?;
    if stats.dropped_frames > 0 {
        tracing::warn!(
            "the recording reached its size: {} older frames ({} bytes) were dropped",
            stats.dropped_frames,
            stats.dropped_bytes
        );
    }
    Ok(())
}
