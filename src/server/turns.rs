//! Who may end to be healed: one member at a time, and only if the others are a quorum without it. The leader says so.
//!
//! ```text
//! may I (or: might I)? ─► its alarm is raised? ─► nobody else's turn? ─► the others in touch are a quorum? ─► its turn, for a while
//! ```
//! A turn lies in the leader's memory. A new leader, of whose predecessor somebody else may have got one, waits until that
//! would be over: whoever has one has had its alarm raised through the log before. An alarm may be cleared by hand while its
//! member is away: so no turn ends by that before whoever has it would be missed.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::apply::{AlarmKind, AlarmView};
use crate::consensus::Node;
use crate::types::{MemberId, RequestError, Term};

/// How long a member may take from its turn's beginning until it is gone; with what it takes to be missed, that is the
/// least that a turn lasts.
const GONE_AFTER: Duration = Duration::from_secs(15);
/// The longest turn of a member that doesn't come back.
const TURN_MAX: Duration = Duration::from_secs(600);

/// Gives turns while this member leads.
pub(super) struct Turns {
    node: Node,
    alarms: AlarmView,
    book: Mutex<Book>,
}

impl Turns {
    /// `election_timeout` is as the flag says: a member that was silent for twice as long is missed.
    pub(super) fn new(node: Node, alarms: AlarmView, election_timeout: Duration) -> Self {
        let least = GONE_AFTER + 2 * election_timeout;
        Self { node, alarms, book: Mutex::new(Book { least, led: None, turn: None, begun: Instant::now() }) }
    }

    /// Whether it is `member`'s turn now; it has it only if it `takes` it.
    ///
    /// # Errors
    /// `NoLeader` if this member doesn't lead, or differs itself.
    pub(super) fn ask(&self, member: MemberId, takes: bool) -> Result<bool, RequestError> {
        let status = self.node.status();
        let term = status.term();
        if !status.leads_rightly() {
            return Err(RequestError::NoLeader);
        }
        let raised = self.alarms.load().list(Some(AlarmKind::Diverged));
        let asked = Asked {
            member,
            takes,
            term,
            marked: &raised.into_iter().map(|(member, _)| member).collect(),
            is_quorum: self.node.is_quorum_without(member),
            knows_all: self.node.has_applied_own(),
            is_in_touch: &|other| self.node.is_in_touch(other),
        };
        Ok(self.book.lock().grant(&asked, Instant::now()))
    }
}

/// What is known when a member asks.
struct Asked<'a> {
    member: MemberId,
    takes: bool,
    /// This leader's.
    term: Term,
    /// Whose alarm is raised.
    marked: &'a BTreeSet<MemberId>,
    /// The others are one.
    is_quorum: bool,
    /// All that its predecessors have committed is applied here, so that no alarm is missing.
    knows_all: bool,
    is_in_touch: &'a dyn Fn(MemberId) -> bool,
}

struct Book {
    /// The least that a turn lasts.
    least: Duration,
    /// The term in which turns were given, and when the first one was asked for.
    led: Option<(Term, Instant)>,
    /// Whose turn it is, and since when, by what it was told last.
    turn: Option<(MemberId, Instant)>,
    /// When that one got it first.
    begun: Instant,
}

