//! The Watch service over a real socket and the real store, read with the generated client.

#[path = "watch/server.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use rusd::watch::WatchLimits;
use rusd_proto::etcdserverpb::WatchRequest;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tonic::Code;

use server::{Server, cancel, create, progress};

#[tokio::test]
async fn a_stream_from_the_first_create_to_the_cancel() {
    let server = Server::start(WatchLimits::default()).await;
    let mut client = server.client().await;
    client.send(create("a", "", 0)).await;
    client.send(WatchRequest { request_union: None }).await;
    assert_eq!(client.brief().await, "0@1 created");
    server.put("a", "1");
    server.put("b", "1");
    server.put("a", "2");
    assert_eq!(client.brief().await, "0@2 +a@2");
    assert_eq!(client.brief().await, "0@4 +a@4");
    client.send(progress()).await;
    assert_eq!(client.brief().await, "-1@4");
    client.send(create("a", "c", 2)).await;
    assert_eq!(client.brief().await, "1@4 created");
    assert_eq!(client.brief().await, "1@4 +a@2 +b@3 +a@4");
    client.send(cancel(0)).await;
    assert_eq!(client.brief().await, "0@4 canceled");
    server.delete("a");
    assert_eq!(client.brief().await, "1@5 -a@5");
}

/// Cause: a member that is a moment behind answered at once. Symptom: a consistent list of kube-apiserver, which had read
/// the revision at another member, waited for the next time that it asks for progress: 100 ms.
#[tokio::test]
async fn progress_is_told_once_this_member_has_what_was_acknowledged_before() {
    let held = Arc::new(Semaphore::new(0));
    let server = Server::start_held(&held).await;
    let mut client = server.client().await;
    // Nobody watches: etcd doesn't answer, neither now nor later.
    client.send(progress()).await;
    client.send(create("a", "", 0)).await;
    assert_eq!(client.brief().await, "0@1 created");
    client.send(progress()).await;
    client.send(progress()).await;
    // Neither events nor other requests wait meanwhile.
    client.send(create("b", "", 0)).await;
    assert_eq!(client.brief().await, "1@1 created");
    server.put("a", "1");
    assert_eq!(client.brief().await, "0@2 +a@2");
    server.put("c", "1");
    held.add_permits(1);
    assert_eq!(client.brief().await, "-1@3");
    server.put("c", "2");
    held.add_permits(1);
    assert_eq!(client.brief().await, "-1@4");
    client.send(cancel(0)).await;
    assert_eq!(client.brief().await, "0@4 canceled");
    assert_eq!(held.available_permits(), 0);
}

#[tokio::test]
async fn events_go_on_after_the_client_closed_its_side_e98() {
    let server = Server::start(WatchLimits::default()).await;
    let mut client = server.client().await;
    client.send(create("a", "", 0)).await;
    assert_eq!(client.brief().await, "0@1 created");
    client.close();
    sleep(Duration::from_millis(20)).await;
    server.put("a", "1");
    assert_eq!(client.brief().await, "0@2 +a@2");
}

#[tokio::test]
async fn progress_comes_by_itself_e100() {
    let limits = WatchLimits { progress_interval: Duration::from_secs(1), ..WatchLimits::default() };
    let server = Server::start(limits).await;
    let mut client = server.client().await;
    let mut request = create("a", "", 0);
    if let Some(RequestUnion::CreateRequest(create)) = &mut request.request_union {
        create.progress_notify = true;
    }
    client.send(request).await;
    assert_eq!(client.brief().await, "0@1 created");
    server.put("b", "1");
    assert_eq!(client.brief().await, "0@2");
    assert_eq!(client.brief().await, "0@2");
}

#[tokio::test]
async fn the_real_store_keeps_the_event_at_the_compaction_18089_19179() {
    let server = Server::start(WatchLimits::default()).await;
    server.put("a", "1");
    server.put("a", "2");
    server.delete("a");
    server.put("b", "1");
    server.compact(4);
    let mut client = server.client().await;
    client.send(create("a", "c", 4)).await;
    assert_eq!(client.brief().await, "0@5 created");
    assert_eq!(client.brief().await, "0@5 -a@4 +b@5");
    client.send(create("a", "c", 3)).await;
    assert_eq!(client.brief().await, "1@5 created");
    assert_eq!(client.brief().await, "1@0 canceled compacted 4");
}

