//! HTTP/2 as a gRPC client needs it, written for little CPU: about a microsecond a request.
//!
//! ```text
//! rows ─► Pool ─► Connection ─┬─ inbox:  frames read, events handed to the row
//!                             └─ Sender: headers, data, windows ─► one write a turn
//! ```
//!
//! One thread, sockets that don't block, one `poll` a turn. Responses are not decoded: a unary call
//! is taken as answered when data came before its trailers, and gRPC errors come without data.

mod connection;
mod frames;
mod pool;
mod sender;

pub(crate) use connection::Event;
pub(crate) use pool::Pool;
pub(crate) use sender::Sender;

/// A method, by its path.
pub(crate) type Method = &'static str;

pub(crate) const PUT: Method = "/etcdserverpb.KV/Put";
pub(crate) const RANGE: Method = "/etcdserverpb.KV/Range";
pub(crate) const RANGE_STREAM: Method = "/etcdserverpb.KV/RangeStream";
pub(crate) const TXN: Method = "/etcdserverpb.KV/Txn";
pub(crate) const COMPACT: Method = "/etcdserverpb.KV/Compact";
pub(crate) const WATCH: Method = "/etcdserverpb.Watch/Watch";
pub(crate) const LEASE_GRANT: Method = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const LEASE_KEEP_ALIVE: Method = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(crate) const STATUS: Method = "/etcdserverpb.Maintenance/Status";
