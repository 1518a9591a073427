//! A session of etcd's own `etcdctl`, which logs in by `--user`, on etcd and on rusd: the same words.

use std::process::Command;

use crate::peers::peer;
use crate::server::{Kind, Server};

/// What is typed.
const SESSION: &[&str] = &[
    "user add root:rootpw",
    "user add u:pw",
    "user add cert --no-password",
    "role add r",
    "role grant-permission r readwrite a c",
    "role grant-permission r --prefix=true read p",
    "role grant-permission r write w --from-key=true",
    "user grant-role u r",
    "role get r",
    "user get u --detail",
    "auth status",
    "auth enable",
    "auth status",
    "--user root:rootpw auth status",
    "get a",
    "--user u:wrong get a",
    "--user nobody:pw get a",
    "--user u:pw put a 1",
    "--user u:pw put x 1",
    "--user u:pw get a",
    "--user u:pw get a c",
    "--user u:pw get p --prefix",
    "--user u:pw get --from-key a",
    "--user u:pw del a",
    "--user u:pw user list",
    "--user u:pw user get u",
    "--user u:pw role get r",
    "--user root:rootpw user list",
    "--user root:rootpw role list",
    "--user root:rootpw put x 1",
    "--user root:rootpw get --prefix --keys-only x",
    "--user root:rootpw user passwd u --interactive=false",
    "--user root:rootpw role revoke-permission r a c",
    "--user u:pw put a 1",
    "--user root:rootpw user revoke-role u r",
    "--user root:rootpw user delete u",
    "--user u:pw get a",
    "--user root:rootpw user delete root",
    "--user root:rootpw role delete r",
    "--user root:rootpw compact 1",
    "--user root:rootpw endpoint health",
    "--user root:rootpw auth disable",
    "get x",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_sees_no_difference() {
    let Some(etcdctl) = peer("etcdctl", "auth session") else { return };
    let mut sessions = Vec::new();
    for kind in [Kind::Etcd, Kind::Rusd] {
        let Some(server) = Server::start(kind, &["--bcrypt-cost=4".to_owned()], "auth session").await else { return };
        let [endpoint, _] = server.urls();
        let mut said = Vec::new();
        for typed in SESSION {
            let output = Command::new(&etcdctl)
                .args(["--endpoints", &endpoint, "--command-timeout", "10s"])
                .args(typed.split_whitespace())
                .output()
                .expect("etcdctl starts");
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).replace(&endpoint, "ENDPOINT");
            said.push(format!("> {typed}\n{:?}\n{}", output.status.code(), steady(&text)));
        }
        sessions.push(said);
    }
    for (etcd, rusd) in sessions[0].iter().zip(&sessions[1]) {
        assert_eq!(rusd, etcd);
    }
}

/// Without what differs from run to run: times in logged lines, and how long something took.
fn steady(text: &str) -> String {
    let words = |line: &str| line.split(" took = ").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.starts_with('{')).map(words).collect::<Vec<_>>().join("\n")
}
