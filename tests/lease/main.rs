//! The lessor against a plain model, and its speed as a figure (run with `--ignored --nocapture`).

#![allow(clippy::unwrap_used, reason = "a test that finds nothing where there must be something has failed")]

mod model_test;
mod speed;
