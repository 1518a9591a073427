//! Bugs that etcd once had, by their issue numbers; each test opens with the story.

use super::*;

fn from(start_revision: i64, range: KeyRange) -> CreateWatch {
    CreateWatch { start_revision, ..watch(range) }
}

// 15220. Cause: progress was sent beside the event channel and could overtake events that still waited in it.
// Symptom: a client took the progress revision as its resume point and lost events. Now: progress is written only
// after a drain of the mailbox that found nothing, with the revision from before that drain.
#[test]
fn progress_is_in_step_with_the_stream_15220() {
    let world = World::with(WatchLimits { stream_bytes_max: 4 * 1024, ..WatchLimits::default() });
    let mut client = world.client();
    client.created(watch(KeyRange::single("a")));
    for round in 0..30 {
        for _ in 0..round {
            world.put("a", "1");
        }
        client.send(WatchRequest::Progress);
        client.step();
        world.put("a", "2");
        let mut sent = 0;
        for response in client.read() {
            let header = response.header.as_ref().map_or(0, |header| header.revision);
            if response.watch_id == -1 {
                assert!(header >= sent);
                sent = header;
            }
            for event in &response.events {
                let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
                assert!(revision > sent, "event {revision} after {sent} was reported");
                sent = revision;
            }
        }
        assert_eq!(sent, world.revision());
    }
}

// 15271. Cause: after a partition and a snapshot the member's watchers were synced again from a wrong revision.
// Symptom: a watch went back in time. Now: each watcher's next revision only grows.
#[test]
fn an_installed_snapshot_neither_repeats_nor_skips_15271() {
    let world = World::new();
    let mut client = world.client();
    client.created(watch(KeyRange::single("a")));
    world.put("a", "1");
    assert_eq!(client.brief(), ["0@2 +a@2"]);
    // Applied by a snapshot: no batch, only a revision far ahead.
    for _ in 0..3 {
        world.publish(&[vec![Change::Put("a", b"2".to_vec())]]);
    }
    world.hub.notify(None, world.revision());
    world.put("a", "3");
    let seen: Vec<String> =
        client.brief().iter().flat_map(|text| text.split(' ').skip(1).map(String::from).collect::<Vec<_>>()).collect();
    assert_eq!(seen, ["+a@3", "+a@4", "+a@5", "+a@6"]);
}

// 17247. Cause: a watcher that moved from the unsynced to the synced set could be given the event it had just read.
// Symptom: a duplicate event. Now: what is below `next` is skipped, and the hub says no revision twice.
#[test]
fn nothing_is_said_twice_17247() {
    let world = World::new();
    let mut client = world.client();
    client.created(watch(KeyRange::single("a")));
    let batch = world.publish(&[vec![Change::Put("a", b"1".to_vec())], vec![Change::Put("a", b"2".to_vec())]]);
    world.hub.notify(batch.clone(), 3);
    world.hub.notify(batch, 3);
    client.create(from(2, KeyRange::single("a")));
    let mut seen = client.brief();
    seen.sort();
    assert_eq!(seen, ["0@2 +a@2", "0@3 +a@3", "1@3 +a@2 +a@3", "1@3 created"]);
}

// 17529. Cause: under load a starved stream's pending events were dropped when its watchers were synced.
// Symptom: silently lost events. Now: an overflow remembers the first lost revision, and history fills it.
#[test]
fn a_starved_stream_loses_nothing_17529() {
    let world = World::with(WatchLimits { stream_bytes_max: 2 * 1024, ..WatchLimits::default() });
    let mut client = world.client();
    client.created(watch(KeyRange::prefix("")));
    let mut seen = Vec::new();
    for round in 0..200 {
        for _ in 0..=(round % 40) {
            world.put("a", "1");
        }
        // Never more than one step at a time: the stream is always behind.
        client.step();
        client.work();
        seen.extend(std::iter::from_fn(|| client.next()));
    }
    seen.extend(client.read());
    let revisions: Vec<i64> = seen
        .iter()
        .flat_map(|response| &response.events)
        .map(|event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision))
        .collect();
    assert_eq!(revisions, (2..=world.revision()).collect::<Vec<_>>());
}

// 18089 and 19179. Cause: a tombstone exactly at the compaction revision was removed.
// Symptom: a watch from that revision missed the delete. Now: the event at the compaction revision is delivered.
#[test]
fn a_delete_at_the_compaction_revision_is_seen_18089_19179() {
    let world = World::new();
    world.put("a", "1");
    world.put("a", "2");
    world.delete("a");
    world.compact(4);
    let mut client = world.client();
    client.created(from(4, KeyRange::single("a")));
    assert_eq!(client.brief(), ["0@4 -a@4"]);
}

// 20221. Cause: a watcher on a future revision was put into the unsynced set after a restore.
// Symptom: it got events below its start revision. Now: `next` starts at the start revision, whatever happens.
#[test]
fn a_future_watcher_gets_no_old_events_20221() {
    let world = World::new();
    world.put("a", "1");
    let mut client = world.client();
    client.created(from(6, KeyRange::single("a")));
    world.publish(&[vec![Change::Put("a", b"2".to_vec())], vec![Change::Put("a", b"2".to_vec())]]);
    world.hub.notify(None, world.revision());
    assert!(client.read().is_empty());
    world.put("a", "3");
    world.put("a", "4");
    assert_eq!(client.brief(), ["0@6 +a@6"]);
}
