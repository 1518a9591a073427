//! Creating and cancelling: ids, refusals, ranges, filters (E80 to E86, E91, E92, E95, E98, E99).

use super::*;
use crate::watch::Kinds;

#[test]
fn the_first_id_is_0_and_the_header_is_filled_e80() {
    let world = World::new();
    world.put("a", "1");
    let mut client = world.client();
    client.create(watch(KeyRange::single("a")));
    let response = client.next().expect("created");
    assert_eq!(brief(&response), "0@2 created");
    let header = response.header.expect("a header");
    assert_eq!((header.cluster_id, header.member_id, header.raft_term), (11, 22, 33));
    assert!(client.read().is_empty());
}

#[test]
fn ids_follow_etcds_counter_e81() {
    let world = World::new();
    let mut client = world.client();
    for wished in [0, 0, 7, 7, 2, 0] {
        client.create(CreateWatch { watch_id: wished, ..watch(KeyRange::single("a")) });
    }
    let duplicate = "-1@1 created canceled (mvcc: duplicate watch ID provided on the WatchStream)";
    assert_eq!(client.brief(), ["0@1 created", "1@1 created", "7@1 created", duplicate, "2@1 created", "3@1 created"]);
}

#[test]
fn negative_ids_are_ids_e82() {
    let world = World::new();
    let mut client = world.client();
    for id in [-1, -9] {
        assert_eq!(client.created(CreateWatch { watch_id: id, ..watch(KeyRange::single("a")) }), id);
    }
    world.put("a", "1");
    assert_eq!(client.brief(), ["-1@2 +a@2", "-9@2 +a@2"]);
}

#[test]
fn a_cancel_is_answered_once_and_frees_the_id_e83() {
    let world = World::new();
    let mut client = world.client();
    let create = CreateWatch { watch_id: 7, ..watch(KeyRange::single("a")) };
    client.created(create.clone());
    for id in [7, 7, 99] {
        client.send(WatchRequest::Cancel(id));
    }
    assert_eq!(client.brief(), ["7@1 canceled"]);
    world.put("a", "1");
    assert!(client.read().is_empty());
    assert_eq!(world.hub.groups(), 0);
    client.created(create);
    world.put("a", "2");
    assert_eq!(client.brief(), ["7@3 +a@3"]);
}

#[test]
fn an_empty_range_is_refused_e84() {
    let world = World::new();
    let mut client = world.client();
    for (key, end) in [("b", "a"), ("b", "b")] {
        client.create(watch(KeyRange::from_wire(key.into(), end.into())));
    }
    let refused = "-1@1 created canceled (mvcc: watcher range is empty)";
    assert_eq!(client.brief(), [refused, refused]);
}

#[test]
fn an_empty_key_is_the_lowest_one_e85() {
    let world = World::new();
    let mut client = world.client();
    client.created(watch(KeyRange::from_wire(Bytes::new(), Bytes::new())));
    client.created(watch(KeyRange::from_wire(Bytes::new(), Bytes::from_static(&[0]))));
    world.put("\0", "1");
    world.put("z", "1");
    assert_eq!(client.brief(), ["0@2 +\0@2", "1@2 +\0@2", "1@3 +z@3"]);
}

#[test]
fn a_negative_start_is_compacted_e86() {
    let world = World::new();
    let mut client = world.client();
    client.create(CreateWatch { start_revision: -1, ..watch(KeyRange::single("a")) });
    assert_eq!(client.brief(), ["-1@1 created canceled (etcdserver: mvcc: required revision has been compacted)"]);
}

#[test]
fn a_future_start_waits_e91() {
    let world = World::new();
    let mut client = world.client();
    client.created(CreateWatch { start_revision: 4, ..watch(KeyRange::single("a")) });
    for _ in 0..3 {
        world.put("a", "1");
    }
    world.put("a", "2");
    assert_eq!(client.brief(), ["0@4 +a@4", "0@5 +a@5"]);
}

#[test]
fn filters_leave_kinds_out_e92() {
    let world = World::new();
    let mut client = world.client();
    for (puts, deletes) in [(false, true), (true, false), (false, false)] {
        client.created(CreateWatch { kinds: Kinds { puts, deletes }, ..watch(KeyRange::single("a")) });
    }
    world.put("a", "1");
    world.delete("a");
    let mut seen = client.brief();
    seen.sort();
    assert_eq!(seen, ["0@3 -a@3", "1@2 +a@2"]);
    // The same from history.
    client.created(CreateWatch {
        kinds: Kinds { puts: false, deletes: true },
        start_revision: 1,
        ..watch(KeyRange::all())
    });
    assert_eq!(client.brief(), ["3@3 -a@3"]);
}

