//! The values over the in-memory engine: visibility, durability, restart, removal.

use std::sync::atomic::Ordering;

use super::*;
use crate::storage::backend::MemoryImage;
use crate::storage::{AppliedPosition, VersionRecord};
use crate::types::{RaftIndex, Revision, Term};

fn record(key: &str, value: impl Into<Bytes>) -> Record {
    let version = VersionRecord { value: value.into(), create_revision: 2, version: 1, lease: LeaseId::NONE };
    Record { key: Bytes::copy_from_slice(key.as_bytes()), version: Some(version) }
}

fn at(main: i64) -> Revision {
    Revision::new(main, 0)
}

fn position(index: u64) -> AppliedPosition {
    AppliedPosition { index: RaftIndex(index), term: Term(1) }
}

fn config(image: &MemoryImage) -> ValuesConfig {
    ValuesConfig {
        flush_interval: Duration::from_millis(1),
        ..ValuesConfig::new(Engine::Memory(image.clone()), "memory")
    }
}

fn fill(writer: &mut ValueWriter, mains: std::ops::Range<i64>) {
    for main in mains {
        writer.append(vec![(at(main), record(&main.to_string(), "v"))], vec![], position(main as u64)).expect("append");
    }
}

async fn flushed(writer: &ValueWriter) -> AppliedPosition {
    writer.flush().await.expect("flush")
}

#[tokio::test]
async fn appended_is_readable_at_once_and_after_a_restart() {
    let image = MemoryImage::default();
    let (mut writer, reader, _) = open(&Env::real(), config(&image)).expect("open");
    let two = vec![(at(2), record("a", "1")), (Revision::new(2, 1), record("b", "2"))];
    let row = (Table::Lease, Bytes::from_static(b"l"), Some(Bytes::from_static(b"x")));
    writer.append(two.clone(), vec![row], position(7)).expect("append");
    assert_eq!(reader.cached(Revision::new(2, 1)), Some(two[1].1.clone()));
    assert_eq!(reader.scan(at(0), at(9), 10).expect("scan"), two);
    assert_eq!(flushed(&writer).await, position(7));
    assert_eq!(*writer.durable().borrow(), position(7));
    let size = writer.logical_size();
    assert_eq!(size, 2 * (RECORD_OVERHEAD_BYTES + 2));
    drop((writer, reader));

    let (writer, reader, loaded) = open(&Env::real(), config(&image)).expect("open again");
    assert_eq!(loaded.position, position(7));
    assert_eq!(loaded.lease, [(Bytes::from_static(b"l"), Bytes::from_static(b"x"))]);
    let heads: Vec<_> = loaded.records.map(|head| head.expect("intact")).collect();
    assert_eq!(heads.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [at(2), Revision::new(2, 1)]);
    assert_eq!((writer.logical_size(), reader.cached(at(2))), (size, None));
    assert_eq!(reader.record(at(2)).expect("read"), Some(two[0].1.clone()));
    assert_eq!(reader.record(at(3)).expect("read"), None);
    assert_eq!(reader.scan(at(0), at(9), 10).expect("scan"), two);
}

#[tokio::test]
async fn removed_records_are_gone_and_counted_out() {
    let image = MemoryImage::default();
    let (mut writer, reader, _) = open(&Env::real(), ValuesConfig { remove_step: 7, ..config(&image) }).expect("open");
    fill(&mut writer, 2..600);
    let left_bytes = 10 * (RECORD_OVERHEAD_BYTES + 4);
    writer.remove((2..590).map(at).collect(), None);
    while writer.logical_size() > left_bytes {
        flushed(&writer).await;
    }
    drop((writer, reader));
    let (writer, reader, loaded) = open(&Env::real(), config(&image)).expect("open");
    let left: Vec<_> = loaded.records.map(|head| head.expect("intact").0.main).collect();
    assert_eq!(left, (590..600).collect::<Vec<_>>());
    assert_eq!(reader.scan(at(0), at(1000), 1000).expect("scan").len(), 10);
    assert_eq!(writer.logical_size(), left_bytes);
}

