//! The paths of etcd's JSON gateway, as data: which path calls which method with which types.
//!
//! ```text
//! schema/routes.txt + schema/**.proto ─► build/routes.rs ─► routes()
//! ```
//! Each is answered to a POST whose whole body is the request as JSON. Who serves them finds the types in
//! [`crate::FILE_DESCRIPTOR_SET`] by the names that stand here.

/// One path and the method it calls. Names are the schemas' full ones, without a dot in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Starts with `/v3/`; no two routes have the same.
    pub path: &'static str,
    /// `etcdserverpb.KV`
    pub service: &'static str,
    /// `Range`
    pub method: &'static str,
    /// The message that a request's body is, `etcdserverpb.RangeRequest`.
    pub request: &'static str,
    /// The message that an answer is, `etcdserverpb.RangeResponse`.
    pub response: &'static str,
    /// Whether the body is a sequence of requests.
    pub request_stream: bool,
    /// Whether the answer is a sequence, one JSON object a line.
    pub response_stream: bool,
}

const ROUTES: &[Route] = include!(concat!(env!("OUT_DIR"), "/routes.rs"));

/// All routes, those of a service together. Two may call one method: Lease's paths have moved once.
pub const fn routes() -> &'static [Route] {
    ROUTES
}
