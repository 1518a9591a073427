//! The machine as its callers see it: 05's cases, a plain model, and sameness however entries are cut.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing where there must be something has failed")]

mod alarm_cases;
mod auth_cases;
mod commands;
mod determinism;
mod harness;
mod histories;
mod key_cases;
mod lease_cases;
mod model;
mod model_test;
mod txn_cases;