/// The bytes that begin a flush were the same at any pace, and with what a flush makes of them they were a good part of the
/// memory of a server to which little is written. Where flushes are seconds apart, a part of the bytes begins one.
#[tokio::test]
async fn the_next_flush_begins_earlier_where_they_are_far_apart() {
    let slow = ValuesConfig {
        flush_interval: Duration::from_secs(3600),
        flush_bytes: 400 << 10,
        ..config(&MemoryImage::default())
    };
    let (mut writer, _reader, _) = open(&Env::real(), slow).expect("open");
    let shared = Arc::clone(&writer.shared);
    let mut mains = 2..;
    let mut append = |bytes: usize| {
        let main = mains.next().expect("one more");
        let records = vec![(at(main), record("k", vec![b'v'; bytes]))];
        writer.append(records, vec![], position(main as u64)).expect("append");
        let mut durable = writer.durable().clone();
        async move { durable.wait_for(|durable| *durable == position(main as u64)).await.map(drop).expect("a writer") }
    };
    append(401 << 10).await;
    // The first of all counts as late.
    while shared.flush_at.load(Ordering::Relaxed) != 100 << 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    append(101 << 10).await;
}

/// Deleted keys came back with a store that was rebuilt from a snapshot. The file was written while
/// removals that had been handed over before went on, and so held puts without their tombstones.
/// Now whoever writes a file holds off all removals.
#[tokio::test]
async fn what_is_held_is_not_removed_though_it_was_handed_over() {
    let slow = ValuesConfig { flush_interval: Duration::from_secs(3600), ..config(&MemoryImage::default()) };
    let (mut writer, reader, _) = open(&Env::real(), slow).expect("open");
    fill(&mut writer, 2..102);
    flushed(&writer).await;
    let count = || reader.scan(at(0), at(1000), 1000).expect("scan").len();
    reader.hold();
    writer.remove((2..52).map(at).collect(), None);
    for _ in 0..3 {
        flushed(&writer).await;
        assert_eq!(count(), 100);
    }
    reader.release();
    while count() > 50 {
        flushed(&writer).await;
    }
}

/// A damaged value was an error for whoever read it, at every start again. Now the store is given up
/// and not opened any more, so that it is rebuilt.
#[tokio::test]
async fn what_was_found_damaged_is_not_opened_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = ValuesConfig::new(Engine::Redb, dir.path().join("store"));
    let (mut writer, reader, _) = open(&Env::real(), config.clone()).expect("open");
    fill(&mut writer, 2..10);
    flushed(&writer).await;
    writer.shared.engine().remove(Table::Kv, &[at(5).to_bytes().to_vec()]).expect("damage");
    drop((writer, reader));
    let (mut writer, reader, _) = open(&Env::real(), config.clone()).expect("a start reads no values");
    assert!(matches!(reader.record(at(5)), Err(StorageError::Damaged { .. })));
    assert!(matches!(&*reader.health().borrow(), Health::Failed(why) if why.contains("revision 5")));
    assert!(writer.append(vec![], vec![], position(11)).is_err());
    drop((writer, reader));
    let error = open(&Env::real(), config).expect_err("not opened");
    assert!(matches!(&error, StorageError::Damaged { what, .. } if what.contains("revision 5")), "{error}");
}

