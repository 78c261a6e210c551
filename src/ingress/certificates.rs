//! A certificate for each host, issued when it is first asked for.

use super::RouteTable;
use aksim_model::endpoint::AzureName;
use aksim_runtime::pki::{Pki, PkiError};
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{collections::HashMap, fmt, sync::Arc};
use tokio::sync::watch;

/// Suffix under which an Azure name is reachable from a browser on the host.
pub const LOCAL_SUFFIX: &str = ".localhost";

/// Issues certificates for hosts of the routes, and for nothing else.
pub struct CertificateResolver {
    pki: Pki,
    routes: watch::Receiver<Arc<RouteTable>>,
    azure_names: Vec<AzureName>,
    fallback: Arc<CertifiedKey>,
    issued: parking_lot::Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateResolver").finish_non_exhaustive()
    }
}

impl CertificateResolver {
    /// A resolver with a certificate for `localhost` in hand.
    pub fn new(
        pki: Pki,
        routes: watch::Receiver<Arc<RouteTable>>,
        azure_names: Vec<AzureName>,
    ) -> Result<Arc<Self>, PkiError> {
        let fallback = issue(&pki, &["localhost", "127.0.0.1"])?;
        Ok(Arc::new(Self { pki, routes, azure_names, fallback, issued: parking_lot::Mutex::default() }))
    }

    /// TLS with this resolver, HTTP/2 and 1.1 offered.
    pub fn server_config(self: Arc<Self>) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(self);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let azure = name.strip_suffix(LOCAL_SUFFIX).is_some_and(|n| self.azure_names.iter().any(|a| a.host == n));
        if !azure && !self.routes.borrow().has_host(name) {
            return None;
        }
        let mut issued = self.issued.lock();
        if let Some(certificate) = issued.get(name) {
            return Some(certificate.clone());
        }
        let certificate =
            issue(&self.pki, &[name]).inspect_err(|error| tracing::warn!(%error, name, "certificate")).ok()?;
        issued.insert(name.to_owned(), certificate.clone());
        Some(certificate)
    }
}

fn issue(pki: &Pki, names: &[&str]) -> Result<Arc<CertifiedKey>, PkiError> {
    let (chain, key) = pki.issue_server(names)?.rustls()?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        Some(name.and_then(|n| self.certificate(&n)).unwrap_or_else(|| self.fallback.clone()))
    }
}
