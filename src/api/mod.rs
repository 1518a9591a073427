//! The only room that knows tonic and axum.
