//! `Stages`: where the time of a call went, noted by whatever had it wait.
//!
//! ```text
//! api: watched(begun, call) ─► propose, api: note(stage, from, to) ─► stages() at the end: a log line, spans
//! ```
//! Only waits are noted, by those that wait: a call that waits for nothing notes nothing and looks at no clock. What
//! is left of a call's time is its own work. Where no call is being watched, a note goes nowhere.
//!
//! A call that is woken and not let go on knows nothing of that: whoever keeps it says so by [`resumed`], and it is no part
//! of what the call notes next.

use std::cell::Cell;
use std::time::{Duration, Instant};

macro_rules! stages {
    ($($stage:ident $name:literal $doc:literal;)*) => {
        /// What a call waits for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Stage { $(#[doc = $doc] $stage,)* }

        impl Stage {
            /// All of them, in the order in which a call comes to them.
            pub const ALL: &[Self] = &[$(Self::$stage,)*];

            /// The name in logs, traces and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$stage => $name,)* }
            }
        }
    };
}

stages! {
    Arrival "arrival" "Its own message, which comes in pieces.";
    ReadIndex "read index" "A quorum, or the leader, to say up to which entry a read must see.";
    Queue "queue" "A place in a Raft entry.";
    Replicate "replicate" "The other members, the leader's among them, and the state machine's turn.";
    Fsync "fsync" "This member's own log.";
    Apply "apply" "The commands of its entry.";
    Publish "publish" "The store's room, the entries that are published with its own, and the watchers.";
    Scheduling "scheduling" "Its turn to go on, as too many do.";
    Turn "read turn" "Its turn among large reads.";
    Read "read" "A read on a thread that may wait for the disk.";
}

const COUNT: usize = Stage::ALL.len();

/// One stage of a call, in microseconds since the call's begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    from_us: u32,
    took_us: u32,
}

impl Span {
    fn end_us(self) -> u32 {
        self.from_us.saturating_add(self.took_us)
    }
}

/// Where the time of one call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages {
    begun: Instant,
    spans: [Span; COUNT],
    /// When it was last kept from going on.
    kept: Span,
}

impl Stages {
    /// Of a call that begins.
    pub fn new(begun: Instant) -> Self {
        Self { begun, spans: [Span::default(); COUNT], kept: Span::default() }
    }

    /// Notes that the call waited from then to then. A stage that comes again is counted together, from its first time.
    pub fn note(&mut self, stage: Stage, from: Instant, to: Instant) {
        let Span { from_us, mut took_us } = self.span(from, to);
        if from_us <= self.kept.from_us && self.kept.end_us() <= from_us.saturating_add(took_us) {
            took_us = took_us.saturating_sub(self.kept.took_us);
        }
        let span = &mut self.spans[stage as usize];
        if span.took_us == 0 {
            span.from_us = from_us;
        }
        span.took_us = span.took_us.saturating_add(took_us);
    }

    /// Notes that it could go on since `ready`, and does `now`.
    fn resume(&mut self, ready: Instant, now: Instant) {
        self.kept = Span::default();
        self.note(Stage::Scheduling, ready, now);
        self.kept = self.span(ready, now);
    }

    fn span(&self, from: Instant, to: Instant) -> Span {
        let from_us = micros(from.saturating_duration_since(self.begun));
        Span { from_us, took_us: micros(to.saturating_duration_since(from)) }
    }

    /// How long it waited there.
    pub fn took(&self, stage: Stage) -> Duration {
        Duration::from_micros(self.spans[stage as usize].took_us.into())
    }

    /// The stages that took any time: each with its begin, counted from the call's, and its length.
    pub fn each(&self) -> impl Iterator<Item = (Stage, Duration, Duration)> {
        Stage::ALL.iter().zip(self.spans).filter(|(_, span)| span.took_us > 0).map(|(stage, span)| {
            (*stage, Duration::from_micros(span.from_us.into()), Duration::from_micros(span.took_us.into()))
        })
    }

