//! A digest of the state, kept up at every publish.
