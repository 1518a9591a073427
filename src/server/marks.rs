//! That this member's state differs: what the status says and what a start would know, changed together.
//!
//! ```text
//! leader: you differ ─┐
//! found by itself ────┴► of the state that is held now? ─► not served ─► noted on the disk ─► answered ─► the alarm is raised
//! compared: the same ─► told anything meanwhile? ─► the note is removed ─► served
//! ```
//! What is known is changed under one lock: a finding is of one state, and must neither mark the next one nor be lost when
//! that is cleared. The disk has a lock of its own, and nobody waits for it: a disk that hangs keeps one thread, and
//! whoever else has something to note is told so and comes again.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::consensus::{Finding, NodeStatus};
use crate::env::{Disk, may_block};
use crate::ops::data_dir::{DataDir, DataDirError, Divergence};
use crate::types::{RaftIndex, RequestError};

/// Where a start looks for it.
pub(super) trait Notes: Send + Sync + 'static {
    /// Notes durably after which entry the state was found to differ, unless that is noted already.
    fn note(&self, index: RaftIndex) -> Result<(), DataDirError>;

    /// Notes durably that it doesn't any more.
    fn clear(&self) -> Result<(), DataDirError>;
}

/// In the data directory.
pub(super) struct OnDisk {
    pub(super) data: Arc<DataDir>,
    pub(super) disk: Arc<dyn Disk>,
}

impl Notes for OnDisk {
    fn note(&self, index: RaftIndex) -> Result<(), DataDirError> {
        match self.data.divergence(self.disk.as_ref())? {
            Some(_) => Ok(()),
            None => self.data.note_divergence(self.disk.as_ref(), &Divergence::found(index)),
        }
    }

    fn clear(&self) -> Result<(), DataDirError> {
        self.data.clear_divergence(self.disk.as_ref())
    }
}

/// Changes both.
pub(super) struct Marks {
    status: Arc<NodeStatus>,
    notes: Box<dyn Notes>,
    told: Mutex<Told>,
    /// Held by the one who writes or removes the note.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Told {
    /// Findings that were of the state at their time.
    times: u64,
    /// What the status says is noted.
    is_noted: bool,
}

/// Why nothing was noted.
#[derive(Debug, thiserror::Error)]
pub(super) enum MarksError {
    /// Somebody else writes at this moment, or is kept by a disk that hangs.
    #[error("the mark is being written")]
    Busy,
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DataDirError),
}

impl Marks {
    /// `is_noted` says whether the start found the state to differ.
    pub(super) fn new(status: Arc<NodeStatus>, notes: impl Notes, is_noted: bool) -> Self {
        let told = Mutex::new(Told { times: 0, is_noted });
        Self { status, notes: Box::new(notes), told, writing: Mutex::new(()) }
    }

    /// Notes that this member's state differs. False, and nothing is changed, if it isn't the state that was judged.
    ///
    /// # Errors
    /// A start wouldn't know of it; it isn't served all the same.
    pub(super) fn found(&self, finding: &Finding) -> Result<bool, RequestError> {
        {
            let mut told = self.told.lock();
            if !finding.is_of(&self.status) {
                tracing::warn!(
                    ?finding,
                    "it is said to differ, but not of the state that it holds now; that counts for nothing"
                );
                return Ok(false);
            }
            told.times += 1;
            self.status.set_diverged(finding.index);
        }
        self.note().map(|()| true).map_err(|error| RequestError::Storage(error.to_string()))
    }

    /// Notes what could not be noted when it was found.
    pub(super) fn remember(&self) {
        // What is wrong is said, and it is tried again.
        let _ = self.note();
    }

