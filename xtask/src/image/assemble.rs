//! The image's files and settings, put together by buildah without an engine.
//!
//! ```text
//! rusd, link `etcd`, passwd, licence, SBOM ─► buildah from scratch ─► copy ─► config ─► commit ─► layout of one processor
//! ```
//! There are two images of the same layer: `rusd`, whose user is 65532, and `etcd` for kubeadm, whose manifest says nothing of a
//! user and whose certificates and data directory are root's (`docs/adr/0036-image-and-packages.md`).

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::build::{Arch, Source};
use crate::sh;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where images of ours are found.
pub(super) const REGISTRY: &str = "ghcr.io/rusd";
/// The directory of data, which is the volume.
pub(super) const DATA: &str = "/var/lib/rusd";

/// One of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rusd,
    /// For kubeadm.
    Etcd,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rusd => "rusd",
            Self::Etcd => "etcd",
        }
    }

    pub(super) fn user(self) -> &'static str {
        match self {
            Self::Rusd => "65532:65532",
            Self::Etcd => "0:0",
        }
    }

    /// Repository and tag.
    pub(super) fn reference(self) -> String {
        format!("{REGISTRY}/{}:{VERSION}", self.name())
    }
}

/// Labels of the image, which its manifests repeat as annotations.
pub(super) fn labels(source: &Source) -> Value {
    json!({
        "org.opencontainers.image.title": "rusd",
        "org.opencontainers.image.description": "A coordination server that takes etcd's place",
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.revision": source.commit,
        "org.opencontainers.image.created": created(&source.epoch),
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.vendor": "rusd",
    })
}

/// RFC 3339 of seconds since 1970.
fn created(epoch: &str) -> String {
    let mut date = Command::new("date");
    date.args(["--utc", "--date", &format!("@{epoch}"), "+%Y-%m-%dT%H:%M:%SZ"]);
    sh::output(date).map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).trim().to_owned())
}

/// What the image is made of.
pub(super) struct Content<'a> {
    pub(super) arch: Arch,
    pub(super) program: &'a Path,
    /// CycloneDX.
    pub(super) materials: &'a [u8],
}

