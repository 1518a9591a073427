//! Callers, the log thread and a power cut, under many schedules: see `env/schedules`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{EntryId, Wal, WalEntry, WalOptions};
use crate::env::schedules::{check, env, spawn, turn};
use crate::env::{CrashStyle, Env, ManualSpawn};
use crate::types::{RaftIndex, Term};

const DIR: &str = "/wal";
/// Entries that each of two callers appends.
const ENTRIES: u64 = 6;

fn options() -> WalOptions {
    // Several segments, groups of a few entries.
    WalOptions {
        segment_bytes: 1024,
        group_bytes_max: 300,
        cache_bytes: 400,
        direct_io: true,
        owner: None,
        observer: None,
    }
}

fn entry(index: u64) -> WalEntry {
    let id = EntryId { term: Term(1), index: RaftIndex(index), node: None };
    WalEntry { id, kind: 1, payload: Bytes::from(vec![index as u8; 80]) }
}

/// What was acknowledged, in this order.
type Told = Arc<Mutex<Vec<u64>>>;

/// Each call is answered once, in the order of the calls, after its entry is on the disk: whatever the moment at which the
/// power goes, what was acknowledged before is there. Nobody waits for ever: a log thread that nobody wakes would.
#[test]
fn schedules_a_group_is_handed_over_whole_and_told_when_it_is_durable() {
    check(&[], || {
        let (env, disk) = env();
        let (wal, _) = Wal::open(env.clone(), Path::new(DIR), options()).expect("it opens");
        let told = Told::default();
        // The entries' order is that of the calls, as consensus sees to.
        let next = Arc::new(crate::env::sync::Mutex::new(0));
        let callers = [0; 2].map(|_| {
            let (wal, told, next) = (wal.clone(), told.clone(), next.clone());
            spawn(move || {
                for _ in 0..ENTRIES {
                    let mut next = next.lock();
                    let (index, told) = (*next, told.clone());
                    *next += 1;
                    wal.append(vec![entry(index)], move |result| {
                        if result.is_ok() {
                            told.lock().push(index);
                        }
                    });
                    drop(next);
                    turn();
                }
            })
        });
        let cut = spawn({
            let told = told.clone();
            move || {
                // Sooner or later, as the schedule says.
                (0..20).for_each(|_| turn());
                let before = told.lock().clone();
                let cut = disk.fork();
                cut.crash(CrashStyle::LoseAll);
                (before, cut)
            }
        });
        callers.into_iter().for_each(|caller| caller.join().expect("a caller"));
        let (before, cut) = cut.join().expect("the cut");
        wal.close();
        assert_eq!(*told.lock(), (0..2 * ENTRIES).collect::<Vec<_>>(), "each once, in order");
        let env = Env { disk: Arc::new(cut), spawn: Arc::new(ManualSpawn::default()), ..env };
        let (after, _) = Wal::open(env, Path::new(DIR), options()).expect("it opens after the cut");
        let found = after.read(RaftIndex(0)..RaftIndex(u64::MAX), usize::MAX).expect("it is whole");
        assert!(found.len() >= before.len(), "{} were acknowledged, {} are there", before.len(), found.len());
        assert!(found.iter().zip(0..).all(|(found, index)| *found == entry(index)), "and they are what they were");
    });
}
