//! A client of an agent's page: where it is, who may ask, and one connection for each request.
//!
//! Needs a URL, and a token and certificates if the agent has them; yields JSON, or the bytes of a stream as they come.
//! HTTP/1.1, by `hyper`; TLS by `rustls`. Redirects are not followed: an agent sends none, and a token is for nobody else.

use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Body as _, Bytes, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde::de::DeserializeOwned;
use std::{
    fs,
    future::poll_fn,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Where an agent listens when nobody says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:9464";
/// Until a connection is there, until it is encrypted, until an answer begins.
const PATIENCE: Duration = Duration::from_secs(5);
/// Until an answer that has an end is there, with hours of frames.
const WHOLE: Duration = Duration::from_secs(30);
/// An answer may be so long, bytes: a thousand frames of some thousand bytes take a fraction.
const MAX_ANSWER: usize = 64 << 20;
/// A file with a token may be so long, bytes.
const MAX_TOKEN: u64 = 4096;

/// Why an agent cannot be asked, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is none.
    #[error("--agent {url}: {why}; expected a URL such as {DEFAULT_URL}")]
    Url {
        /// As it was typed.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The token would be sent in the clear.
    #[error(
        "--agent {0}: the token would cross the network in the clear; use https, or a tunnel to this machine"
    )]
    Clear(String),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file's content is no token.
    #[error("{}: no token is in it: one line of printable ASCII", .0.display())]
    Token(PathBuf),
    /// The file's content is no certificate.
    #[error("{}: no certificate is in it that can be read: PEM is expected", .0.display())]
    Certificates(PathBuf),
    /// This machine trusts nobody.
    #[error("this machine has no certificates of authorities that it trusts; give --ca-file")]
    NoRoots,
    /// The cryptography cannot be set up.
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
    /// Nothing listens there, or it cannot be reached.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The certificate is not trusted, or the other end speaks no TLS.
    #[error("no TLS with {address}: {error}")]
    Handshake {
        /// Host and port.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// Nothing came for too long.
    #[error("{what} took longer than {after:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    /// The answer is a refusal.
    #[error("{path}: {}", refusal(*status))]
    Status {
        /// What was asked for.
        path: &'static str,
        /// The answer.
        status: StatusCode,
    },
    /// The answer is too long.
    #[error("{0}: the answer is longer than {MAX_ANSWER} bytes")]
    TooLong(&'static str),
    /// The answer is not what this version understands.
    #[error("{path}: the answer cannot be understood, it may be of another version: {error}")]
    Json {
        /// What was asked for.
        path: &'static str,
        /// Why.
        error: serde_json::Error,
    },
    /// The agent ended a stream that has no end.
    #[error("the agent closed the connection")]
    Ended,
    /// The stream is no stream of events.
    #[error("the stream of frames cannot be understood: {0}")]
    Stream(String),
    /// A thread or its runtime cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

fn refusal(status: StatusCode) -> String {
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; the agent wants its token, see --token-file",
        StatusCode::NOT_FOUND => "; is it an agent, and of this version?",
        status if status.is_redirection() => "; redirections are not followed",
        _ => "",
    };
    format!("the agent answers {status}{hint}")
}

/// An agent: where it is, and how it is asked.
#[derive(Clone)]
pub struct Agent {
    url: String,
    host: String,
    port: u16,
    /// What comes before each path; without a slash at its end.
    prefix: String,
    token: Option<header::HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
}

/// What can be read and written.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Agent {
    /// One at a URL. Without a scheme it is http.
    ///
    /// # Errors
    /// When the URL is none, a file cannot be read, or a token would be sent in the clear.
    pub fn new(url: &str, token_file: Option<&Path>, ca_file: Option<&Path>) -> Result<Self, ClientError> {
        let wrong = |why| ClientError::Url { url: url.to_owned(), why };
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let parsed: Uri = full.parse().map_err(|_| wrong("not a URL"))?;
        let tls = match parsed.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("neither http nor https")),
        };
        let authority =
            parsed.authority().filter(|a| !a.host().is_empty()).ok_or_else(|| wrong("no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a user and password are not for agents"));
        }
        if authority.port_u16().is_none() && authority.as_str() != authority.host() {
            return Err(wrong("no port"));
        }
        if parsed.query().is_some() {
            return Err(wrong("a query is not expected"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let token = token_file.map(token).transpose()?;
        if token.is_some() && !tls && !is_here(&host) {
            return Err(ClientError::Clear(url.to_owned()));
        }
        Ok(Self {
            url: full.trim_end_matches('/').to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            host,
            prefix: parsed.path().trim_end_matches('/').to_owned(),
            token,
            tls: if tls { Some(client_config(ca_file)?) } else { None },
        })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What there is at a path.
    ///
    /// # Errors
    /// When it cannot be reached, refuses, or says what cannot be understood.
    pub(super) async fn json<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, ClientError> {
        let asked = async {
            let mut body = self.get(path, "application/json").await?.into_body();
            let mut whole = Vec::new();
            while let Some(piece) = piece(&mut body).await? {
                if whole.len() + piece.len() > MAX_ANSWER {
                    return Err(ClientError::TooLong(path));
                }
                whole.extend_from_slice(&piece);
            }
            serde_json::from_slice(&whole).map_err(|error| ClientError::Json { path, error })
        };
        within(WHOLE, "the answer", asked).await?
    }

    /// A stream at a path.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses.
    pub(super) async fn stream(&self, path: &'static str) -> Result<Incoming, ClientError> {
        Ok(self.get(path, "text/event-stream").await?.into_body())
    }

    /// The answer to a request, when it is no refusal; its body comes as it is read.
    async fn get(&self, path: &'static str, accept: &'static str) -> Result<Response<Incoming>, ClientError> {
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        // It ends with the body, or with the sender when there is none.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection to the agent: {error}");
            }
        });
        let mut request = Request::new(String::new());
        // A prefix and a path that are part of a URL are one together.
        *request.uri_mut() = format!("{}{path}", self.prefix)
            .parse()
            .map_err(|_| ClientError::Url { url: self.url.clone(), why: "its path cannot be asked for" })?;
        let headers = request.headers_mut();
        let host = header::HeaderValue::from_str(&self.address());
        headers.extend(host.ok().map(|host| (header::HOST, host)));
        headers.insert(header::ACCEPT, header::HeaderValue::from_static(accept));
        headers.insert(
            header::USER_AGENT,
            header::HeaderValue::from_static(concat!("nettrace/", env!("CARGO_PKG_VERSION"))),
        );
        headers.extend(self.token.clone().map(|token| (header::AUTHORIZATION, token)));
        let response = within(PATIENCE, "the agent's answer", sender.send_request(request)).await??;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(ClientError::Status { path, status }),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let address = || self.address();
        let plain = within(PATIENCE, "connecting", TcpStream::connect((self.host.as_str(), self.port)))
            .await?
            .map_err(|error| ClientError::Connect { address: address(), error })?;
        let Some(config) = &self.tls else { return Ok(Box::new(plain)) };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| ClientError::Url { url: self.url.clone(), why: "no name for a certificate" })?;
        let encrypted =
            within(PATIENCE, "the TLS handshake", TlsConnector::from(config.clone()).connect(name, plain))
                .await?
                .map_err(|error| ClientError::Handshake { address: address(), error })?;
        Ok(Box::new(encrypted))
    }

    /// Host and port, as in a URL.
    fn address(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// The next bytes of a body; none at its end.
pub(super) async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose()? {
            None => return Ok(None),
            // Trailers are no data.
            Some(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// What does not take too long.
pub(super) async fn within<T>(
    after: Duration,
    what: &'static str,
    work: impl Future<Output = T>,
) -> Result<T, ClientError> {
    timeout(after, work).await.map_err(|_| ClientError::Timeout { what, after })
}

/// Whether a host is this machine, so that what is sent to it crosses no network.
fn is_here(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn token(path: &Path) -> Result<header::HeaderValue, ClientError> {
    let failed = |error| ClientError::File { path: path.to_owned(), error };
    let size = fs::metadata(path).map_err(failed)?.len();
    let no_token = || ClientError::Token(path.to_owned());
    if size > MAX_TOKEN {
        return Err(no_token());
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(no_token());
    }
    let mut value = header::HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| no_token())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Trusts those in a file alone, or else those that this machine trusts.
fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, ClientError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let pem = fs::read(path).map_err(|error| ClientError::File { path: path.to_owned(), error })?;
            let unreadable = || ClientError::Certificates(path.to_owned());
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
            }
            if roots.is_empty() {
                return Err(unreadable());
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::debug!("certificates of this machine: {error}");
            }
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(ClientError::NoRoots);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    fn error(url: &str, token: Option<&Path>) -> String {
        Agent::new(url, token, None).err().unwrap().to_string()
    }

    #[test]
    fn urls_say_where() {
        let at = |url: &str| {
            let agent = Agent::new(url, None, None).unwrap();
            (agent.address(), agent.prefix)
        };
        let there = |address: &str, prefix: &str| (address.to_owned(), prefix.to_owned());
        assert_eq!(at(DEFAULT_URL), there("127.0.0.1:9464", ""));
        assert_eq!(at("node-1:9464/"), there("node-1:9464", ""));
        assert_eq!(at("http://[::1]:9464"), there("[::1]:9464", ""));
        assert_eq!(at("http://proxy/nettrace/"), there("proxy:80", "/nettrace"));
        for (url, why) in [
            ("", "not a URL"),
            ("ftp://node", "neither http nor https"),
            ("http://me:secret@node", "a user and password are not for agents"),
            ("http://node/?a=1", "a query is not expected"),
            ("http://node:99999", "no port"),
            ("http://node:", "no port"),
        ] {
            assert!(error(url, None).contains(why), "{url}: {}", error(url, None));
        }
    }

    #[test]
    fn tokens_are_one_word_and_cross_no_network_in_the_clear() {
        let good = file("secret\n");
        let agent = Agent::new("http://localhost:1", Some(good.path()), None).unwrap();
        let token = agent.token.unwrap();
        assert_eq!((token.as_bytes(), token.is_sensitive()), (&b"Bearer secret"[..], true));
        assert!(Agent::new("http://[::1]:1", Some(good.path()), None).is_ok());
        assert!(error("http://10.0.0.1:1", Some(good.path())).contains("in the clear"));
        for bad in ["", "two words", "line\nline", "caf\u{e9}", &"x".repeat(5_000)] {
            assert!(error(DEFAULT_URL, Some(file(bad).path())).contains("no token"), "{bad:.20}");
        }
        assert!(error(DEFAULT_URL, Some(Path::new("/nonexistent"))).contains("/nonexistent"));
    }

    #[test]
    fn certificates_are_pem() {
        for bad in ["", "certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let file = file(bad);
            let error = Agent::new("https://node", None, Some(file.path())).err().unwrap().to_string();
            assert!(error.contains("no certificate"), "{error}");
        }
    }
}
