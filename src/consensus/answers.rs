//! `Answers`: outcomes that wait for their publish, and what they hold until then and until they are taken.
//!
//! ```text
//! Machine::apply_each ─► outcome ─► Large ─┬► nobody here waits for it: its pairs go at once
//!                                          ├► it is small, or there is room for it ─► Answers ─► publish ─► reply
//!                                          └► no room: its pairs go ─► Answers ─► publish ─► reply: timed out
//! ```
//! An entry has up to a thousand commands, some hundred entries are published together, and a transaction may read half a
//! gigabyte, which is known when it has read it. By then it is done, on all members alike, and nothing here may change
//! that. So whoever can't be told what was read is told what one is told whose outcome didn't come: it may be done.

use std::time::Instant;

use super::types::{Applied, EntryTimes, Reply};
use crate::apply::Outcome;
use crate::types::{Budget, Held, Limits, RequestError, Term};

/// What an outcome may have in pairs without counting.
const SMALL_BYTES: usize = 16 << 10;

/// What the large outcomes of one entry hold, by the places of their commands; `None` where there was no room.
#[derive(Default)]
pub(super) struct Large(Vec<(usize, Option<Held>)>);

impl Large {
    /// Looks at the outcome at `place`, which comes after those before; `answers` is what holds it, if anybody here waits.
    pub(super) fn look(&mut self, place: usize, outcome: &mut Outcome, answers: Option<&Budget>) {
        let Some(answers) = answers else { return outcome.forget_pairs() };
        let bytes = outcome.pair_bytes();
        if bytes > SMALL_BYTES {
            let held = answers.take_beyond(bytes, answers.max() / Limits::WRITE_ANSWERS_PART);
            if held.is_none() {
                outcome.forget_pairs();
            }
            self.0.push((place, held));
        }
    }
}

/// One that waits.
struct Waiting {
    reply: Reply,
    /// With what it holds, or why it isn't told.
    outcome: Result<(Outcome, Option<Held>), RequestError>,
    term: Term,
    /// The place of its entry's times, if they are known.
    times: Option<usize>,
}

/// Outcomes that wait for their publish.
#[derive(Default)]
pub(super) struct Answers {
    waiting: Vec<Waiting>,
    times: Vec<EntryTimes>,
}

impl Answers {
    /// The outcomes of one entry.
    pub(super) fn add(
        &mut self,
        term: Term,
        replies: Vec<Reply>,
        outcomes: Vec<Outcome>,
        large: Large,
        times: Option<EntryTimes>,
    ) {
        debug_assert_eq!(replies.len(), outcomes.len(), "one outcome for each command");
        let of_entry = times.is_some().then_some(self.times.len());
        self.times.extend(times);
        let mut large = large.0.into_iter().peekable();
        for (place, (reply, outcome)) in replies.into_iter().zip(outcomes).enumerate() {
            let outcome = match large.next_if(|(at, _)| *at == place) {
                None => Ok((outcome, None)),
                Some((_, Some(held))) => Ok((outcome, Some(held))),
                Some((_, None)) => Err(RequestError::Timeout),
            };
            self.waiting.push(Waiting { reply, outcome, term, times: of_entry });
        }
    }

    /// All of them are durable here since `logged` at the latest, and were published.
    pub(super) fn published(&mut self, logged: Instant, published: Instant) {
        for times in &mut self.times {
            times.logged.get_or_insert(logged);
            times.published = published;
        }
    }

    /// The times of their entries.
    pub(super) fn times(&self) -> &[EntryTimes] {
        &self.times
    }

    /// Answers all.
    pub(super) fn send(&mut self) {
        for Waiting { reply, outcome, term, times } in self.waiting.drain(..) {
            let times = times.and_then(|at| self.times.get(at)).copied();
            let answer = outcome.map(|(outcome, held)| Applied { outcome, term, times, held });
            // Whoever stopped waiting needs no answer.
            let _ = reply.send(answer);
        }
        self.times.clear();
    }
}
