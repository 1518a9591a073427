//! Progress, asked for and by itself (E93, E94, E100): never ahead of an event that isn't sent yet.

use super::*;

#[test]
fn a_request_is_answered_with_the_current_revision_e93() {
    let world = World::new();
    let mut client = world.client();
    client.send(WatchRequest::Progress);
    assert!(client.read().is_empty(), "no watchers, no answer");
    client.created(watch(KeyRange::single("a")));
    world.put("b", "1");
    client.send(WatchRequest::Progress);
    assert_eq!(client.brief(), ["-1@2"]);
    client.created(CreateWatch { start_revision: 100, ..watch(KeyRange::single("a")) });
    client.send(WatchRequest::Progress);
    assert!(client.read().is_empty(), "a watcher waits for the future");
    world.put("b", "2");
    assert!(client.read().is_empty(), "and the request isn't remembered");
}

#[test]
fn the_answer_comes_after_the_events_before_it() {
    let world = World::new();
    let mut client = world.client();
    client.created(watch(KeyRange::single("a")));
    world.put("a", "1");
    client.send(WatchRequest::Progress);
    world.put("a", "2");
    assert_eq!(client.brief(), ["0@2 +a@2", "0@3 +a@3", "-1@3"]);
}

#[test]
fn a_request_waits_for_what_is_published_but_not_yet_said() {
    let world = World::new();
    let mut client = world.client();
    client.created(watch(KeyRange::single("a")));
    let batch = world.publish(&[vec![Change::Put("a", b"1".to_vec())]]);
    client.send(WatchRequest::Progress);
    assert!(client.read().is_empty());
    world.hub.notify(batch, world.revision());
    assert_eq!(client.brief(), ["0@2 +a@2", "-1@2"]);
}

#[test]
fn a_request_while_catching_up_is_answered_once_caught_up() {
    let world = World::new();
    world.put("a", "1");
    let mut client = world.client();
    client.created(CreateWatch { start_revision: 2, ..watch(KeyRange::single("a")) });
    client.send(WatchRequest::Progress);
    client.step();
    assert!(client.next().is_none());
    world.put("a", "2");
    assert_eq!(client.brief(), ["0@2 +a@2", "0@3 +a@3", "-1@3"]);
}

#[test]
fn a_watcher_lost_to_compaction_blocks_progress_until_it_is_cancelled_e94() {
    let world = World::new();
    world.put("a", "1");
    world.put("a", "2");
    world.compact(3);
    let mut client = world.client();
    let create = CreateWatch { watch_id: 5, ..watch(KeyRange::single("a")) };
    client.create(CreateWatch { start_revision: 1, ..create.clone() });
    assert_eq!(client.brief(), ["5@3 created", "5@0 canceled compacted 3"]);
    client.send(WatchRequest::Progress);
    assert!(client.read().is_empty());
    client.create(create);
    let duplicate = "-1@3 created canceled (mvcc: duplicate watch ID provided on the WatchStream)";
    assert_eq!(client.brief(), [duplicate]);
    client.send(WatchRequest::Cancel(5));
    client.created_first(watch(KeyRange::single("a")));
    client.send(WatchRequest::Progress);
    assert_eq!(client.brief(), ["-1@3"]);
}

impl Client {
    fn created_first(&mut self, create: CreateWatch) {
        assert_eq!(self.brief(), ["5@3 canceled"]);
        self.created(create);
    }
}

#[test]
fn quiet_watchers_are_told_at_each_interval_e100() {
    let world = World::new();
    let mut client = world.client();
    let notified = |key: &'static str| CreateWatch { progress_notify: true, ..watch(KeyRange::single(key)) };
    client.created(notified("a"));
    client.created(CreateWatch { start_revision: 4, ..notified("a") });
    client.created(watch(KeyRange::single("a")));
    world.put("b", "1");
    client.core.tick();
    assert_eq!(client.brief(), ["0@2"], "not the one that waits for 4, not the one that didn't ask");
    world.put("a", "1");
    client.core.tick();
    let mut seen = client.brief();
    seen.sort();
    assert_eq!(seen, ["0@3 +a@3", "2@3 +a@3"], "none for the one that had an event");
    client.core.tick();
    assert_eq!(client.brief(), ["0@3"]);
    world.put("b", "2");
    client.core.tick();
    assert_eq!(client.brief(), ["0@4", "1@4"]);
}