#[test]
fn a_transaction_is_one_response_in_its_own_order_e95() {
    let world = World::new();
    let mut client = world.client();
    client.created(watch(KeyRange::prefix("")));
    let put = |key| Change::Put(key, b"1".to_vec());
    world.batch(&[vec![put("b"), put("a"), put("ab")]]);
    world.batch(&[vec![Change::Delete(KeyRange::all())]]);
    assert_eq!(client.brief(), ["0@2 +b@2 +a@2 +ab@2", "0@3 -a@3 -ab@3 -b@3"]);
    client.created(CreateWatch { start_revision: 2, ..watch(KeyRange::all()) });
    assert_eq!(client.brief(), ["1@3 +b@2 +a@2 +ab@2 -a@3 -ab@3 -b@3"]);
}

#[test]
fn live_events_come_one_revision_a_response_with_previous_pairs() {
    let world = World::new();
    let mut client = world.client();
    client.created(CreateWatch { prev_kv: true, ..watch(KeyRange::single("a")) });
    client.created(watch(KeyRange::single("a")));
    world.put("a", "1");
    world.put("a", "2");
    world.delete("a");
    let seen: Vec<String> = client.brief().into_iter().filter(|text| text.starts_with('0')).collect();
    assert_eq!(seen, ["0@2 +a@2", "0@3 +a@3/2", "0@4 -a@4/3"]);
}

#[test]
fn previous_pairs_on_disk_are_read_by_a_job_and_keep_the_order() {
    let world = World::new();
    world.store.cold.store(true, Ordering::Relaxed);
    let mut client = world.client();
    client.created(CreateWatch { prev_kv: true, ..watch(KeyRange::single("a")) });
    client.created(watch(KeyRange::single("b")));
    world.put("a", "1");
    world.put("a", "2");
    world.put("b", "1");
    assert_eq!(client.step(), Step::Blocked);
    assert_eq!(client.next().map(|response| brief(&response)).as_deref(), Some("0@2 +a@2"));
    assert_eq!(client.brief(), ["0@3 +a@3/2", "1@4 +b@4"]);
}

#[test]
fn watchers_beyond_the_limit_are_refused() {
    let world = World::with(WatchLimits { stream_watchers_max: 1, ..WatchLimits::default() });
    let mut client = world.client();
    client.created(watch(KeyRange::single("a")));
    client.create(watch(KeyRange::single("a")));
    assert_eq!(client.brief(), ["-1@1 created canceled (etcdserver: too many requests)"]);
}

#[test]
fn watchers_beyond_what_all_streams_may_have_are_refused_until_others_go() {
    const REFUSED: &str = "-1@1 created canceled (etcdserver: too many requests)";
    let world = World::with(WatchLimits { watchers_max: 2, ..WatchLimits::default() });
    let (mut first, mut second) = (world.client(), world.client());
    first.created(watch(KeyRange::single("a")));
    second.created(watch(KeyRange::single("a")));
    first.create(watch(KeyRange::single("b")));
    assert_eq!(first.brief(), [REFUSED]);
    assert_eq!(world.hub.metrics().snapshot().refused_total, 1);
    drop(first);
    second.created(watch(KeyRange::single("b")));
    // The first two bytes fit, and then it is full: what is looked at is what is there already.
    let world = World::with(WatchLimits { ranges_bytes_max: 2, ..WatchLimits::default() });
    let (mut first, mut second) = (world.client(), world.client());
    first.created(watch(KeyRange::single("long")));
    second.create(watch(KeyRange::single("b")));
    assert_eq!(second.brief(), [REFUSED]);
    let figures = world.hub.metrics().snapshot();
    assert_eq!((figures.refused_total, figures.refused_ranges_total), (0, 1), "each limit counts its own");
    drop(first);
    second.created(watch(KeyRange::single("b")));
}

#[test]
fn gauges_follow_streams_and_watchers() {
    let world = World::new();
    let mut client = world.client();
    client.created(watch(KeyRange::single("a")));
    client.settle();
    let figures = world.hub.metrics().snapshot();
    assert_eq!((figures.streams, figures.watchers, figures.slow_watchers), (1, 1, 0));
    world.put("a", "1");
    assert_eq!(world.hub.metrics().snapshot().pending_events, 1);
    client.read();
    let figures = world.hub.metrics().snapshot();
    assert_eq!((figures.pending_events, figures.events_total), (0, 1));
    drop(client);
    let figures = world.hub.metrics().snapshot();
    assert_eq!((figures.streams, figures.watchers, world.hub.groups()), (0, 0, 0));
}
