//! Who may call what: one rule for each method there is. A method without a rule doesn't compile.

use super::CallContext;
use crate::api::methods::Method;
use crate::types::RequestError;

/// Who may call a method while authentication is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Anybody.
    Anyone,
    /// Anybody; but a token that is shown must be one.
    AnyoneHonest,
    /// Any user.
    Somebody,
    /// Root.
    Root,
    /// Whoever may use the keys, users or roles that the request is about: the handler looks, when it knows them.
    AsItSays,
}

/// The rule of a method.
pub(crate) const fn of(method: Method) -> Rule {
    match method {
        Method::HealthCheck | Method::HealthList | Method::HealthWatch | Method::Authenticate => Rule::Anyone,
        Method::AuthStatus => Rule::AnyoneHonest,
        Method::LeaseGrant | Method::MemberList | Method::Status => Rule::Somebody,
        Method::KvRange
        | Method::KvPut
        | Method::KvTxn
        | Method::KvDeleteRange
        | Method::KvRangeStream
        | Method::Watch
        | Method::LeaseRevoke
        | Method::LeaseKeepAlive
        | Method::LeaseTimeToLive
        | Method::LeaseLeases
        | Method::Alarm
        | Method::UserGet
        | Method::RoleGet
        | Method::Lock
        | Method::Unlock
        | Method::Campaign
        | Method::Proclaim
        | Method::Leader
        | Method::Observe
        | Method::Resign => Rule::AsItSays,
        Method::KvCompact
        | Method::MemberAdd
        | Method::MemberRemove
        | Method::MemberUpdate
        | Method::MemberPromote
        | Method::Defragment
        | Method::Hash
        | Method::HashKv
        | Method::Snapshot
        | Method::MoveLeader
        | Method::Downgrade
        | Method::AuthEnable
        | Method::AuthDisable
        | Method::UserAdd
        | Method::UserList
        | Method::UserDelete
        | Method::UserChangePassword
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleList
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission => Rule::Root,
    }
}

/// Lets a call in by its method's rule.
///
/// # Errors
/// `UserEmpty`, `AuthTokenInvalid`, `UserNotFound`, `PermissionDenied`.
pub(crate) async fn admit(call: &CallContext, method: Method) -> Result<(), RequestError> {
    let rule = of(method);
    if rule == Rule::Anyone {
        return Ok(());
    }
    call.await_token().await;
    match rule {
        Rule::Anyone | Rule::AsItSays => Ok(()),
        Rule::AnyoneHonest => call.caller(&call.auth.view.look()).map(drop),
        Rule::Somebody => call.check_known(),
        Rule::Root if is_of_cluster(method) => call.check_admin_of_cluster(leaderless(method)).await,
        Rule::Root => {
            if is_of_all_keys(method) {
                call.confirm_users_rights().await?;
            }
            call.check_admin().await
        }
    }
}

/// The same by what this member knows now: for a call whose message came after it was let in.
///
/// # Errors
/// Those of [`admit`].
pub(crate) fn admit_again(call: &CallContext, method: Method) -> Result<(), RequestError> {
    match of(method) {
        Rule::Anyone | Rule::AnyoneHonest | Rule::AsItSays => Ok(()),
        Rule::Somebody => call.check_known(),
        Rule::Root => call.check_admin_here(),
    }
}

/// Whether a call of root's tells of everything that is here, or stops everybody, without a look at the log.
const fn is_of_all_keys(method: Method) -> bool {
    matches!(method, Method::Snapshot | Method::Hash | Method::HashKv | Method::Defragment)
}

/// What a call for which [`is_of_cluster`] is answered with where no leader is known.
const fn leaderless(method: Method) -> RequestError {
    match method {
        Method::MemberAdd => RequestError::UnhealthyCluster,
        Method::MemberPromote => RequestError::NoLeader,
        Method::MoveLeader => RequestError::NotLeader,
        Method::Downgrade => RequestError::Timeout,
        _ => RequestError::DeadlineExceeded,
    }
}

/// Whether a call of root's changes or tells more than this member while its caller isn't looked at again in the log.
const fn is_of_cluster(method: Method) -> bool {
    matches!(
        method,
        Method::MemberAdd
            | Method::MemberRemove
            | Method::MemberUpdate
            | Method::MemberPromote
            | Method::MoveLeader
            | Method::Downgrade
            | Method::UserList
            | Method::RoleList
    )
}
