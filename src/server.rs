//! The only place that wires all of it.
