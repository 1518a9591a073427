//! The only room that names openraft.
