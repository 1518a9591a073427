//! etcd v3 wire types, generated at build time from the `.proto` files in `schema/`.
//!
//! ```text
//! schema/**.proto   ─► build/ (protox, tonic-prost-build) ─┬► one module a package: messages, clients, servers
//!                                                          ├► shapes: messages as tables, for the JSON gateway
//! schema/routes.txt ───────────────────────────────────────┴► routes(): the JSON gateway's paths
//! ```
//!
//! Field numbers and names are etcd's; `bytes` fields are [`bytes::Bytes`]. Nothing here knows what the
//! messages mean; nothing below the `api` and `propose` rooms of `rusd` knows these types.

mod routes;
mod shapes;

pub use routes::{Route, routes};
pub use shapes::{Choice, Field, Kind, Shape, choice, shape, shape_at};

/// All schemas as an encoded `google.protobuf.FileDescriptorSet`, for reflection, JSON mapping and tests.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

/// A key's versions and the events made of them.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users, roles, permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// The services that clients call: KV, Watch, Lease, Cluster, Maintenance, Auth.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Server-side locks.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// Server-side elections.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// `grpc.health.v1`.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// What members of a cluster say to each other; ours, not etcd's.
pub mod rusdpeer {
    tonic::include_proto!("rusdpeer");
}
