//! Leases: state and rules, no I/O.
