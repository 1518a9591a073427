//! Changes as watchers get them.
