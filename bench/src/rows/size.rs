//! Many keys: memory, disk, restart, and what overwriting and compacting them does.

use std::io;
use std::time::{Duration, Instant};

use super::kv::{GETTERS, Mixed, PUTTERS};
use super::loads::{Draw, Gets, Puts};
use super::{Bench, Figures, Metric};
use crate::h2::{COMPACT, Event, PUT, Pool};
use crate::load::{self, Load};
use crate::proto::{self, Message};
use crate::server::{Server, Side};

pub(super) const ROWS: &[&str] =
    &["1 M keys of 256 B", "cold gets while 1 M keys are overwritten", "restart with 1 M keys after kill -9"];
pub(super) const CHURN_ROWS: &[&str] = &["5 M puts over 1 M keys", "compaction of 4 M old revisions, puts meanwhile"];

pub(super) const KEPT_ROWS: &[&str] =
    &["1 M keys of 256 B, before they are overwritten", "4 M puts over them, compacted each half million"];

const KEYS: u64 = 1_000_000;
/// For flushes and garbage collection to settle before memory and disk are read.
const SETTLE: Duration = Duration::from_secs(3);
/// How long a compaction may take.
const COMPACTION_MAX: Duration = Duration::from_secs(300);

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    let mut server = Server::start(side, &bench.scratch, &[])?;
    let keys = bench.size(KEYS);
    let measured = load::repeat(&server, 256, keys, &mut Puts::in_turn(256))?;
    std::thread::sleep(SETTLE);
    bench.row(ROWS[0], side, |_| {
        Ok(vec![
            (Metric::Rate, measured.rate()),
            (Metric::CpuUs, measured.cpu_us()),
            (Metric::P99Ms, measured.latency.percentile_ms(0.99)),
            (Metric::MemoryMib, server.resident_mib()),
            (Metric::PeakMib, server.peak_mib()),
            (Metric::DiskMib, server.disk_mib()),
        ])
    });
    // Most of the keys are in no cache, and the puts have the engine take its handle anew meanwhile.
    bench.row(ROWS[1], side, |bench| {
        let mut load = Mixed { gets: Gets { keys, serializable: true, draw: Draw::new() }, puts: Puts::any(keys, 256) };
        let (all, gets) = load::run_split(&server, bench.plan(GETTERS + PUTTERS), &mut load, GETTERS)?;
        Ok(vec![
            (Metric::Rate, all.rate()),
            (Metric::P50Ms, gets.percentile_ms(0.5)),
            (Metric::P99Ms, gets.percentile_ms(0.99)),
            (Metric::P999Ms, gets.percentile_ms(0.999)),
            (Metric::MaxMs, gets.max_ms()),
        ])
    });
    bench.row(ROWS[2], side, |_| {
        server.restart_after_kill()?;
        Ok(vec![
            (Metric::Secs, server.ready_after.as_secs_f64()),
            (Metric::MemoryMib, server.resident_mib()),
            (Metric::PeakMib, server.peak_mib()),
        ])
    });
    Ok(())
}

pub(super) fn run_churn(bench: &mut Bench, side: &Side) -> io::Result<()> {
    let server = Server::start(side, &bench.scratch, &[])?;
    let keys = bench.size(KEYS);
    load::repeat(&server, 256, keys, &mut Puts::in_turn(256))?;
    // What the compaction finds, whether or not they are shown themselves.
    let measured = load::repeat(&server, 256, 4 * keys, &mut Puts::any(keys, 256))?;
    std::thread::sleep(SETTLE);
    bench.row(CHURN_ROWS[0], side, |_| {
        Ok(vec![
            (Metric::Rate, measured.rate()),
            (Metric::CpuUs, measured.cpu_us()),
            (Metric::P99Ms, measured.latency.percentile_ms(0.99)),
            (Metric::MaxMs, measured.latency.max_ms()),
            (Metric::MemoryMib, server.resident_mib()),
            (Metric::PeakMib, server.peak_mib()),
            (Metric::DiskMib, server.disk_mib()),
        ])
    });
    bench.row(CHURN_ROWS[1], side, |_| compact(&server, keys));
    Ok(())
}

