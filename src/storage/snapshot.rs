//! The state as one checksummed stream.
