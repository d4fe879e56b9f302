//! What a request must be before anybody looks at what it wants: of this server's name, and not of a foreign page.
//!
//! A page elsewhere can point a name of its own at 127.0.0.1 and then read what is served there as its own (DNS rebinding):
//! so the name in `Host` is checked. It can also have the visitor's browser send requests whose answers it cannot read: so
//! what does something is refused when it comes from another origin.

use super::{Refusal, WebConfig, body::Refused};
use hyper::{HeaderMap, Request, StatusCode, Uri, header};
use std::net::IpAddr;

/// Which names are this server's.
#[derive(Debug)]
pub(super) struct Guard {
    /// Whether others than those named below are refused.
    strict: bool,
    /// Whether only addresses of loopback are its own.
    local: bool,
    hosts: Vec<String>,
}

impl Guard {
    /// By what is configured. With a token, a foreign page gets nothing at other addresses than loopback: it has none.
    pub(super) fn new(config: &WebConfig) -> Self {
        let hosts = config.hosts.iter().map(|host| host.to_ascii_lowercase());
        Self {
            strict: config.is_local() || config.token_file.is_none(),
            local: config.is_local(),
            hosts: hosts.chain(["localhost".to_owned()]).collect(),
        }
    }

    /// Whether a request calls this server by one of its names.
    pub(super) fn host<B>(&self, request: &Request<B>) -> Result<(), Refused> {
        if !self.strict {
            return Ok(());
        }
        let named = authority(request.uri(), request.headers());
        let host = named.map(without_port).unwrap_or_default().to_ascii_lowercase();
        let of_address = |ip: IpAddr| !self.local || ip.to_canonical().is_loopback();
        if self.hosts.contains(&host) || address(&host).is_some_and(of_address) {
            return Ok(());
        }
        let text = "this server does not know the name in `Host`: use its address, localhost, or a name in web.hosts";
        Err(Refused::new(Refusal::Host, StatusCode::MISDIRECTED_REQUEST, text))
    }
}

/// Whether a request that does something comes from this server's own page, or from no page at all.
pub(super) fn own_origin<B>(request: &Request<B>) -> Result<(), Refused> {
    let value = |name: &str| request.headers().get(name).map(|value| value.as_bytes());
    let same_site = value("sec-fetch-site").is_none_or(|site| site == b"same-origin" || site == b"none");
    let host = authority(request.uri(), request.headers()).unwrap_or_default();
    let same_origin = value("origin").is_none_or(|origin| {
        let name = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        name.is_some_and(|name| name.eq_ignore_ascii_case(host.as_bytes()))
    });
    if same_site && same_origin {
        return Ok(());
    }
    Err(Refused::new(Refusal::Origin, StatusCode::FORBIDDEN, "a page of another origin may not ask for this"))
}

/// `host:port` as the client calls the server: of the target when that names it (RFC 9112, 3.2.2), else of `Host`.
fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|value| value.to_str().ok());
    // Two of them may be read differently by who else looks at the request.
    if hosts.next().is_some() {
        return None;
    }
    uri.authority().map(|authority| authority.as_str()).or(host)
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    }
}

/// The address of a host that is one: `10.0.0.7`, `[::1]`.
fn address(host: &str) -> Option<IpAddr> {
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match v6 {
        Some(text) => text.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> Request<()> {
        let build =
            headers.iter().fold(Request::builder().uri("/"), |b, (name, value)| b.header(*name, *value));
        build.body(()).unwrap()
    }

    fn passes(config: &WebConfig, host: &str) -> bool {
        Guard::new(config).host(&request(&[("host", host)])).is_ok()
    }

    #[test]
    fn at_loopback_only_names_of_loopback_pass() {
        let config = WebConfig { hosts: vec!["Node-1.example".to_owned()], ..WebConfig::default() };
        for host in [
            "localhost",
            "LocalHost:9464",
            "localhost:8080",
            "127.0.0.1:9464",
            "127.1.2.3",
            "[::1]:9464",
            "[::1]",
            "node-1.EXAMPLE:9464",
        ] {
            assert!(passes(&config, host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example",
            "10.0.0.7",
            "[2001:db8::1]",
            "::1",
            "127.0.0.1.evil.example",
            "",
            "localhost:x",
        ] {
            assert!(!passes(&config, host), "{host}");
        }
        let token = WebConfig { token_file: Some("t".into()), ..WebConfig::default() };
        assert!(!passes(&token, "evil.example"), "with a token, too");
        assert!(Guard::new(&config).host(&request(&[])).is_err(), "no name at all");
        assert!(Guard::new(&config).host(&request(&[("host", "localhost"), ("host", "localhost")])).is_err());
    }

    #[test]
    fn elsewhere_addresses_pass_without_a_token_and_names_with_one() {
        let listen = "0.0.0.0:9464".parse().unwrap();
        let open = WebConfig { listen, insecure: true, ..WebConfig::default() };
        assert!(passes(&open, "10.0.0.7:9464") && passes(&open, "[2001:db8::1]:9464"));
        assert!(!passes(&open, "evil.example"));
        let token = WebConfig { listen, token_file: Some("t".into()), ..WebConfig::default() };
        assert!(passes(&token, "node-1.cluster.example"));
    }

    #[test]
    fn the_target_is_the_name_when_it_has_one() {
        let to = |uri: &str| Request::builder().uri(uri).header("host", "localhost").body(()).unwrap();
        let guard = Guard::new(&WebConfig::default());
        assert!(guard.host(&to("http://127.0.0.1:9464/")).is_ok());
        assert!(guard.host(&to("http://evil.example/")).is_err());
    }

    #[test]
    fn foreign_pages_may_not_have_something_done() {
        let check = |headers: &[(&'static str, &str)]| {
            own_origin(&request(&[&[("host", "localhost:9464")], headers].concat())).is_ok()
        };
        assert!(check(&[]), "curl");
        assert!(check(&[("origin", "http://localhost:9464"), ("sec-fetch-site", "same-origin")]));
        assert!(check(&[("origin", "https://LOCALHOST:9464")]));
        assert!(!check(&[("origin", "http://evil.example")]));
        assert!(!check(&[("origin", "http://localhost:9465")]), "another port is another origin");
        assert!(!check(&[("origin", "null")]));
        assert!(!check(&[("sec-fetch-site", "cross-site")]));
        assert!(!check(&[("sec-fetch-site", "same-site")]));
    }
}