/// Writes the files as they will lie in the image.
fn files(content: &Content<'_>, root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    for dir in [
        "",
        "etc",
        "usr",
        "usr/local",
        "usr/local/bin",
        "usr/share",
        "usr/share/doc",
        "usr/share/doc/rusd",
        "var",
        "var/lib",
    ] {
        let dir = root.join(dir);
        fs::create_dir_all(&dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    let put = |path: &str, bytes: &[u8], mode: u32| -> Result<()> {
        let path = root.join(path);
        fs::write(&path, bytes)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    };
    put("usr/local/bin/rusd", &fs::read(content.program)?, 0o755)?;
    symlink("rusd", root.join("usr/local/bin/etcd"))?;
    put("etc/passwd", format!("root:x:0:0:root:/:\nrusd:x:65532:65532:rusd:{DATA}:\n").as_bytes(), 0o644)?;
    put("etc/group", b"root:x:0:\nrusd:x:65532:\n", 0o644)?;
    put("usr/share/doc/rusd/LICENSE", &fs::read(sh::root().join("LICENSE"))?, 0o644)?;
    put("usr/share/doc/rusd/rusd.cdx.json", content.materials, 0o644)
}

/// buildah with a store of its own.
pub(super) struct Buildah {
    store: PathBuf,
}

impl Buildah {
    pub(super) fn new() -> Self {
        Self { store: sh::target().join("image/store") }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.store.join("root")).arg("--runroot").arg(self.store.join("run"));
        command.args(["--storage-driver", "vfs", "--log-level", "error"]).args(args);
        command.env("BUILDAH_ISOLATION", "chroot").current_dir(sh::root());
        command
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        Ok(String::from_utf8_lossy(&sh::output(self.command(args))?).trim().to_owned())
    }

    /// The layout of one image for one processor, in `into`.
    pub(super) fn commit(&self, content: &Content<'_>, kind: Kind, source: &Source, into: &Path) -> Result<()> {
        let root = sh::target().join("image").join(format!("files-{}", content.arch.name));
        files(content, &root)?;
        let empty = sh::target().join("image/empty");
        fs::create_dir_all(&empty)?;
        fs::set_permissions(&empty, fs::Permissions::from_mode(0o700))?;
        if into.exists() {
            fs::remove_dir_all(into)?;
        }
        let container = self.run(&["from", "--arch", content.arch.name, "scratch"])?;
        let made = self.fill(&container, content.arch, kind, source, [&root, &empty], into);
        self.run(&["rm", &container])?;
        made
    }

    fn fill(
        &self,
        container: &str,
        arch: Arch,
        kind: Kind,
        source: &Source,
        [root, empty]: [&Path; 2],
        into: &Path,
    ) -> Result<()> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or("the target directory's path is not text");
        self.run(&["copy", "--quiet", "--chown=0:0", container, &text(root)?, "/"])?;
        self.run(&["copy", "--quiet", "--chown=65532:65532", container, &text(empty)?, DATA])?;
        let mut config = vec![
            "config".to_owned(),
            format!("--arch={}", arch.name),
            "--os=linux".to_owned(),
            format!("--user={}", kind.user()),
            format!("--workingdir={DATA}"),
            format!("--volume={DATA}"),
            "--entrypoint=[\"/usr/local/bin/rusd\"]".to_owned(),
            "--env=PATH=/usr/local/bin".to_owned(),
            "--port=2379".to_owned(),
            "--port=2380".to_owned(),
            "--stop-signal=SIGTERM".to_owned(),
        ];
        let labels = labels(source);
        config.extend(
            labels
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some(format!("--label={name}={}", value.as_str()?))),
        );
        config.push(container.to_owned());
        self.run(&config.iter().map(String::as_str).collect::<Vec<_>>())?;
        let into = format!("oci:{}", text(into)?);
        let timestamp = format!("--timestamp={}", source.epoch);
        // A directory isn't compressed unless it is asked for.
        let compress = "--disable-compression=false";
        self.run(&["commit", "--quiet", "--format=oci", compress, &timestamp, container, &into])?;
        Ok(())
    }

    /// What the image's own program says, run by buildah from the finished archive.
    pub(super) fn run_archive(&self, archive: &Path, args: &[&str]) -> Result<String> {
        let archive = archive.to_str().ok_or("the target directory's path is not text")?;
        let container = self.run(&["from", "--pull-always", &format!("oci-archive:{archive}")])?;
        let ran = self.run(&[&["run", "--isolation=chroot", &container, "--"], args].concat());
        self.run(&["rm", &container])?;
        ran
    }

    /// Removes the store.
    pub(super) fn clear(&self) -> Result<()> {
        self.run(&["rm", "--all"])?;
        self.run(&["rmi", "--all", "--force"])?;
        Ok(fs::remove_dir_all(&self.store)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_differ_by_name_and_user_alone() {
        assert_eq!(Kind::Rusd.user(), "65532:65532");
        assert_eq!(Kind::Etcd.reference(), format!("ghcr.io/rusd/etcd:{VERSION}"));
        let source = Source { commit: "abc".to_owned(), epoch: "0".to_owned() };
        let labels = labels(&source);
        assert_eq!(labels["org.opencontainers.image.revision"], "abc");
        assert_eq!(labels["org.opencontainers.image.created"], "1970-01-01T00:00:00Z");
    }

    /// The chart, the compose file and kubeadm's manifest name the image that this makes.
    #[test]
    fn what_asks_for_the_image_asks_for_this_one() {
        let read = |path: &str| fs::read_to_string(sh::root().join(path)).expect("it is there");
        assert!(read("packaging/compose.yaml").contains(&Kind::Rusd.reference()));
        assert!(read("packaging/kubeadm/etcd.yaml").contains(&format!("image: {}\n", Kind::Etcd.reference())));
        assert!(read("packaging/kubeadm/config.yaml").contains(&format!("imageTag: \"{VERSION}\"")));
        assert!(read("charts/rusd/values.yaml").contains(&format!("repository: {REGISTRY}/rusd\n")));
        assert!(read("charts/rusd/Chart.yaml").contains(&format!("appVersion: \"{VERSION}\"")));
    }
}
