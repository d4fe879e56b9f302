//! Connections: taken, bounded, served and ended.
//!
//! Needs a socket that listens and what answers requests; yields the task that does so until it is told to end.

use super::{
    Counts, Refusal, WebConfig, WebError,
    body::{Body, Refused},
    gate::{Gate, Place},
    guard::Guard,
    patience::Patient,
    routes::Site,
    told,
};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Connections that the kernel may hold before they are taken.
const BACKLOG: u32 = 128;
/// What the kernel holds of an answer that its client does not take, bytes; it doubles that.
const SEND_BUFFER: u32 = 128 << 10;
/// After an error of the listening socket, as when no descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);
/// How long what is being answered may take at the end.
const GRACE: Duration = Duration::from_secs(2);

/// What every answer says: nothing but this server's own files is run, shown, asked or sent to, and nobody may frame it,
/// guess its types, hold a handle of its window, or learn where a visitor came from.
const HEADERS: [(HeaderName, &str); 8] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
    (header::CACHE_CONTROL, "no-store"),
];

/// What all connections share.
pub(super) struct Server {
    pub(super) site: Site,
    pub(super) counts: Arc<Counts>,
    gate: Arc<Gate>,
    guard: Guard,
    config: WebConfig,
}

/// A socket that listens.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, WebError> {
    let bind = || -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        // Connections have it from the socket that listens.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error| WebError::bind(address, error))
}

impl Server {
    pub(super) fn new(config: WebConfig, site: Site, counts: Arc<Counts>) -> Arc<Self> {
        let (gate, guard) = (Gate::new(&config), Guard::new(&config));
        Arc::new(Self { site, counts, gate, guard, config })
    }

    /// Takes connections until it is told to end, and then lets what is being answered finish.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener, mut end: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            let taken = tokio::select! {
                taken = listener.accept() => taken,
                () = told(&mut end) => break,
            };
            // Tasks that ended leave their results, which say nothing.
            while connections.try_join_next().is_some() {}
            match taken {
                Ok((stream, peer)) => match self.gate.enter(peer.ip(), Instant::now()) {
                    Ok(place) => {
                        self.counts.connection();
                        connections.spawn(self.clone().connection(stream, place, end.clone()));
                    }
                    Err(why) => self.counts.refuse(why),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    sleep(PAUSE).await;
                }
            }
        }
        drop(listener);
        let finished = async { while connections.join_next().await.is_some() {} };
        if timeout(GRACE, finished).await.is_err() {
            connections.shutdown().await;
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, place: Place, end: watch::Receiver<bool>) {
        // Events are small and wait for nothing. A socket that refuses is served all the same.
        let _ = stream.set_nodelay(true);
        let stream = Patient::new(stream, self.config.write_timeout, self.counts.clone());
        let Some(tls) = self.site.secrets.tls() else { return self.speak(stream, &place, end).await };
        // A handshake costs as much as a request.
        if !place.request(Instant::now()) {
            return self.counts.refuse(Refusal::Rate);
        }
        match timeout(self.config.header_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.speak(stream, &place, end).await,
            Ok(Err(_)) | Err(_) => self.counts.refuse(Refusal::Tls),
        }
    }

    async fn speak<S>(&self, stream: S, place: &Place, mut end: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let service = service_fn(|request| self.request(request, place));
        let bytes = usize::try_from(self.config.header_bytes).unwrap_or(usize::MAX);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.header_timeout)
            .max_buf_size(bytes)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let done = tokio::select! {
            done = connection.as_mut() => done,
            () = told(&mut end) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = done {
            self.broken(&error);
        }
    }

    /// Counts why a connection ended early; one that did not take its answer was counted where it was seen.
    fn broken(&self, error: &hyper::Error) {
        let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
        if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
            return;
        }
        self.counts.refuse(if error.is_timeout() {
            Refusal::HeaderTimeout
        } else if error.is_parse_too_large() {
            Refusal::HeaderSize
        } else if error.is_parse() {
            Refusal::Malformed
        } else {
            Refusal::Broken
        });
    }

    async fn request(&self, request: Request<Incoming>, place: &Place) -> Result<Response<Body>, Infallible> {
        self.counts.request();
        let mut response = match self.answer(request, place).await {
            Ok(response) => response,
            Err(refused) => {
                self.counts.refuse(refused.why);
                refused.answer()
            }
        };
        for (name, value) in &HEADERS {
            response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
        }
        Ok(response)
    }

    async fn answer(&self, request: Request<Incoming>, place: &Place) -> Result<Response<Body>, Refused> {
        if !place.request(Instant::now()) {
            let text = "too many requests: web.requests_per_second";
            return Err(Refused::new(Refusal::Rate, StatusCode::TOO_MANY_REQUESTS, text));
        }
        self.guard.host(&request)?;
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if length.and_then(|text| text.parse().ok()).is_some_and(|n: u64| n > self.config.body_bytes) {
            let text = format!("the body is longer than {} bytes", self.config.body_bytes);
            return Err(Refused::new(Refusal::BodySize, StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        let limit = self.config.request_timeout;
        timeout(limit, self.site.answer(request)).await.unwrap_or_else(|_| {
            let text = format!("it took longer than {limit:?}: web.request_timeout");
            Err(Refused::new(Refusal::Timeout, StatusCode::SERVICE_UNAVAILABLE, text))
        })
    }
}
