//! What the chart makes of a release that is there: helm's `lookup` asks an API server, and here that is a few lines of HTTP.
//!
//! ```text
//! each line of ci/upgrades.txt ─► helm template --dry-run=server ─► GET …/namespaces/NS/configmaps/release-rusd-size ─► `answer`
//!                                                               └► refused, or rendered, with this text
//! ```
//! A real API server is asked by `cargo xtask kube`; this one is there in no time and says what one wants it to.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::{KUBE, helm_with};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Longer than helm needs for a request, so that a connection without one holds nobody up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries each line; gives their number. `home` is for helm's own files.
pub(super) fn upgrades(helm: &Path, chart: &Path, text: &str, home: &Path) -> Result<usize> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = format!("--kube-apiserver=http://{}", listener.local_addr()?);
    // It ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(&stream));
        }
    });
    // What an earlier run found at the same port.
    if home.exists() {
        fs::remove_dir_all(home)?;
    }
    let mut count = 0;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fault = || format!("upgrades.txt: {line:?} isn't NAMESPACE SET => TEXT, or ->");
        let (given, taken, part) = match line.split_once(" => ") {
            Some((given, part)) => (given, false, part.trim()),
            None => line.split_once(" -> ").map(|(given, part)| (given, true, part.trim())).ok_or_else(fault)?,
        };
        let (namespace, set) = given.split_once(' ').ok_or_else(fault)?;
        let (namespace, set) = (format!("--namespace={namespace}"), format!("--set={}", set.trim()));
        let args = ["template", "release", ".", KUBE, "--dry-run=server", &server, &namespace, &set];
        let mut command = helm_with(helm, chart, &args);
        command.env("HOME", home).env_remove("KUBECONFIG");
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HTTP_PROXY", "http_proxy"] {
            command.env_remove(name);
        }
        let output = command.output()?;
        let said = String::from_utf8_lossy(if taken { &output.stdout } else { &output.stderr });
        if output.status.success() != taken || !said.contains(part) {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(format!("upgrades.txt: {line:?}: {}\n{error}", output.status).into());
        }
        count += 1;
    }
    Ok(count)
}

/// One request, one answer. Who breaks off is asked nothing more.
fn serve(mut stream: &TcpStream) {
    if stream.set_read_timeout(Some(PATIENCE)).is_err() {
        return;
    }
    let mut lines = BufReader::new(stream).lines().map_while(std::result::Result::ok);
    let Some(request) = lines.next() else { return };
    if !lines.any(|line| line.is_empty()) {
        return;
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match answer(path.split('?').next().unwrap_or_default()) {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", r#"{"kind":"Status","apiVersion":"v1","reason":"NotFound","code":404}"#.to_owned()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
    let _ = write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len());
}

/// What there is at a path.
fn answer(path: &str) -> Option<String> {
    if path == "/api/v1" {
        let resource = r#"{"name":"configmaps","namespaced":true,"kind":"ConfigMap","verbs":["get"]}"#;
        return Some(format!(r#"{{"kind":"APIResourceList","groupVersion":"v1","resources":[{resource}]}}"#));
    }
    let (namespace, name) = path.strip_prefix("/api/v1/namespaces/")?.split_once("/configmaps/")?;
    let data = match (namespace, name) {
        ("space", "release-rusd-size") => r#"{"replicas":"3","largest":"5","scheme":"http","domain":"cluster.local"}"#,
        ("early", "release-rusd-size") => r#"{"replicas":"3"}"#,
        _ => return None,
    };
    let metadata = format!(r#"{{"name":"{name}","namespace":"{namespace}"}}"#);
    Some(format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{metadata},"data":{data}}}"#))
}
