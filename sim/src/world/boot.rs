//! A member's process: a runtime of its own with a time of its own, so that it can stand still while the world goes on.
//!
//! ```text
//! turmoil's step (network, clients) ─► bridge (net.rs) ═ pipes ═► Boot::tick: the member's tasks, until its clock says so
//!                                                                  └─ stands still: nothing of it runs; then its clock jumps
//! ```

use std::future::Future;
use std::time::Duration;

use rusd_sim::random::Rand;
use tokio::runtime::{Builder, RngSeed, Runtime, UnhandledPanic};
use tokio::task::LocalSet;
use tokio::time::Instant;

/// More than this at a time is no tick but a pause that is over: all timers of it are due at once.
const JUMP: Duration = Duration::from_millis(20);

/// One life of a member's process.
pub(crate) struct Boot {
    runtime: Runtime,
    local: LocalSet,
    /// The runtime's time at the beginning, and the member's clock then.
    begun: (Instant, Duration),
    /// Nothing of it runs before (in the world's time).
    stands_until: Duration,
}

impl Boot {
    /// Starts `member` at `clock`, the time since the beginning as this member's clock has it.
    pub(crate) fn start(seed: u64, clock: Duration, member: impl Future<Output = ()> + 'static) -> Self {
        let mut rand = Rand::new(seed, 6);
        let bytes: Vec<u8> = (0..4).flat_map(|_| rand.next().to_le_bytes()).collect();
        let built = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&bytes))
            .unhandled_panic(UnhandledPanic::ShutdownRuntime)
            .build();
        let runtime = built.expect("a runtime without I/O needs nothing of the system");
        let begun = {
            let _inside = runtime.enter();
            Instant::now()
        };
        let local = LocalSet::new();
        local.spawn_local(member);
        Self { runtime, local, begun: (begun, clock), stands_until: Duration::ZERO }
    }

    /// Lets nothing of it run before `until`, in the world's time.
    pub(crate) fn stand_still(&mut self, until: Duration) {
        self.stands_until = self.stands_until.max(until);
    }

    /// It stands still no more.
    pub(crate) fn go_on(&mut self) {
        self.stands_until = Duration::ZERO;
    }

    /// Runs it until its clock shows `clock`, unless it stands still at `now`.
    pub(crate) fn tick(&mut self, now: Duration, clock: Duration) {
        if now < self.stands_until {
            return;
        }
        let until = self.begun.0 + clock.saturating_sub(self.begun.1);
        self.runtime.block_on(self.local.run_until(async move {
            let late = until.saturating_duration_since(Instant::now());
            if late > JUMP {
                tokio::time::advance(late - JUMP / 2).await;
            }
            tokio::time::sleep_until(until).await;
        }));
    }
}
