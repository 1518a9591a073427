//! The table from methods to handlers, and the three ways in which a call runs.
//!
//! ```text
//! unary          gate, rule ─► one message ─► rule ─► handler ─► ReplyBody (message + trailers)
//! server stream  gate, rule ─► one message ─► rule ─► handler ─► a body that makes its own frames
//! bidi stream    gate, rule ─► handler(request body) ─► a body that reads and makes frames
//! ```

use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_immediate;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::watch;
use tonic::{Code, Status};
use tower::Service;

use super::body::{BodyError, ReplyBody};
use super::deadline;
use super::decode::{self, FromWire};
use super::ending::Ending;
use super::frame;
use super::gate;
use super::guard::CallGuard;
use super::request::CallBody;
use crate::api::auth::{self, CallContext, Visitor, Who, rules};
use crate::api::methods::{self, Kind, Method};
use crate::api::services::Services;
use crate::api::slow::Ended;
use crate::api::watch::CreateCheck;
use crate::api::{cluster, errors, health, kv, lease, maintenance, recipes};
use crate::types::stages::{self, Stage};
use crate::types::{KeyRange, RequestError};

/// A response to come.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>>;

/// The body of a streaming answer.
pub(crate) type StreamBody = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

/// Serves one gRPC request of `visitor`, within the time that its client gives if it has one answer; streams end once
/// `shutdown` is true.
pub(crate) fn serve(
    services: &Arc<Services>,
    shutdown: &watch::Receiver<bool>,
    visitor: &Visitor,
    request: Request<CallBody>,
    timeout: Option<Duration>,
) -> Answer {
    let Some(method) = Method::of_path(request.uri().path()) else {
        let status = methods::unknown(request.uri().path());
        return Box::pin(async move { status.into_http() });
    };
    let guard = CallGuard::start(&services.metrics, method);
    let (who, origin) = (visitor.who(request.headers()), visitor.origin());
    let call = Call { services: services.clone(), guard, method, who, origin, timeout, request, message: None };
    let shutdown = || shutdown.clone();
    match method {
        Method::KvRange => unary(call, kv::range),
        Method::KvPut => unary(call, kv::put),
        Method::KvTxn => unary(call, kv::txn),
        Method::KvDeleteRange => unary(call, kv::delete_range),
        Method::KvCompact => unary(call, kv::compact),
        Method::KvRangeStream => server_stream(call, shutdown(), kv::range_stream),
        Method::Watch => watch(call),
        Method::LeaseGrant => unary(call, lease::grant),
        Method::LeaseRevoke => unary(call, lease::revoke),
        Method::LeaseKeepAlive => bidi_stream(call, shutdown(), lease::keep_alive),
        Method::LeaseTimeToLive => unary(call, lease::time_to_live),
        Method::LeaseLeases => unary(call, lease::leases),
        Method::MemberList => unary(call, cluster::list),
        Method::MemberAdd => unary(call, cluster::add),
        Method::MemberRemove => unary(call, cluster::remove),
        Method::MemberUpdate => unary(call, cluster::update),
        Method::MemberPromote => unary(call, cluster::promote),
        Method::Alarm => unary(call, maintenance::alarm),
        Method::Status => unary(call, maintenance::status),
        Method::Defragment => unary(call, maintenance::defragment),
        Method::Hash => unary(call, maintenance::hash),
        Method::HashKv => unary(call, maintenance::hash_kv),
        Method::Snapshot => server_stream(call, shutdown(), maintenance::snapshot),
        Method::MoveLeader => unary(call, maintenance::move_leader),
        Method::Downgrade => unary(call, maintenance::downgrade),
        Method::Lock => unary(call, recipes::lock),
        Method::Unlock => unary(call, recipes::unlock),
        Method::Campaign => unary(call, recipes::campaign),
        Method::Proclaim => unary(call, recipes::proclaim),
        Method::Leader => unary(call, recipes::leader),
        Method::Observe => server_stream(call, shutdown(), recipes::observe),
        Method::Resign => unary(call, recipes::resign),
        Method::AuthEnable => unary(call, auth::enable),
        Method::AuthDisable => unary(call, auth::disable),
        Method::AuthStatus => unary(call, auth::status),
        Method::Authenticate => unary(call, auth::authenticate),
        Method::UserAdd => unary(call, auth::user_add),
        Method::UserGet => unary(call, auth::user_get),
        Method::UserList => unary(call, auth::user_list),
        Method::UserDelete => unary(call, auth::user_delete),
        Method::UserChangePassword => unary(call, auth::user_change_password),
        Method::UserGrantRole => unary(call, auth::user_grant_role),
        Method::UserRevokeRole => unary(call, auth::user_revoke_role),
        Method::RoleAdd => unary(call, auth::role_add),
        Method::RoleGet => unary(call, auth::role_get),
        Method::RoleList => unary(call, auth::role_list),
        Method::RoleDelete => unary(call, auth::role_delete),
        Method::RoleGrantPermission => unary(call, auth::role_grant_permission),
        Method::RoleRevokePermission => unary(call, auth::role_revoke_permission),
        Method::HealthCheck => unary(call, health::check),
        Method::HealthList => unary(call, health::list),
        Method::HealthWatch => server_stream(call, shutdown(), health::watch),
    }
}

