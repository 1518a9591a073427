//! Locks of what several threads hand to each other, and points between which another thread may come.
//!
//! ```text
//! product:  Mutex is parking_lot's, `point` is nothing
//! test:     under `schedules::check`, before each lock and at each point the seed says who goes on
//! ```
//! A lock that is held across a point must be one of these, or whoever comes meanwhile stands still for good.

pub use parking_lot::MutexGuard;

#[cfg(not(test))]
pub use parking_lot::Mutex;

#[cfg(test)]
pub use tried::Mutex;

/// A place between two steps of one thread that others may see the state between.
#[inline(always)]
pub fn point() {
    #[cfg(test)]
    super::schedules::turn();
}

#[cfg(test)]
mod tried {
    use parking_lot::MutexGuard;

    use crate::env::schedules::{is_scheduled, turn};

    /// parking_lot's, whose taker lets others go first if the schedule says so.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        /// Unlocked.
        pub const fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        /// Waits until nobody has it.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            if !is_scheduled() {
                return self.0.lock();
            }
            loop {
                turn();
                if let Some(guard) = self.0.try_lock() {
                    return guard;
                }
                assert!(!std::thread::panicking(), "the thread that has the lock doesn't go on after a panic");
            }
        }

        /// Nobody else can have it.
        pub fn get_mut(&mut self) -> &mut T {
            self.0.get_mut()
        }
    }
}
