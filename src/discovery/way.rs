//! The ways to the registry: from what `--discovery-endpoints` lists to connections.
//!
//! ```text
//! http://host:port    ─► plain, whatever else is set
//! https://host:port   ─► TLS: --discovery-cacert, or whom the system trusts
//! host:port           ─► TLS where a flag asks for it, else plain
//! ```
//! As etcd 3.7's client has it. A certificate is shown if there is one; `--discovery-insecure-skip-tls-verify`
//! trusts anyone.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use super::DiscoveryError;
use crate::env::Env;
use crate::ops::config::Discovery;
use crate::tls::{ClientStream, Connector, Pair, Settings, Telling, TlsError};

/// Where a registry may be, and how it is reached.
#[derive(Debug, PartialEq, Eq)]
struct Way<'a> {
    /// `host:port`.
    address: &'a str,
    tls: bool,
}

/// One lazy connection for each endpoint. Reads the files of TLS where an endpoint needs them.
///
/// # Errors
/// An endpoint that can't be one, and what is wrong with the files.
pub(super) fn channels(discovery: &Discovery, env: &Env) -> Result<Vec<Channel>, DiscoveryError> {
    let ways: Vec<_> =
        discovery.endpoints.iter().map(|text| way(text, asks_for_tls(discovery))).collect::<Result<_, _>>()?;
    let connector = match ways.iter().any(|way| way.tls) {
        true => Some(Connector::new("connections to the discovery service", settings(discovery)?, env.clone())?),
        false => None,
    };
    ways.iter().map(|way| channel(discovery, way, connector.as_ref())).collect()
}

/// What a call failed of, down to its root: the outermost error says only that the transport failed.
pub(super) fn told(status: &Status) -> String {
    let mut said = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        said = error.to_string();
        source = error.source();
    }
    said
}

fn asks_for_tls(discovery: &Discovery) -> bool {
    let files = [&discovery.tls.cert_file, &discovery.tls.key_file, &discovery.tls.trusted_ca_file];
    !discovery.insecure_transport || files.into_iter().any(Option::is_some)
}

fn settings(discovery: &Discovery) -> Result<Settings, TlsError> {
    let client_pair = match (&discovery.tls.cert_file, &discovery.tls.key_file) {
        (Some(cert), Some(key)) => Some(Pair { cert: cert.clone(), key: key.clone() }),
        (None, None) => None,
        _ => return Err(TlsError::Settings("KeyFile and CertFile must both be present".to_owned())),
    };
    Ok(Settings {
        client_pair,
        trusted_ca: discovery.tls.trusted_ca_file.clone(),
        trust_anyone: discovery.insecure_skip_tls_verify,
        http2: true,
        ..Settings::default()
    })
}

fn way(text: &str, asks_for_tls: bool) -> Result<Way<'_>, DiscoveryError> {
    let bad = |why: &str| DiscoveryError::Registry {
        why: format!("the endpoint {text}: {why}"),
        instead: "Type --discovery-endpoints=http://host:port, or https://",
    };
    let (tls, address) = match text.split_once("://") {
        Some(("http", address)) => (false, address),
        Some(("https", address)) => (true, address),
        Some(_) => return Err(bad("of a scheme that isn't dialled")),
        None => (asks_for_tls, text),
    };
    let address = address.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("it has no port"))?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(bad("it is no host with a port"));
    }
    Ok(Way { address, tls })
}

fn channel(discovery: &Discovery, way: &Way<'_>, connector: Option<&Connector>) -> Result<Channel, DiscoveryError> {
    let scheme = if way.tls { "https" } else { "http" };
    let shown = format!("{scheme}://{}", way.address);
    let endpoint = Endpoint::from_shared(shown.clone()).map_err(|error| DiscoveryError::Registry {
        why: format!("the endpoint {shown}: {error}"),
        instead: "Type --discovery-endpoints=http://host:port, or https://",
    })?;
    let endpoint = match discovery.keepalive_time {
        Duration::ZERO => endpoint,
        time => endpoint.http2_keep_alive_interval(time).keep_alive_timeout(discovery.keepalive_timeout),
    };
    let limit = discovery.dial_timeout;
    let Some(connector) = connector.filter(|_| way.tls).cloned() else {
        return Ok(endpoint.connect_timeout(limit).tcp_nodelay(true).connect_lazy());
    };
    let address = way.address.to_owned();
    let dial = move |_: Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let stream = tokio::time::timeout(limit, secured(&connector, &address));
            let stream = stream.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
            stream.map(TokioIo::new).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
        }
    };
    // Whoever is dialled so has its TLS already: the transport must not ask for its own.
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(dial)))
}

async fn secured(connector: &Connector, address: &str) -> io::Result<Telling<ClientStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = connector.connect(address, stream).await?;
    let address = address.to_owned();
    Ok(Telling::new(stream, move |why| tracing::warn!(address, error = why, "no TLS with the registry")))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_scheme_says_whether_there_is_tls_and_flags_where_there_is_none() {
        let tls = |text, asked| way(text, asked).map(|way| (way.address.to_owned(), way.tls)).unwrap();
        assert_eq!(tls("http://h:1", true), ("h:1".to_owned(), false));
        assert_eq!(tls("https://h:1/", false), ("h:1".to_owned(), true));
        assert_eq!(tls("h:1", true), ("h:1".to_owned(), true));
        assert_eq!(tls("[::1]:1", false), ("[::1]:1".to_owned(), false));
        for bad in ["unix:///run/a", "h", "http://h", ":1", "h:x", "http://h:70000"] {
            let error = way(bad, false).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn any_flag_of_tls_asks_for_it() {
        let plain = Discovery { insecure_transport: true, ..Discovery::default() };
        assert!(!asks_for_tls(&plain));
        assert!(asks_for_tls(&Discovery { insecure_transport: false, ..plain.clone() }));
        let mut with_ca = plain;
        with_ca.tls.trusted_ca_file = Some(PathBuf::from("ca.pem"));
        assert!(asks_for_tls(&with_ca));
        with_ca.tls.cert_file = Some(PathBuf::from("cert.pem"));
        assert!(settings(&with_ca).unwrap_err().to_string().contains("KeyFile and CertFile must both be present"));
    }
}
