//! etcd v3 wire types.
