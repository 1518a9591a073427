//! The mark of a member whose state differs from the others'.
//!
//! ```text
//! found to differ ─► <entry> ─► so it finds itself: proven 1 ─► a snapshot has come: attempts <n> ─► Raft has ended: log <entry> <term>
//!   ─► it is to take the state's place: healed <entry>, swapping 1 ─► it has, and the old store is kept: kept 1, no swapping
//!   ─► compared ─┬► the same ─► removed
//!                └► wrong, too ─► no healed any more: the next one has to come
//!        └► it can't be read in: back <which store> ─► at the next start that lies in its place again
//! ```
//! As long as the mark is there, the member isn't served.

use super::{DIVERGED, DataDir, DataDirError, Opener, SMALL_FILE_BYTES_MAX};
use crate::env::{Disk, read_all, write_atomic};
use crate::types::{RaftIndex, Term};

/// What the mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// After which entry the state was found to differ.
    pub index: RaftIndex,
    /// The snapshot of which entry has taken its place, and was not found to be wrong, too.
    pub healed: Option<RaftIndex>,
    /// That is under way: which of the two stores lies in its place shows in the directory.
    pub swapping: bool,
    /// How often one came that was to.
    pub attempts: u32,
    /// One has come and is to be taken in by the next start: how far the log and the vote were when Raft had ended.
    pub arrived: Option<LogEnd>,
    /// This member found itself, with the others, that it differs. What it holds may come to be the same again, as keys are
    /// written anew, but what it holds of before that stays wrong.
    pub proven: bool,
    /// The store that was found to differ lies aside, and stays there whatever later tries do.
    pub kept: bool,
    /// This store is to be put back by the next start, before any is opened.
    pub back: Option<Aside>,
    /// The snapshot that has taken the state's place was not read into a store yet: as long as that is so, the old store and
    /// the log still fit together.
    pub unread: bool,
}

/// A store that was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// The one that was found to differ.
    First,
    /// One that had taken its place, and differed, too.
    Later,
}

/// What a log held durably. A later one is never before it, or its end was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The last entry.
    pub last: RaftIndex,
    /// The term of the last vote: an entry may make room only for one of a later term's leader.
    pub term: Term,
}

impl LogEnd {
    /// Whether this one lacks what an `earlier` one held.
    pub fn lacks(&self, earlier: &Self) -> bool {
        (self.term, self.last) < (earlier.term, earlier.last)
    }
}

impl Divergence {
    /// One that was just found.
    pub fn found(index: RaftIndex) -> Self {
        Self {
            index,
            healed: None,
            swapping: false,
            attempts: 0,
            arrived: None,
            proven: false,
            kept: false,
            back: None,
            unread: false,
        }
    }

    /// The same, once this member has found with the others that what it holds is wrong. What had taken the state's place
    /// is no better then, and only another one helps.
    pub fn seen_wrong(&self) -> Self {
        Self { proven: true, healed: None, unread: false, ..*self }
    }

    /// Whether it is over once the member holds what the others do. If it was found wrong, keys that differed may have been
    /// written anew since, and what it holds of before that is wrong all the same.
    pub fn ends_with_likeness(&self) -> bool {
        self.healed.is_some() || !self.proven
    }

    /// The same, once a snapshot that came was dealt with: what comes next is to be counted. Nothing has taken the state's
    /// place for sure if that was under way.
    pub fn dealt_with(&self) -> Self {
        Self { arrived: None, swapping: false, healed: self.healed.filter(|_| !self.swapping), ..*self }
    }

    /// The same, once a snapshot has come that is to take the state's place: a try more, as yet without the log's end,
    /// and not taken in without it.
    pub fn counted(&self) -> Self {
        Self { attempts: self.attempts.saturating_add(1), arrived: None, ..*self }
    }

