//! Real threads: one writer, many streams that create, stall, cancel and ask, against what must have been seen.

use std::thread;

use super::*;

fn writer(world: &World, rounds: usize) {
    let keys = ["a", "b", "c"];
    for round in 0..rounds {
        let txns: Vec<Vec<Change>> = (0..=(round % 3)).map(|at| vec![Change::Put(keys[at], b"1".to_vec())]).collect();
        world.batch(&txns);
        if round % 64 == 0 {
            thread::yield_now();
        }
    }
}

/// Reads until the world's last revision is reached; returns each watcher's first revision and what it saw.
fn reader(world: &World, seed: u64, last: i64) -> Vec<(i64, Vec<i64>)> {
    let mut client = world.client();
    let mut watchers: Vec<(i64, Vec<i64>)> = Vec::new();
    // Watchers that were there at the last report of progress: it binds only those.
    let mut bound = 0;
    let mut starts = std::collections::VecDeque::new();
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut reported = 0;
    loop {
        if watchers.len() + starts.len() < 20 {
            let start = if random() % 2 == 0 { 0 } else { (random() % 50) as i64 + 2 };
            starts.push_back(start);
            client.create(CreateWatch { start_revision: start, ..watch(KeyRange::single("a")) });
        }
        client.send(WatchRequest::Progress);
        for _ in 0..random() % 4 {
            client.step();
            client.work();
        }
        if random() % 8 == 0 {
            thread::yield_now();
        }
        while let Some(response) = client.next() {
            let header = response.header.as_ref().map_or(0, |header| header.revision);
            if response.created {
                let start = starts.pop_front().unwrap_or(0);
                watchers.push((if start == 0 { header + 1 } else { start }, Vec::new()));
                assert_eq!(response.watch_id as usize, watchers.len() - 1);
            } else if response.watch_id == -1 {
                assert!(header >= reported, "progress went back");
                reported = header;
                bound = watchers.len();
                if watchers.len() == 20 && header == last {
                    return watchers;
                }
            } else {
                let seen = &mut watchers[response.watch_id as usize].1;
                for event in &response.events {
                    let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
                    assert!(
                        revision > reported || response.watch_id as usize >= bound,
                        "event {revision} after progress {reported}"
                    );
                    assert!(seen.last().is_none_or(|before| *before < revision), "order of {:?}", seen.last());
                    seen.push(revision);
                }
            }
        }
    }
}

#[test]
fn streams_on_threads_see_every_event_once() {
    let world = World::with(WatchLimits { stream_bytes_max: 4 * 1024, ..WatchLimits::default() });
    let rounds = 1500;
    let last = 1 + (0..rounds as i64).map(|round| round % 3 + 1).sum::<i64>();
    let all: Vec<Vec<(i64, Vec<i64>)>> = thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|seed| {
                scope.spawn({
                    let world = world.clone();
                    move || reader(&world, seed, last)
                })
            })
            .collect();
        writer(&world, rounds);
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    });
    assert_eq!(world.revision(), last);
    let of_a: Vec<i64> = {
        let state = world.store.state.lock();
        state.records.iter().filter(|(_, record)| record.key == "a").map(|(at, _)| at.main).collect()
    };
    for (start, seen) in all.into_iter().flatten() {
        let from = of_a.partition_point(|revision| *revision < start);
        assert_eq!(seen, of_a[from..], "from {start}");
    }
}
