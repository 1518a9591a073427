//! The state as etcd's tools read it.
