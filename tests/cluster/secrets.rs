//! Nothing secret in the data directory, in the log, or on standard output: looked for byte by byte. The engine is
//! the one that doesn't compress.

use std::fs;
use std::path::Path;

use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::{AuthUserChangePasswordRequest, SnapshotRequest, maintenance_client::MaintenanceClient};

use crate::cluster::Cluster;
use crate::users::{add_user, enable, get, grant_role, login, put, with};

const PASSWORDS: [&str; 4] = ["the-first-password", "the-second-password", "the-wrong-password", "changed-password"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_and_tokens_are_nowhere() {
    let mut cluster =
        Cluster::start(1, &["--bcrypt-cost=4", "--log-level=debug", "--snapshot-count=10", "--backend=redb"]).await;
    let channel = cluster.members[0].channel().await.expect("it serves");
    add_user(&channel, None, "root", PASSWORDS[0]).await.expect("root is added");
    grant_role(&channel, None, "root", "root").await.expect("it gets its role");
    enable(&channel).await.expect("it is turned on");
    login(&channel, "root", PASSWORDS[2]).await.expect_err("the password is wrong");
    login(&channel, PASSWORDS[2], "x").await.expect_err("some type it where the name belongs");
    let root = login(&channel, "root", PASSWORDS[0]).await.expect("root logs in");
    add_user(&channel, Some(&root), "u", PASSWORDS[1]).await.expect("a user is added");
    let change =
        AuthUserChangePasswordRequest { name: "u".into(), password: PASSWORDS[3].into(), ..Default::default() };
    AuthClient::new(channel.clone()).user_change_password(with(Some(&root), change)).await.expect("it is changed");
    let user = login(&channel, "u", PASSWORDS[3]).await.expect("the user logs in");
    get(&channel, Some(&user), "a").await.expect_err("it may read nothing");
    for at in 0..50 {
        put(&channel, Some(&root), &format!("marker-{at}"), "v").await.expect("root writes");
    }
    let mut snapshot = MaintenanceClient::new(channel)
        .snapshot(with(Some(&root), SnapshotRequest {}))
        .await
        .expect("a snapshot is taken")
        .into_inner();
    let mut files = Vec::new();
    while let Some(part) = snapshot.message().await.expect("it comes whole") {
        files.extend_from_slice(&part.blob);
    }
    assert!(contains(&files, b"$2a$04$"), "hashes are in a backup: it has to restore them");
    cluster.members[0].kill();
    collect(cluster.members[0].dir(), &mut files);
    assert!(contains(&files, b"marker-49") && contains(&files, b"$2a$04$"), "what is there is found");
    let letters = |token: &str| token.split('.').next().unwrap_or_default().to_owned();
    for secret in PASSWORDS.iter().map(|password| (*password).to_owned()).chain([letters(&root), letters(&user)]) {
        assert!(!contains(&files, secret.as_bytes()), "{secret} can be read");
    }
}

/// All files below a directory, one after the other.
fn collect(dir: &Path, into: &mut Vec<u8>) {
    for entry in fs::read_dir(dir).expect("it can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else {
            into.extend(fs::read(&path).expect("a file can be read"));
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    // The first byte is looked for first: there are tens of megabytes.
    bytes.iter().enumerate().any(|(at, byte)| *byte == part[0] && bytes[at..].starts_with(part))
}
