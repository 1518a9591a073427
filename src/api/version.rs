//! The versions that clients ask for: those of the etcd whose place this server takes.

/// The server's, as `Status` and `/version` tell it.
pub(crate) const SERVER: &str = "3.7.1";
/// The cluster's.
pub(crate) const CLUSTER: &str = "3.7.0";
/// The cluster's, without its patch number.
pub(crate) const CLUSTER_SHORT: &str = "3.7";
/// The storage's.
pub(crate) const STORAGE: &str = "3.7.0";
