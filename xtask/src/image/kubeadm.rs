//! kubeadm's static pod with rusd in etcd's place: what the real kubeadm writes, run as its kubelet would.
//!
//! ```text
//! kubeadm (Go module) ─► certificates, manifest for packaging/kubeadm/config.yaml ─► is it packaging/kubeadm/etcd.yaml?
//!     └► the same without our image ─► do they differ in the image alone?
//! manifest ─► command, hostPaths, host's network (a namespace with the node's address) ─► container ─► probes, etcdctl by TLS
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::container::{Container, Net, Plan};
use super::network::Wire;
use super::story::{Unpacked, confined};
use crate::report::{Tried, expect, passed, skipped};
use crate::{peers, sh, yaml};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What `xtask/kubeadm/go.mod` pins.
const VERSION: &str = "v1.37.1";
/// The node's address in config.yaml.
const NODE: &str = "192.0.2.10";
const PROBED_MAX: Duration = Duration::from_secs(30);

/// kubeadm, built if it isn't there yet; it takes a minute and a half when nothing is cached.
fn built() -> Result<PathBuf> {
    let module = sh::root().join("xtask/kubeadm");
    let out = sh::target().join("kubeadm");
    fs::create_dir_all(&out)?;
    let program = out.join("kubeadm");
    let stamp = [fs::read(module.join("go.mod"))?, fs::read(module.join("go.sum"))?].concat();
    if program.is_file() && fs::read(out.join("stamp")).is_ok_and(|old| old == stamp) {
        return Ok(program);
    }
    let flags = [("gitVersion", VERSION), ("gitMajor", "1"), ("gitMinor", "37")]
        .map(|(name, value)| format!("-X k8s.io/component-base/version.{name}={value}"));
    let flags = format!("-s -w {}", flags.join(" "));
    let target = program.to_str().ok_or("the target directory's path is not text")?;
    let args = ["build", "-mod=readonly", "-p", "2", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o", target];
    let mut build = sh::program("go", &module, &[&args[..], &["k8s.io/kubernetes/cmd/kubeadm"]].concat());
    build.env("CGO_ENABLED", "0");
    sh::run(build)?;
    fs::write(out.join("stamp"), stamp)?;
    Ok(program)
}

/// A node as kubeadm makes it, below a directory that it takes for the root.
pub(super) struct Node {
    root: PathBuf,
    manifest: Value,
}

/// Lets kubeadm make its files, and holds the manifest against ours and against etcd's.
pub(super) fn written() -> Result<(Node, Tried)> {
    let kubeadm = built()?;
    let ours = fs::read_to_string(sh::root().join("packaging/kubeadm/config.yaml"))?;
    let root = sh::target().join("image/node");
    let text = write(&kubeadm, &root, &ours)?;
    let manifest = first(&text)?;
    let node = Node { root, manifest };
    let kept = fs::read_to_string(sh::root().join("packaging/kubeadm/etcd.yaml"))?;
    if text != kept {
        let fresh = sh::target().join("image/etcd.yaml");
        fs::write(&fresh, &text)?;
        return Ok((node, Err(format!("kubeadm writes {}, not packaging/kubeadm/etcd.yaml", fresh.display()).into())));
    }
    let plain: String = ours.lines().filter(|line| !line.contains("image")).map(|line| format!("{line}\n")).collect();
    let etcds = write(&kubeadm, &sh::target().join("image/node-etcd"), &plain.replace("local:", "local: {}"))?;
    let differ = differing(&text, &etcds);
    let is_image = |line: &String| line.trim_start().starts_with("image: ");
    let tried = match &differ[..] {
        [old, new] if is_image(old) && is_image(new) => {
            passed(format!("kubeadm {VERSION} writes the same but for `{}`, was `{}`", old.trim(), new.trim()))
        }
        lines => Err(format!("the manifests differ in more than the image: {lines:?}").into()),
    };
    Ok((node, tried))
}

fn first(text: &str) -> Result<Value> {
    Ok(yaml::documents(text)?.into_iter().next().ok_or("an empty manifest")?)
}

/// Lines that only one of them has at this place.
fn differing(a: &str, b: &str) -> Vec<String> {
    let (mut a, mut b) = (a.lines(), b.lines());
    let mut found = Vec::new();
    loop {
        match (a.next(), b.next()) {
            (None, None) => return found,
            (a, b) if a == b => {}
            (a, b) => found.extend([a, b].into_iter().flatten().map(str::to_owned)),
        }
    }
}

/// Certificates and the manifest's text.
fn write(kubeadm: &Path, root: &Path, config: &str) -> Result<String> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    fs::create_dir_all(root.join("etc/kubernetes"))?;
    fs::write(root.join("etc/kubernetes/config.yaml"), config)?;
    let place = root.to_str().ok_or("the target directory's path is not text")?;
    let certs = ["etcd-ca", "etcd-server", "etcd-peer", "etcd-healthcheck-client", "apiserver-etcd-client"];
    let phases = certs.map(|name| ["certs", name]).into_iter().chain([["etcd", "local"]]);
    for phase in phases {
        let args =
            [&["init", "phase"], &phase[..], &["--rootfs", place, "--config=/etc/kubernetes/config.yaml"]].concat();
        sh::output(sh::program(kubeadm.to_str().ok_or("no text")?, &sh::root(), &args))?;
    }
    Ok(fs::read_to_string(root.join("etc/kubernetes/manifests/etcd.yaml"))?)
}

