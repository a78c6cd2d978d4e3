//! An accepted connection → one under TLS, with a certificate that nobody but a test trusts.
//!
//! Used by the door, for clients that refuse `ws://`. The authority and the certificate are made anew
//! at each start. What is written down is the authority's certificate alone, for clients to trust;
//! no key ever leaves the process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Under which names and addresses the simulator is reached.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
/// The name of the file that clients are told to trust.
const AUTHORITY_FILE: &str = "ca.pem";
/// Who has not shaken hands by then does not want to.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Who the simulator is under TLS: `localhost` and `127.0.0.1`.
#[derive(Clone)]
pub struct Identity {
    acceptor: TlsAcceptor,
    authority_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// A new authority, and a certificate by it.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "feed-sim, for tests only");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let mut server = CertificateParams::new(NAMES.map(str::to_owned))?;
        server.distinguished_name.push(DnType::CommonName, "feed-sim");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Strict clients want to be told which key signed.
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &authority)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), authority_pem: authority.pem() })
    }

    /// Writes the certificate that clients are to trust; returns where it is.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub fn write_authority(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(AUTHORITY_FILE);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, &self.authority_pem))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Shakes hands with who connected; `None` when they did not.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        timeout(HANDSHAKE_MAX, self.acceptor.accept(stream)).await.ok()?.ok()
    }
}
