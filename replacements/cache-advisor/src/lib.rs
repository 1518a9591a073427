//! sled asks the crate of this name which leaves to let go of. There the capacity is cut into 256 parts, each of which keeps two
//! leaves however large they are, and 32 accesses of each clone aren't counted yet: with leaves of 2 MiB a cache of 21 MiB
//! held 1.4 GiB. Here one queue is held to the bytes.
//!
//! ```text
//! new ─► back of the queue ─► … ─► front ─ used since? ─► yes: to the back once more
//!                                                     └─► no: let go
//! ```
//! sled says of a leaf that it has read how long its bytes are, and not what it takes: that has places for 128 pairs, however few
//! there are. So each counts with that besides.
//! A scan passes through the queue without pushing out what is used again and again.
//! Only what sled 1.0.0-alpha.124 calls is here, without `unsafe`; another version of it fails to compile rather than to lose.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// What an entry takes besides what is said of it: sled's leaf 2.2 KiB, and some bytes with each of its keys and values.
const BESIDES_BYTES: usize = 4 << 10;

/// Says what to let go of. Clones share what is held.
#[derive(Clone, Debug)]
pub struct CacheAdvisor {
    held: Arc<Mutex<Held>>,
    /// What the last access pushed out; kept for its room.
    evicted: Vec<(u64, usize)>,
}

#[derive(Debug)]
struct Held {
    capacity: usize,
    /// [`BESIDES_BYTES`]
    besides: usize,
    cost: usize,
    entries: HashMap<u64, Entry>,
    /// Each entry's id once, the oldest in front.
    queue: VecDeque<u64>,
}

#[derive(Debug)]
struct Entry {
    cost: usize,
    /// Since it came to the back of the queue.
    was_used: bool,
}

impl CacheAdvisor {
    /// Holds entries of at most `capacity` in all. (The second argument parted the capacity.)
    pub fn new(capacity: usize, _: u8) -> Self {
        Self::counting(capacity, BESIDES_BYTES)
    }

    fn counting(capacity: usize, besides: usize) -> Self {
        let held = Held { capacity, besides, cost: 0, entries: HashMap::new(), queue: VecDeque::new() };
        Self { held: Arc::new(Mutex::new(held)), evicted: Vec::new() }
    }

    /// The entry `id` was used and costs so much now. What has to go for it, by id and cost; it may be itself.
    pub fn accessed_reuse_buffer(&mut self, id: u64, cost: usize) -> &[(u64, usize)] {
        self.evicted.clear();
        self.held.lock().unwrap_or_else(PoisonError::into_inner).accessed(id, cost, &mut self.evicted);
        &self.evicted
    }
}

impl Held {
    fn accessed(&mut self, id: u64, cost: usize, evicted: &mut Vec<(u64, usize)>) {
        let cost = cost + self.besides;
        match self.entries.get_mut(&id) {
            Some(entry) => {
                self.cost = self.cost - entry.cost + cost;
                *entry = Entry { cost, was_used: true };
            }
            None => {
                self.cost += cost;
                self.entries.insert(id, Entry { cost, was_used: false });
                self.queue.push_back(id);
            }
        }
        while self.cost > self.capacity
            && let Some(oldest) = self.queue.pop_front()
        {
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.was_used => {
                    entry.was_used = false;
                    self.queue.push_back(oldest);
                }
                _ => {
                    if let Some(Entry { cost, .. }) = self.entries.remove(&oldest) {
                        self.cost -= cost;
                        evicted.push((oldest, cost));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Cause: entries larger than a part of the capacity. Symptom: each part keeps two of them, and the capacity is passed many times.
    #[test]
    fn no_more_is_held_than_the_capacity_however_large_the_entries() {
        for cost in [1, 100, 700, 2_000] {
            let mut advisor = CacheAdvisor::counting(1_000, 0);
            let mut other = advisor.clone();
            let mut held: HashMap<u64, usize> = HashMap::new();
            for at in 0..10_000_u64 {
                let id = at * 7 % 1_301;
                let by = if at % 2 == 0 { &mut advisor } else { &mut other };
                held.insert(id, cost);
                for (gone, _) in by.accessed_reuse_buffer(id, cost) {
                    assert!(held.remove(gone).is_some(), "{gone} went twice");
                }
                assert!(held.values().sum::<usize>() <= 1_000, "{cost} each");
            }
            assert_eq!(held.len(), 1_000 / cost);
        }
    }

    #[test]
    fn what_is_used_again_stays_while_a_scan_passes() {
        let mut advisor = CacheAdvisor::counting(100, 0);
        let mut evicted = Vec::new();
        for at in 0..10_000 {
            evicted.extend_from_slice(advisor.accessed_reuse_buffer(at % 5, 10));
            evicted.extend_from_slice(advisor.accessed_reuse_buffer(1_000 + at, 10));
        }
        assert!(evicted.iter().all(|(id, _)| *id >= 1_000), "a hot one went");
        assert_eq!(evicted.len(), 10_000 - 5);
    }

    #[test]
    fn an_entry_that_grows_is_counted_anew() {
        let mut advisor = CacheAdvisor::counting(100, 0);
        assert_eq!(advisor.accessed_reuse_buffer(1, 40), []);
        assert_eq!(advisor.accessed_reuse_buffer(2, 40), []);
        assert_eq!(advisor.accessed_reuse_buffer(2, 90), [(1, 40)]);
        assert_eq!(advisor.accessed_reuse_buffer(2, 10), []);
        assert_eq!(advisor.accessed_reuse_buffer(3, 90), []);
        assert_eq!(advisor.accessed_reuse_buffer(4, 101), [(3, 90), (4, 101)], "it goes itself, and what was used stays");
    }

    /// Cause: a leaf of one pair says some 100 bytes and takes 2 400. Symptom: after compactions leaves have few pairs, and a cache
    /// of 16 MiB let a hundred thousand of them stay.
    #[test]
    fn small_entries_count_with_what_each_takes() {
        let mut advisor = CacheAdvisor::new(16 << 20, 20);
        let mut held = 0;
        for id in 0..200_000 {
            held += 1;
            held -= advisor.accessed_reuse_buffer(id, 150).len();
        }
        assert!((3_000..5_000).contains(&held), "{held}");
    }
}
