//! One writer and streams that are opened meanwhile, under many schedules: see `env/schedules`.

use std::future::poll_fn;

use super::*;
use crate::env::schedules::{block_on, check, spawn, turn};

/// Batches that are published.
const BATCHES: i64 = 5;

/// What one watcher saw.
struct Seen {
    /// From where on it has to see all.
    start: i64,
    revisions: Vec<i64>,
    /// Pairs of a reported revision and what had been seen by then.
    reports: Vec<(i64, usize)>,
}

/// Watches `a` from a revision on, 0 for the next one, until the last is there.
fn watches(world: &World, start: i64, last: i64) -> Seen {
    let mut client = world.client();
    client.create(CreateWatch { start_revision: start, ..watch(KeyRange::single("a")) });
    let mut seen = Seen { start, revisions: Vec::new(), reports: Vec::new() };
    let (mut is_created, mut came) = (false, true);
    loop {
        if std::mem::take(&mut came) {
            // So that progress stands between events.
            client.send(WatchRequest::Progress);
        }
        let step = client.step();
        let worked = client.work();
        while let Some(response) = client.next() {
            let header = response.header.as_ref().map_or(0, |header| header.revision);
            came |= response.watch_id != -1;
            if response.created {
                is_created = true;
                seen.start = if start == 0 { header + 1 } else { start };
            } else if response.watch_id == -1 {
                seen.reports.push((header, seen.revisions.len()));
            }
            seen.revisions.extend(response.events.iter().filter_map(|event| Some(event.kv.as_ref()?.mod_revision)));
        }
        let is_over = is_created && (seen.revisions.last() == Some(&last) || seen.start > last);
        if is_over {
            return seen;
        }
        if !worked && !came && !matches!(step, Step::Full) {
            // If nobody wakes it, nobody goes on.
            block_on(poll_fn(|cx| client.core.mailbox().poll_news(cx)));
        }
    }
}

fn story(limits: WatchLimits) {
    let world = World::with(limits);
    let last = 1 + BATCHES;
    let readers = [0, 2, 0].map(|start| {
        let world = world.clone();
        spawn(move || watches(&world, start, last))
    });
    let writer = spawn({
        let world = world.clone();
        move || {
            for _ in 0..BATCHES {
                let batch = world.publish(&[vec![Change::Put("a", vec![b'v'; 100])]]);
                // The store is ahead of the hub for a moment.
                turn();
                world.hub.notify(batch, world.revision());
            }
        }
    });
    writer.join().expect("the writer");
    for reader in readers {
        let Seen { start, revisions, reports } = reader.join().expect("a reader");
        let due: Vec<i64> = (start..=last).collect();
        assert_eq!(revisions, due, "from {start}");
        for (reported, count) in reports {
            let after = revisions.get(count).copied().unwrap_or(i64::MAX);
            assert!(after > reported, "{after} came after {reported} was reported");
        }
    }
}

#[test]
fn schedules_each_stream_sees_every_event_once_and_progress_in_step() {
    check(&[], || story(WatchLimits::default()));
}

/// The same with mailboxes that hold one event, so that streams go over to history and back.
#[test]
fn schedules_a_stream_that_lost_events_reads_them() {
    check(&[], || story(WatchLimits { stream_bytes_max: 64, ..WatchLimits::default() }));
}
