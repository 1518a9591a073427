//! `Meter`: what a read gathers, held against what clients may leave unread while it still gathers.
//!
//! A number of pairs says little of their size: a thousand may be a gigabyte and a half.

use crate::storage::{Disk, ReadError};
use crate::types::{Budget, Held, KeyValue, Limits, RequestError};

/// Bytes that are gathered between two looks at the budget, and the most on a task that must not be kept.
const STEP_BYTES: usize = 1 << 20;
/// What a pair takes beside its key and its value.
const PAIR_BYTES: usize = size_of::<KeyValue>();

/// Counts what one read gathers.
pub(crate) struct Meter {
    budget: Budget,
    held: Option<Held>,
    /// Gathered and not held yet.
    loose: usize,
    total: usize,
    disk: Disk,
}

impl Meter {
    /// Nothing is gathered yet.
    pub(crate) fn new(budget: &Budget, disk: Disk) -> Self {
        Self { budget: budget.clone(), held: None, loose: 0, total: 0, disk }
    }

    /// Counts a pair with so many bytes of key and value.
    ///
    /// # Errors
    /// `NeedsDisk` if it becomes too much for a task that must not be kept; `TooManyRequests` if it is too
    /// much beside what others hold; `AnswerTooLarge`.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.loose += bytes + PAIR_BYTES;
        self.total += bytes;
        if self.loose < STEP_BYTES {
            return Ok(());
        }
        if self.disk == Disk::Never {
            return Err(ReadError::NeedsDisk);
        }
        let max = Limits::ANSWER_BYTES_MAX;
        if self.total > max {
            return Err(RequestError::AnswerTooLarge { bytes: self.total, max }.into());
        }
        let more = self.budget.take(self.loose).or_else(|| self.hold_alone()).ok_or(RequestError::TooManyRequests)?;
        self.loose = 0;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    /// Whoever is alone may hold more than the limit, also in steps.
    fn hold_alone(&self) -> Option<Held> {
        let own = self.held.as_ref()?.bytes();
        (self.budget.used() == own).then(|| self.budget.hold(self.loose))
    }

    /// Bytes of keys and values so far.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Whether it was too much for a task that must not be kept.
    pub(crate) fn is_large(&self) -> bool {
        self.loose >= STEP_BYTES
    }

    /// What the result holds; none if it is small.
    pub(crate) fn finish(self) -> Option<Held> {
        let mut held = self.held?;
        held.merge(self.budget.hold(self.loose));
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gathered_is_held_and_bounded() {
        let budget = Budget::new(10 << 20);
        let mut small = Meter::new(&budget, Disk::Allowed);
        small.add(1_000).unwrap();
        assert!(small.finish().is_none());
        let other = budget.take(6 << 20).unwrap();
        let mut meter = Meter::new(&budget, Disk::Allowed);
        for _ in 0..3 {
            meter.add(1 << 20).unwrap();
        }
        assert_eq!(meter.add(1 << 20), Err(RequestError::TooManyRequests.into()));
        drop(meter);
        assert_eq!(budget.used(), 6 << 20);
        drop(other);
        let mut alone = Meter::new(&budget, Disk::Allowed);
        for _ in 0..30 {
            alone.add(1 << 20).unwrap();
        }
        alone.add(7).unwrap();
        let held = alone.finish().unwrap();
        assert_eq!(budget.used(), (30 << 20) + 7 + 31 * PAIR_BYTES);
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_task_that_must_not_be_kept_gathers_little() {
        let mut meter = Meter::new(&Budget::new(10 << 20), Disk::Never);
        meter.add(STEP_BYTES / 2).unwrap();
        assert_eq!(meter.add(STEP_BYTES), Err(ReadError::NeedsDisk));
        assert!(meter.is_large());
    }

    #[test]
    fn an_answer_that_no_client_could_take_is_not_gathered() {
        let mut meter = Meter::new(&Budget::new(usize::MAX), Disk::Allowed);
        meter.add(i32::MAX as usize).unwrap();
        let error = meter.add(STEP_BYTES).unwrap_err().to_string();
        assert!(error.starts_with("grpc: trying to send message larger than max"), "{error}");
    }
}
