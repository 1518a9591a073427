//! The store as a library: against a plain model, with readers beside the writer, across restarts.

mod concurrency;
mod machine;
mod model;
