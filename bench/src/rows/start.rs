//! From the start of the process to the first linearizable read, with nothing on the disk.

use std::io;
use std::time::Duration;

use super::{Bench, Metric};
use crate::server::{Server, Side};

pub(super) const ROWS: &[&str] = &["start, empty"];

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    bench.row(ROWS[0], side, |bench| {
        let server = Server::start(side, &bench.scratch, &[])?;
        std::thread::sleep(Duration::from_secs(1));
        Ok(vec![(Metric::Secs, server.ready_after.as_secs_f64()), (Metric::MemoryMib, server.resident_mib())])
    });
    Ok(())
}
