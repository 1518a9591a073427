//! The published state under load: how long a get takes on an idle store, and while a writer at full
//! speed, compactions and snapshots run. The goal is a p99 of at most three times the idle one.
//!
//! `cargo bench --bench published`, on each engine; RUSD_BENCH_ENGINE names one, RUSD_BENCH_DIR the
//! directory (a real disk, no tmpfs), RUSD_BENCH_SECONDS the time of each phase (4).

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::env::Env;
use rusd::storage::backend::{Engine, MemoryImage};
use rusd::storage::{AppliedPosition, Disk, Store, StoreConfig, StoreReader};
use rusd::types::{LeaseId, RaftIndex, StorageError, Term};

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 100_000;
/// Puts between two publishes: a Raft batch of a busy server.
const BATCH: u64 = 32;

fn key(number: u64) -> Bytes {
    format!("/bench/{:017}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100_000_000_000_000_000).into()
}

fn put_batch(store: &mut Store, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let mut txn = store.begin();
        txn.put(key(number), Bytes::from(vec![b'v'; 256]), LeaseId::NONE);
        txn.commit();
    }
    let index = RaftIndex(store.revision().cast_unsigned());
    black_box(store.publish(AppliedPosition { index, term: Term(1) }).is_ok());
}

/// Gets of random keys for so long; their times in nanoseconds, sorted.
fn gets(reader: &StoreReader, keys: &[Bytes], phase: Duration) -> Vec<u32> {
    let (begin, mut random) = (Instant::now(), 7_u64);
    let mut times = Vec::with_capacity(8_000_000);
    while begin.elapsed() < phase {
        for _ in 0..100 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let key = &keys[(random % KEYS) as usize];
            let before = Instant::now();
            black_box(reader.get(key, Disk::Allowed).expect("read").value.is_some());
            times.push(u32::try_from(before.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
    }
    times.sort_unstable();
    times
}

fn say(what: &str, times: &[u32]) -> f64 {
    let at = |part: f64| f64::from(times[((times.len() - 1) as f64 * part) as usize]) / 1e3;
    let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
    println!("  {what}: {} gets, p50 {p50:.2} µs, p99 {p99:.2}, p99.9 {p999:.2}, longest {max:.0}", times.len());
    p99
}

fn measure(engine: Engine, phase: Duration) {
    let dir = std::env::var_os("RUSD_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir).expect("a directory");
    println!("{}:", engine.name());
    let mut config = StoreConfig::new(engine, dir.path().join("store"));
    config.values.cache_bytes = 512 << 20;
    let (mut store, _) = Store::open(&Env::real(), config).expect("open");
    let keys: Vec<Bytes> = (0..KEYS).map(key).collect();
    for first in (0..KEYS).step_by(BATCH as usize) {
        put_batch(&mut store, first..(first + BATCH).min(KEYS));
    }
    let reader = store.reader();
    let settle = Duration::from_secs(1);
    gets(&reader, &keys, settle);
    let idle = say("idle", &gets(&reader, &keys, phase));
    let (stop, puts, compactions, snapshots) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let busy = std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut number, mut compacted) = (0, Instant::now());
            while !stop.load(Ordering::Relaxed) {
                put_batch(&mut store, (number..number + BATCH).map(|number| number % KEYS));
                number += BATCH;
                puts.fetch_add(BATCH, Ordering::Relaxed);
                if compacted.elapsed() > Duration::from_millis(500) {
                    compacted = Instant::now();
                    compactions.fetch_add(1, Ordering::Relaxed);
                    store.compact(store.revision() - 1).expect("compact");
                }
                store.compact_step(1000);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let snapshot = reader.snapshot_pinned();
                let mut bytes = 0;
                let result = snapshot.each_record(|_, record| {
                    bytes += record.key.len();
                    Ok::<(), StorageError>(())
                });
                result.expect("read");
                black_box(bytes);
                drop(snapshot);
                snapshots.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let times = gets(&reader, &keys, phase);
        stop.store(true, Ordering::Relaxed);
        times
    });
    let busy = say("busy", &busy);
    println!(
        "  p99 busy to idle {:.2}, beside {:.0} puts/s, {} compactions, {} snapshots",
        busy / idle,
        puts.into_inner() as f64 / phase.as_secs_f64(),
        compactions.into_inner(),
        snapshots.into_inner()
    );
}

fn main() {
    let wanted = std::env::var("RUSD_BENCH_ENGINE").ok();
    let seconds = std::env::var("RUSD_BENCH_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(4);
    for engine in [Engine::Memory(MemoryImage::default()), Engine::Redb, Engine::Sled] {
        if wanted.as_deref().is_none_or(|wanted| wanted == engine.name()) {
            measure(engine, Duration::from_secs(seconds));
        }
    }
}
