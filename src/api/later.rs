//! Calls that are part of the protocol and not served yet: they say so instead of being unknown.

use super::errors;
use super::grpc::service::{Answer, Call};

/// Refuses a call, with its name.
pub(crate) fn refuse(call: Call) -> Answer {
    let (service, name, _) = call.method.parts();
    let status = errors::not_served(&format!("{service}/{name}"));
    Box::pin(async move { call.fail(status) })
}
