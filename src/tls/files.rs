//! The files of one side, read whole, and a mark by which it is seen that one has changed.

use std::path::{Path, PathBuf};

use super::error::TlsError;
use super::settings::Settings;
use crate::env::{Disk, read_all};

/// No file is longer; lists of revoked certificates can be long.
const FILE_BYTES_MAX: usize = 32 << 20;

/// Where systems keep the authorities that everybody trusts; the first that is there counts.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A file as it was found.
#[derive(Clone)]
pub(super) struct File {
    pub(super) path: PathBuf,
    bytes: Result<Vec<u8>, String>,
}

/// What the files held when they were looked at.
pub(super) type Mark = blake3::Hash;

impl File {
    fn read(disk: &dyn Disk, path: &Path) -> Self {
        Self { path: path.to_owned(), bytes: read_all(disk, path, FILE_BYTES_MAX).map_err(|error| error.to_string()) }
    }

    /// What it holds.
    pub(super) fn bytes(&self) -> Result<&[u8], TlsError> {
        self.bytes.as_deref().map_err(|why| TlsError::Read { path: self.path.clone(), why: why.clone() })
    }
}

/// A certificate's file and its key's.
#[derive(Clone)]
pub(super) struct PairFiles {
    pub(super) cert: File,
    pub(super) key: File,
}

/// All of them. It holds keys: it has no `Debug`, and lives only as long as it is read.
pub(super) struct Files {
    pub(super) pair: Option<PairFiles>,
    pub(super) client_pair: Option<PairFiles>,
    pub(super) trusted_ca: Option<File>,
    pub(super) crl: Option<File>,
}

impl Files {
    /// Reads what the settings name.
    pub(super) fn read(disk: &dyn Disk, settings: &Settings) -> Self {
        let file = |path: &PathBuf| File::read(disk, path);
        let pair = |pair: &super::Pair| PairFiles { cert: file(&pair.cert), key: file(&pair.key) };
        Self {
            pair: settings.pair.as_ref().map(pair),
            client_pair: settings.client_pair.as_ref().map(pair),
            trusted_ca: settings.trusted_ca.as_ref().map(file),
            crl: settings.crl.as_ref().map(file),
        }
    }

    /// The same for the same contents.
    pub(super) fn mark(&self) -> Mark {
        let pairs = [&self.pair, &self.client_pair].into_iter().flatten();
        let files = pairs.flat_map(|pair| [&pair.cert, &pair.key]).chain(&self.trusted_ca).chain(&self.crl);
        let mut hash = blake3::Hasher::new();
        for file in files {
            let (kind, bytes) = match &file.bytes {
                Ok(bytes) => (0, bytes.as_slice()),
                Err(why) => (1, why.as_bytes()),
            };
            hash.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
        hash.finalize()
    }
}

/// The authorities that the system trusts.
pub(super) fn system(disk: &dyn Disk) -> Option<File> {
    SYSTEM.iter().map(|path| File::read(disk, Path::new(path))).find(|file| file.bytes.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{MemDisk, write_atomic};

    #[test]
    fn a_change_is_seen_and_a_loss_too() {
        let disk = MemDisk::new();
        let path = Path::new("/d/ca.pem");
        disk.create_dir_all(Path::new("/d")).expect("made");
        let settings = Settings { trusted_ca: Some(path.to_owned()), ..Settings::default() };
        let mark = || Files::read(&disk, &settings).mark();
        let missing = mark();
        write_atomic(&disk, path, b"a").expect("written");
        let (first, again) = (mark(), mark());
        assert_eq!(first, again);
        assert_ne!(first, missing);
        write_atomic(&disk, path, b"b").expect("written");
        assert_ne!(mark(), first);
    }
}