/// Starts the pod's container exactly as the manifest has it, and asks what a kubelet and an apiserver ask.
pub(super) fn runs(node: &Node, image: &Unpacked) -> Tried {
    let wire = match Wire::alone("kubeadm", NODE) {
        Ok(wire) => wire,
        Err(error) => return skipped(format!("no network namespaces here: {error}")),
    };
    let spec = &node.manifest["spec"];
    let pod = &spec["containers"][0];
    expect(spec["hostNetwork"] == true, "the pod isn't in the host's network")?;
    let mut mounts = Vec::new();
    for mount in pod["volumeMounts"].as_array().into_iter().flatten() {
        let volume = spec["volumes"].as_array().into_iter().flatten().find(|volume| volume["name"] == mount["name"]);
        let host = volume.and_then(|volume| volume["hostPath"]["path"].as_str()).ok_or("a mount without a hostPath")?;
        let host = node.root.join(host.trim_start_matches('/'));
        // DirectoryOrCreate: root's, as the kubelet makes it.
        if !host.exists() {
            fs::create_dir_all(&host)?;
            fs::set_permissions(&host, fs::Permissions::from_mode(0o755))?;
        }
        mounts.push((host, mount["mountPath"].as_str().ok_or("a mount to nowhere")?.to_owned()));
    }
    let command = yaml::texts(&pod["command"]);
    let flags = command.len() - 1;
    let plan = Plan {
        name: "kubeadm",
        root: &image.root,
        config: &image.config,
        command: Some(command),
        args: Vec::new(),
        mounts,
        net: Net::Named(wire.machine(0).to_owned()),
    };
    let mut container = Container::start(&plan)?;
    container.ready()?;
    let seen = confined(&container)?;
    let mut probes = Vec::new();
    for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let url = probe_url(pod, &pod[kind]["httpGet"])?;
        let begun = Instant::now();
        // A readiness probe is asked again, too.
        loop {
            let output =
                container.in_network(Path::new("curl"), &["-s", "-o", "/dev/null", "-w", "%{http_code}", &url])?;
            match output.stdout.as_slice() {
                b"200" => break,
                other if begun.elapsed() > PROBED_MAX => {
                    return Err(format!("{kind}: {url} answers {}", String::from_utf8_lossy(other)).into());
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        probes.push(url);
    }
    let etcdctl = peers::directory().join("etcdctl");
    let pki = node.root.join("etc/kubernetes/pki");
    let tls = |who: &str, endpoint: &str| {
        let path = |name: &str| pki.join(name).display().to_string();
        [
            format!("--endpoints={endpoint}"),
            format!("--cacert={}", path("etcd/ca.crt")),
            format!("--cert={}", path(&format!("{who}.crt"))),
            format!("--key={}", path(&format!("{who}.key"))),
        ]
    };
    let ask = |who: &str, endpoint: &str, words: &[&str]| -> Result<String> {
        let flags = tls(who, endpoint);
        let args: Vec<&str> = flags.iter().map(String::as_str).chain(words.iter().copied()).collect();
        let output = container.in_network(&etcdctl, &args)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        expect(output.status.success(), format!("etcdctl {}: {said}", words.join(" ")))?;
        Ok(said)
    };
    let (local, outer) = ("https://127.0.0.1:2379", format!("https://{NODE}:2379"));
    ask("apiserver-etcd-client", local, &["put", "/registry/greeting", "hello"])?;
    let got = ask("etcd/healthcheck-client", &outer, &["get", "/registry/greeting", "--print-value-only"])?;
    expect(got.trim() == "hello", format!("the value is {got}"))?;
    let plain = container.in_network(Path::new("curl"), &["-sk", "--max-time", "5", &format!("{local}/version")])?;
    expect(!plain.status.success(), "a client without a certificate is served")?;
    let status = container.stop()?;
    expect(status.success(), format!("after SIGTERM it ends with {status}"))?;
    passed(format!(
        "{seen}; {flags} flags as written; 3 probes 200, put and get by two of kubeadm's certificates, none without"
    ))
}

/// The URL that the kubelet asks.
fn probe_url(pod: &Value, get: &Value) -> Result<String> {
    let port = match &get["port"] {
        Value::String(name) => {
            let ports = pod["ports"].as_array().into_iter().flatten();
            let port = ports.into_iter().find(|port| port["name"] == **name);
            port.and_then(|port| port["containerPort"].as_u64()).ok_or_else(|| format!("no port is called {name}"))?
        }
        number => number.as_u64().ok_or("a probe without a port")?,
    };
    let part = |key: &str| get[key].as_str().ok_or_else(|| format!("a probe without {key}"));
    Ok(format!("{}://{}:{port}{}", part("scheme")?.to_lowercase(), part("host")?, part("path")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_probe_s_port_may_have_a_name() {
        let pod = json!({"ports": [{"name": "probe-port", "containerPort": 2381}]});
        let get = |port: Value| json!({"host": "127.0.0.1", "path": "/livez", "port": port, "scheme": "HTTP"});
        assert_eq!(probe_url(&pod, &get("probe-port".into())).expect("a URL"), "http://127.0.0.1:2381/livez");
        assert_eq!(probe_url(&pod, &get(9.into())).expect("a URL"), "http://127.0.0.1:9/livez");
        assert!(probe_url(&pod, &get("other".into())).is_err());
    }

    #[test]
    fn lines_that_differ_are_found_to_the_end() {
        assert_eq!(differing("a\nb\nc", "a\nx\nc\nd"), ["b", "x", "d"]);
        assert!(differing("a", "a").is_empty());
    }
}
