//! Forgetting old revisions in the background.
