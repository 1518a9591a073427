//! The client port: gRPC services and HTTP endpoints. The only room that knows tonic and hyper.
//!
//! ```text
//! socket ─► listen ─► entrance (TLS) ─► conn (h2 or HTTP/1.1) ─┬► grpc::service ─► kv · lease · maintenance · cluster · health
//!                                            └► http: /health /readyz /version /metrics
//!                                                 └► /v3/… ─► gateway: JSON ─► grpc::service
//! peer socket ─► listen ─► entrance ─► peers ─► consensus's peer service
//! request ─► convert ─► admit ─► propose, or the published state ─► reply (wire) ─► body
//! ```
//! What a service needs from below stands in [`Services`]; Raft and the disk are behind [`Propose`]
//! and [`Maintain`], so that everything here runs in a test without either.

mod addresses;
mod auth;
mod closing;
mod cluster;
mod conn;
mod connections;
pub(crate) mod convert;
mod entrance;
mod errors;
mod gateway;
mod grpc;
mod heads;
mod health;
mod http;
mod kv;
mod lease;
mod line;
mod listen;
mod maintenance;
mod methods;
mod metrics;
mod peers;
mod recipes;
mod reply;
mod resting;
mod riding;
mod seams;
mod services;
mod share;
mod slow;
mod socket;
mod turns;
mod unread;
mod version;
mod waiting;
pub mod watch;
mod websocket;
mod wire;

pub use self::auth::{Authentication, etcd_role, etcd_user};
pub use self::http::WebPolicy;
pub use addresses::Addresses;
pub use conn::{ConnOptions, Serves};
pub use connections::Connections;
pub use entrance::{Patience, Security};
pub use errors::{code, status};
pub use listen::{Address, ListenError, Listener, PROBES_MAX, SocketOptions, serve};
pub(crate) use maintenance::kind_name;
pub use metrics::RpcMetrics;
#[cfg(rusd_sim)]
pub use peers::serve_peer;
pub use peers::{PeerDoor, serve_peers};
pub use seams::{Maintain, MemberInfo, Propose, Standing, Waiting};
pub use services::{Budgets, NodeInfo, Services};
pub use slow::SlowLog;
pub use turns::{Turns, threads};
pub use waiting::{WAITING_PAGE, WaitingDoor, serve_waiting};
