//! Certificates of a run's own: an authority, and whoever it vouches for. By openssl.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sh;

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// What a certificate may be shown for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Usage {
    Server,
    Client,
    Both,
}

/// Where a certificate and its key lie.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// An authority in a directory of its own.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// Makes one in a directory that isn't there yet.
    pub(crate) fn new(dir: &Path, name: &str) -> Result<Self, Box<dyn std::error::Error>> {
        fs::create_dir_all(dir)?;
        let made = Self { dir: dir.to_owned() };
        made.openssl(&format!("req -x509 {KEY} -days 7 -subj /CN={name} -keyout ca.key -out ca.crt"))?;
        Ok(made)
    }

    /// Its own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A certificate for a subject (`/O=…/CN=…`) with alternative names (`DNS:…,IP:…`, may be empty).
    pub(crate) fn issue(
        &self,
        file: &str,
        subject: &str,
        usage: Usage,
        names: &str,
    ) -> Result<Pair, Box<dyn std::error::Error>> {
        let usage = match usage {
            Usage::Server => "serverAuth",
            Usage::Client => "clientAuth",
            Usage::Both => "serverAuth,clientAuth",
        };
        let names = if names.is_empty() { String::new() } else { format!("subjectAltName={names}\n") };
        fs::write(
            self.dir.join("ext"),
            format!(
                "basicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage={usage}\n{names}\
                 authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
            ),
        )?;
        self.openssl(&format!("req {KEY} -subj {subject} -keyout {file}.key -out csr"))?;
        self.openssl(&format!(
            "x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 7 -extfile ext -out {file}.crt"
        ))?;
        let place = |end: &str| self.dir.join(format!("{file}.{end}"));
        Ok(Pair { cert: place("crt"), key: place("key") })
    }

    fn openssl(&self, line: &str) -> Result<(), String> {
        sh::output(sh::program("openssl", &self.dir, &line.split(' ').collect::<Vec<_>>())).map(drop)
    }
}
