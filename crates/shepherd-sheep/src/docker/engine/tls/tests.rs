use std::net::Ipv4Addr;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use super::*;
use crate::EngineHost;
use crate::docker::engine::{Link, Trouble};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of `authority`'s for the loopback interface, and its key.
fn certificate(authority: &Authority) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![Ipv4Addr::LOCALHOST.to_string()]).unwrap();
    (params.signed_by(&key, authority).unwrap(), key)
}

/// Files with which an engine is to be reached that trusts `authority`.
fn files(dir: &Path, authority: &Authority) -> TlsFiles {
    let (certificate, key) = certificate(authority);
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    TlsFiles {
        ca: write("ca.pem", authority.pem()),
        cert: write("cert.pem", certificate.pem()),
        key: write("key.pem", key.serialize_pem()),
    }
}

/// An engine behind TLS that answers every ping of who has a certificate of `authority`'s.
async fn engine_of(authority: &Authority) -> (String, tokio::task::JoinHandle<()>) {
    let (certificate, key) = certificate(authority);
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let Ok(mut client) = acceptor.accept(client).await else { continue };
            if client.read(&mut [0; 1024]).await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK";
                let _ = client.write_all(answer).await;
                let _ = client.shutdown().await;
            }
        }
    });
    (address, serving)
}

fn link(address: &str, files: &TlsFiles) -> Result<Link, SheepError> {
    Link::new(EngineHost::Tcp { authority: address.to_owned(), tls: Some(files.clone()) })
}

#[tokio::test]
async fn an_engine_answers_over_tls_when_each_trusts_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(), authority());
    let (address, serving) = engine_of(&ours).await;
    let files = files(dir.path(), &ours);
    assert!(link(&address, &files).unwrap().answers(Duration::from_secs(60)).await);

    // An engine that is somebody else's is not talked to.
    let (address, _serving) = engine_of(&theirs).await;
    let refused = link(&address, &files).unwrap().reached().await.unwrap_err();
    assert!(matches!(refused, Trouble::Lost(_)) && refused.to_string().contains("certificate"), "{refused}");
    serving.abort();
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority();
    let good = files(dir.path(), &authority);
    let named = |files: &TlsFiles, path: &Path| {
        let Err(error) = link("127.0.0.1:2376", files) else { panic!("{} was taken", path.display()) };
        assert!(matches!(error, SheepError::Misconfigured(_)));
        assert!(error.to_string().contains(&format!("{} cannot be used", path.display())), "{error}");
        error.to_string()
    };
    let bad = dir.path().join("bad.pem");
    named(&TlsFiles { ca: bad.clone(), ..good.clone() }, &bad);
    for text in ["", "no PEM", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&bad, text).unwrap();
        named(&TlsFiles { ca: bad.clone(), ..good.clone() }, &bad);
        named(&TlsFiles { cert: bad.clone(), ..good.clone() }, &bad);
        named(&TlsFiles { key: bad.clone(), ..good.clone() }, &bad);
    }
    // The key of another certificate.
    std::fs::write(&bad, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let said = named(&TlsFiles { key: bad.clone(), ..good.clone() }, &bad);
    assert!(said.contains("does not serve the certificate"), "{said}");
}

#[test]
fn the_engine_s_host_is_a_name_or_an_address() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), &authority());
    for good in ["engine.example:2376", "127.0.0.1:2376", "[::1]:2376", "engine"] {
        assert!(link(good, &files).is_ok(), "{good}");
    }
    assert!(matches!(link("en gine:2376", &files), Err(SheepError::Misconfigured(_))));
}
