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
