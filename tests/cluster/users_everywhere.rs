//! Three members: users made at one of them count at all, and nothing makes the members differ (etcd's issue 14571).

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::{self as pb};
use tonic::Code;
use tonic::transport::Channel;

use crate::cluster::{COMES_MAX, Cluster, until};
use crate::secrets::http;
use crate::users::{add_role, add_user, enable, get, grant_role, login, put, status, with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_count_at_every_member_and_nobody_differs() {
    let mut cluster = Cluster::start(
        3,
        &["--bcrypt-cost=4", "--snapshot-count=300", "--snapshot-catchup-entries=50", "--snapshot-log-mb=0"],
    )
    .await;
    let (leader, _) = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let mut channels = Vec::new();
    for member in &cluster.members {
        channels.push(member.channel().await.expect("it serves"));
    }
    let at = &channels[follower];
    add_user(at, None, "root", "pw").await.expect("root is added");
    grant_role(at, None, "root", "root").await.expect("it gets its role");
    add_user(at, None, "u", "pw").await.expect("a user is added");
    add_role(at, None, "r", Some((2, "a", "c"))).await.expect("a role is added");
    grant_role(at, None, "u", "r").await.expect("it is granted");
    enable(at).await.expect("it is turned on at a follower");

    // At once at every member: what nobody asks for is refused, and a token of one is good at all.
    for channel in &channels {
        let refused = put(channel, None, "a", "1").await.expect_err("nobody");
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "etcdserver: user name is empty"));
        let refused = get(channel, None, "a").await.expect_err("nobody");
        assert_eq!(refused.message(), "etcdserver: user name is empty");
    }
    for giver in &channels {
        let (root, user) = (login(giver, "root", "pw").await.expect("root"), login(giver, "u", "pw").await.expect("u"));
        for (place, channel) in channels.iter().enumerate() {
            put(channel, Some(&user), "a", "1").await.unwrap_or_else(|status| panic!("at {place}: {status}"));
            let denied = put(channel, Some(&user), "x", "1").await.expect_err("it may not");
            assert_eq!(denied.code(), Code::PermissionDenied);
            let list = pb::AuthUserListRequest {};
            let users = AuthClient::new(channel.clone()).user_list(with(Some(&root), list)).await.expect("root");
            assert_eq!(users.into_inner().users, ["root", "u"], "at {place}");
        }
    }

    // A right that is taken away at one member is gone at all.
    let root = login(&channels[0], "root", "pw").await.expect("root logs in");
    let user = login(&channels[1], "u", "pw").await.expect("u logs in");
    let revoke = pb::AuthUserRevokeRoleRequest { name: "u".into(), role: "r".into() };
    AuthClient::new(channels[2].clone()).user_revoke_role(with(Some(&root), revoke)).await.expect("it is taken");
    for channel in &channels {
        assert_eq!(get(channel, Some(&user), "a").await.expect_err("it may not").code(), Code::PermissionDenied);
        assert_eq!(put(channel, Some(&user), "a", "2").await.expect_err("it may not").code(), Code::PermissionDenied);
    }
    grant_role(&channels[1], Some(&root), "u", "r").await.expect("it is granted again");

    // One member misses all that follows, and gets it by a snapshot, users too.
    cluster.members[follower].kill();
    let at = &channels[leader];
    for number in 0..700 {
        let key = format!("n{number}");
        until("two of three write", || put(at, Some(&root), &key, "v")).await;
    }
    add_user(at, Some(&root), "late", "pw").await.expect("a user is added");
    cluster.members[follower].start();
    let back = come_back(&cluster, follower, "late").await;
    put(&back, Some(&login(&back, "root", "pw").await.expect("root")), "after", "1").await.expect("it serves");
    // Who sent it, and who took it in, have counted that under etcd's names.
    for way in ["send", "receive"] {
        let series = format!("etcd_network_snapshot_{way}_success{{");
        until("a snapshot is counted", || async {
            for member in &cluster.members {
                let scraped = http(&member.client, "GET /metrics", "", "").await.1;
                if scraped.lines().any(|line| line.starts_with(&series) && !line.ends_with(" 0")) {
                    return Ok(());
                }
            }
            Err(series.clone())
        })
        .await;
    }
    // And after a restart of all of them.
    for member in &mut cluster.members {
        member.kill();
    }
    for member in &mut cluster.members {
        member.start();
    }
    let mut hashes = Vec::new();
    for place in 0..3 {
        let channel = come_back(&cluster, place, "late").await;
        assert_eq!(get(&channel, Some(&root), "a").await.expect_err("of before").code(), Code::Unauthenticated);
        let root = login(&channel, "root", "pw").await.expect("root logs in");
        get(&channel, Some(&root), "a").await.expect("it catches up");
        let hash = MaintenanceClient::new(channel.clone())
            .hash_kv(with(Some(&root), pb::HashKvRequest::default()))
            .await
            .expect("root asks")
            .into_inner();
        hashes.push((hash.hash, hash.hash_revision, status(&channel).await.expect("anybody may ask")));
        let alarms = pb::AlarmRequest::default();
        let alarms = MaintenanceClient::new(channel).alarm(with(Some(&root), alarms)).await.expect("root asks");
        assert_eq!(alarms.into_inner().alarms, [], "nobody differs");
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    for member in &cluster.members {
        let log = member.log();
        for word in ["differs", "diverged", "corrupt", "panicked"] {
            assert!(!log.contains(word), "{}: {word}", member.name);
        }
    }
}

/// Waits until a member knows a user.
async fn come_back(cluster: &Cluster, place: usize, user: &str) -> Channel {
    let (member, begun) = (&cluster.members[place], Instant::now());
    loop {
        if let Ok(channel) = member.channel().await
            && login(&channel, user, "pw").await.is_ok()
        {
            return channel;
        }
        assert!(begun.elapsed() < COMES_MAX, "{} doesn't come back:\n{}", member.name, member.log_tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
