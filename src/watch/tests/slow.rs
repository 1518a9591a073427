//! Clients that don't read: bounded bytes, no harm to others, and every event once they read again.

use super::super::mailbox::StreamEnd;
use super::*;

fn small() -> World {
    World::with(WatchLimits { stream_bytes_max: 8 * 1024, ..WatchLimits::default() })
}

fn revisions(responses: &[WatchResponse]) -> Vec<i64> {
    let events = responses.iter().flat_map(|response| &response.events);
    events.map(|event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision)).collect()
}

#[test]
fn a_client_that_never_reads_holds_a_bounded_number_of_bytes() {
    let world = small();
    let mut stalled = world.client();
    stalled.created(CreateWatch { prev_kv: true, ..watch(KeyRange::single("a")) });
    let mut healthy = world.client();
    healthy.created(watch(KeyRange::single("a")));
    for _ in 0..1000 {
        world.put("a", "0123456789");
        assert_eq!(healthy.read().len(), 1);
        assert!(stalled.core.mailbox().charged() <= 8 * 1024);
    }
    assert!(world.hub.metrics().snapshot().pending_events < 50);
    assert_eq!(world.hub.metrics().snapshot().overflows_total, 1);
    assert_eq!(revisions(&stalled.read()), (2..=1001).collect::<Vec<_>>());
    assert_eq!(stalled.core.mailbox().charged(), 0);
    world.put("a", "live again");
    assert_eq!(stalled.brief(), ["0@1002 +a@1002/1001"]);
    assert_eq!(world.hub.metrics().snapshot().slow_watchers, 0);
}

#[test]
fn every_watcher_of_a_slow_stream_goes_on_where_it_was() {
    let world = small();
    let mut client = world.client();
    client.created(watch(KeyRange::single("a")));
    client.created(watch(KeyRange::single("b")));
    client.created(CreateWatch { start_revision: 150, ..watch(KeyRange::all()) });
    for _ in 0..100 {
        world.put("a", "1");
        world.put("b", "1");
    }
    let responses = client.read();
    let of = |id: i64| -> Vec<i64> {
        let own: Vec<WatchResponse> = responses.iter().filter(|response| response.watch_id == id).cloned().collect();
        revisions(&own)
    };
    assert_eq!(of(0), (2..=200).step_by(2).collect::<Vec<_>>());
    assert_eq!(of(1), (3..=201).step_by(2).collect::<Vec<_>>());
    assert_eq!(of(2), (150..=201).collect::<Vec<_>>());
    world.put("a", "2");
    assert_eq!(client.read().len(), 2);
}

#[test]
fn a_compaction_above_a_slow_client_cancels_it() {
    let world = small();
    let mut client = world.client();
    client.created(watch(KeyRange::single("a")));
    for _ in 0..200 {
        world.put("a", "1");
    }
    world.compact(190);
    let responses = client.read();
    let last = responses.last().map(brief);
    assert_eq!(last.as_deref(), Some("0@0 canceled compacted 190"));
    let seen = revisions(&responses);
    assert_eq!(seen, (2..2 + seen.len() as i64).collect::<Vec<_>>(), "no gap before the cancellation");
    assert!(!seen.is_empty());
}

#[test]
fn a_backlog_is_joined_into_few_responses() {
    let world = World::new();
    let mut client = world.client();
    client.created(watch(KeyRange::single("a")));
    for _ in 0..100 {
        world.put("a", "1");
    }
    let responses = client.read();
    assert_eq!(revisions(&responses), (2..=101).collect::<Vec<_>>());
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].header.as_ref().map(|header| header.revision), Some(101));
    let many = vec![vec![Change::Put("a", b"1".to_vec())]; 40];
    world.batch(&many);
    assert_eq!(client.read().len(), 1, "a batch of many revisions as well");
}

#[test]
fn an_event_above_the_bound_is_still_delivered() {
    let world = small();
    let mut client = world.client();
    client.created(CreateWatch { prev_kv: true, ..watch(KeyRange::single("a")) });
    for round in 0..3_usize {
        world.batch(&[vec![Change::Put("a", vec![round as u8; 50_000])]]);
        world.put("a", "small");
    }
    assert_eq!(revisions(&client.read()), (2..=7).collect::<Vec<_>>());
}

#[test]
fn an_ended_stream_says_why() {
    let world = World::new();
    let mut client = world.client();
    let end = StreamEnd { code: 14, message: "etcdserver: no leader".into() };
    world.hub.end_leader_streams(&end);
    assert_eq!(client.settle(), Step::Idle);
    world.hub.end_all(&end);
    assert_eq!(client.settle(), Step::End(end));
}

// A mailbox is charged for a delete's few bytes; its previous pair may be large. A stalled client's backlog of such
// deletes is loaded piece by piece, not at once.
#[test]
fn large_previous_pairs_are_loaded_piece_by_piece() {
    for cold in [false, true] {
        let world = World::new();
        world.store.cold.store(cold, Ordering::Relaxed);
        let mut client = world.client();
        client.created(CreateWatch { prev_kv: true, ..watch(KeyRange::single("a")) });
        for _ in 0..10 {
            world.batch(&[vec![Change::Put("b", vec![1])], vec![Change::Put("a", vec![7; 400_000])]]);
            world.delete("a");
        }
        let mut responses = Vec::new();
        let mut largest = 0;
        loop {
            let step = client.step();
            let before: usize = responses.len();
            responses.extend(std::iter::from_fn(|| client.next()));
            let bytes = responses[before..].iter().map(Message::encoded_len).sum::<usize>();
            largest = largest.max(bytes);
            if !client.work() && step == Step::Idle {
                break;
            }
        }
        let expected: Vec<i64> = (2..=31).filter(|revision| revision % 3 != 2).collect();
        assert_eq!(revisions(&responses), expected);
        assert!(
            responses
                .iter()
                .flat_map(|response| &response.events)
                .all(|event| event.r#type == 0 || event.prev_kv.is_some())
        );
        assert!(largest < 4 << 20, "{largest} bytes at once");
    }
}

// Streams are looked at a thousand at a time, with whoever publishes let in between.
#[test]
fn the_lag_is_that_of_the_stream_that_is_behind_the_most() {
    let world = World::new();
    assert_eq!(world.hub.lag(), 0);
    let mut clients: Vec<Client> = (0..2_500).map(|_| world.client()).collect();
    for (at, key) in [(3, "a"), (1_500, "b"), (2_300, "b")] {
        clients[at].created(watch(KeyRange::single(key)));
    }
    world.put("b", "1");
    for _ in 0..4 {
        world.put("a", "1");
    }
    assert_eq!(world.hub.lag(), 5);
    clients[1_500].read();
    assert_eq!(world.hub.lag(), 5);
    clients.drain(2_000..);
    assert_eq!(world.hub.lag(), 4);
    clients[3].read();
    assert_eq!(world.hub.lag(), 0);
}
