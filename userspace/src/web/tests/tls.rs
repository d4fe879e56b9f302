//! The same over TLS.

use super::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

struct Identity {
    certificate: CertificateDer<'static>,
    pem: (String, String),
}

fn identity() -> Identity {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Identity { certificate: cert.der().clone(), pem: (cert.pem(), signing_key.serialize_pem()) }
}

async fn connect(site: &Site, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, site.connect().await).await
}

#[tokio::test]
async fn a_certificate_is_read_anew_and_a_wrong_one_is_not_taken() {
    let (first, second) = (identity(), identity());
    let dir = tempfile::tempdir().unwrap();
    let certificate = secret(&dir, "cert.pem", &first.pem.0);
    let key = secret(&dir, "key.pem", &first.pem.1);
    let site = Site::new(|config, _| {
        config.tls_certificate = Some(certificate.clone());
        config.tls_key = Some(key.clone());
    })
    .await;
    let mut stream = connect(&site, &first.certificate).await.unwrap();
    assert_eq!(exchange(&mut stream, &get("/healthz", "")).await.text(), "ok\n");
    assert!(connect(&site, &second.certificate).await.is_err());
    site.refused(Refusal::Tls, 1).await;
    assert_eq!(site.get("/healthz").await.status, 0, "plain text is no handshake");
    site.refused(Refusal::Tls, 2).await;

    // The new certificate without its key: nothing changes.
    fs::write(&certificate, &second.pem.0).unwrap();
    let error = site.serving.reload().unwrap_err().to_string();
    assert!(error.contains("cert.pem") && error.contains("key.pem"), "{error}");
    assert!(connect(&site, &first.certificate).await.is_ok());
    fs::write(&key, &second.pem.1).unwrap();
    site.serving.reload().unwrap();
    let mut stream = connect(&site, &second.certificate).await.unwrap();
    assert_eq!(exchange(&mut stream, &get("/healthz", "")).await.status, 200);
}

#[tokio::test]
async fn handshakes_that_do_not_go_on_are_cut_off() {
    let one = identity();
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(|config, _| {
        config.header_timeout = Duration::from_millis(200);
        config.tls_certificate = Some(secret(&dir, "cert.pem", &one.pem.0));
        config.tls_key = Some(secret(&dir, "key.pem", &one.pem.1));
    })
    .await;
    let mut silent = site.connect().await;
    assert!(rest(&mut silent).await.is_empty());
    site.refused(Refusal::Tls, 1).await;
}

#[tokio::test]
async fn a_key_that_everybody_reads_is_refused() {
    let one = identity();
    let dir = tempfile::tempdir().unwrap();
    let key = secret(&dir, "key.pem", &one.pem.1);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let config = WebConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls_certificate: Some(secret(&dir, "cert.pem", &one.pem.0)),
        tls_key: Some(key),
        ..WebConfig::default()
    };
    let hub = Hub::new(Status::default(), mpsc::channel(1).0);
    let error = serve(config, hub, async {}).await.unwrap_err().to_string();
    assert!(error.contains("key.pem is readable by everybody"), "{error}");
}
