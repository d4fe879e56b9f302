//! What the page is served at, to whom, and within which bounds.
//!
//! Needs the section `[web]` of the configuration file; yields a [`WebConfig`] that was checked.

use crate::config::units;
use serde::Deserialize;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// The section `[web]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebConfig {
    /// Whether anything is served at all.
    pub enabled: bool,
    /// Address and port. Another address than loopback needs a token, or `insecure`.
    pub listen: SocketAddr,
    /// File with the bearer token that a request must name; it must not be readable by everybody.
    pub token_file: Option<PathBuf>,
    /// PEM file with the certificate and those of its issuers; TLS is spoken when it is set.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key; it must not be readable by everybody.
    pub tls_key: Option<PathBuf>,
    /// Whether other addresses than loopback may be listened at without a token.
    pub insecure: bool,
    /// Names beside `localhost` by which requests may call this server, without a port.
    pub hosts: Vec<String>,
    /// Connections at a time.
    pub connections: usize,
    /// Of these, from one peer: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_per_peer: usize,
    /// Of these, those that follow `/api/live`.
    pub streams: usize,
    /// Requests a second from one peer; twice as many at once.
    pub requests_per_second: u32,
    /// From a connection's start, or the end of its last request, until all headers of the next one are there.
    #[serde(deserialize_with = "units::duration")]
    pub header_timeout: Duration,
    /// From the last header until the answer's first byte.
    #[serde(deserialize_with = "units::duration")]
    pub request_timeout: Duration,
    /// How long a client may refuse to take what it asked for.
    #[serde(deserialize_with = "units::duration")]
    pub write_timeout: Duration,
    /// Request line and headers, bytes; at least 8 KiB.
    #[serde(deserialize_with = "units::bytes")]
    pub header_bytes: u64,
    /// A request's body, bytes.
    #[serde(deserialize_with = "units::bytes")]
    pub body_bytes: u64,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464),
            token_file: None,
            tls_certificate: None,
            tls_key: None,
            insecure: false,
            hosts: Vec::new(),
            connections: 64,
            connections_per_peer: 32,
            streams: 16,
            requests_per_second: 50,
            header_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            header_bytes: 16 << 10,
            body_bytes: 4 << 10,
        }
    }
}

/// What is wrong with the section `[web]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebConfigError {
    /// Everybody on the network could read what the node does.
    #[error(
        "web.listen: {0} is not loopback, and no token_file is set: set one, listen at 127.0.0.1, or set insecure = true"
    )]
    Open(SocketAddr),
    /// Half of what TLS needs.
    #[error("web.{0}: set tls_certificate and tls_key, or neither")]
    HalfTls(&'static str),
    /// A bound that nothing fits into.
    #[error("web.{name}: at least {least} is needed")]
    TooSmall {
        /// Which.
        name: &'static str,
        /// The least, with its unit.
        least: &'static str,
    },
    /// No name of a host.
    #[error("web.hosts: `{0}`: a name without scheme and port is expected")]
    Host(String),
}

impl WebConfig {
    /// Looks whether it can be served as it says; files are read later.
    ///
    /// # Errors
    /// What is wrong, with the key's name.
    pub fn check(&self) -> Result<(), WebConfigError> {
        if !self.is_local() && self.token_file.is_none() && !self.insecure {
            return Err(WebConfigError::Open(self.listen));
        }
        match (&self.tls_certificate, &self.tls_key) {
            (Some(_), None) => return Err(WebConfigError::HalfTls("tls_certificate")),
            (None, Some(_)) => return Err(WebConfigError::HalfTls("tls_key")),
            _ => {}
        }
        if let Some(host) = self.hosts.iter().find(|host| !is_name(host)) {
            return Err(WebConfigError::Host(host.clone()));
        }
        let bounds = [
            ("connections", "1", self.connections >= 1),
            ("connections_per_peer", "1", self.connections_per_peer >= 1),
            ("requests_per_second", "1", self.requests_per_second >= 1),
            ("header_timeout", "10ms", self.header_timeout >= Duration::from_millis(10)),
            ("request_timeout", "10ms", self.request_timeout >= Duration::from_millis(10)),
            ("write_timeout", "10ms", self.write_timeout >= Duration::from_millis(10)),
            // What hyper's reader takes at a time.
            ("header_bytes", "8KiB", self.header_bytes >= 8 << 10),
        ];
        match bounds.iter().find(|(.., fits)| !fits) {
            Some((name, least, _)) => Err(WebConfigError::TooSmall { name, least }),
            None => Ok(()),
        }
    }

    /// Whether only this machine, or this network namespace, reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls_certificate.is_some()
    }
}

fn is_name(host: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !host.is_empty() && host.len() <= 253 && host.chars().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut WebConfig)) -> String {
        let mut config = WebConfig::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn the_default_is_loopback_and_fits() {
        let config = WebConfig::default();
        assert_eq!(config.listen.to_string(), "127.0.0.1:9464");
        assert!(config.is_local() && !config.is_tls());
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn other_addresses_need_a_token_or_a_word() {
        for address in ["0.0.0.0:9464", "[::]:9464", "10.0.0.7:9464", "[::ffff:10.0.0.7]:9464"] {
            let listen = address.parse().unwrap();
            let text = error(|c| c.listen = listen);
            assert!(text.contains(address) && text.contains("token_file"), "{text}");
            for allowed in [
                WebConfig { listen, insecure: true, ..WebConfig::default() },
                WebConfig { listen, token_file: Some("/run/token".into()), ..WebConfig::default() },
            ] {
                assert_eq!(allowed.check(), Ok(()));
            }
        }
        for address in ["127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            let local = WebConfig { listen: address.parse().unwrap(), ..WebConfig::default() };
            assert_eq!(local.check(), Ok(()), "{address}");
        }
    }

    #[test]
    fn what_is_wrong_names_its_key() {
        assert!(error(|c| c.tls_key = Some("k".into())).starts_with("web.tls_key"));
        assert!(error(|c| c.tls_certificate = Some("c".into())).starts_with("web.tls_certificate"));
        assert!(error(|c| c.connections = 0).starts_with("web.connections:"));
        assert!(error(|c| c.header_bytes = 8191).contains("8KiB"));
        assert!(error(|c| c.header_timeout = Duration::ZERO).contains("header_timeout"));
        for host in ["", "https://node", "node:9464", "a b"] {
            assert!(error(|c| c.hosts.push(host.to_owned())).contains("web.hosts"), "{host}");
        }
    }

    #[test]
    fn a_file_says_it_in_units() {
        let text = "listen = '[::1]:1'\nheader_timeout = '2s'\nbody_bytes = '1KiB'\nhosts = ['node-1']";
        let config: WebConfig = toml::from_str(text).unwrap();
        assert_eq!((config.header_timeout, config.body_bytes), (Duration::from_secs(2), 1024));
        assert_eq!(config.check(), Ok(()));
        let error = toml::from_str::<WebConfig>("listen = '127.0.0.1:1'\ntokenfile = 'x'").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
