//! What was compacted, and what may still be read.
//!
//! ```text
//! Compaction (asked, answered) ─┬► reads of earlier revisions: refused where they must be, and nowhere else
//!                               └► watchers' holes: none without a compaction
//! ```

use std::time::Instant;

use super::demand;
use crate::follower::Hole;
use crate::load::compactor::Compaction;
use crate::load::ops::{Op, Outcome};

/// Checks what was said of revisions that are compacted; gives the highest one that surely is.
///
/// # Errors
/// The first contradiction.
pub(crate) fn check(all: &[Compaction], ops: &[Op], holes: &[Hole]) -> Result<i64, String> {
    for compaction in all {
        // Each is of a later revision than the one before, and of one that was seen.
        let error = compaction.error.as_deref().unwrap_or_default();
        demand!(!error.contains("compacted") && !error.contains("future"), "{compaction:?}");
    }
    for op in ops {
        let Some(at) = op.at else { continue };
        match op.outcome {
            Outcome::Compacted => demand!(at < may_be(all, op.ended), "nobody compacted it: {op:?}"),
            Outcome::Found(..) => demand!(at >= surely(all, op.begun), "it was compacted: {op:?}"),
            _ => {}
        }
    }
    for hole in holes {
        let asked = all.iter().any(|compaction| compaction.revision == hole.from);
        demand!(asked, "a watch was told of a compaction that nobody asked for: {hole:?}");
    }
    Ok(all.last().map_or(0, |last| surely(all, last.ended)))
}

/// The highest revision that was surely compacted before a moment.
fn surely(all: &[Compaction], moment: Instant) -> i64 {
    let done = all.iter().filter(|compaction| compaction.error.is_none() && compaction.ended <= moment);
    done.map(|compaction| compaction.revision).max().unwrap_or_default()
}

/// The highest one whose compaction had been asked for by then.
fn may_be(all: &[Compaction], moment: Instant) -> i64 {
    let asked = all.iter().filter(|compaction| compaction.begun <= moment);
    asked.map(|compaction| compaction.revision).max().unwrap_or_default()
}

/// The oracle itself must be able to say no.
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_check_sees_what_is_wrong() {
        let start = Instant::now();
        let moment = |ms| start + Duration::from_millis(ms);
        let compaction = |error: Option<&str>| {
            let error = error.map(str::to_owned);
            vec![Compaction { revision: 10, begun: moment(10), ended: moment(20), error }]
        };
        let (done, doubtful) = (compaction(None), compaction(Some("Cancelled: away")));
        let read = |at: i64, ms: u64, outcome: Outcome| {
            let op = Op::of(0, moment(ms), "k".into(), Ok(outcome));
            vec![Op { at: Some(at), ended: moment(ms + 1), ..op }]
        };
        let (found, gone) = (Outcome::Found(12, None), Outcome::Compacted);
        assert_eq!(check(&done, &read(9, 30, gone.clone()), &[Hole { after: 2, from: 10 }]), Ok(10));
        assert_eq!(check(&doubtful, &read(9, 30, found.clone()), &[]), Ok(0));
        check(&doubtful, &read(9, 30, gone.clone()), &[]).unwrap();
        check(&done, &read(10, 30, found.clone()), &[]).unwrap();
        check(&done, &read(9, 15, found.clone()), &[]).unwrap();
        check(&done, &read(9, 30, found), &[]).expect_err("it was compacted");
        check(&done, &read(10, 30, gone.clone()), &[]).expect_err("that one is kept");
        check(&done, &read(9, 5, gone), &[]).expect_err("before anybody asked for it");
        check(&done, &[], &[Hole { after: 2, from: 9 }]).expect_err("of no compaction");
        check(&compaction(Some("OutOfRange: … has been compacted")), &[], &[]).expect_err("it can't have been");
    }
}
