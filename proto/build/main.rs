//! Compiles `schema/**/*.proto` with protox (no protoc needed) and has tonic-prost-build write the code.
//!
//! ```text
//! schema/*.proto ─► protox ─► FileDescriptorSet ─┬► OUT_DIR/descriptors.binpb   (exported by lib.rs)
//!                                                ├► OUT_DIR/<package>.rs        (messages, clients, servers)
//!                                                ├► OUT_DIR/shapes.rs, choices.rs (messages and enums as tables)
//! schema/routes.txt ─────────────────► routes ───┴► OUT_DIR/routes.rs           (the JSON gateway's table)
//! rusdpeer/peer.proto ─► protox ─► OUT_DIR/rusdpeer.rs
//! ```

mod routes;
mod shapes;

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const SCHEMAS: [&str; 12] = [
    "mvccpb/kv.proto",
    "authpb/auth.proto",
    "etcdserverpb/header.proto",
    "etcdserverpb/kv.proto",
    "etcdserverpb/watch.proto",
    "etcdserverpb/lease.proto",
    "etcdserverpb/cluster.proto",
    "etcdserverpb/maintenance.proto",
    "etcdserverpb/auth.proto",
    "v3lockpb/lock.proto",
    "v3electionpb/election.proto",
    "health/health.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=schema");
    let descriptors = protox::compile(SCHEMAS, ["schema"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.binpb"), descriptors.encode_to_vec())?;
    let table = fs::read_to_string("schema/routes.txt")?;
    fs::write(out.join("routes.rs"), routes::generate(&table, &descriptors)?)?;
    let (shapes, choices) = shapes::generate(&descriptors)?;
    fs::write(out.join("shapes.rs"), shapes)?;
    fs::write(out.join("choices.rs"), choices)?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    // Not in the exported descriptors: these are what etcd publishes.
    let peer = protox::compile(["rusdpeer/peer.proto"], ["schema"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(peer)?;
    Ok(())
}
