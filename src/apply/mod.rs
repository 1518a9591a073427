//! The deterministic machine: a command and the state in, an outcome and the next state out.

#[cfg(test)]
mod arbitrary;
pub mod codec;
mod command;

pub use command::{
    AlarmKind, AlarmOp, Command, Compare, CompareResult, CompareTarget, DeleteOp, DeleteResult, Op, OpResult, Outcome,
    PutOp, PutResult, Response, TxnOp, TxnResult,
};
