//! The versioned store's writer.
