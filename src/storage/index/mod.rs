//! The key index: a persistent B+tree with generations.
