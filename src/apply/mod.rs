//! The deterministic machine: a command and the state in, an outcome and the next state out.
//!
//! ```text
//! Raft entry ─► codec ─► Command* ─► Machine ─► Exec: compare, check, do ─► WriteTxn
//!                                       ├─► LeaseWriter      (grants, ends, keys that move)
//!                                       └─► Alarms           (gate each command, seen through AlarmView)
//! ```
//!
//! It may not know the wire, Raft, the clock, or any setting: only the commands and the state count.

mod alarm;
#[cfg(test)]
mod arbitrary;
pub mod codec;
mod command;
mod compare;
pub mod cost;
mod exec;
mod machine;
pub mod rights;

pub use alarm::{ALARMS_MAX, AlarmView, Alarms};
pub use command::{
    AlarmKind, AlarmOp, Command, Compare, CompareResult, CompareTarget, DeleteOp, DeleteResult, OnBehalf, Op, OpResult,
    Outcome, PutOp, PutResult, Response, TxnOp, TxnResult,
};
pub use compare::{Compared, all_hold};
pub use machine::{Machine, MachineError};
