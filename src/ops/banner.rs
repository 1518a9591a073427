//! What a person sees when the member is ready: eight lines, the last one to copy.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::config::{Config, Url};
use super::data_dir::DataDir;
use super::identity::Identity;
use super::logging::{READY, Style};

/// The figures of a start.
#[derive(Clone, Debug)]
pub struct Banner {
    version: &'static str,
    data_dir: PathBuf,
    engine: &'static str,
    client_urls: Vec<Url>,
    peer_urls: Vec<Url>,
    identity: Identity,
    members: usize,
    elapsed: Duration,
    demands_certificates: bool,
}

impl Banner {
    /// Collects them. `elapsed` is the time since the process began; `members` the cluster's size.
    pub fn new(version: &'static str, config: &Config, data: &DataDir, members: usize, elapsed: Duration) -> Self {
        Self {
            version,
            data_dir: data.root().to_owned(),
            engine: data.format().engine.name(),
            client_urls: config.clustering.advertise_client_urls.clone(),
            peer_urls: config.clustering.initial_advertise_peer_urls.clone(),
            identity: data.identity(),
            members,
            elapsed,
            demands_certificates: config.client_tls.trusted_ca_file.is_some(),
        }
    }

    /// Says that the member is ready: the banner to a person, the line that tools wait for to the log.
    pub fn announce(&self, style: Style) {
        match style {
            Style::Plain => eprint!("{self}"),
            Style::Json => tracing::info!("elapsed-ms" = self.elapsed_ms(), "{READY}"),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn security(&self) -> &'static str {
        if self.client_urls.iter().all(Url::is_tls) {
            if self.demands_certificates {
                "TLS; clients need a certificate"
            } else {
                "TLS; whoever reaches the port can read and write"
            }
        } else if self.client_urls.iter().all(Url::is_loopback) {
            "none: no TLS, and only this machine can reach it"
        } else {
            "none: no TLS, and whoever reaches the port can read and write"
        }
    }
}

fn join(urls: &[Url]) -> String {
    let urls: Vec<_> = urls.iter().map(ToString::to_string).collect();
    urls.join(",")
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { cluster, member } = self.identity;
        let plural = if self.members == 1 { "" } else { "s" };
        writeln!(f, "rusd {}", self.version)?;
        writeln!(f, "  data      {} ({})", self.data_dir.display(), self.engine)?;
        writeln!(f, "  clients   {}", join(&self.client_urls))?;
        writeln!(f, "  peers     {}", join(&self.peer_urls))?;
        writeln!(f, "  cluster   {cluster}, {} member{plural}; this one is {member}", self.members)?;
        writeln!(f, "  security  {}", self.security())?;
        writeln!(f, "  {READY} after {} ms; try", self.elapsed_ms())?;
        let (tls, demands) = (self.client_urls.iter().any(Url::is_tls), self.demands_certificates);
        let files = match (tls, demands) {
            (false, _) => "",
            (true, false) => " --cacert=CA.pem",
            (true, true) => " --cacert=CA.pem --cert=CERT.pem --key=KEY.pem",
        };
        writeln!(f, "  etcdctl --endpoints={}{files} put hello world", join(&self.client_urls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::RealDisk;

    #[test]
    fn is_at_most_eight_lines_and_names_what_tools_wait_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = Config::default();
        config.member.data_dir = dir.path().join("m.etcd");
        let data = DataDir::open(&RealDisk, &config, None).expect("made");
        let text = Banner::new("0.1.0", &config, &data, 1, Duration::from_millis(41)).to_string();
        assert!(text.lines().count() <= 8);
        assert!(text.contains(READY) && text.contains("after 41 ms"));
        assert!(text.contains("cdf818194e3a8c32, 1 member; this one is 8e9e05c52164694d"));
        assert!(text.ends_with("etcdctl --endpoints=http://localhost:2379 put hello world\n"));
    }
}
