//! LIST of many keys, by one stream and by pages, as kube-apiserver does it.

use std::io;
use std::time::Instant;

use super::loads::{Puts, key};
use super::{Bench, Figures, Metric};
use crate::h2::{Event, Method, Pool, RANGE, RANGE_STREAM};
use crate::load;
use crate::proto::Message;
use crate::server::{Server, Side};

pub(super) const ROWS: &[&str] = &["list of 200 k keys, one stream", "list of 200 k keys, pages of 500"];

const KEYS: u64 = 200_000;
const PAGE: u64 = 500;

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    let server = Server::start(side, &bench.scratch, &[])?;
    let keys = bench.size(KEYS);
    load::repeat(&server, 256, keys, &mut Puts::in_turn(256))?;
    bench.settle(&server);
    bench.row(ROWS[0], side, |_| list(&server, keys, keys, RANGE_STREAM));
    bench.row(ROWS[1], side, |_| list(&server, keys, PAGE, RANGE));
    Ok(())
}

/// One page after the other; each goes to the end of the prefix and is cut by its limit.
fn list(server: &Server, keys: u64, page: u64, method: Method) -> io::Result<Figures> {
    let mut pool = Pool::open(&[server.address], 1)?;
    let mut message = Message::default();
    let (memory, cpu, begun) = (server.resident_mib(), server.cpu_secs(), Instant::now());
    let mut peak = memory;
    let mut first = 0;
    while first < keys {
        message.clear().bytes(1, &key(first)).bytes(2, &key(keys));
        if page < keys {
            message.int(3, page);
        }
        pool.sender(0).call(method, message.finish(), 0, false);
        let mut done = None;
        while done.is_none() {
            pool.turn(std::time::Duration::from_millis(100), |_, event| {
                if let Event::End { ok, .. } = event {
                    done = Some(ok);
                }
            })?;
            if page >= keys {
                peak = peak.max(server.resident_mib());
            }
        }
        if done != Some(true) {
            return Err(io::Error::other("the list was refused"));
        }
        first += page;
    }
    let secs = begun.elapsed().as_secs_f64();
    Ok(vec![
        (Metric::Secs, secs),
        (Metric::CpuUs, (server.cpu_secs() - cpu) * 1e6 / keys as f64),
        (Metric::MemoryMib, peak.max(server.resident_mib()) - memory),
    ])
}
