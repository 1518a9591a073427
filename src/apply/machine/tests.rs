//! The machine against 05's cases.
