//! What is served: paths, methods, who may ask, and what is answered.
//!
//! Needs a request that passed the guard (`guard.rs`); yields its answer. Everything but the page's own files and the two probes
//! wants the token when there is one: the files hold nothing of the node, and without them no browser could ask for it.

use super::{
    Refusal, Sources, WebConfig, assets,
    body::{self, Body, Refused},
    feed,
    guard::own_origin,
    secrets::Secrets,
};
use crate::{
    agent::Event,
    recommend::Advice,
    report::{self, Format},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Body as HttpBody,
    header::{self, HeaderValue},
};
use serde::Deserialize;
use std::{error::Error, sync::Arc};
use tokio::sync::{Semaphore, watch};

/// Answers that take much memory or time and may be made at once.
const LARGE: usize = 2;

/// A path.
struct Route {
    path: &'static str,
    /// Whether it does something, and is asked with POST.
    posts: bool,
    /// Whether it is served without a token.
    open: bool,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Health,
    Ready,
    Status,
    Frames,
    Live,
    Findings,
    Changes,
    History,
    Flight,
    Metrics,
}

const fn get(path: &'static str, what: What) -> Route {
    Route { path, posts: false, open: false, what }
}

const fn open(path: &'static str, what: What) -> Route {
    Route { open: true, ..get(path, what) }
}

/// All paths but those of files.
const ROUTES: [Route; 10] = [
    open("/healthz", What::Health),
    open("/readyz", What::Ready),
    get("/api/status", What::Status),
    get("/api/frames", What::Frames),
    get("/api/live", What::Live),
    get("/api/findings", What::Findings),
    get("/api/changes", What::Changes),
    get("/api/history", What::History),
    Route { posts: true, ..get("/api/flight", What::Flight) },
    get("/metrics", What::Metrics),
];

/// What requests are answered from.
pub(super) struct Site {
    pub(super) sources: Sources,
    pub(super) secrets: Arc<Secrets>,
    body_bytes: usize,
    streams: Arc<Semaphore>,
    large: Arc<Semaphore>,
    end: watch::Receiver<bool>,
}

/// The body of `POST /api/flight`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flight {
    reason: String,
}

impl Site {
    pub(super) fn new(
        config: &WebConfig,
        sources: Sources,
        secrets: Arc<Secrets>,
        end: watch::Receiver<bool>,
    ) -> Self {
        Self {
            sources,
            secrets,
            body_bytes: usize::try_from(config.body_bytes).unwrap_or(usize::MAX),
            streams: Arc::new(Semaphore::new(config.streams.min(Semaphore::MAX_PERMITS))),
            large: Arc::new(Semaphore::new(LARGE)),
            end,
        }
    }

    /// The answer to a request.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Result<Response<Body>, Refused>
    where
        B: HttpBody<Error: Error + Send + Sync + 'static>,
    {
        let path = request.uri().path();
        let reads = [Method::GET, Method::HEAD].contains(request.method());
        if let Some(asset) = assets::find(path) {
            return if reads { Ok(asset.answer(request.headers())) } else { Err(method("GET")) };
        }
        let Some(route) = ROUTES.iter().find(|route| route.path == path) else {
            return Err(Refused::new(Refusal::Path, StatusCode::NOT_FOUND, "no such path"));
        };
        let fits = if route.posts { *request.method() == Method::POST } else { reads };
        if !fits {
            return Err(method(if route.posts { "POST" } else { "GET" }));
        }
        let authorization = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if !route.open && !self.secrets.allows(authorization) {
            let text = "a token is needed: send `Authorization: Bearer TOKEN`";
            return Err(Refused::new(Refusal::Token, StatusCode::UNAUTHORIZED, text));
        }
        if route.posts {
            own_origin(&request)?;
        }
        // Hyper sends none of a body in answer to HEAD; one that never ends would keep its task.
        if *request.method() == Method::HEAD && route.what == What::Live {
            return Ok(body::whole(StatusCode::OK, "text/event-stream", ""));
        }
        self.serve(route.what, request).await
    }

    async fn serve<B>(&self, what: What, request: Request<B>) -> Result<Response<Body>, Refused>
    where
        B: HttpBody<Error: Error + Send + Sync + 'static>,
    {
        let hub = &self.sources.hub;
        let query = request.uri().query().unwrap_or_default();
        match what {
            What::Health => Ok(body::text(StatusCode::OK, "ok")),
            What::Ready => Ok(self.ready()),
            What::Status => body::json(&*hub.status()),
            What::Findings => body::json(&Advice::new(&hub.status().hostname, hub.findings().to_vec())),
            What::Changes => body::json(&*hub.changes()),
            What::Frames => {
                let at_unix_ms = time(query, "since", 0)?..=time(query, "until", u64::MAX)?;
                let wanted = feed::Wanted { at_unix_ms, brief: value(query, "brief").is_some() };
                Ok(feed::frames(hub, &wanted, body::takes_gzip(request.headers())))
            }
            What::Live => self.live(),
            What::History => self.history(query, request.headers()).await,
            What::Flight => self.flight(request.into_body()).await,
            What::Metrics => self.metrics(request.headers()).await,
        }
    }

    fn ready(&self) -> Response<Body> {
        if self.sources.hub.status().ready {
            body::text(StatusCode::OK, "ready")
        } else {
            body::text(StatusCode::SERVICE_UNAVAILABLE, "not ready: no window was closed lately")
        }
    }