/// Whether a call whose message is still to come would be let in; if not, it counts as one that was refused.
///
/// # Errors
/// Those that the call would end with.
pub(crate) async fn foresee(services: &Arc<Services>, method: Method, headers: &HeaderMap) -> Result<(), Status> {
    let look = async {
        let needs_leader = gate::look(services, method, headers)?;
        let context = CallContext::new(services.clone(), Visitor::default().who(headers), None, needs_leader);
        // What this member knows is enough to wait for a message.
        if rules::admit_again(&context, method).is_err() {
            rules::admit(&context, method).await.map_err(|error| errors::status(&error))?;
        }
        Ok(())
    };
    let looked: Result<(), Status> = look.await;
    if let Err(status) = &looked {
        CallGuard::start(&services.metrics, method).finish(status.code());
    }
    looked
}

/// A unary call: looked back at when it has ended, also if its client gave it up.
struct Unary(Call);

impl Drop for Unary {
    fn drop(&mut self) {
        if !self.0.guard.has_ended() {
            self.0.end(Code::Cancelled, None);
        }
    }
}

/// A call that has just come in.
pub(crate) struct Call {
    pub(crate) services: Arc<Services>,
    pub(crate) guard: CallGuard,
    pub(crate) method: Method,
    /// Who asks; nobody once it is let in.
    who: Who,
    origin: Option<IpAddr>,
    /// The time that the client gives.
    pub(crate) timeout: Option<Duration>,
    pub(crate) request: Request<CallBody>,
    /// Its message, once it is there.
    message: Option<Bytes>,
}

impl Call {
    /// Lets the call in, by this member's state and by its method's rule.
    async fn admit(&mut self) -> Result<CallContext, Status> {
        let needs_leader = gate::admit(&self.services, self.method, self.request.headers())?;
        let context = CallContext::new(self.services.clone(), std::mem::take(&mut self.who), self.origin, needs_leader);
        rules::admit(&context, self.method).await.map_err(|error| errors::status(&error))?;
        Ok(context)
    }

    /// Ends a unary call, and looks back at it.
    fn end(&mut self, code: Code, answer: Option<&ReplyBody>) {
        let took = self.guard.end(code);
        let (method, request) = (self.method, self.message.as_ref());
        let mut ended = Ended { method, code, took, stages: None, request, answer };
        self.services.metrics.after(&mut ended, self.request.headers());
    }

    /// Ends the call with an error.
    pub(crate) fn fail(mut self, status: Status) -> Response<ReplyBody> {
        self.guard.finish(status.code());
        status.into_http()
    }
}

fn unary<M, H, F>(call: Call, handler: H) -> Answer
where
    M: FromWire + 'static,
    H: FnOnce(CallContext, M) -> F + Send + 'static,
    F: Future<Output = Result<ReplyBody, Status>> + Send,
{
    let begun = call.guard.begun();
    let mut call = Unary(call);
    Box::pin(stages::watched(begun, async move {
        match in_time(&mut call.0, handler).await {
            Ok(body) => {
                call.0.guard.sent(body.message_len());
                call.0.end(Code::Ok, Some(&body));
                ok(body)
            }
            Err(status) => {
                call.0.end(status.code(), None);
                status.into_http()
            }
        }
    }))
}

fn server_stream<M, H, F>(mut call: Call, shutdown: watch::Receiver<bool>, handler: H) -> Answer
where
    M: FromWire + 'static,
    H: FnOnce(CallContext, M) -> F + Send + 'static,
    F: Future<Output = Result<StreamBody, Status>> + Send,
{
    Box::pin(async move {
        match answer(&mut call, handler).await {
            Ok(body) => ok(ReplyBody::Stream(Box::pin(Ending::new(body, shutdown)), call.guard)),
            Err(status) => call.fail(status),
        }
    })
}

fn bidi_stream<H>(mut call: Call, shutdown: watch::Receiver<bool>, handler: H) -> Answer
where
    H: FnOnce(CallContext, Request<CallBody>) -> Result<StreamBody, Status> + Send + 'static,
{
    Box::pin(async move {
        let context = match call.admit().await {
            Ok(context) => context,
            Err(status) => return call.fail(status),
        };
        let Call { mut guard, request, .. } = call;
        match handler(context, request) {
            Ok(body) => ok(ReplyBody::Stream(Box::pin(Ending::new(body, shutdown)), guard)),
            Err(status) => {
                guard.finish(status.code());
                status.into_http()
            }
        }
    })
}

