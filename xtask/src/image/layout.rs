//! An image as a directory of blobs (OCI image layout): made of what buildah wrote for each processor, and read again.
//!
//! ```text
//! buildah's layout of amd64 ─┐ config: + health check ─► manifest ─┐
//! buildah's layout of arm64 ─┴────────────────────────────────────┴► index ─► index.json ─► NAME.oci.tar
//! ```
//! buildah writes a health check into Docker's format only. Docker reads it from OCI's as well, where BuildKit has it:
//! so it is put there the same way.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::build::Arch;
use crate::sh;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What tells whether the container is well; Kubernetes has probes instead.
pub(super) const HEALTH: [&str; 3] = ["/usr/local/bin/rusd", "status", "--exit-code"];
const SECOND: u64 = 1_000_000_000;

/// A directory of blobs.
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// An empty one, in place of whatever was there.
    fn create(dir: &Path) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { dir: dir.to_owned() })
    }

    pub(super) fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self, digest: &str) -> Result<PathBuf> {
        let name = digest.strip_prefix("sha256:").filter(|name| name.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let name = name.ok_or_else(|| format!("{digest:?} is no digest"))?;
        Ok(self.dir.join("blobs/sha256").join(name))
    }

    /// A blob, held against its digest.
    fn read(&self, digest: &str) -> Result<Vec<u8>> {
        let bytes = fs::read(self.path(digest)?)?;
        if sha256(&bytes) != digest {
            return Err(format!("the blob {digest} is another").into());
        }
        Ok(bytes)
    }

    fn read_json(&self, descriptor: &Value) -> Result<Value> {
        let digest = descriptor["digest"].as_str().ok_or("a descriptor without a digest")?;
        Ok(serde_json::from_slice(&self.read(digest)?)?)
    }

    /// Writes a blob; its descriptor.
    fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = sha256(bytes);
        fs::write(self.path(&digest)?, bytes)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    /// What index.json names first.
    fn top(&self) -> Result<Value> {
        let index: Value = serde_json::from_slice(&fs::read(self.dir.join("index.json"))?)?;
        index["manifests"].get(0).cloned().ok_or_else(|| "an empty layout".into())
    }

    /// The manifest for a processor.
    fn manifest(&self, arch: Arch) -> Result<Value> {
        let mut top = self.top()?;
        if top["mediaType"] == INDEX {
            let index = self.read_json(&top)?;
            let fits = |entry: &&Value| entry["platform"]["architecture"] == arch.name;
            let entry = index["manifests"].as_array().into_iter().flatten().find(fits);
            top = entry.ok_or_else(|| format!("the image isn't there for {}", arch.name))?.clone();
        }
        self.read_json(&top)
    }

    /// The image's digest, that of its index.
    pub(super) fn digest(&self) -> Result<String> {
        Ok(self.top()?["digest"].as_str().ok_or("a descriptor without a digest")?.to_owned())
    }

    /// What a registry sends for this processor, in bytes.
    pub(super) fn compressed(&self, arch: Arch) -> Result<u64> {
        let manifest = self.manifest(arch)?;
        let layers = manifest["layers"].as_array().ok_or("a manifest without layers")?;
        if let Some(plain) = layers.iter().find(|layer| layer["mediaType"] != LAYER) {
            return Err(format!("a layer isn't compressed: {plain}").into());
        }
        Ok(layers.iter().filter_map(|layer| layer["size"].as_u64()).sum())
    }

    /// How a container of it is started.
    pub(super) fn config(&self, arch: Arch) -> Result<Value> {
        self.read_json(&self.manifest(arch)?["config"])
    }

    /// Unpacks the layers as a container's root; owners are kept if we are root.
    pub(super) fn unpack(&self, arch: Arch, root: &Path) -> Result<()> {
        if root.exists() {
            fs::remove_dir_all(root)?;
        }
        fs::create_dir_all(root)?;
        for layer in self.manifest(arch)?["layers"].as_array().ok_or("a manifest without layers")? {
            let digest = layer["digest"].as_str().ok_or("a layer without a digest")?;
            self.read(digest)?;
            let mut tar = std::process::Command::new("tar");
            tar.args(["--extract", "--gzip", "--preserve-permissions", "--numeric-owner", "--file"]);
            tar.arg(self.path(digest)?).arg("--directory").arg(root);
            sh::output(tar)?;
        }
        Ok(())
    }

    /// The layout as one file, the same for the same content.
    pub(super) fn archive(&self, epoch: &str, file: &Path) -> Result<()> {
        let mut tar = std::process::Command::new("tar");
        tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"]);
        tar.args(["--format=ustar", &format!("--mtime=@{epoch}"), "--file"]).arg(file);
        tar.arg("--directory").arg(&self.dir).args(["blobs", "index.json", "oci-layout"]);
        sh::output(tar)?;
        Ok(())
    }
}

