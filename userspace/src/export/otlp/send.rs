//! The thread that sends, and what it does when that fails.
//!
//! Source: OTLP/HTTP, "Failures": 429, 502, 503 and 504 are tried again, as is what does not come to an answer; all else is final.

use super::{OtlpConfig, OtlpError, OtlpStats};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use ureq::{
    Agent, Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, Uri},
};

/// Before the second attempt; each further time it is twice as long ...
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// ... up to this, which also limits what a collector may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// An answer is a few numbers and a sentence, bytes.
const MAX_ANSWER: u64 = 64 << 10;
const PROTOBUF: &str = "application/x-protobuf";

#[derive(Default)]
struct Books {
    sent: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    rejected: AtomicU64,
    stop: AtomicBool,
}

impl Books {
    fn stats(&self) -> OtlpStats {
        let of = |count: &AtomicU64| count.load(Relaxed);
        OtlpStats {
            sent: of(&self.sent),
            failed: of(&self.failed),
            retried: of(&self.retried),
            rejected: of(&self.rejected),
            dropped: 0,
        }
    }
}

/// The other end of the queue. Without `finish` the thread ends by itself, and its exports with it.
pub(super) struct Sender {
    queue: SyncSender<Vec<u8>>,
    books: Arc<Books>,
    thread: JoinHandle<()>,
}

struct Worker {
    agent: Agent,
    endpoint: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    retry_for: Duration,
    books: Arc<Books>,
}

/// How an attempt ended.
enum Attempt {
    Taken,
    Refused(String),
    /// With the time that the collector asked for, if it did.
    Again(String, Option<Duration>),
}

impl Sender {
    pub(super) fn start(endpoint: &str, config: &OtlpConfig) -> Result<Self, OtlpError> {
        let wrong = || OtlpError::Endpoint(endpoint.to_owned());
        let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
            return Err(wrong());
        }
        let header = |(name, value): (&String, &String)| {
            let pair = name.parse().ok().zip(value.parse().ok());
            pair.ok_or_else(|| OtlpError::Header(name.clone()))
        };
        let headers = config.headers.iter().map(header).collect::<Result<_, _>>()?;
        let agent = Agent::config_builder()
            .timeout_global(Some(config.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("nettrace/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let (queue, waiting) = mpsc::sync_channel(config.queue.max(1));
        let books = Arc::new(Books::default());
        let worker =
            Worker { agent, endpoint: uri, headers, retry_for: config.retry_for, books: books.clone() };
        let thread = thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || worker.run(&waiting))
            .map_err(OtlpError::Thread)?;
        Ok(Self { queue, books, thread })
    }

    /// Queues a request. False when the queue is full.
    pub(super) fn put(&self, body: Vec<u8>) -> bool {
        self.queue.try_send(body).is_ok()
    }

    pub(super) fn stats(&self) -> OtlpStats {
        self.books.stats()
    }

    pub(super) fn finish(self, patience: Duration) -> OtlpStats {
        let (until, books) = (Instant::now() + patience, self.books.clone());
        let Self { queue, thread, .. } = self;
        drop(queue);
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        // One that still waits gives up; one that is within an attempt is left behind.
        books.stop.store(true, Relaxed);
        thread.thread().unpark();
        books.stats()
    }
}

impl Worker {
    fn run(&self, queue: &Receiver<Vec<u8>>) {
        for body in queue {
            match self.deliver(&body) {
                Ok(()) => self.books.sent.fetch_add(1, Relaxed),
                Err(why) => {
                    tracing::warn!("metrics could not be exported to {}: {why}", self.endpoint);
                    self.books.failed.fetch_add(1, Relaxed)
                }
            };
        }
    }

    fn deliver(&self, body: &[u8]) -> Result<(), String> {
        let until = Instant::now() + self.retry_for;
        let mut wait = FIRST_WAIT;
        loop {
            let (why, asked) = match self.attempt(body) {
                Attempt::Taken => return Ok(()),
                Attempt::Refused(why) => return Err(why),
                Attempt::Again(why, asked) => (why, asked),
            };
            let pause = asked.unwrap_or(wait).min(LONGEST_WAIT);
            if Instant::now() + pause > until || !self.rest(pause) {
                return Err(why);
            }
            self.books.retried.fetch_add(1, Relaxed);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Waits. False when the agent ends meanwhile.
    fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while !self.books.stop.load(Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::park_timeout(left);
        }
        false
    }

    fn attempt(&self, body: &[u8]) -> Attempt {
        let mut request = self.agent.post(&self.endpoint).content_type(PROTOBUF);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match request.send(body) {
            Ok(answer) if answer.status().is_success() => self.taken(answer),
            Ok(answer) if is_passing(answer.status()) => {
                let asked = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
                Attempt::Again(format!("HTTP status {}", answer.status()), asked.map(Duration::from_secs))
            }
            Ok(answer) => Attempt::Refused(format!("HTTP status {}", answer.status())),
            Err(error) => Attempt::Again(error.to_string(), None),
        }
    }

    /// A collector may take a part only, and says so.
    fn taken(&self, mut answer: Response<Body>) -> Attempt {
        let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().unwrap_or_default();
        let partial =
            ExportMetricsServiceResponse::decode(body.as_slice()).ok().and_then(|r| r.partial_success);
        if let Some(partial) = partial
            && partial.rejected_data_points > 0
        {
            tracing::warn!("{} took only a part of the metrics: {}", self.endpoint, partial.error_message);
            self.books.rejected.fetch_add(partial.rejected_data_points.unsigned_abs(), Relaxed);
        }
        Attempt::Taken
    }
}

/// Whether it may be taken when it is sent again.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}
