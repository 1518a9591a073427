//! With whom the leader is in touch, and since when: what the checks of a change and the promoter go by.
//!
//! etcd asks its transport since when a connection is up. Here the leader's heartbeats are answered
//! or not; a new leader takes a member that answers it at once as in touch for as long as this member has
//! known a leader without a gap, since they all belonged together through it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a member must have been in touch to count as healthy; etcd's.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// How well a member is in touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contact {
    /// Not at all.
    Lost,
    /// For less than five seconds.
    Recent,
    /// For five seconds and more.
    Steady,
}

/// Since when each member is in touch with this one while it leads.
#[derive(Debug)]
pub(super) struct Contacts {
    /// No answer for so long means out of touch.
    gap: Duration,
    /// A leader was known last.
    led_at: Option<Instant>,
    /// And from then on without a gap.
    together_since: Option<Instant>,
    /// This member leads.
    leads_since: Option<Instant>,
    since: BTreeMap<u64, Instant>,
}

impl Contacts {
    /// Nobody is in touch; `gap` is a time in which several heartbeats are answered.
    pub(super) fn new(gap: Duration) -> Self {
        Self { gap, led_at: None, together_since: None, leads_since: None, since: BTreeMap::new() }
    }

    /// Takes in what is known at `now`: whether there is a leader, and, if it is this member, when
    /// each of the others answered last.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        has_leader: bool,
        answered: Option<&BTreeMap<u64, Option<Instant>>>,
    ) {
        if has_leader {
            let is_new = self.led_at.is_none_or(|at| now.duration_since(at) > self.gap);
            if is_new || self.together_since.is_none() {
                self.together_since = Some(now);
            }
            self.led_at = Some(now);
        }
        let Some(answered) = answered else {
            self.leads_since = None;
            self.since.clear();
            return;
        };
        let leads_since = *self.leads_since.get_or_insert(now);
        let is_new_leader = now.duration_since(leads_since) <= self.gap;
        let begin = if is_new_leader { self.together_since.unwrap_or(now) } else { now };
        let is_fresh = |at: &Option<Instant>| at.is_some_and(|at| now.duration_since(at) <= self.gap);
        self.since.retain(|id, _| answered.get(id).is_some_and(is_fresh));
        for (id, _) in answered.iter().filter(|(_, at)| is_fresh(at)) {
            self.since.entry(*id).or_insert(begin);
        }
    }

    /// How well `id` is in touch at `now`.
    pub(super) fn of(&self, id: u64, now: Instant) -> Contact {
        match self.since.get(&id) {
            None => Contact::Lost,
            Some(since) if now.duration_since(*since) < HEALTHY_AFTER => Contact::Recent,
            Some(_) => Contact::Steady,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(2);

    fn at(begin: Instant, secs: u64) -> Instant {
        begin + Duration::from_secs(secs)
    }

    fn answers(ids: &[(u64, Instant)]) -> BTreeMap<u64, Option<Instant>> {
        ids.iter().map(|(id, at)| (*id, Some(*at))).collect()
    }

    #[test]
    fn five_seconds_make_a_contact_steady_and_silence_ends_it() {
        let begin = Instant::now();
        let mut contacts = Contacts::new(GAP);
        for secs in 0..=5 {
            contacts.observe(at(begin, secs), true, Some(&answers(&[(2, at(begin, secs))])));
            let expected = if secs < 5 { Contact::Recent } else { Contact::Steady };
            assert_eq!(contacts.of(2, at(begin, secs)), expected, "{secs}");
        }
        contacts.observe(at(begin, 8), true, Some(&answers(&[(2, at(begin, 5))])));
        assert_eq!(contacts.of(2, at(begin, 8)), Contact::Lost);
        contacts.observe(at(begin, 9), true, Some(&answers(&[(2, at(begin, 9))])));
        assert_eq!(contacts.of(2, at(begin, 9)), Contact::Recent);
        assert_eq!(contacts.of(3, at(begin, 9)), Contact::Lost);
    }

    #[test]
    fn a_new_leader_counts_the_time_under_the_old_one() {
        let begin = Instant::now();
        let mut contacts = Contacts::new(GAP);
        for secs in 0..10 {
            contacts.observe(at(begin, secs), true, None);
        }
        contacts.observe(at(begin, 10), false, None);
        let now = at(begin, 11);
        contacts.observe(now, true, Some(&answers(&[(2, now)])));
        assert_eq!(contacts.of(2, now), Contact::Steady);
        // Who answers only later has been away.
        let now = at(begin, 15);
        contacts.observe(now, true, Some(&answers(&[(2, now), (3, now)])));
        assert_eq!((contacts.of(2, now), contacts.of(3, now)), (Contact::Steady, Contact::Recent));
    }

    #[test]
    fn a_long_time_without_a_leader_begins_anew() {
        let begin = Instant::now();
        let mut contacts = Contacts::new(GAP);
        contacts.observe(begin, true, None);
        contacts.observe(at(begin, 60), true, None);
        let now = at(begin, 61);
        contacts.observe(now, true, Some(&answers(&[(2, now)])));
        assert_eq!(contacts.of(2, now), Contact::Recent);
    }
}
