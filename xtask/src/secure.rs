//! Connections under TLS to a server of a run's own: its name is checked, and a certificate is shown.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, rustls};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::certs::Pair;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speech {
    Http1,
    Grpc,
}

/// Makes connections to servers of one name.
#[derive(Clone)]
pub(crate) struct Dialer {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Dialer {
    /// For servers that `ca` vouches for under `name`; shows them `pair`.
    pub(crate) fn new(ca: &Path, pair: &Pair, name: &str, speech: Speech) -> Result<Self, Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_file_iter(ca)? {
            roots.add(cert?)?;
        }
        let chain = CertificateDer::pem_file_iter(&pair.cert)?.collect::<Result<Vec<_>, _>>()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&pair.key)?)?;
        config.alpn_protocols = match speech {
            Speech::Http1 => vec![b"http/1.1".to_vec()],
            Speech::Grpc => vec![b"h2".to_vec()],
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name: ServerName::try_from(name.to_owned())? })
    }

    /// One connection.
    pub(crate) async fn dial(&self, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        self.connector.connect(self.name.clone(), stream).await
    }

    /// A channel that connects when it is used, and again after it broke; calls on it end after `patience`.
    pub(crate) fn channel(&self, to: SocketAddr, patience: Duration) -> Channel {
        let dialer = self.clone();
        let connect = move |_: Uri| {
            let dialer = dialer.clone();
            async move { dialer.dial(to).await.map(TokioIo::new) }
        };
        Endpoint::from_static("http://member")
            .timeout(patience)
            .connect_timeout(patience)
            .connect_with_connector_lazy(tower::service_fn(connect))
    }
}