    /// All waits together.
    pub fn waited(&self) -> Duration {
        self.each().map(|(_, _, took)| took).sum()
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

tokio::task_local! {
    static CALL: Cell<Stages>;
}

thread_local! {
    /// Since when the call that is polled here could go on, and when it did, if it was kept from that.
    static KEPT: Cell<Option<(Instant, Instant)>> = const { Cell::new(None) };
}

/// Polls a call that could go on since `ready` and does `now`.
pub fn resumed<T>(ready: Instant, now: Instant, poll: impl FnOnce() -> T) -> T {
    KEPT.set(Some((ready, now)));
    let polled = poll();
    KEPT.set(None);
    polled
}

/// Runs `call` with its waits noted.
pub fn watched<F: Future>(begun: Instant, call: F) -> impl Future<Output = F::Output> {
    CALL.scope(Cell::new(Stages::new(begun)), call)
}

/// Notes a wait of the call that is being watched here, if one is.
pub fn note(stage: Stage, from: Instant, to: Instant) {
    // Outside of a call nobody wants to know.
    let _ = CALL.try_with(|call| {
        let mut stages = known(call);
        stages.note(stage, from, to);
        call.set(stages);
    });
}

/// What was noted of the call that is being watched here.
pub fn stages() -> Option<Stages> {
    CALL.try_with(known).ok()
}

/// What is known of the call that is polled here.
fn known(call: &Cell<Stages>) -> Stages {
    let mut stages = call.get();
    if let Some((ready, now)) = KEPT.take() {
        stages.resume(ready, now);
        call.set(stages);
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_stand_at_their_numbers() {
        assert!(Stage::ALL.iter().enumerate().all(|(at, stage)| at == *stage as usize));
    }

    #[tokio::test]
    async fn a_call_learns_what_it_waited_for() {
        #[expect(clippy::disallowed_methods, reason = "a base to count from")]
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        note(Stage::Read, at(0), at(1));
        assert_eq!(stages(), None, "nobody watches");
        let call = async {
            note(Stage::Queue, at(1), at(3));
            tokio::task::yield_now().await;
            note(Stage::Fsync, at(3), at(10));
            note(Stage::Queue, at(20), at(25));
            // What ran backwards, as clocks of two threads may, took no time.
            note(Stage::Apply, at(5), at(4));
            stages()
        };
        let seen = watched(begun, call).await.expect("it was watched");
        let ms = Duration::from_millis;
        let each: Vec<_> = seen.each().collect();
        assert_eq!(each, [(Stage::Queue, ms(1), ms(7)), (Stage::Fsync, ms(3), ms(7))]);
        assert_eq!((seen.waited(), seen.took(Stage::Apply)), (ms(14), Duration::ZERO));
    }

    // Cause: a call that is woken waits for its turn outside of what it notes. Symptom: under overload the log named "own" or
    // "read index" as what took so long.
    #[tokio::test]
    async fn what_a_call_was_kept_from_going_on_is_no_part_of_its_waits() {
        #[expect(clippy::disallowed_methods, reason = "a base to count from")]
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        // What it notes when it goes on: a wait that it ended itself, and one that others have ended before.
        for (from, to, waited) in [(1, 101, 10), (1, 9, 8)] {
            let call = std::future::poll_fn(|_| {
                note(Stage::ReadIndex, at(from), at(to));
                // What comes then isn't touched.
                note(Stage::Read, at(101), at(104));
                std::task::Poll::Ready(stages())
            });
            let mut call = std::pin::pin!(watched(begun, call));
            let seen = std::future::poll_fn(|context| resumed(at(11), at(101), || call.as_mut().poll(context))).await;
            let seen = seen.expect("it was watched");
            let took = [Stage::ReadIndex, Stage::Scheduling, Stage::Read].map(|stage| seen.took(stage));
            assert_eq!(took, [ms(waited), ms(90), ms(3)]);
        }
        assert_eq!(
            watched(begun, async { stages().map(|stages| stages.waited()) }).await,
            Some(ms(0)),
            "it is told once"
        );
    }
}
