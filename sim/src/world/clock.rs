//! A member's clock: the simulated time, a little too fast or too slow, with jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rusd::env::Clock;
use rusd_sim::history::Micros;

use super::World;

/// How a clock differs from the simulated time.
#[derive(Debug)]
pub(crate) struct Skew {
    /// Too fast by this many millionths.
    rate_ppm: i64,
    /// Microseconds that the monotonic clock jumped ahead, as after a machine was suspended. Timers don't.
    jumped: AtomicU64,
    /// Microseconds by which the wall clock was set.
    wall: AtomicI64,
}

impl Skew {
    pub(crate) fn new(rate_ppm: i64) -> Self {
        Self { rate_ppm, jumped: AtomicU64::new(0), wall: AtomicI64::new(0) }
    }

    /// What the clock has counted when the world's time is `now`.
    pub(crate) fn elapsed(&self, now: Micros) -> Duration {
        let now = now as i64;
        let micros = now + now / 1_000_000 * self.rate_ppm + now % 1_000_000 * self.rate_ppm / 1_000_000;
        Duration::from_micros(micros.max(0) as u64)
    }

    pub(crate) fn jump(&self, by: Duration) {
        self.jumped.fetch_add(by.as_micros() as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_wall(&self, by_micros: i64) {
        self.wall.store(by_micros, Ordering::Relaxed);
    }
}

/// The clock of one member.
pub(crate) struct SimClock {
    pub(crate) world: Arc<World>,
    pub(crate) member: usize,
}

impl std::fmt::Debug for SimClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimClock").field("member", &self.member).finish_non_exhaustive()
    }
}

impl SimClock {
    fn elapsed(&self) -> Duration {
        let skew = &self.world.hosts[self.member].skew;
        skew.elapsed(self.world.now()) + Duration::from_micros(skew.jumped.load(Ordering::Relaxed))
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        self.world.origin + self.elapsed()
    }

    fn wall(&self) -> SystemTime {
        // A Sunday in 2001.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000) + self.elapsed();
        let set = self.world.hosts[self.member].skew.wall.load(Ordering::Relaxed);
        let by = Duration::from_micros(set.unsigned_abs());
        if set < 0 { now - by } else { now + by }
    }
}
