//! The lessor against a plain model, and its speed as a figure (run with `--ignored --nocapture`).

mod model_test;
mod speed;