/// Watch has its own tower service, which frames and ends its streams itself.
fn watch(mut call: Call) -> Answer {
    Box::pin(async move {
        let context = match call.admit().await {
            Ok(context) => context,
            Err(status) => return call.fail(status),
        };
        // A watch outlives what is looked at when it begins, so a member that has just started learns first who may.
        if let Err(error) = context.confirm_rights().await {
            return call.fail(errors::status(&error));
        }
        let Call { services, mut guard, request, .. } = call;
        let may_watch: CreateCheck = Arc::new(move |range| {
            // An empty key is the first one there can be.
            let start = if range.start.is_empty() { Bytes::from_static(&[0]) } else { range.start.clone() };
            let range = KeyRange { start, end: range.end.clone() };
            context.permit(|access| access.read(&range)).map(drop).map_err(|error| errors::status(&error))
        });
        let (pending, arrival_max) = (&services.budgets.requests, services.limits.request_arrival_max);
        let mut service = services.watch.clone().with_create_check(may_watch).within(pending, arrival_max);
        let response = match service.call(request.map(tonic::body::Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => {
                guard.finish(status.code());
                status.into_http()
            }
            _ => response.map(|body| ReplyBody::Stream(Box::pin(body.map_err(BodyError::from)), guard)),
        }
    })
}

/// [`answer`], within the time that the client gives. What a call that is given up has proposed goes on.
async fn in_time<M, H, F, T>(call: &mut Call, handler: H) -> Result<T, Status>
where
    M: FromWire,
    H: FnOnce(CallContext, M) -> F,
    F: Future<Output = Result<T, Status>>,
{
    let Some(timeout) = call.timeout else { return answer(call, handler).await };
    if timeout < deadline::SHORTEST {
        return Err(errors::status(&RequestError::DeadlineExceeded));
    }
    // The call is polled before the timer is armed: one that is ready at once costs no timer.
    match tokio::time::timeout(timeout, answer(call, handler)).await {
        Ok(answer) => answer,
        Err(_) => Err(errors::status(&RequestError::DeadlineExceeded)),
    }
}

/// Gate, message, handler.
async fn answer<M, H, F, T>(call: &mut Call, handler: H) -> Result<T, Status>
where
    M: FromWire,
    H: FnOnce(CallContext, M) -> F,
    F: Future<Output = Result<T, Status>>,
{
    let mut context = call.admit().await?;
    let is_unary = call.method.parts().2 == Kind::Unary;
    // These may wait for hours, and then keep no more than names, which are counted by themselves.
    let is_patient = matches!(call.method, Method::Lock | Method::Campaign);
    let max = call.services.message_bytes_max();
    let mut messages = frame::Messages::new(call.request.headers(), max);
    let budget = &call.services.budgets.requests;
    let (message, held) = {
        let mut read = pin!(frame::read_one(&mut messages, call.request.body_mut(), budget));
        // Nearly always it is there already, and then no timer is made.
        match poll_immediate(read.as_mut()).await {
            Some(read) => {
                if is_unary && !is_patient {
                    context.came(call.guard.begun());
                }
                read?
            }
            None => {
                let limit = call.services.limits.request_arrival_max;
                let since = call.services.env.clock.now();
                let read = tokio::time::timeout(limit, read).await.map_err(|_| late(limit))??;
                stages::note(Stage::Arrival, since, call.services.env.clock.now());
                read
            }
        }
    };
    // A call may wait for hours, and what its client sends behind the message would wait with it.
    drop(messages);
    call.request.body_mut().let_go();
    // Its client decides when a message comes, and by then others may do what the method does.
    rules::admit_again(&context, call.method).map_err(|error| errors::status(&error))?;
    let _held = match is_patient {
        true => {
            context.hold_message(held);
            None
        }
        false => held,
    };
    call.message = (!is_patient && !has_password(call.method)).then(|| message.clone());
    call.guard.received(message.len());
    let message = if is_unary { decode::decode(message) } else { decode::decode_streamed(message) };
    handler(context, message?).await
}

/// Whether a method's message has a password, which nothing keeps for longer than it must.
fn has_password(method: Method) -> bool {
    matches!(method, Method::Authenticate | Method::UserAdd | Method::UserChangePassword)
}

/// What a call gets whose message doesn't come.
pub(crate) fn late(limit: Duration) -> Status {
    Status::deadline_exceeded(format!("the request's message did not come within {} s", limit.as_secs()))
}

fn ok(body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    // Cause: the message of a login was kept for the slow log, which shows nothing of it. Symptom: passwords in memory that
    // was given back.
    #[test]
    fn whatever_has_a_password_is_not_kept() {
        let pool = DescriptorPool::decode(rusd_proto::FILE_DESCRIPTOR_SET).expect("our own descriptors");
        let mut found = 0;
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let Some(known) = Method::of_path(&path) else { continue };
            let has = method.input().fields().any(|field| field.name().to_lowercase().contains("password"));
            assert_eq!(has_password(known), has, "{path}");
            found += usize::from(has);
        }
        assert_eq!(found, 3);
    }
}
