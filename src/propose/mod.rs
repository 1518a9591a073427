//! From a command to a Raft entry and back: batching, waiters, the read barrier.
