//! Puts, transactions, gets and ranges, on 100 000 keys of 256 bytes.

use std::io;

use super::loads::{Draw, Gets, KubeTxns, Puts, Ranges};
use super::{Bench, Figures, Metric, figures};
use crate::h2::Method;
use crate::load::{self, Load};
use crate::proto::Message;
use crate::server::{Server, Side};

pub(super) const ROWS: &[&str] = &[
    "put 256 B, 1 in flight",
    "put 256 B, 64 in flight",
    "put 256 B, 256 in flight",
    "put 256 B, 1000 in flight",
    "kube txn 1 KiB, 64 in flight",
    "kube txn 1 KiB, 1000 in flight",
    "get linearizable, 64 in flight",
    "get linearizable, 1000 in flight",
    "get serializable, 64 in flight",
    "get serializable, 1000 in flight",
    "get, idle server, 4 in flight",
    "get while puts run at full speed",
    "range of 10, 64 in flight",
    "range of 500, 16 in flight",
    "range of 10 000, 4 in flight",
];

const KEYS: u64 = 100_000;

/// The rows up to the transactions write, the others read what was written first.
pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    let server = Server::start(side, &bench.scratch, &[])?;
    load::repeat(&server, 256, KEYS, &mut Puts::in_turn(256))?;
    for (name, in_flight) in ROWS[..4].iter().zip([1, 64, 256, 1000]) {
        bench.row(name, side, |bench| {
            bench.settle(&server);
            let measured = load::run(&server, bench.plan(in_flight), &mut Puts::any(KEYS, 256))?;
            let mut figures = figures(&measured);
            figures.push((Metric::MemoryMib, server.resident_mib()));
            Ok(figures)
        });
    }
    for (name, in_flight) in ROWS[4..6].iter().zip([64, 1000]) {
        simple(bench, name, side, &server, in_flight, &mut KubeTxns::new(in_flight, 1024));
    }
    let gets = |serializable| Gets { keys: KEYS, serializable, draw: Draw::new() };
    for (name, (in_flight, serializable)) in
        ROWS[6..11].iter().zip([(64, false), (1000, false), (64, true), (1000, true), (4, false)])
    {
        simple(bench, name, side, &server, in_flight, &mut gets(serializable));
    }
    bench.row(ROWS[11], side, |bench| mixed(bench, &server));
    for (name, (in_flight, count)) in ROWS[12..].iter().zip([(64, 10), (16, 500), (4, 10_000)]) {
        simple(bench, name, side, &server, in_flight, &mut Ranges { keys: KEYS, count, draw: Draw::new() });
    }
    Ok(())
}

fn simple(bench: &mut Bench, name: &'static str, side: &Side, server: &Server, in_flight: u64, load: &mut impl Load) {
    bench.row(name, side, |bench| {
        bench.settle(server);
        Ok(figures(&load::run(server, bench.plan(in_flight), load)?))
    });
}

/// Four gets under way beside 256 puts; only the gets are counted.
pub(super) struct Mixed {
    pub(super) gets: Gets,
    pub(super) puts: Puts,
}

/// The loops that get.
pub(super) const GETTERS: u64 = 4;
pub(super) const PUTTERS: u64 = 256;

impl Load for Mixed {
    fn next(&mut self, slot: u64, message: &mut Message) -> Method {
        if slot < GETTERS { self.gets.next(slot, message) } else { self.puts.next(slot, message) }
    }
}

fn mixed(bench: &Bench, server: &Server) -> io::Result<Figures> {
    bench.settle(server);
    let mut load =
        Mixed { gets: Gets { keys: KEYS, serializable: false, draw: Draw::new() }, puts: Puts::any(KEYS, 256) };
    let plan = bench.plan(GETTERS + PUTTERS);
    let (all, gets) = load::run_split(server, plan, &mut load, GETTERS)?;
    Ok(vec![
        (Metric::Rate, all.rate()),
        (Metric::P50Ms, gets.percentile_ms(0.5)),
        (Metric::P99Ms, gets.percentile_ms(0.99)),
        (Metric::MaxMs, gets.max_ms()),
    ])
}