/// Cause: damage that the store thread met, and not a reader, left no mark.
/// Symptom: the next start opened the same store, served, met it again and ended, and so at every start.
/// Holds: it is marked whoever meets it, so that the next start rebuilds.
#[tokio::test]
async fn what_the_store_thread_found_damaged_is_not_opened_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = ValuesConfig::new(Engine::Sled, dir.path().join("store"));
    let (mut writer, reader, _) = open(&Env::real(), config.clone()).expect("open");
    fill(&mut writer, 2..2_000);
    flushed(&writer).await;
    drop((writer, reader));
    let (mut writer, reader, _) = open(&Env::real(), config.clone()).expect("open");
    for slab in std::fs::read_dir(dir.path().join("store/engine-1/slabs")).expect("sled's files") {
        std::fs::File::create(slab.expect("a file").path()).expect("damage");
    }
    writer.remove((2..100).map(at).collect(), None);
    let mut health = reader.health();
    let over = health.wait_for(|health| matches!(health, Health::Failed(_)));
    tokio::time::timeout(Duration::from_secs(60), over).await.expect("it is met").expect("a store");
    drop((writer, reader));
    let error = open(&Env::real(), config).expect_err("not opened");
    assert!(
        matches!(&error, StorageError::Damaged { what, .. } if what.contains("an earlier run met damage")),
        "{error}"
    );
}

/// A reader that outlived its writer waited for ever, and with it the thread that asked.
#[tokio::test]
async fn whoever_asks_a_closed_store_is_told() {
    let (mut writer, reader, _) = open(&Env::real(), config(&MemoryImage::default())).expect("open");
    fill(&mut writer, 2..10);
    drop(writer);
    let both = async { (reader.freeze().await.is_err(), reader.flush().await.is_err()) };
    let told = tokio::time::timeout(Duration::from_secs(60), both).await.expect("an answer");
    assert_eq!(told, (true, true));
}

#[tokio::test]
async fn records_out_of_order_are_refused() {
    let (mut writer, _reader, _) = open(&Env::real(), config(&MemoryImage::default())).expect("open");
    fill(&mut writer, 5..6);
    for wrong in [vec![(at(5), record("a", "1"))], vec![(at(8), record("a", "1")), (at(7), record("b", "2"))]] {
        assert!(matches!(writer.append(wrong, vec![], position(9)), Err(StorageError::Mismatch(_))));
    }
}

#[tokio::test]
async fn a_scan_joins_the_engine_and_the_pending_map() {
    let image = MemoryImage::default();
    let slow = ValuesConfig { flush_interval: Duration::from_secs(3600), ..config(&image) };
    let (mut writer, reader, _) = open(&Env::real(), slow).expect("open");
    fill(&mut writer, 2..2000);
    flushed(&writer).await;
    fill(&mut writer, 2000..2100);
    let mains = |from, to, limit| -> Vec<i64> {
        reader.scan(at(from), at(to), limit).expect("scan").iter().map(|(at, _)| at.main).collect()
    };
    assert_eq!(mains(0, 5000, usize::MAX), (2..2100).collect::<Vec<_>>());
    assert_eq!(mains(1990, 2050, 20), (1990..2010).collect::<Vec<_>>());
    assert_eq!(mains(2095, 5000, usize::MAX), (2095..2100).collect::<Vec<_>>());
}

/// Cause: rows of small tables count for no budget, and were counted by number alone.
/// Symptom: a role that grows is a row of its whole length at each change, and all of them waited for the interval.
/// Holds: some MiB of them are written at once.
#[tokio::test]
async fn long_rows_do_not_wait_for_the_interval() {
    let slow = ValuesConfig { flush_interval: Duration::from_secs(3600), ..config(&MemoryImage::default()) };
    let (mut writer, _reader, _) = open(&Env::real(), slow).expect("open");
    let row = Bytes::from(vec![7; 1 << 20]);
    for change in 1..=8 {
        let rows = vec![(Table::Auth, Bytes::from_static(b"role"), Some(row.clone()))];
        writer.append(vec![], rows, position(change)).expect("append");
    }
    let mut durable = writer.durable().clone();
    let some = durable.wait_for(|durable| *durable >= position(4));
    tokio::time::timeout(Duration::from_secs(60), some).await.expect("long before the interval").expect("a writer");
}

