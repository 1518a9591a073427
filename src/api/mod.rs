//! The only room that knows tonic and axum.

pub mod watch;
