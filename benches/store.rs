//! The storage engine in-process, against the floors of the design: puts, gets, ranges, scans,
//! compaction, restart, and the index alone. The engine below is the memory one, so that the
//! figures are those of the index, the published state and the record path.
//!
//! Time is the CPU time of the measured thread, so that a machine shared with others gives about the
//! same figures as a quiet one; the store thread's own work beside it isn't in them.
//!
//! `cargo bench --bench store`; a name after `--` selects.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rusd::env::{Clock, Env, SystemClock};
use rusd::storage::backend::{Engine, MemoryImage};
use rusd::storage::index::{Index, Version};
use rusd::storage::{AppliedPosition, Disk, KeyMeta, RangeQuery, Store, StoreConfig};
use rusd::types::{KeyRange, LeaseId, RaftIndex, Revision, Term};

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU time of the current thread, as the kernel counts it.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }

    fn end(&self, start: Duration) -> Duration {
        cpu_time() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

#[expect(clippy::disallowed_methods, reason = "the kernel's account of this thread is no file to put a fault at")]
fn cpu_time() -> Duration {
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts CPU time");
    let nanos = account.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.expect("the first field is nanoseconds"))
}

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 256;

/// A key of 24 bytes; neighbours in number are far apart in order.
fn key(number: u64) -> Bytes {
    format!("/bench/{:017}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100_000_000_000_000_000).into()
}

/// A key of 24 bytes; neighbours in number are neighbours in order.
fn neighbour(number: u64) -> Bytes {
    format!("/batch/{number:017}").into()
}

fn value() -> Bytes {
    Bytes::from(vec![b'v'; VALUE_BYTES])
}

fn position(revision: i64) -> AppliedPosition {
    AppliedPosition { index: RaftIndex(revision.cast_unsigned()), term: Term(1) }
}

fn put(store: &mut Store, key: Bytes, value: Bytes) {
    let mut txn = store.begin();
    txn.put(key, value, LeaseId::NONE);
    txn.commit();
}

/// A transaction, as the machine runs it.
fn put_all(store: &mut Store, keys: impl Iterator<Item = Bytes>) {
    let keys: Vec<Bytes> = keys.collect();
    store.expect(&keys);
    let mut txn = store.begin();
    for key in keys {
        txn.put(key, value(), LeaseId::NONE);
    }
    txn.commit();
    show(store);
}

fn show(store: &mut Store) {
    let revision = store.revision();
    black_box(store.publish(position(revision)).expect("the engine works"));
}

fn config(image: &MemoryImage) -> StoreConfig {
    let mut config = StoreConfig::new(Engine::Memory(image.clone()), "memory");
    config.values.cache_bytes = 1 << 30;
    config
}

fn filled(image: &MemoryImage, keys: u64) -> Store {
    filled_with(image, (0..keys).map(key))
}

/// A store whose keys were put in this order.
fn filled_with(image: &MemoryImage, keys: impl Iterator<Item = Bytes>) -> Store {
    let (mut store, _) = Store::open(&Env::real(), config(image)).expect("open");
    for (number, key) in keys.enumerate() {
        put(&mut store, key, value());
        if number % 100 == 99 {
            show(&mut store);
        }
    }
    show(&mut store);
    store
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Resident memory of this process in bytes; 0 where it can't be told.
#[expect(clippy::disallowed_methods, reason = "the kernel's account of this process is no file to put a fault at")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn version(main: i64) -> impl FnOnce(Option<KeyMeta>) -> Version {
    move |prev| {
        let meta = KeyMeta {
            create: prev.map_or(main, |prev| prev.create),
            modified: Revision::new(main, 0),
            version: prev.map_or(1, |prev| prev.version + 1),
            lease: LeaseId::NONE,
        };
        Version::put(meta, main.cast_unsigned())
    }
}

fn index(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("index");
    group.measurement_time(Duration::from_secs(3)).sample_size(10);
    let before = resident();
    let mut index = Index::default();
    for number in 0..KEYS {
        index.put(&key(number), version(number.cast_signed() + 2));
    }
    println!("index: {} bytes a key of 24 bytes, inserted in random order", (resident() - before) / KEYS);
    let keys: Vec<Bytes> = (0..KEYS).map(key).collect();
    let mut seed = 1;
    group.throughput(Throughput::Elements(1));
    group.bench_function("lookup", |b| {
        b.iter(|| black_box(index.get(&keys[(random(&mut seed) % KEYS) as usize], None).is_some()));
    });
    // What the machine itself needs for a search among as many keys, to hold the figures against.
    let plain: BTreeMap<&[u8], u64> = keys.iter().map(|key| &key[..]).zip(0..).collect();
    group.bench_function("baseline: lookup in std's BTreeMap", |b| {
        b.iter(|| black_box(plain.get(&keys[(random(&mut seed) % KEYS) as usize][..])));
    });
    drop(plain);
    for size in [10_000_u64, 100_000] {
        let mut smaller = Index::default();
        for number in 0..size {
            smaller.put(&keys[number as usize], version(number.cast_signed() + 2));
        }
        group.bench_function(format!("lookup among {size}"), |b| {
            b.iter(|| black_box(smaller.get(&keys[(random(&mut seed) % size) as usize], None).is_some()));
        });
        let (mut main, mut published) = (size.cast_signed() + 2, smaller.clone());
        group.bench_function(format!("upsert among {size}, published every 1"), |b| {
            b.iter(|| {
                main += 1;
                smaller.put(&keys[(random(&mut seed) % size) as usize], version(main));
                published = smaller.clone();
            });
        });
        black_box(published.len());
    }
    let mut main = KEYS.cast_signed() + 2;
    for batch in [1, 10, 100] {
        group.throughput(Throughput::Elements(batch));
        let mut published = index.clone();
        group.bench_function(format!("insert, published every {batch}"), |b| {
            b.iter(|| {
                for _ in 0..batch {
                    main += 1;
                    index.put(&key(main.cast_unsigned()), version(main));
                }
                published = index.clone();
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("upsert of a key with history, published every 1", |b| {
        let mut published = index.clone();
        b.iter(|| {
            main += 1;
            index.put(&keys[(random(&mut seed) % 10_000) as usize], version(main));
            published = index.clone();
        });
        black_box(published.len());
    });
    group.bench_function("count of half the keys", |b| {
        let range = KeyRange::from_wire(key(1), Bytes::from_static(b"/c"));
        b.iter(|| black_box(index.count(&range, None)));
    });
    group.finish();
}

/// What history costs: overwrites of keys far apart whose older versions are all kept.
fn kept(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("kept");
    group.measurement_time(Duration::from_secs(10)).sample_size(10).throughput(Throughput::Elements(1));
    let (mut filled, mut seed, mut kept) = (None, 1, 0);
    group.bench_function("overwrite of any of 1 000 000 keys, published every 10", |b| {
        let (keys, index, _) = filled.get_or_insert_with(|| {
            let keys: Vec<Bytes> = (0..KEYS).map(key).collect();
            let mut index = Index::default();
            for (key, main) in keys.iter().zip(2..) {
                index.put(key, version(main));
            }
            (keys, index, resident())
        });
        let mut published = index.clone();
        b.iter(|| {
            kept += 1;
            index.put(&keys[(random(&mut seed) % KEYS) as usize], version((KEYS + kept).cast_signed() + 2));
            if kept % 10 == 0 {
                published = index.clone();
            }
        });
        black_box(published.len());
    });
    if let Some((_, _, before)) = filled {
        println!("kept: {:.1} bytes a kept version, of {kept}", resident().saturating_sub(before) as f64 / kept as f64);
    }
    group.finish();
}

fn writes(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("write");
    group.measurement_time(Duration::from_secs(4)).sample_size(10);
    let mut store = filled(&MemoryImage::default(), 100_000);
    let mut number = 0;
    for batch in [1, 10, 100] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("put, published every {batch}"), |b| {
            b.iter(|| {
                let keys: Vec<Bytes> = (0..batch).map(|more| key((number + more) % 1_000_000)).collect();
                number += batch;
                // As the machine does with the commands of an entry.
                for some in keys.chunks(16) {
                    store.expect(some);
                    some.iter().for_each(|key| put(&mut store, key.clone(), value()));
                }
                show(&mut store);
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("txn of 10 puts of neighbours", |b| {
        b.iter(|| {
            put_all(&mut store, (0..10).map(|more| neighbour((number + more) % 1_000_000)));
            number += 10;
        });
    });
    group.bench_function("txn of 10 puts", |b| {
        b.iter(|| {
            put_all(&mut store, (0..10).map(|more| key((number + more) % 1_000_000)));
            number += 10;
        });
    });
    group.finish();
}

fn reads(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("read");
    group.measurement_time(Duration::from_secs(3)).sample_size(10).throughput(Throughput::Elements(1));
    let store = filled(&MemoryImage::default(), 100_000);
    let reader = store.reader();
    let keys: Vec<Bytes> = (0..100_000).map(key).collect();
    let mut seed = 7;
    group.bench_function("get", |b| {
        b.iter(|| {
            let key = &keys[(random(&mut seed) % 100_000) as usize];
            black_box(reader.get(key, Disk::Allowed).expect("read").value.is_some())
        });
    });
    for len in [10, 100] {
        group.bench_function(format!("range of {len}"), |b| {
            b.iter(|| {
                let start = keys[(random(&mut seed) % 100_000) as usize].clone();
                let range = KeyRange::from_wire(start, Bytes::from_static(&[0]));
                let query = RangeQuery { limit: len, ..RangeQuery::latest(range) };
                black_box(reader.range(&query, Disk::Allowed).expect("read").value.kvs.len())
            });
        });
    }
    // As objects of a kind are mostly made: the records of neighbours lie together.
    let ordered = filled_with(&MemoryImage::default(), (0..100_000).map(neighbour));
    let reader = ordered.reader();
    for len in [10, 100] {
        group.bench_function(format!("range of {len}, keys put in order"), |b| {
            b.iter(|| {
                let range = KeyRange::from_wire(neighbour(random(&mut seed) % 99_900), Bytes::from_static(&[0]));
                let query = RangeQuery { limit: len, ..RangeQuery::latest(range) };
                black_box(reader.range(&query, Disk::Allowed).expect("read").value.kvs.len())
            });
        });
    }
    group.bench_function("snapshot", |b| b.iter(|| black_box(reader.snapshot().revision())));
    group.finish();
}

fn compaction(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("compaction");
    group.sample_size(10).throughput(Throughput::Elements(100_000));
    group.bench_function("removal of 100 000 old versions", |b| {
        b.iter_batched(
            || {
                let mut store = filled(&MemoryImage::default(), 50_000);
                for round in 0..2_u64 {
                    for number in 0..50_000 {
                        put(&mut store, key(number), value());
                        if (round + number) % 100 == 0 {
                            show(&mut store);
                        }
                    }
                }
                let revision = store.revision();
                store.compact(revision).expect("compact");
                show(&mut store);
                store
            },
            |mut store| {
                let mut longest = Duration::ZERO;
                loop {
                    let start = SystemClock.now();
                    let step = store.compact_step(1000);
                    longest = longest.max(SystemClock.now() - start);
                    if step.done {
                        break;
                    }
                }
                assert!(longest < Duration::from_secs(1));
                store
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn restart(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("restart");
    group.sample_size(10);
    let image = MemoryImage::default();
    drop(filled(&image, KEYS));
    group.bench_function("open with 1 000 000 keys", |b| {
        b.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let start = cpu_time();
                let (store, _) = Store::open(&Env::real(), config(&image)).expect("open");
                spent += cpu_time() - start;
                assert_eq!(store.reader().snapshot().count(&KeyRange::all()), KEYS.cast_signed());
            }
            spent
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = index, kept, writes, reads, compaction, restart
}
criterion_main!(benches);