#[tokio::test]
async fn the_pending_map_is_bounded_by_its_budget() {
    let image = MemoryImage::default();
    let small = ValuesConfig { cache_bytes: 4 << 20, ..config(&image) };
    let (mut writer, reader, _) = open(&Env::real(), small).expect("open");
    for main in 2..400 {
        let big = record("k", vec![0; 64 << 10]);
        writer.append(vec![(at(main), big)], vec![], position(main as u64)).expect("append");
        assert!(reader.memory().0 <= (1 << 20) + (65 << 10), "{:?}", reader.memory());
    }
}

/// A reader met damage while the store thread was writing. Its step then said that all is good, and
/// appends that had been refused meanwhile were missing from what it wrote next.
#[tokio::test]
async fn a_failure_met_during_a_step_stays() {
    let image = MemoryImage::default();
    let slow = ValuesConfig { flush_interval: Duration::from_secs(3600), ..config(&image) };
    let (mut writer, reader, _) = open(&Env::real(), slow).expect("open");
    fill(&mut writer, 2..10);
    let shared = Arc::clone(&writer.shared);
    {
        let mut core = shared.core.lock();
        core.work.merge(shared.queue.take());
        reader.give_up("damage");
        core.step(&shared, 10).expect("the engine itself works");
    }
    assert_eq!(*reader.health().borrow(), Health::Failed("damage".into()));
    assert!(matches!(writer.append(vec![], vec![], position(11)), Err(StorageError::Closed(_))));
    assert!(writer.flush().await.is_err() && reader.freeze().await.is_err());
    drop(writer);
    assert_eq!(*reader.health().borrow(), Health::Failed("damage".into()));
}

#[tokio::test]
async fn a_revision_that_is_left_out_is_refused() {
    let (mut writer, _reader, _) = open(&Env::real(), config(&MemoryImage::default())).expect("open");
    fill(&mut writer, 5..7);
    for wrong in [vec![(at(8), record("a", "1"))], vec![(at(7), record("a", "1")), (at(9), record("b", "1"))]] {
        assert!(matches!(writer.append(wrong, vec![], position(9)), Err(StorageError::Mismatch(_))));
    }
    fill(&mut writer, 7..9);
    assert_eq!(flushed(&writer).await, position(8));
}

#[derive(Debug)]
struct BadClock(std::sync::atomic::AtomicBool);

impl crate::env::Clock for BadClock {
    fn now(&self) -> std::time::Instant {
        assert!(!self.0.load(std::sync::atomic::Ordering::SeqCst), "no time is left");
        crate::env::SystemClock.now()
    }

    fn wall(&self) -> std::time::SystemTime {
        crate::env::SystemClock.wall()
    }
}

/// A panic of the store thread was noticed by nobody: writers waited for room for ever.
#[tokio::test]
async fn a_panic_of_the_store_thread_ends_the_store() {
    let clock = Arc::new(BadClock(false.into()));
    let env = Env { clock: clock.clone(), ..Env::real() };
    let (mut writer, reader, _) = open(&env, config(&MemoryImage::default())).expect("open");
    fill(&mut writer, 2..10);
    flushed(&writer).await;
    clock.0.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(writer.flush().await.is_err(), "whoever waits is told");
    assert!(matches!(&*reader.health().borrow(), Health::Failed(why) if why.contains("panicked: no time is left")));
    assert!(writer.append(vec![], vec![], position(11)).is_err());
    assert!(reader.record(at(5)).expect("reads go on").is_some());
}