/// Puts together one image for several processors.
///
/// `name` is the repository and tag, by which it is known once it is loaded.
pub(super) fn join(parts: &[(Arch, PathBuf)], name: &str, labels: &Value, into: &Path) -> Result<Layout> {
    let layout = Layout::create(into)?;
    let mut manifests = Vec::new();
    for (arch, dir) in parts {
        let part = Layout::open(dir);
        let mut manifest = part.manifest(*arch)?;
        for layer in manifest["layers"].as_array().ok_or("a manifest without layers")? {
            let digest = layer["digest"].as_str().ok_or("a layer without a digest")?;
            fs::write(layout.path(digest)?, part.read(digest)?)?;
        }
        let mut config = part.read_json(&manifest["config"])?;
        with_health(&mut config)?;
        manifest["config"] = layout.put(CONFIG, &serde_json::to_vec(&config)?)?;
        manifest["mediaType"] = MANIFEST.into();
        manifest["annotations"] = labels.clone();
        let mut entry = layout.put(MANIFEST, &serde_json::to_vec(&manifest)?)?;
        entry["platform"] = json!({"architecture": arch.name, "os": "linux"});
        manifests.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": labels});
    let mut top = layout.put(INDEX, &serde_json::to_vec(&index)?)?;
    let tag = name.rsplit_once(':').ok_or("a name without a tag")?.1;
    top["annotations"] = json!({"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]});
    fs::write(layout.dir.join("index.json"), serde_json::to_vec(&index)?)?;
    Ok(layout)
}

fn with_health(config: &mut Value) -> Result<()> {
    let inner = config.get_mut("config").and_then(Value::as_object_mut).ok_or("a config without its inner part")?;
    let test: Vec<&str> = std::iter::once("CMD").chain(HEALTH).collect();
    let health = json!({
        "Test": test, "Interval": 10 * SECOND, "Timeout": 8 * SECOND, "StartPeriod": 30 * SECOND, "Retries": 3,
    });
    inner.insert("Healthcheck".to_owned(), health);
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::super::build::ARCHES;
    use super::*;

    /// What buildah writes, in small.
    fn part(dir: &Path, arch: Arch) {
        let layout = Layout::create(dir).expect("a layout");
        let config = json!({"architecture": arch.name, "os": "linux", "config": {"User": "65532:65532"}});
        let config = layout.put(CONFIG, &serde_json::to_vec(&config).expect("JSON")).expect("put");
        let layer = layout.put(LAYER, b"a layer").expect("put");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        let manifest = layout.put(MANIFEST, &serde_json::to_vec(&manifest).expect("JSON")).expect("put");
        fs::write(dir.join("index.json"), json!({"manifests": [manifest]}).to_string()).expect("written");
    }

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("rusd-xtask-{}-{name}", std::process::id()))
    }

    #[test]
    fn an_image_for_two_processors_has_its_health_check_and_the_same_digest_twice() {
        let dir = scratch("layout");
        let parts: Vec<_> = ARCHES.iter().map(|arch| (*arch, dir.join(arch.name))).collect();
        parts.iter().for_each(|(arch, dir)| part(dir, *arch));
        let labels = json!({"org.opencontainers.image.version": "1"});
        let first = join(&parts, "host/rusd:1", &labels, &dir.join("first")).expect("joined");
        let second = join(&parts, "host/rusd:1", &labels, &dir.join("second")).expect("joined");
        assert_eq!(first.digest().expect("a digest"), second.digest().expect("a digest"));
        for arch in ARCHES {
            let config = first.config(arch).expect("a config");
            assert_eq!(config["architecture"], arch.name);
            assert_eq!(config["config"]["User"], "65532:65532");
            assert_eq!(config["config"]["Healthcheck"]["Test"][1], HEALTH[0]);
            assert_eq!(first.compressed(arch).expect("a size"), 7);
        }
        let other = join(&parts, "host/rusd:1", &json!({}), &dir.join("other")).expect("joined");
        assert_ne!(first.digest().expect("a digest"), other.digest().expect("a digest"));
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_blob_that_is_another_is_found() {
        let dir = scratch("blob");
        let layout = Layout::create(&dir).expect("a layout");
        let descriptor = layout.put(CONFIG, b"{}").expect("put");
        let digest = descriptor["digest"].as_str().expect("a digest");
        assert_eq!(layout.read(digest).expect("read"), b"{}");
        fs::write(layout.path(digest).expect("a path"), b"[]").expect("written");
        assert!(layout.read(digest).is_err());
        assert!(layout.read("sha256:../../etc/passwd").is_err());
        fs::remove_dir_all(dir).expect("removed");
    }
}