    /// What can't be read counts as the mark of a member that was found to differ at once.
    fn parse(text: &str) -> Self {
        let mut words = text.split_ascii_whitespace();
        // Entry 0 is none.
        let index = words.next().and_then(|word| word.parse().ok()).filter(|index| *index > 0).unwrap_or(1);
        let mut mark = Self::found(RaftIndex(index));
        while let Some((name, value)) = words.next().zip(words.next()) {
            match name {
                "healed" => mark.healed = value.parse().ok().map(RaftIndex),
                "attempts" => mark.attempts = value.parse().unwrap_or(u32::MAX),
                "swapping" => mark.swapping = true,
                "proven" => mark.proven = true,
                "unread" => mark.unread = true,
                // Rather two stores kept than none.
                "kept" => mark.kept = true,
                "back" => mark.back = Some(if value == "later" { Aside::Later } else { Aside::First }),
                "log" => {
                    let term = words.next().and_then(|word| word.parse().ok()).map(Term);
                    let last = value.parse().ok().map(RaftIndex);
                    mark.arrived = last.zip(term).map(|(last, term)| LogEnd { last, term });
                }
                _ => {}
            }
        }
        mark
    }

    fn text(&self) -> String {
        let healed = self.healed.map(|index| format!("healed {}\n", index.get())).unwrap_or_default();
        let arrived =
            self.arrived.map(|end| format!("log {} {}\n", end.last.get(), end.term.get())).unwrap_or_default();
        let swapping = if self.swapping { "swapping 1\n" } else { "" };
        let proven = if self.proven { "proven 1\n" } else { "" };
        let kept = if self.kept { "kept 1\n" } else { "" };
        let unread = if self.unread { "unread 1\n" } else { "" };
        let back = match self.back {
            Some(Aside::First) => "back first\n",
            Some(Aside::Later) => "back later\n",
            None => "",
        };
        let (index, attempts) = (self.index.get(), self.attempts);
        format!("{index}\n{healed}{swapping}attempts {attempts}\n{arrived}{proven}{kept}{back}{unread}")
    }
}

impl DataDir {
    /// What was noted of this member's state, if it was found to differ from the others'.
    ///
    /// # Errors
    /// Those of the disk. A mark that can't be read counts.
    pub fn divergence(&self, disk: &dyn Disk) -> Result<Option<Divergence>, DataDirError> {
        let path = self.member().join(DIVERGED);
        let opener = Opener { disk, root: &self.root };
        if !disk.exists(&path).map_err(opener.io("look for", &path))? {
            return Ok(None);
        }
        let bytes = read_all(disk, &path, SMALL_FILE_BYTES_MAX).map_err(opener.io("read", &path))?;
        Ok(Some(Divergence::parse(&String::from_utf8_lossy(&bytes))))
    }

