//! Values over each engine: what a put and a get cost, cold reads, memory, disk and a restart.
//!
//! `cargo bench --bench backend` puts RUSD_BENCH_PUTS (300 000) records of 256 bytes and prints, for
//! each engine: CPU and wall time a put, the highest resident memory, bytes on disk, reads of the
//! newest, of recent and of any records, and the time of a restart. The work is a fixed number of
//! calls and not a time, since an append that meets back-pressure is a thousand times slower than one
//! before it, which no extrapolation from a warm-up foresees.
//! RUSD_BENCH_ENGINE names one engine, RUSD_BENCH_DIR the directory (a real disk, no tmpfs).

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::env::Env;
use rusd::storage::backend::{Engine, MemoryImage};
use rusd::storage::values::{self, ValueReader, ValueWriter, ValuesConfig};
use rusd::storage::{AppliedPosition, Record, VersionRecord};
use rusd::types::{LeaseId, RaftIndex, Revision, Term};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALUE_BYTES: usize = 256;

fn at(main: u64) -> Revision {
    Revision::new(main.cast_signed(), 0)
}

/// Half of a value repeats and half doesn't, as with serialized objects.
fn record(main: u64) -> Record {
    let mut seed = main.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut value = vec![b'v'; VALUE_BYTES];
    for chunk in value[VALUE_BYTES / 2..].chunks_exact_mut(8) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        chunk.copy_from_slice(&seed.to_le_bytes());
    }
    let version =
        VersionRecord { value: value.into(), create_revision: main.cast_signed(), version: 1, lease: LeaseId::NONE };
    Record { key: Bytes::from(format!("/bench/{:017}", main % 1_000_000)), version: Some(version) }
}

fn position(main: u64) -> AppliedPosition {
    AppliedPosition { index: RaftIndex(main), term: Term(1) }
}

fn put(writer: &mut ValueWriter, main: u64) {
    writer.append(vec![(at(main), record(main))], Vec::new(), position(main)).expect("the engine works");
}

fn flush(writer: &ValueWriter) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(writer.flush()).expect("the engine works");
}

/// A place for the engine's files, removed when dropped.
fn place() -> tempfile::TempDir {
    let dir = std::env::var_os("RUSD_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(dir).expect("a directory")
}

fn open(engine: &Engine, dir: &tempfile::TempDir) -> (ValueWriter, ValueReader, values::Loaded) {
    values::open(&Env::real(), ValuesConfig::new(engine.clone(), dir.path().join("store"))).expect("it opens")
}

fn engines() -> Vec<Engine> {
    let wanted = std::env::var("RUSD_BENCH_ENGINE").ok();
    let all = [Engine::Sled, Engine::Redb, Engine::Memory(MemoryImage::default())];
    all.into_iter().filter(|engine| wanted.as_deref().is_none_or(|wanted| wanted == engine.name())).collect()
}

/// Nanoseconds a call, over a fixed number of calls.
fn nanos(calls: u32, mut call: impl FnMut()) -> f64 {
    let begin = Instant::now();
    (0..calls).for_each(|_| call());
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn proc_status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// User and system time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn sustained(engine: &Engine) {
    let puts: u64 = std::env::var("RUSD_BENCH_PUTS").ok().and_then(|puts| puts.parse().ok()).unwrap_or(300_000);
    let dir = place();
    let (mut writer, reader, _) = open(engine, &dir);
    let (begin, cpu_begin) = (Instant::now(), cpu());
    let (mut rss_max, mut append_max) = (0, Duration::ZERO);
    for main in 1..=puts {
        let before = Instant::now();
        put(&mut writer, main);
        append_max = append_max.max(before.elapsed());
        if main % 20_000 == 0 {
            rss_max = rss_max.max(proc_status("VmRSS:") >> 10);
        }
    }
    flush(&writer);
    let (wall, used) = (begin.elapsed(), cpu() - cpu_begin);
    let (disk, logical) = (writer.disk_size().expect("measured"), writer.logical_size());
    println!(
        "{}: {puts} puts: {:.2} µs CPU, {:.0} k/s, longest append {append_max:.1?}, {rss_max} MiB at most, {} MiB on disk ({:.2} of logical)",
        engine.name(),
        used.as_secs_f64() * 1e6 / puts as f64,
        puts as f64 / wall.as_secs_f64() / 1e3,
        disk >> 20,
        disk as f64 / logical as f64,
    );
    put(&mut writer, puts + 1);
    let newest = nanos(1_000_000, || drop(black_box(reader.cached(at(puts + 1)))));
    let mut back = 0;
    let recent = nanos(1_000_000, || {
        back = (back + 7) % 1000;
        black_box(reader.cached(at(puts - back)));
    });
    println!("  cached: the newest {newest:.0} ns, one of the last 1000 {recent:.0} ns");
    let mut random = 1u64;
    let (begin, cpu_begin, gets) = (Instant::now(), cpu(), 20_000);
    for _ in 0..gets {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        black_box(reader.record(at((random >> 33) % puts + 1)).expect("the engine works"));
    }
    println!(
        "  random gets: {:.1} µs, {:.1} µs CPU",
        begin.elapsed().as_secs_f64() * 1e6 / f64::from(gets),
        (cpu() - cpu_begin).as_secs_f64() * 1e6 / f64::from(gets)
    );
    drop((writer, reader));
    let begin = Instant::now();
    let (_writer, reader, loaded) = open(engine, &dir);
    let opened = begin.elapsed();
    let count = loaded.records.inspect(|head| assert!(head.is_ok(), "intact")).count();
    println!("  restart: opened in {opened:.1?}, {count} heads after {:.1?}", begin.elapsed());
    println!("  resident after it: {} MiB, hot and pending: {:?}", proc_status("VmRSS:") >> 10, reader.memory());
}

fn main() {
    engines().iter().for_each(sustained);
}