    fn note(&self) -> Result<(), MarksError> {
        let unnoted = |told: &Told| self.status.diverged().filter(|_| !told.is_noted);
        // Looked at first, as almost nobody has anything to write.
        if unnoted(&self.told.lock()).is_none() {
            return Ok(());
        }
        let _alone = self.writing.try_lock().ok_or(MarksError::Busy)?;
        let Some(index) = unnoted(&self.told.lock()) else { return Ok(()) };
        may_block(|| self.notes.note(index))
            .inspect_err(|error| tracing::warn!(%error, "that this member differs could not be noted; it will be"))?;
        self.told.lock().is_noted = true;
        Ok(())
    }

    /// How often this member was told. To be asked before a comparison that may clear the mark.
    pub(super) fn times_told(&self) -> u64 {
        self.told.lock().times
    }

    /// Notes that this member holds what the others do; false if it was told otherwise meanwhile.
    ///
    /// # Errors
    /// Nothing changed, or the note is gone and this member isn't served all the same.
    pub(super) fn clear(&self, times_told: u64) -> Result<bool, MarksError> {
        let _alone = self.writing.try_lock().ok_or(MarksError::Busy)?;
        {
            let mut told = self.told.lock();
            if told.times != times_told {
                return Ok(false);
            }
            // Should it fail halfway, or should this member be told meanwhile, it is noted again.
            told.is_noted = false;
        }
        may_block(|| self.notes.clear())?;
        let told = self.told.lock();
        let is_clear = told.times == times_told;
        if is_clear {
            self.status.clear_diverged();
        }
        Ok(is_clear)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use crate::types::{MemberId, Term};

    #[derive(Clone, Default)]
    struct Paper {
        index: Arc<AtomicU64>,
        is_full: Arc<AtomicBool>,
        /// Whoever holds it keeps the disk from answering.
        hangs: Arc<Mutex<()>>,
        asked: Arc<AtomicU64>,
    }

    impl Notes for Paper {
        fn note(&self, index: RaftIndex) -> Result<(), DataDirError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            drop(self.hangs.lock());
            if self.is_full.load(Ordering::Relaxed) {
                let (root, source) = (PathBuf::new(), std::io::Error::other("the disk is full"));
                return Err(DataDirError::Io { path: root.clone(), root, action: "write", source });
            }
            self.index.store(index.get(), Ordering::Relaxed);
            Ok(())
        }

        fn clear(&self) -> Result<(), DataDirError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            drop(self.hangs.lock());
            self.index.store(0, Ordering::Relaxed);
            Ok(())
        }
    }

    fn marks() -> (Arc<Marks>, Arc<NodeStatus>, Paper) {
        let status = Arc::new(NodeStatus::new(MemberId(1)));
        status.of_a_state_since(RaftIndex(5));
        (4..10).for_each(|index| status.landmarks().note_digest(RaftIndex(index), index));
        let paper = Paper::default();
        (Arc::new(Marks::new(status.clone(), paper.clone(), false)), status, paper)
    }

    fn at(index: u64) -> Finding {
        Finding { index: RaftIndex(index), digest: index, term: Term(1) }
    }

    /// Cause: the leader's word was answered at once and noted within a second. Symptom: a member that was killed in
    /// between served what differs after its start, while the leader took it to be told.
    #[test]
    fn it_is_answered_well_only_once_a_start_would_know() {
        let (marks, status, paper) = marks();
        paper.is_full.store(true, Ordering::Relaxed);
        assert!(marks.found(&at(7)).is_err());
        assert_eq!(status.diverged(), Some(RaftIndex(7)), "it isn't served for that");
        marks.remember();
        assert_eq!(paper.index.load(Ordering::Relaxed), 0);
        paper.is_full.store(false, Ordering::Relaxed);
        marks.remember();
        assert_eq!(paper.index.load(Ordering::Relaxed), 7);
        assert_eq!(marks.found(&at(9)), Ok(true));
        assert_eq!(status.diverged(), Some(RaftIndex(7)), "the first one counts");
    }

    /// Cause: streams were ended by a task that looks every half a second. Symptom: they were fed until then.
    #[test]
    fn what_is_served_ends_in_the_moment_in_which_it_is_found() {
        let (marks, status, _) = marks();
        let ended = Arc::new(AtomicU64::new(0));
        let seen = ended.clone();
        status.when_diverged(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        for _ in 0..2 {
            assert_eq!(marks.found(&at(7)), Ok(true));
            assert_eq!(ended.load(Ordering::Relaxed), 1, "once");
        }
    }

    /// Cause: what was told late counted for whatever state there was by then, and entry 0 for none. Symptom: a member that
    /// was healed was marked anew; one that was told of entry 0 said that it had heard, and served.
    #[test]
    fn what_is_said_of_another_state_counts_for_nothing() {
        let (marks, status, paper) = marks();
        for other in [0, 4] {
            assert_eq!(marks.found(&at(other)), Ok(false));
            assert_eq!((status.diverged(), paper.index.load(Ordering::Relaxed)), (None, 0));
        }
        assert_eq!(marks.found(&at(5)), Ok(true));
    }

    /// Cause: mark and note were changed one after the other. Symptom: a finding that came while the mark was cleared was
    /// answered well, and forgotten; or noted again after it was cleared.
    #[test]
    fn a_finding_that_comes_meanwhile_is_not_cleared_away() {
        let (marks, status, paper) = marks();
        assert_eq!(marks.found(&at(7)), Ok(true));
        let before = marks.times_told();
        assert_eq!(marks.found(&at(8)), Ok(true));
        assert!(!marks.clear(before).expect("no error"), "it was told while it compared");
        assert_eq!(paper.index.load(Ordering::Relaxed), 7);
        assert!(marks.clear(marks.times_told()).expect("cleared"));
        marks.remember();
        assert_eq!((status.diverged(), paper.index.load(Ordering::Relaxed)), (None, 0));
        assert_eq!(marks.found(&at(9)), Ok(true));
        assert_eq!(paper.index.load(Ordering::Relaxed), 9);
    }

    /// Runs `work` while another thread waits for a disk that doesn't answer.
    fn while_it_hangs(paper: &Paper, other: impl FnOnce() + Send, work: impl FnOnce()) {
        std::thread::scope(|scope| {
            let (_hangs, asked) = (paper.hangs.lock(), paper.asked.load(Ordering::SeqCst));
            scope.spawn(other);
            while paper.asked.load(Ordering::SeqCst) == asked {
                std::thread::yield_now();
            }
            work();
        });
    }

    /// Cause: the note was written under the lock that everybody takes. Symptom: with a disk that hung, each word of the
    /// leader, one a second, kept a thread that serves, until none was left to answer heartbeats.
    #[test]
    fn nobody_waits_for_a_disk_that_hangs_but_the_one_who_writes() {
        let (marks, status, paper) = marks();
        while_it_hangs(
            &paper,
            || assert_eq!(marks.found(&at(7)), Ok(true)),
            || {
                assert!(marks.found(&at(8)).is_err(), "a start wouldn't know of it");
                marks.remember();
                assert_eq!((marks.times_told(), status.diverged()), (2, Some(RaftIndex(7))));
                assert!(matches!(marks.clear(2), Err(MarksError::Busy)));
            },
        );
        assert_eq!(marks.found(&at(8)), Ok(true));
        assert_eq!(paper.index.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_finding_that_comes_while_the_note_is_removed_stays() {
        let (marks, status, paper) = marks();
        assert_eq!(marks.found(&at(7)), Ok(true));
        let times = marks.times_told();
        while_it_hangs(
            &paper,
            || assert!(!marks.clear(times).expect("removed"), "it was told meanwhile"),
            || assert!(marks.found(&at(8)).is_err(), "it isn't noted yet"),
        );
        assert_eq!((status.diverged(), paper.index.load(Ordering::Relaxed)), (Some(RaftIndex(7)), 0));
        marks.remember();
        assert_eq!(paper.index.load(Ordering::Relaxed), 7);
    }
}
