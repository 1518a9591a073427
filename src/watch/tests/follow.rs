//! Following a range from inside the server.

use futures::FutureExt;

use super::super::{Follow, News, StreamEnd};
use super::*;

#[tokio::test]
async fn it_tells_the_revisions_of_its_range_and_nothing_else() {
    let world = World::new();
    world.put("a/1", "before");
    let mut follow = Follow::new(&world.hub, KeyRange::prefix("a/"));
    assert!(follow.next().now_or_never().is_none(), "what was before isn't told");
    world.put("b", "elsewhere");
    world.put("a/1", "x");
    world.batch(&[vec![Change::Put("a/2", "y".into()), Change::Delete(KeyRange::single("a/1"))]]);
    assert_eq!(follow.next().await, Ok(News::At(vec![4, 5])), "a revision is told once");
    assert!(follow.next().now_or_never().is_none());
    world.delete("a/2");
    assert_eq!(follow.next().await, Ok(News::At(vec![6])));
    drop(follow);
    assert_eq!(world.hub.groups(), 0);
}

#[tokio::test]
async fn what_it_has_no_room_for_is_told_as_lost_and_it_goes_on() {
    let world = World::with(WatchLimits { stream_bytes_max: 1, ..WatchLimits::default() });
    let mut follow = Follow::new(&world.hub, KeyRange::single("a"));
    world.put("a", "1");
    world.put("a", "2");
    assert_eq!(follow.next().await, Ok(News::Lost));
    assert!(follow.next().now_or_never().is_none());
    world.put("a", "3");
    assert_eq!(follow.next().await, Ok(News::At(vec![4])));
    let end = StreamEnd { code: 14, message: "over".to_owned() };
    world.hub.end_all(&end);
    assert_eq!(follow.next().await, Err(end));
}

/// Cause: a stream of `Observe` was opened as one that needs no leader, whatever its client had asked for. Symptom: at a
/// member that is cut off it stayed open and silent for ever.
#[tokio::test]
async fn it_ends_without_a_leader_if_it_needs_one() {
    let world = World::new();
    let mut any = Follow::new(&world.hub, KeyRange::prefix("a/"));
    let mut needs = Follow::open(&world.hub, KeyRange::prefix("a/"), true);
    let end = StreamEnd { code: 14, message: "no leader".to_owned() };
    world.hub.end_leader_streams(&end);
    assert_eq!(needs.next().await, Err(end));
    assert!(any.next().now_or_never().is_none());
}