impl Book {
    fn grant(&mut self, asked: &Asked<'_>, now: Instant) -> bool {
        if self.led.is_none_or(|(term, _)| term != asked.term) {
            (self.led, self.turn) = (Some((asked.term, now)), None);
        }
        let is_mine = self.turn.is_some_and(|(holder, _)| holder == asked.member);
        let is_anothers = self.turn.is_some_and(|(holder, since)| {
            let lasts = now.saturating_duration_since(since);
            let is_away = lasts < TURN_MAX && !(asked.is_in_touch)(holder) && asked.marked.contains(&holder);
            holder != asked.member && (lasts < self.least || is_away)
        });
        let is_alone = asked.marked.iter().all(|member| *member == asked.member);
        let is_new = self.led.is_none_or(|(_, since)| now.saturating_duration_since(since) < self.least);
        let may_be_formers = is_new && !is_alone && !is_mine;
        // One that has its turn and can't end for it, as its disk doesn't take the note, leaves the next one to others: it
        // begins once this one can't have gone any more.
        let since = |time| now.saturating_duration_since(time);
        let goes_on = is_mine && since(self.begun) < self.least;
        let is_just_over = self.turn.is_some_and(|(_, told)| since(told) < 2 * self.least);
        let stays_too_long = is_mine && !goes_on && is_just_over && !is_alone;
        let is_known = asked.knows_all && asked.marked.contains(&asked.member);
        if !is_known || is_anothers || may_be_formers || stays_too_long || !asked.is_quorum {
            return false;
        }
        if asked.takes {
            if !goes_on {
                self.begun = now;
            }
            self.turn = Some((asked.member, now));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);
    const LEAST: Duration = Duration::from_secs(17);

    struct Desk {
        book: Book,
        now: Instant,
        in_touch: bool,
        knows_all: bool,
    }

    impl Desk {
        fn new() -> Self {
            let now = Instant::now();
            let book = Book { least: LEAST, led: None, turn: None, begun: now };
            Self { book, now, in_touch: true, knows_all: true }
        }

        fn ask(&mut self, member: MemberId, term: u64, marked: &[MemberId], is_quorum: bool) -> bool {
            let in_touch = self.in_touch;
            let marked = marked.iter().copied().collect();
            let is_in_touch = |_| in_touch;
            let term = Term(term);
            let knows_all = self.knows_all;
            let asked =
                Asked { member, takes: true, term, marked: &marked, is_quorum, knows_all, is_in_touch: &is_in_touch };
            self.book.grant(&asked, self.now)
        }

        fn might(&mut self, member: MemberId, marked: &[MemberId]) -> bool {
            let marked = marked.iter().copied().collect();
            let (is_quorum, knows_all) = (true, self.knows_all);
            let is_in_touch = &|_| true;
            let asked =
                Asked { member, takes: false, term: Term(1), marked: &marked, is_quorum, knows_all, is_in_touch };
            self.book.grant(&asked, self.now)
        }
    }

    #[test]
    fn a_turn_is_for_a_marked_member_that_leaves_a_quorum() {
        let mut desk = Desk::new();
        assert!(!desk.ask(A, 1, &[], true), "nobody has said that it differs");
        assert!(!desk.ask(A, 1, &[B], true));
        assert!(!desk.ask(A, 1, &[A], false), "another one is down");
        assert!(desk.ask(A, 1, &[A], true) && desk.ask(A, 1, &[A], true), "it asks again");
    }

    /// Cause: each member that differed ended when it had what heals it. Symptom: two of five ended in one moment.
    #[test]
    fn two_members_have_no_turn_at_a_time() {
        let mut desk = Desk::new();
        assert!(desk.ask(A, 1, &[A], true));
        assert!(!desk.ask(B, 1, &[A, B], true));
        desk.in_touch = false;
        desk.now += LEAST;
        assert!(!desk.ask(B, 1, &[A, B], true), "it isn't back");
        desk.in_touch = true;
        assert!(desk.ask(B, 1, &[A, B], true) && !desk.ask(A, 1, &[A, B], true), "it is");
        desk.in_touch = false;
        desk.now += TURN_MAX;
        assert!(desk.ask(A, 1, &[A, B], true), "it never comes");
        desk.now += LEAST;
        assert!(desk.ask(B, 1, &[B], true), "whoever is healed, or removed, has no turn");
    }

    /// Cause: a turn ended when its member's alarm was gone, whoever had cleared that. Symptom: cleared by hand while the member
    /// started again, it let a second one go before the first was missed.
    #[test]
    fn a_turn_does_not_end_because_an_alarm_is_cleared_by_hand() {
        let mut desk = Desk::new();
        assert!(desk.ask(A, 1, &[A], true));
        assert!(!desk.ask(B, 1, &[B], true), "A may just be going");
        desk.now += LEAST;
        assert!(!desk.ask(B, 1, &[B], false), "A is missed by now");
        assert!(desk.ask(B, 1, &[B], true));
    }

    #[test]
    fn a_new_leader_waits_for_a_turn_that_it_may_not_know_of() {
        let mut desk = Desk::new();
        assert!(!desk.ask(A, 1, &[A, B], true), "it knows of no turn of its predecessor's");
        assert!(desk.ask(A, 1, &[A], true), "nobody else can have one");
        assert!(!desk.ask(B, 1, &[A, B], true));
        assert!(!desk.ask(B, 2, &[A, B], true), "another one's, of the former leader");
        desk.now += LEAST;
        desk.in_touch = false;
        assert!(desk.ask(B, 2, &[A, B], true), "what was given in a former term is forgotten");
        assert!(desk.ask(A, 3, &[A], true), "nobody else can have one");
    }

    /// Cause: alarms were looked at before what the former leader had raised was applied. Symptom: A seemed alone, and had its
    /// turn beside B, who had the former leader's.
    #[test]
    fn a_new_leader_knows_all_alarms_before_it_gives_turns() {
        let mut desk = Desk::new();
        desk.knows_all = false;
        assert!(!desk.ask(A, 1, &[A], true) && !desk.might(A, &[A]));
        desk.knows_all = true;
        assert!(desk.ask(A, 1, &[A], true));
    }

    /// Cause: each time that the holder of a turn asked, it had the whole of it again. Symptom: one whose disk took no note
    /// asked twice a second, and nobody else was ever healed.
    #[test]
    fn whoever_has_a_turn_and_stays_leaves_it_to_others() {
        let mut desk = Desk::new();
        assert!(desk.ask(A, 1, &[A], true));
        let mut had = 0;
        for second in 0..10 * LEAST.as_secs() {
            desk.now += Duration::from_secs(1);
            let (a, b) = (desk.ask(A, 1, &[A, B], true), desk.ask(B, 1, &[A, B], true));
            assert!(!(a && b), "in one moment, after {second} s");
            if b {
                had = second;
                break;
            }
        }
        assert!((LEAST.as_secs()..=3 * LEAST.as_secs()).contains(&had), "{had}");
        // Alone, nobody waits for it.
        for _ in 0..100 {
            desk.now += Duration::from_secs(1);
            assert!(desk.ask(A, 2, &[A], true));
        }
    }

    /// Cause: a member that would have had no turn for long fetched the whole state all the same, again and again.
    #[test]
    fn whoever_only_wants_to_know_has_no_turn() {
        let mut desk = Desk::new();
        assert!(desk.might(A, &[A]) && desk.book.turn.is_none());
        assert!(desk.ask(B, 1, &[B], true), "it is still free");
        desk.now += LEAST / 2;
        assert!(!desk.might(A, &[A, B]), "another one has it");
        desk.now += LEAST / 2;
        assert!(desk.might(A, &[A, B]) && desk.ask(A, 1, &[A, B], true));
    }
}