    fn live(&self) -> Result<Response<Body>, Refused> {
        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            let text = "too many follow already: web.streams";
            return Err(Refused::new(Refusal::Streams, StatusCode::SERVICE_UNAVAILABLE, text));
        };
        Ok(feed::live(self.sources.hub.clone(), place, self.end.clone()))
    }

    async fn metrics(&self, headers: &HeaderMap) -> Result<Response<Body>, Refused> {
        let Some(metrics) = self.sources.metrics.clone() else {
            return Err(unavailable(StatusCode::NOT_FOUND, "this agent writes no metrics"));
        };
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let gzip = body::takes_gzip(headers);
        let (content_type, bytes) = self.off_thread(move || metrics(accept.as_deref())).await?;
        let mut response = Response::new(Body::Whole(Some(bytes)));
        let content_type = HeaderValue::from_str(&content_type)
            .map_err(|error| unavailable(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        Ok(if gzip { body::compressed(response) } else { response })
    }

    async fn history(&self, query: &str, headers: &HeaderMap) -> Result<Response<Body>, Refused> {
        let Some(history) = self.sources.history.clone() else {
            return Err(unavailable(StatusCode::NOT_FOUND, "this agent keeps no history"));
        };
        let range = time(query, "from", 0)?..=time(query, "to", u64::MAX)?;
        if range.is_empty() {
            return Err(parameter("`to` is before `from`"));
        }
        let format = match value(query, "format") {
            None | Some("html") => Format::Html,
            Some("json") => Format::Json,
            Some(_) => return Err(parameter("`format` is html or json")),
        };
        let report = move || {
            let snapshot = history(range)
                .map_err(|error| unavailable(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
                .ok_or_else(|| unavailable(StatusCode::NOT_FOUND, "nothing was kept of that time"))?;
            report::render(&snapshot, format, &report::Options::default())
                .map_err(|error| unavailable(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        };
        let text = self.off_thread(report).await??;
        let content_type = match format {
            Format::Html => "text/html; charset=utf-8",
            _ => "application/json",
        };
        let mut response = body::whole(StatusCode::OK, content_type, text);
        // A report has its own policy inside, by the digests of its style and script; and it may be shown in no frame.
        body::set(&mut response, header::CONTENT_SECURITY_POLICY, "frame-ancestors 'none'");
        Ok(if body::takes_gzip(headers) { body::compressed(response) } else { response })
    }

    async fn flight<B>(&self, body: B) -> Result<Response<Body>, Refused>
    where
        B: HttpBody<Error: Error + Send + Sync + 'static>,
    {
        let body = Limited::new(body, self.body_bytes);
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let text = format!("the body is longer than {} bytes", self.body_bytes);
                return Err(Refused::new(Refusal::BodySize, StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            Err(error) => {
                return Err(Refused::new(Refusal::Broken, StatusCode::BAD_REQUEST, error.to_string()));
            }
        };
        let reason = if bytes.trim_ascii().is_empty() {
            "asked for over HTTP".to_owned()
        } else {
            let flight: Flight = serde_json::from_slice(&bytes)
                .map_err(|error| parameter(&format!("the body is not {{\"reason\": \"...\"}}: {error}")))?;
            flight.reason.chars().filter(|c| !c.is_control()).take(200).collect()
        };
        if self.sources.hub.request(Event::Flight { reason }) {
            return Ok(body::text(StatusCode::ACCEPTED, "the flight recorder was asked to write"));
        }
        Err(unavailable(StatusCode::SERVICE_UNAVAILABLE, "the agent has too much to do, or is ending"))
    }

    /// Runs what takes long where nobody waits behind it, few at a time. Work that nobody waits for any more keeps its place
    /// until it is done.
    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let failed = |error: &dyn Error| unavailable(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        let place = self.large.clone().acquire_owned().await.map_err(|error| failed(&error))?;
        let work = move || {
            let _place = place;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error))
    }
}

fn unavailable(status: StatusCode, text: impl Into<String>) -> Refused {
    Refused::new(Refusal::Unavailable, status, text)
}

fn parameter(text: &str) -> Refused {
    Refused::new(Refusal::Parameters, StatusCode::BAD_REQUEST, text)
}

fn method(allowed: &str) -> Refused {
    Refused::new(Refusal::Method, StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed} is answered here"))
}

/// The value of a parameter; an empty one for a name alone.
fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

/// A parameter in Unix time, ms.
fn time(query: &str, name: &str, otherwise: u64) -> Result<u64, Refused> {
    value(query, name).map_or(Ok(otherwise), |text| {
        text.parse().map_err(|_| parameter(&format!("`{name}` is a Unix time in milliseconds")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_whole_name() {
        let query = "from=1&to=20&brief&xfrom=3";
        assert_eq!(value(query, "from"), Some("1"));
        assert_eq!(value(query, "brief"), Some(""));
        assert_eq!(value(query, "rom"), None);
        assert_eq!(time(query, "to", 0).unwrap(), 20);
        assert_eq!(time(query, "since", 7).unwrap(), 7);
        for wrong in ["from=", "from=-1", "from=1e3", "from=99999999999999999999", "from"] {
            assert!(time(wrong, "from", 0).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_probes_are_open_and_only_flights_are_asked_for() {
        let open: Vec<_> = ROUTES.iter().filter(|route| route.open).map(|route| route.path).collect();
        assert_eq!(open, ["/healthz", "/readyz"]);
        let done: Vec<_> = ROUTES.iter().filter(|route| route.posts).map(|r| r.path).collect();
        assert_eq!(done, ["/api/flight"]);
    }
}
