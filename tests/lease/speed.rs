//! How fast renewals and expiry are. Figures, not assertions: run in release with `--ignored --nocapture`.

use std::time::Duration;

use rusd::env::{Clock, SystemClock};
use rusd::lease::Lessor;
use rusd::types::LeaseId;

const LEASES: i64 = 1_000_000;

#[test]
#[ignore = "a measurement"]
fn a_million_leases() {
    let origin = SystemClock.now();
    let (mut writer, lessor) = Lessor::new(origin);
    lessor.promote(origin, Duration::ZERO);
    let id = |n: i64| LeaseId(n.wrapping_mul(0x5851_f42d_4c95_7f2d) & i64::MAX);
    let timed = |what: &str, count: i64, run: &mut dyn FnMut()| {
        let start = SystemClock.now();
        run();
        println!("{what}: {:.0} ns each", start.elapsed().as_nanos() as f64 / count as f64);
    };
    timed("grant, attach, arm", LEASES, &mut || {
        for n in 0..LEASES {
            writer.grant(id(n), 60);
            writer.attach(id(n), b"/registry/events/default/some-key");
            lessor.arm(origin);
        }
    });
    let later = origin + Duration::from_secs(30);
    timed("renew", LEASES, &mut || {
        for n in 0..LEASES {
            lessor.renew(id(n * 7919 % LEASES), later);
        }
    });
    timed("expired with nothing due", 1, &mut || drop(lessor.expired(later, 500)));
    timed("promote", LEASES, &mut || lessor.promote(later, Duration::from_secs(1)));
    timed("checkpoints, one shard", 1, &mut || drop(lessor.checkpoints(later, 1000)));
    timed("ids", LEASES, &mut || drop(lessor.ids()));
    let end = later + Duration::from_secs(100);
    timed("expire and remove", LEASES, &mut || {
        while !lessor.is_empty() {
            for id in lessor.expired(end, 5000) {
                writer.remove(id);
            }
        }
    });
}
