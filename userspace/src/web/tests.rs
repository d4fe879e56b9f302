//! The server over real sockets: what is served, to whom, and what becomes of those who misbehave.

mod tls;

use super::{Counts, HistorySource, MetricsSource, Refusal, Serving, Sources, WebConfig, WebError, serve};
use crate::{
    agent::{Event, Hub, Status},
    live::Frame,
    snapshot::sample,
};
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

const TOKEN: &str = "correct-horse-battery-staple";
/// For what must come about, on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, and what it is made of.
struct Site {
    hub: Arc<Hub>,
    asked: mpsc::Receiver<Event>,
    serving: Serving,
    stop: oneshot::Sender<()>,
    dir: tempfile::TempDir,
}

impl Site {
    async fn new(change: impl FnOnce(&mut WebConfig, &mut Sources)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = Status { hostname: "node-1".to_owned(), ready: true, ..Status::default() };
        let (requests, asked) = mpsc::channel(8);
        let hub = Hub::new(status, requests);
        let mut sources = Sources::from(hub.clone());
        let mut config = WebConfig { listen: "127.0.0.1:0".parse().unwrap(), ..WebConfig::default() };
        change(&mut config, &mut sources);
        if config.token_file.is_some() {
            config.token_file = Some(secret(&dir, "token", TOKEN));
        }
        let (stop, stopped) = oneshot::channel();
        let serving = serve(config, sources, async move { drop(stopped.await) }).await.unwrap();
        Self { hub, asked, serving, stop, dir }
    }

    fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    fn counts(&self) -> Arc<Counts> {
        self.hub.counts()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// The answer to one request, whose connection ends with it.
    async fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect().await;
        exchange(&mut stream, request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&get(path, "")).await
    }

