//! A directory whose state differs, with a good snapshot beside it; killed before each change of a name.

#![allow(clippy::disallowed_methods, reason = "a test changes files behind the doors")]

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::*;
use crate::env::{Access, DiskFile, RealDisk};
use crate::ops::config::Config;
use crate::ops::data_dir::{HEALINGS_MAX, HEALINGS_WITHIN, Healings};
use crate::storage::Store;
use crate::types::{LeaseId, Term};
use crate::wal::{EntryId, Recovered, WalEntry, WalOptions};

/// Where the snapshot stands.
const AT: u64 = 15;

/// The real disk, which changes names so many times, and then fails to so many times.
#[derive(Debug)]
struct Dying {
    left: Arc<AtomicU64>,
    fails: AtomicU64,
}

/// It fails from then on: the process is killed.
const KILLED: u64 = u64::MAX;

impl Dying {
    /// An environment with such a disk; `left` is greater than 0 afterwards if nothing failed.
    fn env(left: &Arc<AtomicU64>, fails: u64) -> Env {
        Env { disk: Arc::new(Self { left: left.clone(), fails: AtomicU64::new(fails) }), ..Env::real() }
    }

    fn step(&self) -> io::Result<()> {
        let one_less = |count: u64| match count {
            KILLED => Some(KILLED),
            count => count.checked_sub(1),
        };
        let take = |count: &AtomicU64| count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        if !take(&self.left) && take(&self.fails) { Err(io::Error::other("killed")) } else { Ok(()) }
    }
}

