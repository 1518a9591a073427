//! The compose file's commands and health checks, each member a process.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::ports;
use crate::process::{Process, replaced};
use crate::yaml::{documents, texts};

const FILE: &str = include_str!("../../packaging/compose.yaml");
/// Ports of each member inside its container: clients', members'.
const PORTS: [u16; 2] = [2379, 2380];

#[test]
fn the_members_find_each_other_and_are_well() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = documents(FILE).expect("YAML").remove(0);
    let services = file["services"].as_object().expect("services");
    assert_eq!(services.len(), 3);
    let ports: Vec<(&String, [u16; 2])> = services.keys().map(|name| (name, PORTS.map(|_| ports::free()))).collect();
    // What compose's names and each container's own network would do.
    let names: Vec<(String, String)> = ports
        .iter()
        .flat_map(|(name, free)| PORTS.iter().zip(free).map(move |(port, free)| (format!("{name}:{port}"), *free)))
        .map(|(from, free)| (from, format!("127.0.0.1:{free}")))
        .collect();
    let mut members = Vec::new();
    for ((name, service), (_, free)) in services.iter().zip(&ports) {
        let own = PORTS.iter().zip(free).map(|(port, free)| (format!("0.0.0.0:{port}"), format!("127.0.0.1:{free}")));
        let data = data_directory(service);
        let volume = dir.path().join(name);
        std::fs::create_dir(&volume).expect("a volume");
        let places: Vec<_> = own.chain(names.clone()).chain([(data, volume.display().to_string())]).collect();
        let arguments: Vec<String> =
            texts(&service["command"]).iter().map(|argument| replaced(argument, &places)).collect();
        members.push((service, free[0], Process::start(dir.path(), name, &arguments)));
    }
    for (service, client, process) in &mut members {
        let test = texts(&service["healthcheck"]["test"]);
        let [kind, program, words @ ..] = &test[..] else { panic!("{test:?}") };
        assert_eq!((kind.as_str(), program.as_str()), ("CMD", "/usr/local/bin/rusd"));
        let check = |port: u16| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rusd"));
            command.args(words).arg(format!("--endpoints=http://127.0.0.1:{port}"));
            command.stdout(Stdio::null()).status().expect("rusd runs").success()
        };
        process.wait("the health check", || check(*client));
        assert!(!check(1), "a check of nobody is well");
    }
    // All are of one cluster, not each of its own.
    let output = Command::new(env!("CARGO_BIN_EXE_rusd"))
        .args(["status", "--cluster", "--members=3", "--exit-code"])
        .arg(format!("--endpoints=http://127.0.0.1:{}", members[2].1))
        .output()
        .expect("rusd runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Where the volume lies inside; data outside of it would be lost with the container, or not be writable at all.
fn data_directory(service: &Value) -> String {
    assert_eq!((&service["read_only"], &service["cap_drop"][0]), (&true.into(), &"ALL".into()));
    let volumes = texts(&service["volumes"]);
    let (_, inside) = volumes[0].split_once(':').expect("a place inside");
    let data = format!("--data-dir={inside}/");
    assert!(texts(&service["command"]).iter().any(|argument| argument.starts_with(&data)), "{service:#}");
    inside.to_owned()
}
