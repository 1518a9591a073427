//! Users, roles and callers to bytes and back, side by side.

use bytes::Bytes;

use super::sink::Sink;
use super::source::Source;
use super::{CodecError, auth_kind, caller_kind};
use crate::auth::{AuthOp, Caller, PasswordHash, PermissionKind};

pub(super) fn put_caller(out: &mut impl Sink, caller: &Caller) {
    match caller {
        Caller::Member => out.byte(caller_kind::MEMBER),
        // A command of nobody's isn't written as on somebody's behalf; if it were, it would be that of no user there is.
        Caller::Nobody => {
            out.byte(caller_kind::USER);
            out.bytes(b"");
            out.varint(0);
        }
        Caller::User { name, revision } => {
            out.byte(caller_kind::USER);
            out.bytes(name.as_bytes());
            out.varint(*revision);
        }
    }
}

pub(super) fn caller(from: &mut Source) -> Result<Caller, CodecError> {
    Ok(match from.byte("a caller")? {
        caller_kind::MEMBER => Caller::Member,
        caller_kind::USER => user(from)?,
        number => return Err(CodecError::Unknown { what: "caller", number }),
    })
}

fn user(from: &mut Source) -> Result<Caller, CodecError> {
    let last = from.user.take();
    let named = from.name()?;
    let name = match last {
        Some(Caller::User { name, .. }) if *name == *named => name,
        _ => named.into(),
    };
    let user = Caller::User { name, revision: from.varint("a revision")? };
    from.user = Some(user.clone());
    Ok(user)
}

pub(super) fn put_op(out: &mut impl Sink, op: &AuthOp) {
    match op {
        AuthOp::Enable => out.byte(auth_kind::ENABLE),
        AuthOp::Disable => out.byte(auth_kind::DISABLE),
        AuthOp::UserAdd { name, password } => {
            out.byte(auth_kind::USER_ADD);
            out.bytes(name.as_bytes());
            out.byte(u8::from(password.is_some()));
            if let Some(password) = password {
                out.bytes(password.reveal().as_bytes());
            }
        }
        AuthOp::UserDelete { name } => texts(out, auth_kind::USER_DELETE, &[name]),
        AuthOp::UserChangePassword { name, password } => {
            texts(out, auth_kind::USER_CHANGE_PASSWORD, &[name, password.reveal()]);
        }
        AuthOp::UserGrantRole { name, role } => texts(out, auth_kind::USER_GRANT_ROLE, &[name, role]),
        AuthOp::UserRevokeRole { name, role } => texts(out, auth_kind::USER_REVOKE_ROLE, &[name, role]),
        AuthOp::RoleAdd { name } => texts(out, auth_kind::ROLE_ADD, &[name]),
        AuthOp::RoleDelete { name } => texts(out, auth_kind::ROLE_DELETE, &[name]),
        AuthOp::RoleGrant { role, kind, key, range_end } => {
            texts(out, auth_kind::ROLE_GRANT, &[role]);
            out.byte(match kind {
                PermissionKind::Read => 0,
                PermissionKind::Write => 1,
                PermissionKind::ReadWrite => 2,
            });
            out.bytes(key);
            out.bytes(range_end);
        }
        AuthOp::RoleRevoke { role, key, range_end } => {
            texts(out, auth_kind::ROLE_REVOKE, &[role]);
            out.bytes(key);
            out.bytes(range_end);
        }
        AuthOp::Issue { name, token, revision } => {
            texts(out, auth_kind::ISSUE, &[name]);
            out.bytes(token);
            out.varint(*revision);
        }
    }
}

pub(super) fn op(from: &mut Source) -> Result<AuthOp, CodecError> {
    Ok(match from.byte("a change of users or roles")? {
        auth_kind::ENABLE => AuthOp::Enable,
        auth_kind::DISABLE => AuthOp::Disable,
        auth_kind::USER_ADD => AuthOp::UserAdd {
            name: text(from)?,
            password: if from.bool("a password's presence")? { Some(PasswordHash::new(text(from)?)) } else { None },
        },
        auth_kind::USER_DELETE => AuthOp::UserDelete { name: text(from)? },
        auth_kind::USER_CHANGE_PASSWORD => {
            AuthOp::UserChangePassword { name: text(from)?, password: PasswordHash::new(text(from)?) }
        }
        auth_kind::USER_GRANT_ROLE => AuthOp::UserGrantRole { name: text(from)?, role: text(from)? },
        auth_kind::USER_REVOKE_ROLE => AuthOp::UserRevokeRole { name: text(from)?, role: text(from)? },
        auth_kind::ROLE_ADD => AuthOp::RoleAdd { name: text(from)? },
        auth_kind::ROLE_DELETE => AuthOp::RoleDelete { name: text(from)? },
        auth_kind::ROLE_GRANT => AuthOp::RoleGrant {
            role: text(from)?,
            kind: match from.byte("a permission's kind")? {
                0 => PermissionKind::Read,
                1 => PermissionKind::Write,
                2 => PermissionKind::ReadWrite,
                number => return Err(CodecError::Unknown { what: "permission", number }),
            },
            key: key(from)?,
            range_end: key(from)?,
        },
        auth_kind::ROLE_REVOKE => AuthOp::RoleRevoke { role: text(from)?, key: key(from)?, range_end: key(from)? },
        auth_kind::ISSUE => AuthOp::Issue {
            name: text(from)?,
            token: from.bytes("a token's hash")?.as_ref().try_into().map_err(|_| CodecError::NoText)?,
            revision: from.varint("a revision")?,
        },
        number => return Err(CodecError::Unknown { what: "change of users or roles", number }),
    })
}

fn texts(out: &mut impl Sink, kind: u8, texts: &[&str]) {
    out.byte(kind);
    for text in texts {
        out.bytes(text.as_bytes());
    }
}

fn text(from: &mut Source) -> Result<String, CodecError> {
    from.name().map(str::to_owned)
}

/// Copied: it is kept for long, and a slice would keep the whole entry.
fn key(from: &mut Source) -> Result<Bytes, CodecError> {
    Ok(Bytes::copy_from_slice(&from.bytes("a key")?))
}
