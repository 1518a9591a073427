//! What a command may add to the store, in bytes, after etcd's estimate (02 §11).

use super::{Command, Op, PutOp, TxnOp};

/// What a version costs beside its key and its value.
const PUT_OVERHEAD_BYTES: u64 = 256;

/// What a lease costs.
const LEASE_BYTES: u64 = 64;

/// The estimate for a command; 0 for one that can't make the store grow.
///
/// A txn counts its dearer branch. Puts of nested txns count too: etcd forgets them, which lets a
/// client write past the quota.
pub fn of(command: &Command) -> u64 {
    match command.plain() {
        Command::Put(op) => put_op(op),
        Command::Txn(op) => txn(op),
        Command::LeaseGrant { .. } => LEASE_BYTES,
        _ => 0,
    }
}

/// The estimate for a put of a key and a value of these lengths.
pub fn put(key_len: usize, value_len: usize) -> u64 {
    PUT_OVERHEAD_BYTES + key_len as u64 + value_len as u64
}

fn put_op(op: &PutOp) -> u64 {
    put(op.key.len(), op.value.len())
}

fn txn(op: &TxnOp) -> u64 {
    branch(&op.success).max(branch(&op.failure))
}

fn branch(ops: &[Op]) -> u64 {
    ops.iter()
        .map(|op| match op {
            Op::Put(op) => put_op(op),
            Op::Txn(op) => txn(op),
            Op::Range(_) | Op::Delete(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaseId;

    #[test]
    fn a_txn_costs_its_dearer_branch() {
        let put = |len: usize| PutOp { key: "kk".into(), value: vec![0; len].into(), ..PutOp::default() };
        assert_eq!(of(&Command::Put(put(10))), 268);
        let nested = Op::Txn(TxnOp { failure: vec![Op::Put(put(2))], ..TxnOp::default() });
        let txn = TxnOp { success: vec![Op::Put(put(0)), nested], failure: vec![Op::Put(put(3))], ..TxnOp::default() };
        assert_eq!(of(&Command::Txn(txn)), 258 + 260);
        assert_eq!(of(&Command::LeaseGrant { id: LeaseId(1), ttl_secs: 1 }), 64);
        assert_eq!(of(&Command::Compact { revision: 1 }), 0);
    }
}
