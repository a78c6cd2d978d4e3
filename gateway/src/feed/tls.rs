//! Connections to venues: TCP, and TLS where the address says so.
//!
//! The session and the REST client call it. There is no fallback to plaintext and no switch that
//! turns verification off.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A byte stream to a venue.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a venue listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    is_secure: bool,
    host: String,
    port: u16,
}

/// An address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no address; expected ws://, wss://, http:// or https:// and host[:port]")]
pub struct BadAddress {
    /// What was given.
    pub url: String,
}

impl Address {
    /// Reads `ws://`, `wss://`, `http://` or `https://`, then `host` or `host:port`.
    ///
    /// # Errors
    /// [`BadAddress`] when it is anything else; a path does not belong to an address.
    pub fn parse(url: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress { url: url.to_owned() };
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let (is_secure, default_port) = match scheme {
            "ws" | "http" => (false, 80),
            "wss" | "https" => (true, 443),
            _ => return Err(bad()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            // An IPv6 address carries its colons in brackets.
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (rest, default_port),
        };
        if host.is_empty() || host.contains(['/', '?', '#', '@']) {
            return Err(bad());
        }
        Ok(Self { is_secure, host: host.to_owned(), port })
    }

    /// `host:port`, for the `Host` header.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Makes connections.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector that trusts the bundled roots, and `extra` ones (a test's own).
    ///
    /// # Errors
    /// When an extra root is no certificate.
    pub fn new(extra: &[CertificateDer<'static>]) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for root in extra {
            roots.add(root.clone())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Connects. The caller sets the time limit.
    ///
    /// # Errors
    /// When the name does not resolve, nothing listens, or the certificate is not to be trusted.
    pub async fn connect(&self, address: &Address) -> std::io::Result<Box<dyn Stream>> {
        let host = address.host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, address.port)).await?;
        tcp.set_nodelay(true)?;
        if !address.is_secure {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        Ok(Box::new(self.tls.connect(name, tcp).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_a_host_and_a_port() {
        for (url, authority, is_secure) in [
            ("ws://127.0.0.1:9001", "127.0.0.1:9001", false),
            ("wss://stream.binance.com:9443", "stream.binance.com:9443", true),
            ("https://api.binance.com/", "api.binance.com:443", true),
            ("http://[::1]:80", "[::1]:80", false),
            ("wss://[::1]", "[::1]:443", true),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.authority().as_str(), address.is_secure), (authority, is_secure));
        }
        for url in
            ["", "host:1", "ftp://host", "ws://", "ws://host:x", "ws://host/path", "ws://a@b"]
        {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }
}
