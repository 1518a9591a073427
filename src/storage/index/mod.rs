//! The key index: a persistent B+tree with generations.

mod version;

pub use version::KeyMeta;
