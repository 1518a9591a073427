//! Configuration, metrics, logs, the data directory.