/// A command that changed very many keys made a segment that each page of a walk took apart anew.
#[tokio::test]
async fn a_large_segment_is_read_once_for_a_walk_and_is_never_out_of_date() {
    let slow = ValuesConfig { flush_interval: Duration::from_secs(3600), ..config(&MemoryImage::default()) };
    let (mut writer, reader, _) = open(&Env::real(), slow).expect("open");
    let many = |main| (0..20_000).map(|sub| (Revision::new(main, sub), record(&sub.to_string(), "v"))).collect();
    writer.append(many(2), vec![], position(2)).expect("append");
    flushed(&writer).await;
    let page = |from, limit| reader.scan(from, at(100), limit).expect("scan");
    let kept = || writer.shared.listed.get(0).map(|listed| listed.revisions.len());
    assert_eq!((page(at(0), 1000).len(), kept()), (1000, Some(20_000)));
    assert_eq!(page(Revision::new(2, 19_999), 1000).len(), 1);
    assert_eq!(kept(), None, "it goes with its last page");

    page(at(0), 1000);
    writer.append(vec![(at(3), record("later", "v"))], vec![], position(3)).expect("append");
    assert_eq!(page(Revision::new(2, 19_998), 9).len(), 3, "what is pending comes after it");
    page(at(0), 1000);
    flushed(&writer).await;
    assert_eq!(page(Revision::new(2, 19_998), 9).len(), 3, "what left the pending map is found");
    page(at(0), 1000);
    writer.remove((1..19_999).map(|sub| Revision::new(2, sub)).collect(), None);
    while writer.removals() > 0 {
        flushed(&writer).await;
    }
    assert_eq!(page(at(0), usize::MAX).len(), 3);
}

#[tokio::test]
async fn removals_are_told_when_they_are_gone() {
    let (mut writer, reader, _) =
        open(&Env::real(), ValuesConfig { remove_step: 7, ..config(&MemoryImage::default()) }).expect("open");
    fill(&mut writer, 2..600);
    let (told, mut gone) = tokio::sync::watch::channel(-1);
    reader.hold();
    writer.remove((2..300).map(at).collect(), Some((told.clone(), 5)));
    writer.remove((200..400).map(at).collect(), Some((told, 4)));
    for _ in 0..3 {
        flushed(&writer).await;
        assert_eq!((*gone.borrow(), writer.removals()), (-1, 498));
    }
    reader.release();
    writer.append(vec![], vec![], position(600)).expect("append");
    assert_eq!(*gone.wait_for(|told| *told >= 4).await.expect("told"), 5);
    assert_eq!(reader.scan(at(0), at(1000), 1000).expect("scan").len(), 200);
    assert_eq!(writer.removals(), 0);
}

/// Appends may wait long for their flush, since the log has them. Whoever waits for a compaction to be physical doesn't wait
/// for that, nor for as long again until the records go.
#[tokio::test]
async fn removals_do_not_wait_for_the_interval_of_flushes() {
    let slow = ValuesConfig { flush_interval: Duration::from_secs(3600), ..config(&MemoryImage::default()) };
    let (mut writer, reader, _) = open(&Env::real(), slow).expect("open");
    fill(&mut writer, 2..102);
    let (told, mut gone) = tokio::sync::watch::channel(-1);
    writer.remove((2..52).map(at).collect(), Some((told, 5)));
    let wait = tokio::time::timeout(Duration::from_secs(60), gone.wait_for(|told| *told == 5)).await;
    wait.expect("well before the interval is over").expect("told");
    assert_eq!(reader.scan(at(0), at(1000), 1000).expect("scan").len(), 50);
}

/// Cause: a page was bounded by its records alone, and each may be as large as a request. Symptom: whoever reads all of
/// the store now and then, to check it, held gigabytes meanwhile.
#[tokio::test]
async fn a_page_ends_with_the_record_that_reaches_its_bytes() {
    let slow = ValuesConfig { flush_interval: Duration::from_secs(3600), ..config(&MemoryImage::default()) };
    let (mut writer, reader, _) = open(&Env::real(), slow).expect("open");
    let large = |main: i64| (at(main), record(&main.to_string(), vec![7; 1_000]));
    writer.append((2..300).map(large).collect(), vec![], position(2)).expect("append");
    flushed(&writer).await;
    // These stay in memory, and come in the same pages.
    writer.append((300..310).map(large).collect(), vec![], position(3)).expect("append");
    for (records, bytes, most) in [(1000, 2_500, 3), (2, usize::MAX, 2), (1000, 1, 1), (1000, usize::MAX, 1000)] {
        let (mut next, mut found) = (Some(at(0)), Vec::new());
        while let Some(from) = next {
            let page = reader.page(from, at(310), PageLimits { records, bytes }).expect("a page");
            assert!(page.records.len() <= most, "{} of {bytes} bytes", page.records.len());
            next = page.next;
            found.extend(page.records.into_iter().map(|(at, _)| at.main));
        }
        assert_eq!(found, (2..310).collect::<Vec<_>>(), "each once, of {bytes} bytes");
    }
    writer.remove((2..200).map(at).collect(), None);
    while writer.removals() > 0 {
        flushed(&writer).await;
    }
    let page = reader.page(at(0), at(310), PageLimits { records: 9, bytes: 2_500 }).expect("a page");
    assert_eq!((page.records.first().map(|(at, _)| at.main), page.records.len()), (Some(200), 3));
}

