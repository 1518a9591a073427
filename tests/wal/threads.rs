//! The real threads on the real disk: order, grouping, readers beside the writer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use rusd::env::Env;
use rusd::types::RaftIndex;
use rusd::wal::{GroupStats, Wal, WalObserver, WalOptions};

use super::rig::{entry, id};

#[derive(Debug, Default)]
struct Groups(AtomicUsize);

impl WalObserver for Groups {
    fn group_synced(&self, stats: GroupStats) {
        assert!(stats.records > 0 && stats.bytes > 0);
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn options(groups: Option<Arc<Groups>>) -> WalOptions {
    WalOptions {
        segment_bytes: 64 * 1024,
        group_bytes_max: 16 * 1024,
        cache_bytes: 8 * 1024,
        direct_io: true,
        owner: None,
        observer: groups.map(|groups| groups as Arc<dyn WalObserver>),
    }
}

#[test]
fn appends_are_grouped_and_acknowledged_in_order_while_readers_read() {
    const COUNT: u64 = 3000;
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let groups = Arc::new(Groups::default());
    let (wal, _) = Wal::open(Env::real(), &dir, options(Some(groups.clone()))).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (wal, stop) = (wal.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut reads = 0;
                while !stop.load(Ordering::Relaxed) {
                    let entries = wal.read(RaftIndex(0)..RaftIndex(u64::MAX), 20_000).unwrap();
                    for pair in entries.windows(2) {
                        assert_eq!(pair[0].id.index.get() + 1, pair[1].id.index.get());
                    }
                    for found in &entries {
                        assert_eq!(found, &entry(1, found.id.index.get(), 64));
                    }
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    let (sender, receiver) = mpsc::channel();
    for index in 0..COUNT {
        let sender = sender.clone();
        wal.append(vec![entry(1, index, 64)], move |result| {
            result.unwrap();
            sender.send(index).unwrap();
        });
        assert_eq!(wal.last(), Some(id(1, index)));
        if index % 500 == 499 {
            wal.purge_to(id(1, index - 300), |result| result.unwrap());
        }
    }
    drop(sender);
    assert!(receiver.iter().eq(0..COUNT), "once each, in order");
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    let grouped = groups.0.load(Ordering::Relaxed);
    assert!(grouped < 1500, "{grouped} groups for {COUNT} appends");
    wal.close();
    drop(wal);
    let (wal, recovered) = Wal::open(Env::real(), &dir, options(None)).unwrap();
    assert_eq!((recovered.last, recovered.cut), (Some(id(1, COUNT - 1)), None));
    let entries = wal.read(RaftIndex(0)..RaftIndex(u64::MAX), usize::MAX).unwrap();
    assert_eq!(entries.len() as u64, COUNT - 1 - recovered.purged.unwrap().index.get());
}

#[test]
fn a_record_longer_than_a_segment_gets_one_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let (wal, _) = Wal::open(Env::real(), &dir, options(None)).unwrap();
    for index in 0..3 {
        wal.append(vec![entry(2, index, 300_000)], |result| result.unwrap());
    }
    drop(wal);
    let (wal, recovered) = Wal::open(Env::real(), &dir, options(None)).unwrap();
    assert_eq!(recovered.last, Some(id(2, 2)));
    let read = wal.read(RaftIndex(1)..RaftIndex(2), 0).unwrap();
    assert_eq!(read, [entry(2, 1, 300_000)]);
}

#[test]
fn a_callback_may_drop_the_last_handle() {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(Env::real(), &temp.path().join("wal"), options(None)).unwrap();
    let (sender, receiver) = mpsc::channel();
    let last = wal.clone();
    wal.append(vec![entry(1, 0, 10)], move |result| {
        drop(last);
        sender.send(result.is_ok()).unwrap();
    });
    drop(wal);
    assert_eq!(receiver.recv(), Ok(true));
}

/// Cause: a panic on the log thread, here a callback's. Symptom: nobody noticed; every later append
/// waited for ever. Holds: the log is over, and says why.
#[test]
fn a_panic_on_the_log_thread_ends_the_log() {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(Env::real(), &temp.path().join("wal"), options(None)).unwrap();
    let (sender, receiver) = mpsc::channel();
    wal.append(vec![entry(1, 0, 10)], |_| panic!("a callback of the test"));
    let mut fatal = wal.fatal();
    futures::executor::block_on(fatal.wait_for(Option::is_some)).unwrap();
    wal.append(vec![entry(1, 1, 10)], move |result| sender.send(result.unwrap_err().to_string()).unwrap());
    let text = receiver.recv().unwrap();
    assert!(text.contains("panicked: a callback of the test") && text.contains("start the member again"), "{text}");
    wal.close();
}
