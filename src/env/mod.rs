//! The doors to the world: clock, randomness, file system, threads.
