//! TLS to the engine: it proves itself by one authority, and we by a certificate.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::TlsFiles;
use crate::SheepError;

/// What a TLS connection to one engine needs.
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) server: ServerName<'static>,
}

impl Tls {
    /// Reads the files. Only the authority in `ca` is trusted, none of the system's:
    /// whoever can pose as the engine can read what runners are given.
    pub(super) fn read(files: &TlsFiles, host: &str) -> Result<Self, SheepError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots.add(certificate).map_err(|e| unusable(&files.ca, &e))?;
        }
        let chain = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| match e {
            pem::Error::NoItemsFound => unusable(&files.key, &"there is no private key in it"),
            // The text of other errors may quote the file.
            pem::Error::Io(e) => unusable(&files.key, &e),
            _ => unusable(&files.key, &"it is not in PEM format"),
        })?;
        // By name: a process-wide provider is whatever another library happened to install.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| SheepError::Misconfigured(format!("TLS to the engine cannot be set up: {e}")))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| {
                let cert = files.cert.display();
                unusable(&files.key, &format_args!("it does not serve the certificate {cert}: {e}"))
            })?;
        let server = ServerName::try_from(host.to_owned()).map_err(|_| {
            SheepError::Misconfigured(format!("the engine's host `{host}` is neither a name nor an address"))
        })?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SheepError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| match e {
            pem::Error::Io(e) => unusable(path, &e),
            e => unusable(path, &e),
        })?;
    if found.is_empty() {
        return Err(unusable(path, &"there is no certificate in it"));
    }
    Ok(found)
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> SheepError {
    SheepError::Misconfigured(format!("the TLS file {} cannot be used: {reason}", path.display()))
}

#[cfg(test)]
mod tests;
