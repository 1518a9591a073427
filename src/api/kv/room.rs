//! `room`: whether there is room for what a write tells of pairs. What is done is told in any case, so it is looked at before.
//!
//! ```text
//! put, delete with `prev_kv`, a transaction's reads ─► what clients haven't read yet: is there room? ─► log
//! ```
//! There is more for them than for reads: each update of a kube-apiserver reads a key if it fails, and one client that reads
//! much and takes nothing would stop all of them.
//! How long values are isn't known before they are read, which is where the command is applied. So here whoever asks for one
//! after the other is refused before anything is done. Answers of those that are under way at the same time are counted as
//! they are made (`consensus::answers`); where there is no room by then the client isn't told what was done.

use crate::api::grpc::body::SMALL_BYTES;
use crate::apply::{Command, Op, TxnOp};
use crate::types::{Budget, Limits, RequestError};

/// Looks whether `command` may be answered, if that may take much.
///
/// # Errors
/// `TooManyRequests`: nothing was done.
pub(super) fn for_answer(answers: &Budget, command: &Command) -> Result<(), RequestError> {
    let reserve = answers.max() / Limits::WRITE_ANSWERS_PART;
    if tells_pairs(command.plain()) && !answers.has_room_beyond(SMALL_BYTES, reserve) {
        return Err(RequestError::TooManyRequests);
    }
    Ok(())
}

fn tells_pairs(command: &Command) -> bool {
    match command {
        Command::Put(op) => op.prev_kv,
        Command::DeleteRange(op) => op.prev_kv,
        Command::Txn(op) => txn_tells(op),
        _ => false,
    }
}

fn txn_tells(txn: &TxnOp) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Range(query) => !query.count_only,
        Op::Put(op) => op.prev_kv,
        Op::Delete(op) => op.prev_kv,
        Op::Txn(txn) => txn_tells(txn),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{DeleteOp, PutOp};
    use crate::storage::RangeQuery;
    use crate::types::KeyRange;

    #[test]
    fn what_tells_nothing_of_pairs_needs_no_room() {
        let answers = Budget::new(20_000);
        let unread = answers.hold(10_000);
        let put = |prev_kv| PutOp { prev_kv, ..PutOp::default() };
        let delete = |prev_kv| DeleteOp { range: KeyRange::all(), prev_kv };
        let read = |count_only| Op::Range(RangeQuery { count_only, ..RangeQuery::latest(KeyRange::all()) });
        let nested = |op| Op::Txn(TxnOp { failure: vec![op], ..TxnOp::default() });
        for tells in [false, true] {
            let txn = |op| Command::Txn(TxnOp { success: vec![Op::Put(put(false)), op], ..TxnOp::default() });
            for command in [
                Command::Put(put(tells)),
                Command::DeleteRange(delete(tells)),
                txn(read(!tells)),
                txn(Op::Put(put(tells))),
                txn(nested(Op::Delete(delete(tells)))),
            ] {
                assert_eq!(for_answer(&answers, &command).is_err(), tells, "{command:?}");
            }
        }
        assert_eq!(answers.refused(), 5);
        drop(unread);
        let answers = Budget::new(100 * SMALL_BYTES);
        let update = Command::Txn(TxnOp { failure: vec![read(false)], ..TxnOp::default() });
        let _reads = answers.hold(answers.max());
        assert!(!answers.has_room(1), "reads have none");
        let _writes = answers.hold(24 * SMALL_BYTES);
        assert_eq!(for_answer(&answers, &update), Ok(()), "writes have a quarter besides");
        let _one = answers.hold(1);
        assert!(for_answer(&answers, &update).is_err());
    }
}