/// Cause: a page that was short because some of its records were removed while it was read went on with the next segment.
/// Symptom: what was left of the segment came in no page, and a watcher that caught up lost it.
#[tokio::test]
async fn what_is_removed_while_a_page_is_read_takes_nothing_else_along() {
    let slow = ValuesConfig { flush_interval: Duration::from_secs(3600), ..config(&MemoryImage::default()) };
    let (mut writer, reader, _) = open(&Env::real(), slow).expect("open");
    fill(&mut writer, 20..30);
    flushed(&writer).await;
    // As a list that was read just before the first ten of it were removed.
    let read_before = || {
        let listed = listed::Listed { base: 0, revisions: (10..30).map(at).collect() };
        writer.shared.listed.keep(writer.shared.listed.epoch(), listed);
    };
    let (mut next, mut found) = (Some(at(0)), Vec::new());
    while let Some(from) = next {
        read_before();
        let page = reader.page(from, at(100), PageLimits { records: 4, bytes: usize::MAX }).expect("a page");
        next = page.next;
        found.extend(page.records.into_iter().map(|(at, _)| at.main));
    }
    assert_eq!(found, (20..30).collect::<Vec<_>>());
    read_before();
    assert_eq!(reader.scan(at(0), at(100), 4).expect("scan").len(), 4);
}

#[tokio::test]
async fn what_is_warmed_is_what_is_asked_for_the_last_first_and_half_of_the_cache_at_most() {
    const LEN: usize = 10_000;
    let image = MemoryImage::default();
    let small = || ValuesConfig { cache_bytes: 8 << 20, ..config(&image) };
    let (mut writer, reader, _) = open(&Env::real(), small()).expect("open");
    for main in 2..802 {
        let value = vec![main as u8; LEN];
        writer.append(vec![(at(main), record("k", value))], vec![], position(main as u64)).expect("append");
    }
    flushed(&writer).await;
    drop((writer, reader));
    let (_writer, reader, _) = open(&Env::real(), small()).expect("open again");
    // Some that aren't there, and not the odd ones.
    let mut left: Vec<_> = (2..900).filter(|main| main % 2 == 0).map(at).collect();
    let mut steps = 0;
    while !left.is_empty() {
        let warmed = reader.warm(&left, 50 * LEN).expect("read");
        assert!(warmed.left < left.len() && warmed.bytes <= 100 * LEN, "{warmed:?}");
        left.truncate(warmed.left);
        steps += 1;
    }
    assert!(steps > 2, "{steps}");
    let is_warm = |main: i64| reader.cached(at(main)).is_some();
    assert!((700..802).all(|main| is_warm(main) == (main % 2 == 0)));
    assert!(!(2..100).any(is_warm), "there is no room for the oldest");
    let (_, hot) = reader.memory();
    assert!(((2 << 20)..(3 << 20)).contains(&hot), "{hot}");
    assert_eq!(reader.cached(at(800)), Some(record("k", vec![800_i64 as u8; LEN])));
    // It is enough.
    assert_eq!(reader.warm(&[at(2)], LEN).expect("read"), Warmed { left: 0, bytes: 0 });
    assert!(!is_warm(2));
}
