//! The bearer token, and the certificate with its key.
//!
//! Needs the files that the configuration names; yields what requests and handshakes are checked with, and reads it anew
//! when asked to. Files with secrets must not be readable by everybody.

use super::WebConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use subtle::ConstantTimeEq as _;
use tokio_rustls::{TlsAcceptor, rustls};

/// Longest file that is read, bytes.
const LONGEST: u64 = 1 << 20;
/// Shortest token, bytes: 96 random bits in base64.
const SHORTEST_TOKEN: usize = 16;

/// Why a token or a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Everybody on the machine can read it.
    #[error("{} is readable by everybody: chmod o= {}", .0.display(), .0.display())]
    Readable(PathBuf),
    /// It is not a file, or a very long one.
    #[error("{} is no file of up to 1 MiB", .0.display())]
    NoFile(PathBuf),
    /// No token that a header can carry, or one that can be guessed.
    #[error(
        "{} has no token of at least 16 printable characters in one line: head -c 32 /dev/urandom | base64 -w0", .0.display()
    )]
    Token(PathBuf),
    /// No PEM of the kind expected.
    #[error("{}: {what}", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Certificate and key cannot be used.
    #[error("{} with {}: {error}", certificate.display(), key.display())]
    Tls {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        error: rustls::Error,
    },
}

/// What is secret, as it was read last.
pub(super) struct Secrets {
    token_file: Option<PathBuf>,
    tls_files: Option<(PathBuf, PathBuf)>,
    now: RwLock<Read>,
}

#[derive(Clone)]
struct Read {
    /// SHA-256 of the token: its length takes no part in how long comparing takes.
    token: Option<[u8; 32]>,
    tls: Option<TlsAcceptor>,
}

impl Secrets {
    /// Reads what the configuration names.
    pub(super) fn read(config: &WebConfig) -> Result<Self, SecretError> {
        let token_file = config.token_file.clone();
        let tls_files = config.tls_certificate.clone().zip(config.tls_key.clone());
        let now = RwLock::new(Read::files(token_file.as_deref(), tls_files.as_ref())?);
        Ok(Self { token_file, tls_files, now })
    }

    /// Reads it anew; what was read before stays in force when that fails.
    pub(super) fn reload(&self) -> Result<(), SecretError> {
        let read = Read::files(self.token_file.as_deref(), self.tls_files.as_ref())?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// Whether a request with this `Authorization` may pass.
    pub(super) fn allows(&self, authorization: Option<&[u8]>) -> bool {
        let Some(wanted) = self.now().token else { return true };
        let given = authorization.and_then(bearer).unwrap_or_default();
        Sha256::digest(given).as_slice().ct_eq(&wanted).into()
    }

    /// Who does handshakes, when TLS is spoken.
    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.now().tls
    }

    fn now(&self) -> Read {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Read {
    fn files(token: Option<&Path>, tls: Option<&(PathBuf, PathBuf)>) -> Result<Self, SecretError> {
        Ok(Self {
            token: token.map(read_token).transpose()?,
            tls: tls.map(|(certificate, key)| acceptor(certificate, key)).transpose()?,
        })
    }
}

/// The token of `Bearer TOKEN`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn read_token(path: &Path) -> Result<[u8; 32], SecretError> {
    let bytes = secret(path)?;
    let token = bytes.trim_ascii();
    if token.len() < SHORTEST_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(SecretError::Token(path.to_owned()));
    }
    Ok(Sha256::digest(token).into())
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, SecretError> {
    let pem = |path: &Path, what: &str| SecretError::Pem { path: path.to_owned(), what: what.to_owned() };
    let (_, bytes) = contents(certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|e| pem(certificate, &e.to_string()))?;
    if chain.is_empty() {
        return Err(pem(certificate, "no certificate in PEM"));
    }
    let private = PrivateKeyDer::from_pem_slice(&secret(key)?).map_err(|e| pem(key, &e.to_string()))?;
    let wrong = |error| SecretError::Tls { certificate: certificate.to_owned(), key: key.to_owned(), error };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(wrong)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A file that not everybody may read.
fn secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let (mode, bytes) = contents(path)?;
    // A group may: that is how Kubernetes hands a secret to a container that is not root.
    if mode & 0o007 != 0 {
        return Err(SecretError::Readable(path.to_owned()));
    }
    Ok(bytes)
}

fn contents(path: &Path) -> Result<(u32, Vec<u8>), SecretError> {
    let failed = |error| SecretError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() || about.len() > LONGEST {
        return Err(SecretError::NoFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok((about.mode(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn file(dir: &tempfile::TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn secrets(token_file: &Path) -> Result<Secrets, SecretError> {
        Secrets::read(&WebConfig { token_file: Some(token_file.to_owned()), ..WebConfig::default() })
    }

    #[test]
    fn a_token_must_be_secret_and_long() {
        let dir = tempfile::tempdir().unwrap();
        let good = "0123456789abcdef\n";
        for (name, text, mode, says) in [
            ("open", good, 0o644, "readable by everybody"),
            ("short", "0123456789abcde", 0o600, "at least 16"),
            ("empty", "", 0o600, "at least 16"),
            ("two", "0123456789abcdef\n0123456789abcdef", 0o600, "one line"),
        ] {
            let error = secrets(&file(&dir, name, text, mode)).err().map(|e| e.to_string());
            assert!(error.as_ref().is_some_and(|e| e.contains(says)), "{name}: {error:?}");
        }
        let error = secrets(&dir.path().join("none")).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("none") && e.contains("No such file")));
        assert!(matches!(secrets(dir.path()), Err(SecretError::NoFile(_))));
        assert!(secrets(&file(&dir, "good", good, 0o640)).is_ok());
    }

    #[test]
    fn only_the_token_passes() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "token", "0123456789abcdef\n", 0o600);
        let secrets = secrets(&path).unwrap();
        for (header, passes) in [
            (Some("Bearer 0123456789abcdef"), true),
            (Some("bearer  0123456789abcdef "), true),
            (Some("Bearer 0123456789abcdeF"), false),
            (Some("Bearer 0123456789abcdef0"), false),
            (Some("Bearer "), false),
            (Some("Bearer"), false),
            (Some("Basic 0123456789abcdef"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(secrets.allows(header.map(str::as_bytes)), passes, "{header:?}");
        }
        fs::write(&path, "fedcba9876543210").unwrap();
        secrets.reload().unwrap();
        assert!(secrets.allows(Some(b"Bearer fedcba9876543210")));
        fs::write(&path, "short").unwrap();
        assert!(secrets.reload().is_err());
        assert!(secrets.allows(Some(b"Bearer fedcba9876543210")), "what was read before stays");
    }

    #[test]
    fn without_a_token_all_pass() {
        assert!(Secrets::read(&WebConfig::default()).unwrap().allows(None));
    }
}
