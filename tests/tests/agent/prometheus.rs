//! A Prometheus server that scrapes for one test, and promtool.

use anyhow::{Context as _, Result, bail, ensure};
use nettrace::export::Metrics;
use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Until a server answers, or what is asked for is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether tests with it are switched off, which is said.
pub(crate) fn is_off(test: &str) -> bool {
    let off = std::env::var_os("NETTRACE_SKIP_PROMETHEUS").is_some();
    if off {
        // Straight to stderr: the test harness would keep the output of a passing test to itself.
        let _ = writeln!(std::io::stderr(), "{test}: skipped, NETTRACE_SKIP_PROMETHEUS is set");
    }
    off
}

fn missing(program: &str, error: &std::io::Error) -> String {
    format!(
        "cannot run {program} ({error}): install the package `prometheus`, or set NETTRACE_SKIP_PROMETHEUS=1 to skip \
         the tests that need it"
    )
}

/// Runs promtool with what it is to read.
pub(crate) fn promtool(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}", missing("promtool", &e)));
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Serves metrics on loopback: at `/metrics` in the format that is asked for, at `/classic` without protobuf.
pub(crate) struct Endpoint {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    pub(crate) fn of(metrics: Metrics) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Relaxed) {
                    break;
                }
                // A scraper that goes away is none of the test's business.
                let _ = answer(&stream.unwrap(), &metrics);
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: &TcpStream, metrics: &Metrics) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next().transpose()?.unwrap_or_default();
    let head = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let head: Vec<_> = head
        .filter_map(|line| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())))
        .collect();
    let accept = head.iter().find(|(name, _)| name == "accept").map(|(_, value)| value.as_str());
    let accept = if path.contains(" /classic ") { Some("application/openmetrics-text") } else { accept };
    let encoded = metrics.encode(accept);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        encoded.content_type,
        encoded.body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&encoded.body)
}

/// A server that scrapes both ways: jobs `native` and `classic`.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts one and waits until it has scraped once.
    pub(crate) fn start(dir: &Path, target: SocketAddr) -> Result<Self> {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir)?;
        let mut config = "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n".to_owned();
        for (job, path) in [("native", "/metrics"), ("classic", "/classic")] {
            let _ = writeln!(
                config,
                "  - job_name: {job}\n    metrics_path: {path}\n    static_configs: [{{targets: ['{target}']}}]"
            );
        }
        fs::write(dir.join("prometheus.yml"), config)?;
        // Freed again at once: it takes no port by itself.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = dir.join("log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=native-histograms,exemplar-storage")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .unwrap_or_else(|e| panic!("{}", missing("prometheus", &e)));
        let mut server = Self { child, address, log };
        server.wait()?;
        Ok(server)
    }

    fn wait(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                bail!("prometheus ended: {status}\n{}", fs::read_to_string(&self.log)?);
            }
            match self.query("sum(up{job=~\"native|classic\"}) and on () count(up) == 2") {
                Ok(Some(2.0)) => return Ok(()),
                other => last = format!("{other:?}\n{}", self.get("/api/v1/targets").unwrap_or_default()),
            }
            thread::sleep(Duration::from_millis(250));
        }
        bail!("prometheus has not scraped: {last}\n{}", fs::read_to_string(&self.log)?)
    }

    /// Scrapes a job did not take something of.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        ensure!(head.contains(" 200 "), "{head}: {body}");
        Ok(body.to_owned())
    }

    /// The value of a query that yields one; none when it yields nothing.
    pub(crate) fn query(&self, query: &str) -> Result<Option<f64>> {
        let body: serde_json::Value = serde_json::from_str(&self.get(&path("query", query))?)?;
        let rows = body.pointer("/data/result").and_then(|r| r.as_array()).context("no result")?;
        ensure!(rows.len() <= 1, "{query}: {} rows", rows.len());
        let Some(row) = rows.first() else { return Ok(None) };
        let value = row.pointer("/value/1").and_then(|v| v.as_str()).context("no value")?;
        Ok(Some(value.parse()?))
    }

    /// Exemplars of a query, as JSON.
    pub(crate) fn exemplars(&self, query: &str) -> Result<serde_json::Value> {
        let path = path("query_exemplars", query) + "&start=0&end=9999999999";
        Ok(serde_json::from_str(&self.get(&path)?)?)
    }
}

fn path(of: &str, query: &str) -> String {
    let mut path = format!("/api/v1/{of}?query=");
    for byte in query.bytes() {
        let _ = if byte.is_ascii_alphanumeric() {
            write!(path, "{}", char::from(byte))
        } else {
            write!(path, "%{byte:02X}")
        };
    }
    path
}
