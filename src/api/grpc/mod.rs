//! gRPC on one connection: from an HTTP/2 request to a method and back.
//!
//! ```text
//! request ─► head ─► service: path ─► method ─► gate ─► frame: one message ─► decode ─► handler ─► body ─► trailers
//!                        └► streaming methods read their messages themselves
//! ```
//! The unary path is ours and not tonic's: it needs no boxed body, no channel and no task, and it
//! gives grpc-go's texts where tonic has its own.

pub(crate) mod arrival;
pub(crate) mod body;
mod deadline;
pub(crate) mod decode;
mod ending;
pub(crate) mod frame;
pub(crate) mod gate;
pub(crate) mod guard;
pub(crate) mod head;
mod large;
pub(crate) mod request;
pub(crate) mod service;