    /// Notes it durably.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn note_divergence(&self, disk: &dyn Disk, mark: &Divergence) -> Result<(), DataDirError> {
        let path = self.member().join(DIVERGED);
        let opener = Opener { disk, root: &self.root };
        write_atomic(disk, &path, mark.text().as_bytes()).map_err(opener.io("write", &path))
    }

    /// Notes durably that the state is what the others hold again.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn clear_divergence(&self, disk: &dyn Disk) -> Result<(), DataDirError> {
        let path = self.member().join(DIVERGED);
        let opener = Opener { disk, root: &self.root };
        if disk.exists(&path).map_err(opener.io("look for", &path))? {
            disk.remove(&path).map_err(opener.io("remove", &path))?;
        }
        disk.sync_dir(&self.member()).map_err(opener.io("sync", &self.member()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::RealDisk;
    use crate::ops::config::Config;

    #[test]
    fn that_it_differs_from_the_others_is_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || {
            let mut config = Config::default();
            config.member.data_dir = dir.path().to_owned();
            DataDir::open(&RealDisk, &config, None).expect("opened")
        };
        let first = open();
        assert_eq!(first.divergence(&RealDisk).expect("read"), None);
        let found = Divergence::found(RaftIndex(512));
        first.note_divergence(&RealDisk, &found).expect("written");
        drop(first);
        let again = open();
        assert_eq!(again.divergence(&RealDisk).expect("read"), Some(found));
        let end = LogEnd { last: RaftIndex(710), term: Term(4) };
        for mark in [
            found.counted(),
            Divergence { proven: true, ..found },
            Divergence { arrived: Some(end), proven: true, ..found.counted() },
            Divergence { healed: Some(RaftIndex(700)), attempts: 2, kept: true, ..found },
            Divergence { healed: Some(RaftIndex(700)), swapping: true, ..found },
            Divergence { healed: Some(RaftIndex(700)), unread: true, ..found },
            Divergence { healed: Some(RaftIndex(700)), back: Some(Aside::First), ..found },
            Divergence { arrived: Some(end), kept: true, back: Some(Aside::Later), ..found },
        ] {
            again.note_divergence(&RealDisk, &mark).expect("written");
            assert_eq!(again.divergence(&RealDisk).expect("read"), Some(mark));
        }
        again.clear_divergence(&RealDisk).expect("removed");
        again.clear_divergence(&RealDisk).expect("nothing to remove");
        assert_eq!(again.divergence(&RealDisk).expect("read"), None);
    }

    /// Cause: that what took the state's place was found wrong, too, wasn't noted. Symptom: a client wrote the key anew that
    /// differed, all digests were the same, and the member served old revisions that nobody agreed to.
    #[test]
    fn what_took_the_states_place_and_is_wrong_too_is_no_cure() {
        let found = Divergence::found(RaftIndex(512));
        assert!(found.ends_with_likeness(), "whoever said it may be wrong");
        let proven = found.seen_wrong();
        assert!(!proven.ends_with_likeness());
        let healed = Divergence { healed: Some(RaftIndex(700)), kept: true, attempts: 1, ..proven };
        assert!(healed.ends_with_likeness());
        let again = healed.seen_wrong();
        assert!(!again.ends_with_likeness());
        assert_eq!(again, Divergence { kept: true, attempts: 1, ..proven }, "the first store is kept all the same");
    }

    #[test]
    fn nothing_has_taken_the_states_place_while_that_is_under_way() {
        let end = LogEnd { last: RaftIndex(710), term: Term(4) };
        let healed =
            Divergence { healed: Some(RaftIndex(700)), arrived: Some(end), ..Divergence::found(RaftIndex(512)) };
        assert_eq!(healed.dealt_with(), Divergence { arrived: None, ..healed });
        let swapping = Divergence { swapping: true, ..healed };
        assert_eq!(swapping.dealt_with(), Divergence { healed: None, arrived: None, ..healed });
    }

    #[test]
    fn a_log_lacks_its_end_unless_a_later_term_took_its_place() {
        let end = |last, term| LogEnd { last: RaftIndex(last), term: Term(term) };
        assert!(end(9, 3).lacks(&end(10, 3)) && end(20, 2).lacks(&end(10, 3)) && end(0, 0).lacks(&end(1, 1)));
        assert!(!end(10, 3).lacks(&end(10, 3)) && !end(11, 3).lacks(&end(10, 3)));
        assert!(!end(9, 4).lacks(&end(10, 3)), "a new leader's entries may be fewer");
    }

    #[test]
    fn a_mark_that_cannot_be_read_counts() {
        assert_eq!(Divergence::parse(""), Divergence::found(RaftIndex(1)));
        assert_eq!(Divergence::parse("0\n"), Divergence::found(RaftIndex(1)));
        assert_eq!(Divergence::parse("512\n"), Divergence::found(RaftIndex(512)), "of an older version");
        assert_eq!(Divergence::parse("512\nattempts x\n").attempts, u32::MAX, "rather never healed than for ever");
        assert_eq!(Divergence::parse("512 new 7 healed 9").healed, Some(RaftIndex(9)));
        assert_eq!(Divergence::parse("512\nlog 7\n").arrived, None);
    }
}