/// As a control plane lives: overwrites, and a compaction now and then. What isn't kept must cost nothing.
pub(super) fn run_kept(bench: &mut Bench, side: &Side) -> io::Result<()> {
    const PARTS: u64 = 8;
    let server = Server::start(side, &bench.scratch, &[])?;
    let keys = bench.size(KEYS);
    load::repeat(&server, 256, keys, &mut Puts::in_turn(256))?;
    std::thread::sleep(SETTLE);
    let taken = |server: &Server| {
        vec![
            (Metric::MemoryMib, server.resident_mib()),
            (Metric::PeakMib, server.peak_mib()),
            (Metric::DiskMib, server.disk_mib()),
        ]
    };
    bench.row(KEPT_ROWS[0], side, |_| Ok(taken(&server)));
    bench.row(KEPT_ROWS[1], side, |_| {
        let begun = Instant::now();
        for _ in 0..PARTS {
            load::repeat(&server, 256, 4 * keys / PARTS, &mut Puts::any(keys, 256))?;
            let mut message = Message::default();
            let revision = revision(&server, &mut message)?;
            load::ask(&server, COMPACT, message.clear().int(1, revision))?;
        }
        let rate = 4.0 * keys as f64 / begun.elapsed().as_secs_f64();
        std::thread::sleep(SETTLE);
        let mut figures = vec![(Metric::Rate, rate)];
        figures.extend(taken(&server));
        Ok(figures)
    });
    Ok(())
}

/// The newest revision, by a put.
pub(super) fn revision(server: &Server, message: &mut Message) -> io::Result<u64> {
    let answer = load::ask(server, PUT, message.clear().bytes(1, b"marker"))?;
    Ok(proto::bytes(&answer, 1).and_then(|header| proto::int(header, 3)).unwrap_or(0))
}

/// Asks for a physical compaction and puts, one at a time, until it is done.
fn compact(server: &Server, keys: u64) -> io::Result<Figures> {
    let mut message = Message::default();
    let revision = revision(server, &mut message)?;
    let mut pool = Pool::open(&[server.address], 2)?;
    let (begun, cpu) = (Instant::now(), server.cpu_secs());
    pool.sender(1).call(COMPACT, message.clear().int(1, revision).int(2, 1).finish(), 1, false);
    let mut puts = Puts::any(keys, 256);
    let (mut latency, mut compacted, mut put_under_way, mut refused) =
        (crate::histogram::Histogram::default(), None, false, false);
    while compacted.is_none() && begun.elapsed() < COMPACTION_MAX {
        if !put_under_way {
            let method = puts.next(0, message.clear());
            pool.sender(0).call(method, message.finish(), 0, false);
            put_under_way = true;
        }
        pool.turn(Duration::from_millis(100), |_, event| {
            if let Event::End { token, ok, nanos } = event {
                refused |= !ok;
                if token == 1 {
                    compacted = Some(begun.elapsed());
                } else {
                    put_under_way = false;
                    latency.add(nanos);
                }
            }
        })?;
    }
    if refused {
        return Err(io::Error::other("the compaction or a put was refused"));
    }
    let late = || format!("not done after {} s; {} puts meanwhile", COMPACTION_MAX.as_secs(), latency.total());
    let took = compacted.ok_or_else(|| io::Error::other(late()))?;
    std::thread::sleep(SETTLE);
    Ok(vec![
        (Metric::Secs, took.as_secs_f64()),
        (Metric::CpuUs, (server.cpu_secs() - cpu) * 1e6 / (4 * keys) as f64),
        (Metric::P99Ms, latency.percentile_ms(0.99)),
        (Metric::MaxMs, latency.max_ms()),
        (Metric::DiskMib, server.disk_mib()),
    ])
}