impl Disk for Dying {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.create_dir_all(dir)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        if access != Access::Read {
            self.step()?;
        }
        RealDisk.open(path, access)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove(path)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        // Half of it is gone when the process is killed.
        if self.step().is_err() {
            return RealDisk.remove(&dir.join("engine")).and(Err(io::Error::other("killed")));
        }
        RealDisk.remove_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.sync_dir(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

struct Member {
    dir: tempfile::TempDir,
    env: Env,
    data: DataDir,
    wal: Wal,
}

fn snapshot_at(env: &Env, dir: &Path) -> PathBuf {
    let mut store = Store::in_memory();
    let mut txn = store.begin();
    txn.put(Bytes::from_static(b"k"), Bytes::from_static(b"right"), LeaseId(0));
    txn.commit();
    store.publish(AppliedPosition { index: RaftIndex(AT), term: Term(2) }).unwrap();
    rebuild::save(env.clone(), store.reader(), dir.to_owned())().unwrap().path
}

/// As the mark is once a snapshot was counted and Raft has ended.
fn arrived(mark: Divergence, end: LogEnd) -> Divergence {
    Divergence { arrived: Some(end), ..mark.counted() }
}

/// A member whose log holds `entries` of term 2; it differs, had differed before, and has fetched the others' state.
fn member(entries: std::ops::RangeInclusive<u64>, term: u64) -> Member {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let mut config = Config::default();
    config.member.data_dir = dir.path().join("m");
    let data = DataDir::open(&RealDisk, &config, None).unwrap();
    let (wal, _) = Wal::open(env.clone(), data.wal(), WalOptions::default()).unwrap();
    let entry = |index| {
        let id = EntryId { term: Term(term), index: RaftIndex(index), node: None };
        WalEntry { id, kind: 0, payload: Bytes::new() }
    };
    let (done, written) = std::sync::mpsc::channel();
    wal.append(entries.map(entry).collect(), move |result| done.send(result).unwrap());
    written.recv().unwrap().unwrap();
    let end = LogEnd { last: wal.last().unwrap().index, term: Term(0) };
    data.note_divergence(&RealDisk, &arrived(Divergence::found(RaftIndex(10)), end)).unwrap();
    std::fs::write(data.store().join("engine"), b"differs").unwrap();
    std::fs::create_dir(data.diverged_store(Aside::First)).unwrap();
    std::fs::write(data.diverged_store(Aside::First).join("engine"), b"long ago").unwrap();
    let made = snapshot_at(&env, dir.path());
    std::fs::rename(made, data.snapshots().join(HEALING)).unwrap();
    // A newer one than the one that was fetched: it must not be taken for it.
    std::fs::write(data.snapshots().join("0000000000000012.snapshot"), b"made of what differs").unwrap();
    Member { dir, env, data, wal }
}

impl Member {
    fn install(&self, enabled: bool) -> RaftIndex {
        self.start(&self.env, enabled).unwrap()
    }

    fn start(&self, env: &Env, enabled: bool) -> Result<RaftIndex, OpenError> {
        // As each start does.
        RealDisk.create_dir_all(&self.data.store()).unwrap();
        let recovered = Recovered { last: self.wal.last(), ..Recovered::default() };
        install(env, &self.data, &self.wal, &recovered, enabled)
    }

    fn mark(&self) -> Divergence {
        self.data.divergence(&RealDisk).unwrap().unwrap()
    }

    fn differs(&self) {
        assert_eq!(std::fs::read(self.data.store().join("engine")).unwrap(), b"differs");
    }

    fn names(&self) -> Vec<OsString> {
        RealDisk.list(&self.data.snapshots()).unwrap()
    }

    fn is_untouched(&self) {
        self.differs();
        assert_eq!(self.names(), ["0000000000000012.snapshot"], "what is of no use was removed");
        assert_eq!(self.mark(), Divergence { attempts: 1, ..Divergence::found(RaftIndex(10)) });
    }

    /// Nothing of another state is there, and nobody takes this one for healed.
    fn is_as_it_was(&self) {
        self.differs();
        let mark = self.mark();
        assert_eq!((mark.healed, mark.swapping, mark.arrived, mark.kept), (None, false, None, false));
        assert!(!self.names().iter().any(|name| *name == HEALING));
        assert!(!ask_back(&RealDisk, &self.data, false).unwrap(), "there is none to put back");
    }

    fn is_installed(&self) {
        assert!(!self.data.discarded_store().exists(), "of long ago");
        assert_eq!(std::fs::read(self.data.diverged_store(Aside::First).join("engine")).unwrap(), b"differs");
        assert_eq!(RealDisk.list(&self.data.store()).unwrap(), Vec::<OsString>::new());
        assert_eq!(self.names(), [format!("{AT:016x}.snapshot").as_str()]);
        let found = Divergence::found(RaftIndex(10));
        let mark = Divergence { healed: Some(RaftIndex(AT)), attempts: 1, kept: true, unread: true, ..found };
        assert_eq!(self.mark(), mark);
    }
}

#[test]
fn killed_anywhere_it_is_whole_after_the_next_start() {
    for steps in 0.. {
        let member = member(1..=20, 2);
        let left = Arc::new(AtomicU64::new(steps));
        // What it makes of the errors doesn't come to the disk.
        let _ = member.start(&Dying::env(&left, KILLED), true);
        // A file system may have made all of it durable, or none: the process was killed, the machine lives.
        assert_eq!(member.install(true), RaftIndex(AT), "killed after {steps} steps");
        member.is_installed();
        assert_eq!(member.install(true), RaftIndex(AT), "until it was compared");
        member.is_installed();
        if left.load(Ordering::Relaxed) > 0 {
            assert!(steps > 8, "nothing was killed");
            return;
        }
    }
}

/// Cause: an error of the disk, of one moment or lasting. Symptom: a member that didn't start, and with it a vote less.
/// Now it goes on with what it had, which isn't served, and fetches another one.
#[test]
fn an_error_of_the_disk_leaves_the_old_store_in_its_place() {
    for steps in 0.. {
        let member = member(1..=20, 2);
        let left = Arc::new(AtomicU64::new(steps));
        let at = member.start(&Dying::env(&left, 1), true).unwrap();
        assert_eq!(member.mark().attempts, 1, "it counts, after {steps} steps");
        if left.load(Ordering::Relaxed) > 0 {
            assert!(steps > 8, "nothing failed");
            return;
        }
        if at == RaftIndex(AT) {
            // Done before it failed, or all but a note that the next start makes.
            assert_eq!(member.install(true), at);
            member.is_installed();
            continue;
        }
        assert_eq!(at, RaftIndex(0));
        member.differs();
        assert_eq!((member.mark().healed, member.mark().arrived), (None, None), "after {steps} steps");
        assert!(!member.names().iter().any(|name| *name == HEALING), "after {steps} steps");
    }
}

/// Cause: the mark named the snapshot before anything was moved, and went on doing so if the next start must not heal, or
/// met an error, too. Symptom: a member that was never healed passed for it, or had a store of long ago put back. Killed
/// anywhere, or after some errors in a row, what holds afterwards is one or the other.
#[test]
fn nothing_is_taken_for_healed_that_was_not() {
    for (fails, enabled) in [(2, true), (3, false), (KILLED, false)] {
        for steps in 0.. {
            let member = member(1..=20, 2);
            let left = Arc::new(AtomicU64::new(steps));
            let _ = member.start(&Dying::env(&left, fails), true);
            if member.install(enabled) == RaftIndex(AT) {
                member.is_installed();
                // As if what lies in the store's place could not be read in: what comes back is what was put aside now.
                assert!(ask_back(&RealDisk, &member.data, false).unwrap());
                assert_eq!(member.install(enabled), RaftIndex(0));
            }
            member.is_as_it_was();
            if left.load(Ordering::Relaxed) > 0 {
                assert!(steps > 8, "nothing failed");
                break;
            }
        }
    }
}

/// Cause: the time of a try was noted anew whenever the rest of it could not be. Symptom: after a second and a half of a
/// full disk a member had been healed too often, without one try, and was left to a person for good.
#[test]
fn a_try_that_cannot_be_noted_counts_once() {
    let member = member(1..=20, 2);
    let now = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let mark = Divergence::found(RaftIndex(10));
    let mut is_timed = false;
    let mut count = |disk: &dyn Disk| count(disk, &member.data, now, &mark, &mut is_timed);
    // The file of times is made, has its name, and lasts.
    for steps in [0, 3, 0, 1, 2] {
        assert!(count(&*Dying::env(&Arc::new(AtomicU64::new(steps)), KILLED).disk).is_err());
    }
    count(&RealDisk).unwrap();
    let lately = member.data.healings_since(&RealDisk, now).unwrap();
    assert_eq!((lately, member.mark()), (Healings { replaced: 1, full: 0 }, mark.counted()));
}

/// The same for what fails later, when the snapshot is read into a store.
#[test]
fn a_state_that_cannot_be_read_in_makes_room_for_the_old_one() {
    let member = member(1..=20, 2);
    assert_eq!(member.install(true), RaftIndex(AT));
    std::fs::write(member.data.store().join("engine"), b"half of it").unwrap();
    assert!(ask_back(&RealDisk, &member.data, false).unwrap());
    let half = || std::fs::read(member.data.store().join("engine")).unwrap();
    assert_eq!(half(), b"half of it", "nothing is moved under an engine that is open");
    assert_eq!(member.install(true), RaftIndex(0));
    member.differs();
    assert_eq!(member.mark(), Divergence { attempts: 1, ..Divergence::found(RaftIndex(10)) });
    assert_eq!(member.names(), Vec::<OsString>::new());
    assert!(!ask_back(&RealDisk, &member.data, false).unwrap(), "there is none to put back");
}

/// Cause: a state for which there was no room beside the old store was a try like any other. Symptom: after three of them,
/// each a whole snapshot of the leader's, a member was left to a person for good, and room that was made helped nothing.
/// Then it was none for as long as the mark stayed. Symptom: as many tries of last week let as many more replace the state
/// today, and a member wanted several times the room that it needed for ever.
#[test]
fn a_state_for_which_there_is_no_room_is_no_try_and_the_next_one_wants_more() {
    let member = member(1..=20, 2);
    let begun = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let lately = |now| member.data.healings_since(&RealDisk, now).unwrap();
    let mut needs = needed(1_000, lately(begun).full);
    assert_eq!(needs, 1_500);
    for times in 1..=5 {
        member.data.note_healing(&RealDisk, begun).unwrap();
        assert_eq!(member.install(true), RaftIndex(AT));
        assert!(ask_back(&RealDisk, &member.data, true).unwrap());
        assert_eq!(member.install(true), RaftIndex(0));
        member.differs();
        assert_eq!(member.mark(), Divergence::found(RaftIndex(10)));
        assert_eq!(lately(begun), Healings { replaced: 0, full: times });
        let more = needed(1_000, lately(begun).full);
        assert!(more > needs, "{more}");
        needs = more;
        member.again(b"differs");
    }
    let next = begun + HEALINGS_WITHIN;
    for _ in 0..HEALINGS_MAX {
        member.data.note_healing(&RealDisk, next).unwrap();
    }
    assert_eq!(lately(next), Healings { replaced: HEALINGS_MAX, full: 0 });
    assert_eq!(needed(1_000, lately(next).full), 1_500);
}

/// Cause: whatever kept a snapshot from being read in had the old store put back. Symptom: a damaged store and a full disk at
/// a start long after it was healed brought back one that the log was purged beyond, and removed the snapshots.
#[test]
fn what_was_read_in_once_is_not_undone() {
    let member = member(1..=20, 2);
    member.install(true);
    note_read(&RealDisk, &member.data);
    for is_full in [false, true] {
        assert!(!ask_back(&RealDisk, &member.data, is_full).unwrap());
    }
    assert_eq!(member.install(true), RaftIndex(AT));
    assert_eq!(member.names(), [format!("{AT:016x}.snapshot").as_str()]);
    assert_eq!((member.mark().unread, member.mark().attempts), (false, 1));
    note_read(&RealDisk, &member.data);
    member.data.clear_divergence(&RealDisk).unwrap();
    note_read(&RealDisk, &member.data);
    assert_eq!(member.data.divergence(&RealDisk).unwrap(), None, "no mark is made");
}

#[test]
fn what_an_installation_removes_makes_room_for_it() {
    let member = member(1..=20, 2);
    let freeing = |member: &Member| freed(&RealDisk, &member.data, &member.mark()).unwrap();
    let snapshot = b"made of what differs".len() as u64;
    assert_eq!(freeing(&member), snapshot + b"long ago".len() as u64);
    member.data.note_divergence(&RealDisk, &Divergence { kept: true, ..member.mark() }).unwrap();
    assert_eq!(freeing(&member), snapshot, "what was found to differ stays");
}

/// The start that puts it back may be killed, too.
#[test]
fn killed_while_the_old_store_is_put_back_it_is_put_back_later() {
    for steps in 0.. {
        let member = member(1..=20, 2);
        member.install(true);
        assert!(ask_back(&RealDisk, &member.data, false).unwrap());
        let left = Arc::new(AtomicU64::new(steps));
        let _ = member.start(&Dying::env(&left, KILLED), true);
        member.install(true);
        member.differs();
        assert_eq!((member.mark().healed, member.mark().back, member.mark().kept), (None, None, false), "{steps}");
        assert_eq!(member.names(), Vec::<OsString>::new());
        if left.load(Ordering::Relaxed) > 0 {
            assert!(steps > 3, "nothing was killed");
            return;
        }
    }
}

impl Member {
    /// One more state comes, and takes the place of what the store holds by now.
    fn again(&self, holds: &[u8]) {
        std::fs::write(self.data.store().join("engine"), holds).unwrap();
        let made = snapshot_at(&self.env, self.dir.path());
        std::fs::rename(made, self.data.snapshots().join(HEALING)).unwrap();
        let end = LogEnd { last: RaftIndex(20), term: Term(0) };
        self.data.note_divergence(&RealDisk, &arrived(self.mark(), end)).unwrap();
    }

    fn aside(&self, which: Aside) -> Option<Vec<u8>> {
        std::fs::read(self.data.diverged_store(which).join("engine")).ok()
    }
}

/// Cause: each try put the store aside under one name. Symptom: the second one removed what the first had kept, which is
/// what somebody wants to look at.
#[test]
fn the_store_that_was_found_to_differ_outlasts_all_tries() {
    let member = member(1..=20, 2);
    member.install(true);
    assert_eq!(member.aside(Aside::First).as_deref(), Some(&b"differs"[..]), "in place of that of long ago");
    for holds in [&b"second"[..], b"third"] {
        member.again(holds);
        assert_eq!(member.install(true), RaftIndex(AT));
        assert_eq!(member.aside(Aside::First).as_deref(), Some(&b"differs"[..]));
        assert_eq!(member.aside(Aside::Later).as_deref(), Some(holds));
    }
    // It can't be read in: the one that it took the place of comes back, and no older one.
    assert!(ask_back(&RealDisk, &member.data, false).unwrap());
    member.install(true);
    assert_eq!(std::fs::read(member.data.store().join("engine")).unwrap(), b"third");
    assert_eq!((member.aside(Aside::First).as_deref(), member.aside(Aside::Later)), (Some(&b"differs"[..]), None));
    member.again(b"fourth");
    member.install(true);
    assert_eq!(member.aside(Aside::First).as_deref(), Some(&b"differs"[..]));
    // Healed.
    member.data.clear_divergence(&RealDisk).unwrap();
    member.install(true);
    assert_eq!((member.aside(Aside::First).as_deref(), member.aside(Aside::Later)), (Some(&b"differs"[..]), None));
}

/// The same, killed before each change of a name in the second try.
#[test]
fn killed_in_the_second_try_the_first_ones_store_stays() {
    for steps in 0.. {
        let member = member(1..=20, 2);
        member.install(true);
        member.again(b"second");
        let left = Arc::new(AtomicU64::new(steps));
        let _ = member.start(&Dying::env(&left, KILLED), true);
        assert_eq!(member.install(true), RaftIndex(AT), "killed after {steps} steps");
        assert_eq!(member.aside(Aside::First).as_deref(), Some(&b"differs"[..]), "killed after {steps} steps");
        assert_eq!(member.aside(Aside::Later).as_deref(), Some(&b"second"[..]), "killed after {steps} steps");
        if left.load(Ordering::Relaxed) > 0 {
            assert!(steps > 8, "nothing was killed");
            return;
        }
    }
}

/// Cause: how far the log was, was noted while Raft went on. Symptom: entries that it cut off in the same term, as a new
/// leader's take their place, looked as if the log had lost its end, and the member didn't start.
#[test]
fn a_snapshot_that_was_counted_is_taken_in_only_once_raft_has_ended() {
    let member = member(1..=20, 2);
    let counted = Divergence::found(RaftIndex(10)).counted();
    member.data.note_divergence(&RealDisk, &counted).unwrap();
    assert_eq!(member.install(true), RaftIndex(0), "killed before Raft had ended");
    member.differs();
    assert!(!member.data.snapshots().join(HEALING).exists(), "it is fetched again");

    let again = self::member(1..=5, 2);
    again.data.note_divergence(&RealDisk, &counted).unwrap();
    // It held more when it was counted.
    note_arrival(&RealDisk, &again.data, Some((RaftIndex(5), Term(0)))).unwrap();
    assert_eq!(again.install(true), RaftIndex(AT));
    note_arrival(&RealDisk, &again.data, None).unwrap();
    assert_eq!(again.mark().arrived, None, "of a log that has failed nothing is known");
    again.data.clear_divergence(&RealDisk).unwrap();
    note_arrival(&RealDisk, &again.data, Some((RaftIndex(5), Term(0)))).unwrap();
    assert_eq!(again.data.divergence(&RealDisk).unwrap(), None, "what is healed isn't marked");
}

#[test]
fn whoever_makes_a_member_the_only_one_has_chosen_its_state() {
    let member = member(1..=20, 2);
    // As with --force-new-cluster: what has come isn't taken in.
    assert_eq!(member.install(false), RaftIndex(0));
    settle(&RealDisk, &member.data).unwrap();
    member.differs();
    assert_eq!(member.data.divergence(&RealDisk).unwrap(), None);
    settle(&RealDisk, &member.data).unwrap();
}

/// Cause: without writes each snapshot is of the same entry, and the same entry was no further try. Symptom: a member
/// that differs after each of them starts again for ever.
#[test]
fn every_snapshot_that_comes_is_a_try() {
    let member = member(1..=20, 2);
    assert_eq!(member.install(true), RaftIndex(AT));
    for attempts in 2..4 {
        let made = snapshot_at(&member.env, member.dir.path());
        std::fs::rename(&made, member.data.snapshots().join(HEALING)).unwrap();
        assert_eq!(member.install(true), RaftIndex(AT), "what nobody counted isn't taken");
        assert_eq!(member.mark().attempts, attempts - 1);
        let made = snapshot_at(&member.env, member.dir.path());
        std::fs::rename(&made, member.data.snapshots().join(HEALING)).unwrap();
        let end = LogEnd { last: RaftIndex(20), term: Term(0) };
        member.data.note_divergence(&RealDisk, &arrived(member.mark(), end)).unwrap();
        assert_eq!(member.install(true), RaftIndex(AT));
        assert_eq!((member.mark().attempts, member.mark().arrived), (attempts, None));
    }
}

/// Cause: a snapshot ahead of the log was taken for one that Raft had installed. Symptom: a member whose log had lost
/// its end meanwhile started all the same, and had forgotten what it had acknowledged.
#[test]
fn a_snapshot_does_not_hide_that_the_log_lost_its_end() {
    for (last, term) in [(6, 0), (5, 1)] {
        let member = member(1..=5, 2);
        let end = LogEnd { last: RaftIndex(last), term: Term(term) };
        member.data.note_divergence(&RealDisk, &arrived(Divergence::found(RaftIndex(10)), end)).unwrap();
        assert!(matches!(member.start(&member.env, true), Err(OpenError::LogEndLost { .. })));
        member.differs();
    }
}

#[test]
fn a_snapshot_ahead_of_the_log_is_taken() {
    let member = member(1..=5, 2);
    assert_eq!(member.install(true), RaftIndex(AT));
    member.is_installed();
}

#[test]
fn what_does_not_fit_is_fetched_again() {
    let damaged = member(1..=20, 2);
    let path = damaged.data.snapshots().join(HEALING);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(damaged.install(true), RaftIndex(0));
    damaged.is_untouched();

    let purged = member(1..=20, 2);
    let (done, gone) = std::sync::mpsc::channel();
    let upto = EntryId { term: Term(2), index: RaftIndex(16), node: None };
    purged.wal.purge_to(upto, move |result| done.send(result).unwrap());
    gone.recv().unwrap().unwrap();
    assert_eq!(purged.install(true), RaftIndex(0), "entry 16 is in neither of them");
    purged.is_untouched();

    for (entries, why) in [(1..=20, "another entry has its place"), (1..=5, "the log is of a later term")] {
        let other = member(entries, 3);
        assert_eq!(other.install(true), RaftIndex(0), "{why}");
        other.is_untouched();
    }
}

#[test]
fn nothing_is_replaced_that_does_not_differ_or_should_not_be() {
    let off = member(1..=20, 2);
    assert_eq!(off.install(false), RaftIndex(0));
    off.is_untouched();
    let well = member(1..=20, 2);
    well.data.clear_divergence(&RealDisk).unwrap();
    assert_eq!(well.install(true), RaftIndex(0));
    assert_eq!(std::fs::read(well.data.store().join("engine")).unwrap(), b"differs");
}
