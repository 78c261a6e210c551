//! The environment's certificate authority and the certificates it issues.
//!
//! One CA per environment, ECDSA P-256, in `pki/ca.crt` and `pki/ca.key` (0600). Everything
//! that speaks TLS here uses it, and pods get it mounted.

use crate::files::{PRIVATE, PUBLIC, create_private_dir, write_atomic};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the CA cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or key is malformed.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// PEM that does not parse.
    #[error("PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// TLS configuration that rustls refuses.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Client verification that rustls refuses.
    #[error("TLS client verification: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A certificate with its key, PEM.
#[derive(Clone)]
pub struct Identity {
    /// Leaf certificate.
    pub certificate_pem: String,
    /// PKCS#8 private key.
    pub key_pem: String,
}

impl Identity {
    /// Certificate chain and key as rustls wants them.
    ///
    /// # Errors
    /// [`PkiError::Pem`] when the PEM does not parse.
    pub fn rustls(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let chain = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        Ok((chain, PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?))
    }
}

/// The certificate authority of one environment.
#[derive(Clone)]
pub struct Pki {
    inner: Arc<Inner>,
}

struct Inner {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    ca_path: PathBuf,
}

/// rustls with ring, whatever else is linked in; installed once a process.
pub fn install_crypto_provider() {
    // An error says that one is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Pki {
    /// Opens the CA in `dir`, or makes one there.
    ///
    /// # Errors
    /// [`PkiError`] when files cannot be read or written, or are malformed.
    pub fn open(dir: &Path, common_name: &str) -> Result<Self, PkiError> {
        install_crypto_provider();
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| PkiError::File { path, source }
        };
        create_private_dir(dir).map_err(file(dir))?;
        let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        if !certificate_path.exists() || !key_path.exists() {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.distinguished_name = name(common_name, &[]);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            set_validity(&mut params, 3650);
            let certificate = params.self_signed(&key)?;
            // The key first: a certificate without key would be taken for a whole CA.
            write_atomic(&key_path, key.serialize_pem().as_bytes(), PRIVATE).map_err(file(&key_path))?;
            write_atomic(&certificate_path, certificate.pem().as_bytes(), PUBLIC).map_err(file(&certificate_path))?;
        }
        let ca_pem = std::fs::read_to_string(&certificate_path).map_err(file(&certificate_path))?;
        let key_pem = std::fs::read_to_string(&key_path).map_err(file(&key_path))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, KeyPair::from_pem(&key_pem)?)?;
        Ok(Self { inner: Arc::new(Inner { issuer, ca_pem, ca_path: certificate_path }) })
    }

    /// The CA certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.inner.ca_pem
    }

    /// Where the CA certificate lies.
    pub fn ca_path(&self) -> &Path {
        &self.inner.ca_path
    }

    /// Issues a server certificate for DNS names and IP addresses, valid a year.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when a name is not a DNS name or address.
    pub fn issue_server(&self, names: &[&str]) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name = name(names.first().copied().unwrap_or("localhost"), &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// Issues a client certificate: user name and groups as Kubernetes reads them (CN and O).
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when signing fails.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Identity, PkiError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, 365);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.inner.issuer)?;
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Root store that holds this CA alone.
    ///
    /// # Errors
    /// [`PkiError`] when the CA certificate does not parse.
    pub fn roots(&self) -> Result<RootCertStore, PkiError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.inner.ca_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        Ok(roots)
    }

    /// TLS for a server: a fresh certificate for `names`, HTTP/2 and 1.1 offered.
    /// With `client_certificates`, certificates of this CA are asked for, not required.
    ///
    /// # Errors
    /// [`PkiError`] when a name is invalid.
    pub fn server_config(&self, names: &[&str], client_certificates: bool) -> Result<Arc<ServerConfig>, PkiError> {
        let (chain, key) = self.issue_server(names)?.rustls()?;
        let builder = ServerConfig::builder();
        let builder = if client_certificates {
            let verifier = WebPkiClientVerifier::builder(Arc::new(self.roots()?)).allow_unauthenticated().build()?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS for a client that trusts this CA alone, with a client certificate if given.
    ///
    /// # Errors
    /// [`PkiError`] when the identity does not parse.
    pub fn client_config(&self, identity: Option<&Identity>) -> Result<ClientConfig, PkiError> {
        let builder = ClientConfig::builder().with_root_certificates(self.roots()?);
        Ok(match identity {
            Some(identity) => {
                let (chain, key) = identity.rustls()?;
                builder.with_client_auth_cert(chain, key)?
            }
            None => builder.with_no_client_auth(),
        })
    }
}

fn name(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    for organization in organizations {
        distinguished.push(DnType::OrganizationName, *organization);
    }
    distinguished.push(DnType::CommonName, common_name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, days: i64) {
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(24 * 3600);
    // A day back: clocks of containers and of restored snapshots lag.
    params.not_before = (now - day).into();
    params.not_after = (now + day * u32::try_from(days).unwrap_or(365)).into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_is_kept_and_its_key_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path(), "aksim test").unwrap();
        let second = Pki::open(dir.path(), "aksim test").unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        let mode = std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn its_certificates_are_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), "aksim test").unwrap();
        let server = tokio_rustls::TlsAcceptor::from(pki.server_config(&["shopacr.azurecr.io"], true).unwrap());
        let user = pki.issue_client("ada", &["system:masters"]).unwrap();
        let client = tokio_rustls::TlsConnector::from(Arc::new(pki.client_config(Some(&user)).unwrap()));
        let (near, far) = tokio::io::duplex(4096);
        let name = rustls::pki_types::ServerName::try_from("shopacr.azurecr.io").unwrap();
        let (accepted, connected) = tokio::join!(server.accept(far), client.connect(name, near));
        connected.unwrap();
        let accepted = accepted.unwrap();
        assert_eq!(accepted.get_ref().1.peer_certificates().unwrap().len(), 1);
    }
}