#[tokio::test]
async fn the_real_store_gives_previous_pairs_live_and_from_history() {
    let server = Server::start(WatchLimits::default()).await;
    let mut client = server.client().await;
    let with_prev = |start| {
        let mut request = create("a", "", start);
        if let Some(RequestUnion::CreateRequest(create)) = &mut request.request_union {
            create.prev_kv = true;
        }
        request
    };
    client.send(with_prev(0)).await;
    assert_eq!(client.brief().await, "0@1 created");
    server.put("a", "1");
    server.put("a", "2");
    server.delete("a");
    for expected in ["0@2 +a@2", "0@3 +a@3/2", "0@4 -a@4/3"] {
        assert_eq!(client.brief().await, expected);
    }
    client.send(with_prev(2)).await;
    assert_eq!(client.brief().await, "1@4 created");
    assert_eq!(client.brief().await, "1@4 +a@2 +a@3/2 -a@4/3");
}

#[tokio::test]
async fn a_client_that_stopped_reading_harms_nobody_and_gets_everything_later() {
    let limits = WatchLimits { stream_bytes_max: 256 * 1024, ..WatchLimits::default() };
    let server = Server::start(limits).await;
    let mut stalled = server.client().await;
    stalled.send(create("a", "", 0)).await;
    assert_eq!(stalled.brief().await, "0@1 created");
    let mut healthy = server.client().await;
    healthy.send(create("a", "", 0)).await;
    healthy.next().await;
    let value = "x".repeat(10_000);
    for _ in 0..1000 {
        server.put("a", &value);
    }
    let mut seen = 1;
    while seen < 1001 {
        seen = healthy.last_revision(seen).await;
    }
    let figures = server.hub.metrics().snapshot();
    assert!(figures.overflows_total >= 1);
    assert!(figures.pending_events < 100, "{figures:?}");
    let mut seen = 1;
    while seen < 1001 {
        seen = stalled.last_revision(seen).await;
    }
    server.put("a", "end");
    assert_eq!(stalled.brief().await, "0@1002 +a@1002");
}

#[tokio::test]
async fn a_stream_that_asked_for_a_leader_ends_without_one() {
    let server = Server::start(WatchLimits::default()).await;
    let mut plain = server.client().await;
    plain.send(create("a", "", 0)).await;
    plain.next().await;
    let mut strict = server.client_with_leader().await.expect("there is a leader");
    strict.send(create("a", "", 0)).await;
    strict.next().await;
    server.set_leader(false);
    let status = strict.end().await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    let refused = server.client_with_leader().await.err().map(|status| status.message().to_owned());
    assert_eq!(refused.as_deref(), Some("etcdserver: no leader"));
    server.put("a", "1");
    assert_eq!(plain.brief().await, "0@2 +a@2");
}

#[tokio::test]
async fn a_create_that_isnt_allowed_is_refused_in_the_stream() {
    let server = Server::start(WatchLimits::default()).await;
    let mut client = server.client().await;
    client.send(create("secret", "", 0)).await;
    let refused = "-1@1 created canceled (rpc error: code = PermissionDenied desc = etcdserver: permission denied)";
    assert_eq!(client.brief().await, refused);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing() {
    let server = Server::start(WatchLimits::default()).await;
    let mut client = server.client().await;
    client.send(create("a", "", 0)).await;
    client.next().await;
    assert_eq!(server.hub.metrics().snapshot().streams, 1);
    drop(client);
    let gone = async {
        while server.hub.metrics().snapshot().streams > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.expect("the stream is forgotten");
    assert_eq!(server.hub.metrics().snapshot().watchers, 0);
}

#[tokio::test]
async fn many_watchers_of_a_prefix_each_get_each_event() {
    let server = Server::start(WatchLimits::default()).await;
    let mut client = server.client().await;
    for _ in 0..500 {
        client.send(create("a", "b", 0)).await;
        client.next().await;
    }
    for _ in 0..20 {
        server.put("a1", "value");
    }
    let mut events = 0;
    while events < 500 * 20 {
        events += client.next().await.events.len();
    }
    assert_eq!(server.hub.metrics().snapshot().events_total, 500 * 20);
}
