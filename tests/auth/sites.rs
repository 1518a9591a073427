//! Where the matrix asks: one process, one with a port of its own for pages, a follower of three, or one to which each
//! caller shows a certificate.
//!
//! ```text
//! Site::start(kind, shape, flags) ─► processes ─► channel for tokens, URL for JSON, a channel for each common name
//! ```

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rusd::env::Env;
use rusd::tls::{Connector, Pair, Settings};
use rusd_proto::etcdserverpb::StatusRequest;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::authority::{Authority, Issued, Wanted};
use crate::peers::peer;
use crate::server::{Kind, ports};

/// How clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All by one port.
    One,
    /// Pages and JSON have a port of their own.
    Split,
    /// There are three members, and one is asked that doesn't lead.
    Follower,
    /// By certificates, whose common names are users.
    Certificates,
}

/// Running processes; killed at drop.
pub(crate) struct Site {
    children: Vec<Child>,
    /// Where tokens are shown.
    pub(crate) channel: Channel,
    /// Where JSON is asked for; not by certificates, which name nobody there.
    pub(crate) json: Option<String>,
    certificates: Option<Certificates>,
    _dir: TempDir,
}

struct Certificates {
    authority: Authority,
    address: String,
    dir: PathBuf,
    ca: PathBuf,
}

impl Site {
    /// `None` if the real etcd isn't built (said loudly).
    pub(crate) async fn start(kind: Kind, shape: Shape, flags: &[String]) -> Option<Self> {
        let program = match kind {
            Kind::Etcd => peer("etcd", "auth matrix")?,
            Kind::Rusd => PathBuf::from(env!("CARGO_BIN_EXE_rusd")),
        };
        let dir = TempDir::new().expect("a directory");
        let authority = Authority::new("authority");
        let ca = authority.write(dir.path(), "ca");
        let server = authority.issue(dir.path(), "server", &Wanted::default());
        let count = if shape == Shape::Follower { 3 } else { 1 };
        let places: Vec<_> = (0..count).map(|at| (format!("m{at}"), ports::free(), ports::free())).collect();
        let initial: Vec<_> = places.iter().map(|(name, _, peer)| format!("{name}=http://127.0.0.1:{peer}")).collect();
        let pages = format!("http://127.0.0.1:{}", ports::free());
        let scheme = if shape == Shape::Certificates { "https" } else { "http" };
        let mut children = Vec::new();
        for (name, client, peer) in &places {
            let (client, peer) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let log = File::create(dir.path().join(format!("{name}.log"))).expect("a log");
            let mut command = Command::new(&program);
            command
                .arg(format!("--name={name}"))
                .arg(format!("--data-dir={}", dir.path().join(name).display()))
                .arg(format!("--listen-client-urls={client}"))
                .arg(format!("--advertise-client-urls={client}"))
                .arg(format!("--listen-peer-urls={peer}"))
                .arg(format!("--initial-advertise-peer-urls={peer}"))
                .arg(format!("--initial-cluster={}", initial.join(",")))
                // Nobody is elected for want of a processor.
                .args(["--heartbeat-interval=300", "--election-timeout=3000"])
                .args(flags);
            match shape {
                Shape::One | Shape::Follower => {}
                Shape::Split => {
                    command.arg(format!("--listen-client-http-urls={pages}"));
                }
                Shape::Certificates => {
                    let Issued { cert, key } = &server;
                    command
                        .arg(format!("--cert-file={}", cert.display()))
                        .arg(format!("--key-file={}", key.display()))
                        .arg(format!("--trusted-ca-file={}", ca.display()))
                        .arg("--client-cert-auth");
                }
            }
            let out = log.try_clone().expect("a handle");
            let child = command.current_dir(dir.path()).stdin(Stdio::null()).stdout(out).stderr(log).spawn();
            children.push(child.expect("it starts"));
        }
        let addresses: Vec<_> = places.iter().map(|(_, client, _)| format!("127.0.0.1:{client}")).collect();
        let certificates = (shape == Shape::Certificates).then(|| Certificates {
            authority,
            address: addresses[0].clone(),
            dir: dir.path().to_owned(),
            ca,
        });
        let mut chosen = None;
        for address in &addresses {
            let channel = match &certificates {
                Some(certificates) => certificates.channel(""),
                None => Endpoint::from_shared(format!("http://{address}")).expect("a URL").connect_lazy(),
            };
            let is_leader = ready(&channel, address, &dir).await;
            if shape != Shape::Follower || (!is_leader && chosen.is_none()) {
                chosen = Some((channel, format!("http://{address}")));
            }
        }
        let (channel, url) = chosen.expect("two of three don't lead");
        let json = match shape {
            Shape::One | Shape::Follower => Some(url),
            Shape::Split => Some(pages),
            Shape::Certificates => None,
        };
        Some(Self { children, channel, json, certificates, _dir: dir })
    }

    /// A connection that shows a certificate with this common name; `None` where tokens are shown.
    pub(crate) fn named(&self, common_name: &str) -> Option<Channel> {
        Some(self.certificates.as_ref()?.channel(common_name))
    }
}

impl Certificates {
    fn channel(&self, common_name: &str) -> Channel {
        let wanted = Wanted { common_name, ..Wanted::default() };
        let issued = self.authority.issue(&self.dir, &format!("client-{common_name}"), &wanted);
        let settings = Settings {
            client_pair: Some(Pair { cert: issued.cert, key: issued.key }),
            trusted_ca: Some(self.ca.clone()),
            http2: true,
            ..Settings::default()
        };
        let connector = Connector::new("test", settings, Env::real()).expect("good files");
        let address = self.address.clone();
        let dial = tower::service_fn(move |_: Uri| {
            let (address, connector) = (address.clone(), connector.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(connector.connect(&address, stream).await?))
            }
        });
        Endpoint::from_static("http://127.0.0.1").connect_with_connector_lazy(dial)
    }
}

/// Waits until it serves; whether it leads.
async fn ready(channel: &Channel, address: &str, dir: &TempDir) -> bool {
    let begun = Instant::now();
    loop {
        let status = MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await;
        match status.map(tonic::Response::into_inner) {
            Ok(status) if status.leader != 0 => {
                return status.header.is_some_and(|header| header.member_id == status.leader);
            }
            other => {
                let log = || std::fs::read_to_string(dir.path().join("m0.log")).unwrap_or_default();
                assert!(begun.elapsed() < Duration::from_secs(60), "{address}: {other:?}\n{}", log());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only if the process is gone already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
