//! AuthEnable, AuthDisable, AuthStatus and Authenticate.
//!
//! ```text
//! name, password ─► barrier ─► user? ─► as many rounds of bcrypt, user or not ─► token
//!                     └─ users or roles changed meanwhile: again
//! ```

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::{CallContext, change, issue};
use crate::api::grpc::body::ReplyBody;
use crate::api::reply::Prost;
use crate::api::{errors, kv};
use crate::auth::{AuthOp, Secret, new_token, token_hash, usable, verify};
use crate::types::RequestError;

/// How often a login is tried when users or roles change under it.
const TRIES: usize = 8;

/// `AuthEnable`.
pub(crate) async fn enable(call: CallContext, _: pb::AuthEnableRequest) -> Result<ReplyBody, Status> {
    let revision = change(&call, AuthOp::Enable).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthEnableResponse { header: call.message_header(revision) }))
}

/// `AuthDisable`.
pub(crate) async fn disable(call: CallContext, _: pb::AuthDisableRequest) -> Result<ReplyBody, Status> {
    let revision = change(&call, AuthOp::Disable).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthDisableResponse { header: call.message_header(revision) }))
}

/// `AuthStatus`.
pub(crate) async fn status(call: CallContext, _: pb::AuthStatusRequest) -> Result<ReplyBody, Status> {
    kv::barrier_as_logged(&call).await.map_err(|error| errors::status(&error))?;
    let state = call.auth.view.load();
    ReplyBody::small(&Prost(pb::AuthStatusResponse {
        header: call.message_header(call.reader.revision()),
        enabled: state.is_enabled(),
        auth_revision: state.revision(),
    }))
}

/// `Authenticate`.
pub(crate) async fn authenticate(call: CallContext, request: pb::AuthenticateRequest) -> Result<ReplyBody, Status> {
    let (name, password) = (request.name, Secret::new(request.password));
    let (token, revision) = login(&call, &name, &password).await.map_err(|error| errors::status(&error))?;
    ReplyBody::message(
        &Prost(pb::AuthenticateResponse { header: call.message_header(revision), token }),
        &call.budgets.answers,
    )
}

async fn login(call: &CallContext, name: &str, password: &Secret) -> Result<(String, i64), RequestError> {
    for _ in 0..TRIES {
        kv::barrier(call, false).await?;
        let state = call.auth.view.load();
        if !state.is_enabled() {
            return Err(RequestError::AuthNotEnabled);
        }
        let user = state.user(name);
        let (known, hash) = (user.is_some(), user.and_then(|user| user.password.clone()));
        let has_none = known && hash.is_none();
        let (password, cost) = (password.clone(), usable(state.usual_cost().unwrap_or(call.auth.cost)));
        let verified = call.auth.hashing(call.origin(), move || verify(&password, hash.as_ref(), cost)).await?;
        call.auth.note_rounds(verified.rounds);
        if has_none {
            return Err(RequestError::NoPasswordUser);
        }
        if !verified.matches {
            call.auth.refused.note(call.env.clock.now());
            return Err(RequestError::AuthFailed);
        }
        if let Some(token) = call.auth.tokens.sign(name, state.revision(), call.env.clock.wall())? {
            return Ok((token.reveal().to_owned(), call.reader.revision()));
        }
        let letters = new_token(|| call.env.rng.next_u64());
        let op =
            AuthOp::Issue { name: name.to_owned(), token: token_hash(letters.reveal()), revision: state.revision() };
        match issue(call, op).await {
            Ok((index, revision)) => {
                let token = format!("{}.{}", letters.reveal(), index.get());
                call.auth.tokens.begin(&token, call.env.clock.now());
                return Ok((token, revision));
            }
            Err(RequestError::AuthRevisionOld) => {}
            Err(error) => return Err(error),
        }
    }
    Err(RequestError::AuthRevisionOld)
}
