//! The engine below: one narrow trait, three engines.
