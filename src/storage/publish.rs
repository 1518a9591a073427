//! The published state that readers load.
