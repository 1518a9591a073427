//! Recycling sled's handle while others read: nobody sees a gap, and memory follows.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rusd::env::{Env, ThreadSpawn, Worker, WorkerHandle, WriterSpawn};
use rusd::storage::backend::{self, Batch, Engine, Table};
use rusd::storage::values;

use crate::common::{Place, append, at, flush, record};

/// Counts how often sled is opened.
#[derive(Debug, Default)]
struct CountOpens(Arc<AtomicU64>);

impl WriterSpawn for CountOpens {
    fn spawn(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Arc<dyn WorkerHandle>> {
        self.0.fetch_add(u64::from(name == "sled-open"), Ordering::Relaxed);
        ThreadSpawn.spawn(name, worker)
    }
}

fn counting() -> (Env, Arc<AtomicU64>) {
    let opens = Arc::<AtomicU64>::default();
    (Env { spawn: Arc::new(CountOpens(Arc::clone(&opens))), ..Env::real() }, opens)
}

#[test]
fn readers_see_every_record_while_the_handle_is_recycled() {
    let place = Place::new(Engine::Sled);
    let (env, opens) = counting();
    let mut config = place.values();
    config.cache_bytes = 16 << 20;
    let (mut writer, reader, _) = values::open(&env, config).unwrap();
    let (written, stop) = (AtomicI64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3u64)
            .map(|seed| {
                let (reader, written, stop) = (reader.clone(), &written, &stop);
                scope.spawn(move || {
                    let (mut random, mut reads) = (seed + 1, 0u64);
                    while !stop.load(Ordering::Relaxed) {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let last = written.load(Ordering::Acquire);
                        if last > 0 {
                            let main = (random >> 33) as i64 % last + 1;
                            assert_eq!(reader.record(at(main)).unwrap(), Some(record(main, 2000)));
                            reads += 1;
                            if reads % 100 == 0 {
                                let to = (main + 200).min(last + 1);
                                assert_eq!(reader.scan(at(main), at(to), 1000).unwrap().len() as i64, to - main);
                            }
                        }
                    }
                    reads
                })
            })
            .collect();
        for main in 1..=16_000 {
            append(&mut writer, main, 2000);
            written.store(main, Ordering::Release);
        }
        flush(&writer);
        std::thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 100);
        }
    });
    let opens = opens.load(Ordering::Relaxed);
    assert!(opens >= 4, "32 MB with a recycle every 4 MiB opened sled only {opens} times");
}

#[test]
fn many_recycles_leave_no_file_open() {
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let place = Place::new(Engine::Sled);
    let (env, opens) = counting();
    let engine = backend::open(&env, &place.backend()).unwrap();
    let before = open_files();
    for round in 0..30u32 {
        let mut batch = Batch::default();
        for number in 0..50u32 {
            let key = [round.to_be_bytes(), number.to_be_bytes()].concat();
            batch.put(Table::Kv, &key, &vec![round as u8; 100_000]);
        }
        engine.write(&batch).unwrap();
        engine.flush().unwrap();
    }
    // 150 MB, and a recycle for each 8 MiB that two rounds have passed.
    assert!(opens.load(Ordering::Relaxed) > 12);
    // Other tests of this process open files too: only a leak of 78 files each time would show.
    assert!(open_files() < before + 1000, "{before} files were open before, {} are now", open_files());
    for round in 0..30u32 {
        let key = [round.to_be_bytes(), 49u32.to_be_bytes()].concat();
        assert_eq!(engine.get(Table::Kv, &key).unwrap(), Some(vec![round as u8; 100_000]));
    }
}