    /// Waits until that reason was counted so often.
    async fn refused(&self, why: Refusal, times: u64) {
        let counts = self.counts();
        let until = Instant::now() + PATIENCE;
        while counts.refused(why) < times {
            assert!(Instant::now() < until, "{why:?}: {:?}", counts.totals());
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(counts.refused(why), times, "{why:?}");
    }
}

/// A file that only its owner reads.
fn secret(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
}

/// What came until the connection ended.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(bytes.len());
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Self { status, head, body: bytes.get(end + 4..).unwrap_or_default().to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> Answer {
    // A server that refuses may have closed before all of it was written.
    let _ = stream.write_all(request.as_bytes()).await;
    Answer::of(&rest(stream).await)
}

/// What still comes until the connection ends.
async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // A connection that is closed with bytes unread is reset: what came before counts.
    let _ = read.expect("the server ends the connection");
    bytes
}

/// Reads until a text has come.
async fn until<S: AsyncRead + Unpin>(stream: &mut S, seen: &mut String, text: &str) {
    let mut buffer = [0; 4096];
    while !seen.contains(text) {
        let n = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("it comes").unwrap();
        assert!(n > 0, "ended before {text:?}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
}

#[tokio::test]
async fn the_page_comes_with_its_policy_and_files_are_not_sent_twice() {
    let site = Site::new(|_, _| {}).await;
    let page = site.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text().starts_with("<!doctype html>"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "deny"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    let etag = page.head.lines().find_map(|l| l.strip_prefix("etag: ")).unwrap();
    let mut stream = site.connect().await;
    // Its case matters; the head above was lowered, so the tag is taken from the original bytes.
    stream.write_all(get("/", "").as_bytes()).await.unwrap();
    let bytes = String::from_utf8_lossy(&rest(&mut stream).await).into_owned();
    let exact = bytes.lines().find_map(|l| l.strip_prefix("etag: ")).unwrap();
    assert!(exact.eq_ignore_ascii_case(etag));
    let again = site.ask(&get("/", &format!("If-None-Match: {exact}\r\n"))).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(site.get("/assets/../etc/passwd").await.status, 404);
    assert_eq!(site.get("/api/status").await.header("cache-control"), Some("no-store"));
    assert_eq!(site.counts().refused(Refusal::Path), 1);
}

#[tokio::test]
async fn every_route_answers() {
    let metrics: MetricsSource =
        Arc::new(|accept| ("text/plain; version=1".to_owned(), format!("accept {accept:?}").into()));
    let history: HistorySource = Arc::new(|range| match *range.start() {
        0 => Err("the disk is gone".into()),
        1 => Ok(None),
        _ => Ok(Some(sample::rich())),
    });
    let mut site = Site::new(|_, sources| {
        sources.metrics = Some(metrics);
        sources.history = Some(history);
    })
    .await;
    site.hub.put_window(Arc::new(sample::rich()));
    assert_eq!(site.get("/healthz").await.text(), "ok\n");
    assert_eq!(site.get("/readyz").await.status, 200);
    site.hub.update(|status| status.ready = false);
    assert_eq!(site.get("/readyz").await.status, 503);
    assert!(site.get("/api/status").await.text().contains("\"hostname\":\"node-1\""));
    assert!(site.get("/api/findings").await.text().contains("\"findings\":[]"));
    assert_eq!(site.get("/api/changes").await.text(), "[]");
    assert!(site.get("/metrics").await.text().starts_with("accept None"));
    assert_eq!(site.get("/metrics").await.header("content-type"), Some("text/plain; version=1"));
    let report = site.get("/api/history?from=2&to=3").await;
    assert!(report.text().contains("<html") && report.header("content-type").unwrap().contains("html"));
    assert_eq!(report.header("content-security-policy"), Some("frame-ancestors 'none'"));
    assert!(site.get("/api/history?from=2&format=json").await.text().contains("\"schema\""));
    for (path, status) in [
        ("/api/history?from=0", 500),
        ("/api/history?from=1", 404),
        ("/api/history?from=3&to=2", 400),
        ("/api/history?from=x", 400),
        ("/api/history?from=2&format=pdf", 400),
        ("/api/frames?since=x", 400),
        ("/nothing", 404),
    ] {
        assert_eq!(site.get(path).await.status, status, "{path}");
    }
    let frames: Vec<Frame> = serde_json::from_slice(&unchunked(&site.get("/api/frames").await)).unwrap();
    assert_eq!(frames, [Frame::of(&sample::rich())]);
    let head = site.ask("HEAD /api/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let body = "{\"reason\":\"p99\\u0007 jumped\"}";
    let post = |body: &str, more: &str| {
        format!(
            "POST /api/flight HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    assert_eq!(site.ask(&post(body, "")).await.status, 202);
    assert_eq!(site.asked.try_recv().ok(), Some(Event::Flight { reason: "p99 jumped".to_owned() }));
    assert_eq!(site.ask(&post("", "")).await.status, 202);
    assert_eq!(site.ask(&post("{\"reason\":1}", "")).await.status, 400);
    assert_eq!(site.ask(&post(body, "Origin: http://evil.example\r\n")).await.status, 403);
    assert_eq!(site.ask(&post(body, "Sec-Fetch-Site: cross-site\r\n")).await.status, 403);
    assert_eq!(site.counts().refused(Refusal::Origin), 2);
}

/// A body that came in chunks (RFC 9112, 7.1).
fn unchunked(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    let (mut rest, mut whole) = (&answer.body[..], Vec::new());
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let n = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if n == 0 {
            return whole;
        }
        whole.extend_from_slice(&rest[line + 2..line + 2 + n]);
        rest = &rest[line + 4 + n..];
    }
}

#[tokio::test]
async fn methods_that_are_not_meant_are_refused_with_those_that_are() {
    let site = Site::new(|_, _| {}).await;
    for (method, path, status) in [
        ("POST", "/", 405),
        ("DELETE", "/api/status", 405),
        ("GET", "/api/flight", 405),
        ("PUT", "/api/flight", 405),
        ("OPTIONS", "/metrics", 405),
        ("TRACE", "/", 405),
        ("BREW", "/", 405),
        ("CONNECT", "localhost:80", 404),
    ] {
        let answer = site
            .ask(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
            .await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    assert_eq!(site.counts().refused(Refusal::Method), 7);
}

#[tokio::test]
async fn without_the_token_only_the_page_and_the_probes_are_served() {
    let site = Site::new(|config, _| config.token_file = Some(PathBuf::new())).await;
    for path in ["/", "/assets/app.js", "/healthz", "/readyz"] {
        assert_eq!(site.get(path).await.status, 200, "{path}");
    }
    let closed = [
        "/api/status",
        "/api/frames",
        "/api/live",
        "/api/findings",
        "/api/changes",
        "/api/history",
        "/metrics",
    ];
    for path in closed {
        for header in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic Og==\r\n"] {
            let answer = site.ask(&get(path, header)).await;
            assert_eq!(answer.status, 401, "{path} {header}");
            assert_eq!(answer.header("www-authenticate"), Some("bearer realm=\"nettrace\""));
        }
    }
    assert_eq!(site.counts().refused(Refusal::Token), 3 * closed.len() as u64);
    let with = |token: &str| get("/api/status", &format!("Authorization: Bearer {token}\r\n"));
    assert_eq!(site.ask(&with(TOKEN)).await.status, 200);
    fs::write(site.dir.path().join("token"), "another-token-that-is-long").unwrap();
    site.serving.reload().unwrap();
    assert_eq!(site.ask(&with(TOKEN)).await.status, 401);
    assert_eq!(site.ask(&with("another-token-that-is-long")).await.status, 200);
    fs::remove_file(site.dir.path().join("token")).unwrap();
    assert!(site.serving.reload().is_err());
    assert_eq!(site.ask(&with("another-token-that-is-long")).await.status, 200);
}

#[tokio::test]
async fn names_that_are_not_this_server_s_are_refused() {
    let site = Site::new(|_, _| {}).await;
    for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.7"] {
        let answer =
            site.ask(&format!("GET /api/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, 421, "{host}");
    }
    assert_eq!(site.ask("GET / HTTP/1.0\r\n\r\n").await.status, 421, "no name");
    assert_eq!(site.counts().refused(Refusal::Host), 4);
    assert_eq!(
        site.ask("GET / HTTP/1.1\r\nHost: 127.0.0.1:9999\r\nConnection: close\r\n\r\n").await.status,
        200
    );
}

#[tokio::test]
async fn who_sends_headers_slowly_or_nothing_is_cut_off() {
    let site = Site::new(|config, _| config.header_timeout = Duration::from_millis(300)).await;
    let mut idle = site.connect().await;
    let mut slow = site.connect().await;
    let drip = tokio::spawn(async move {
        slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut sent = 0;
        // Each line alone comes soon enough; all of them do not.
        while slow.write_all(b"X-A: b\r\n").await.is_ok() && sent < 10_000 {
            sent += 1;
            sleep(Duration::from_millis(20)).await;
        }
        sent
    });
    assert!(rest(&mut idle).await.is_empty());
    assert!(drip.await.unwrap() < 10_000, "it was cut off");
    site.refused(Refusal::HeaderTimeout, 2).await;
    // A connection that was used and then does nothing is no better.
    let mut used = site.connect().await;
    used.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let answer = Answer::of(&rest(&mut used).await);
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn headers_and_bodies_that_are_too_long_are_answered_and_closed() {
    let site = Site::new(|_, _| {}).await;
    let long = "a".repeat(64 << 10);
    assert_eq!(site.ask(&get("/", &format!("X-Long: {long}\r\n"))).await.status, 431);
    assert_eq!(site.ask(&get(&format!("/{long}"), "")).await.status, 431);
    let many: String = (0..500).map(|n| format!("X-{n}: b\r\n")).collect();
    assert_eq!(site.ask(&get("/", &many)).await.status, 431);
    site.refused(Refusal::HeaderSize, 3).await;
    let post = "POST /api/flight HTTP/1.1\r\nHost: localhost\r\n";
    let declared = site.ask(&format!("{post}Content-Length: 99999999999\r\n\r\n")).await;
    assert_eq!((declared.status, declared.header("connection")), (413, Some("close")));
    let chunk = format!("1000\r\n{}\r\n", "a".repeat(0x1000));
    let chunked = site.ask(&format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}")).await;
    assert_eq!((chunked.status, chunked.header("connection")), (413, Some("close")));
    assert_eq!(site.counts().refused(Refusal::BodySize), 2);
    assert_eq!(site.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let site = Site::new(|_, _| {}).await;
    for garbage in [
        "\u{0}\u{1}\u{2}\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = site.ask(garbage).await;
        assert!(matches!(answer.status, 0 | 400 | 505), "{garbage:?}: {}", answer.head);
    }
    site.refused(Refusal::Malformed, 5).await;
    // Two lengths, or a length beside chunks, are how one request is hidden in another.
    let post = "POST /api/flight HTTP/1.1\r\nHost: localhost\r\n";
    let two = site.ask(&format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab")).await;
    assert_eq!(two.status, 400);
    assert_eq!(site.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_counted_against_the_rate() {
    let site = Site::new(|config, _| config.requests_per_second = 5).await;
    let mut stream = site.connect().await;
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.repeat(1_000).as_bytes()).await.unwrap();
    let text = String::from_utf8_lossy(&rest(&mut stream).await).into_owned();
    let served = text.matches("HTTP/1.1 200").count();
    // Ten at once, and five for each second that it took.
    assert!((10..200).contains(&served), "{served}");
    assert_eq!(text.matches("HTTP/1.1 429").count(), 1, "the connection ends with the first refusal");
    assert!(text.contains("retry-after: 1"));
    assert_eq!(site.counts().refused(Refusal::Rate), 1);
    assert_eq!(site.counts().totals().requests, served as u64 + 1);
}

#[tokio::test]
async fn connections_are_bounded_and_come_free_again() {
    let site = Site::new(|config, _| (config.connections, config.connections_per_peer) = (8, 3)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = site.connect().await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        until(&mut stream, &mut String::new(), "ok\n").await;
        held.push(stream);
    }
    assert_eq!(site.get("/healthz").await.status, 0, "closed without a word");
    site.refused(Refusal::Peer, 1).await;
    drop(held);
    let started = Instant::now();
    while site.get("/healthz").await.status != 200 {
        assert!(started.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn events_come_as_they_happen_and_end_with_the_server() {
    let site = Site::new(|config, _| config.streams = 1).await;
    site.hub.put_window(Arc::new(sample::empty()));
    let mut stream = site.connect().await;
    stream.write_all(get("/api/live", "").as_bytes()).await.unwrap();
    let mut seen = String::new();
    until(&mut stream, &mut seen, "event: frame\ndata: {\"at_unix_ms\"").await;
    assert!(seen.to_lowercase().contains("content-type: text/event-stream"));
    for event in ["status", "findings", "changes"] {
        assert_eq!(seen.matches(&format!("event: {event}\n")).count(), 1, "{event}: {seen}");
    }
    site.hub.put_window(Arc::new(sample::rich()));
    until(&mut stream, &mut seen, "postgres.prod.svc.cluster.local").await;
    assert_eq!(seen.matches("event: findings\n").count(), 1, "the same again is not sent again");
    assert_eq!(seen.matches("event: status\n").count(), 2);
    // Another one has no place, until this one leaves.
    let refused = site.get("/api/live").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")));
    assert_eq!(site.counts().refused(Refusal::Streams), 1);
    let Site { serving, stop, .. } = site;
    stop.send(()).unwrap();
    until(&mut stream, &mut seen, "event: end\n").await;
    rest(&mut stream).await;
    let address = serving.address();
    timeout(PATIENCE, serving.ended()).await.expect("it ends");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn who_does_not_take_what_it_asked_for_is_left() {
    let site = Site::new(|config, _| config.write_timeout = Duration::from_millis(200)).await;
    // More than both ends of a connection hold.
    for n in 0..400 {
        let mut window = sample::rich();
        window.meta.start_unix_ns += n * 5_000_000_000;
        site.hub.put_window(Arc::new(window));
    }
    let mut stream = site.connect().await;
    stream.write_all("GET /api/frames HTTP/1.1\r\nHost: localhost\r\n\r\n".as_bytes()).await.unwrap();
    site.refused(Refusal::Stalled, 1).await;
    drop(stream);
    assert_eq!(site.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn what_takes_too_long_is_given_up() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let metrics: MetricsSource = Arc::new(move |_| {
        // It ends when the test does.
        let _ = held.lock().map(|held| held.recv());
        (String::new(), bytes::Bytes::new())
    });
    let site = Site::new(|config, sources| {
        config.request_timeout = Duration::from_millis(100);
        sources.metrics = Some(metrics);
    })
    .await;
    let answer = site.get("/metrics").await;
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert_eq!(site.counts().refused(Refusal::Timeout), 1);
    drop(release);
}

#[tokio::test]
async fn why_nobody_can_listen_is_said() {
    let site = Site::new(|_, _| {}).await;
    let at = |listen: &str| WebConfig { listen: listen.parse().unwrap(), ..WebConfig::default() };
    let taken = site.address().to_string();
    let error = serve(at(&taken), site.hub.clone(), async {}).await.unwrap_err();
    assert!(matches!(error, WebError::InUse(_)) && error.to_string().contains(&taken), "{error}");
    let mut nowhere = at("192.0.2.1:0");
    nowhere.insecure = true;
    let error = serve(nowhere, site.hub.clone(), async {}).await.unwrap_err();
    assert!(matches!(error, WebError::NoAddress(_)), "{error}");
    let error = serve(at("0.0.0.0:0"), site.hub.clone(), async {}).await.unwrap_err();
    assert!(matches!(error, WebError::Config(_)), "{error}");
    let denied = WebError::bind(at("127.0.0.1:80").listen, std::io::ErrorKind::PermissionDenied.into());
    assert!(denied.to_string().contains("CAP_NET_BIND_SERVICE"), "{denied}");
}
