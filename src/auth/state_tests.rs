//! Users, roles and permissions against etcd's rules, and against a plain model of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{AuthOp, AuthState, Caller, PasswordHash, PermissionKind, ROOT};
use crate::types::{KeyRange, RaftIndex, RequestError as E};

fn hash() -> PasswordHash {
    PasswordHash::new("$2a$04$x")
}

fn user_add(name: &str) -> AuthOp {
    AuthOp::UserAdd { name: name.into(), password: Some(hash()) }
}

fn grant_role(name: &str, role: &str) -> AuthOp {
    AuthOp::UserGrantRole { name: name.into(), role: role.into() }
}

fn grant(role: &str, kind: PermissionKind, key: &'static str, range_end: &'static str) -> AuthOp {
    AuthOp::RoleGrant { role: role.into(), kind, key: key.into(), range_end: range_end.into() }
}

fn run(state: &mut AuthState, ops: &[AuthOp]) {
    for op in ops {
        state.apply(op).unwrap_or_else(|error| panic!("{op:?}: {error}"));
    }
}

fn caller(state: &AuthState, name: &str) -> Caller {
    Caller::User { name: name.into(), revision: state.revision() }
}

fn enabled() -> AuthState {
    let mut state = AuthState::default();
    let role = AuthOp::RoleAdd { name: "r".into() };
    run(
        &mut state,
        &[user_add(ROOT), grant_role(ROOT, ROOT), user_add("u"), role, grant_role("u", "r"), AuthOp::Enable],
    );
    state
}

// Cause: each login looked at every user's hash, before it had a place. Symptom: with many users, a processor's time for
// whoever tried any name.
#[test]
fn the_usual_cost_is_the_highest_that_there_is() {
    let mut state = AuthState::default();
    assert_eq!(state.usual_cost(), None);
    let of = |cost: &str| PasswordHash::new(format!("$2a${cost}$x"));
    let add = |name: &str, cost: &str| AuthOp::UserAdd { name: name.into(), password: Some(of(cost)) };
    let change = |cost: &str| AuthOp::UserChangePassword { name: "b".into(), password: of(cost) };
    let none = AuthOp::UserAdd { name: "none".into(), password: None };
    run(&mut state, &[add("a", "05"), add("b", "12"), add("c", "12"), add("junk", "99"), none]);
    assert_eq!(state.usual_cost(), Some(12));
    run(&mut state, &[AuthOp::UserDelete { name: "c".into() }, AuthOp::RoleAdd { name: "r".into() }]);
    assert_eq!(state.usual_cost(), Some(12), "one is left");
    run(&mut state, &[grant_role("b", "r"), change("04")]);
    assert_eq!(state.usual_cost(), Some(5));
    run(&mut state, &[change("31"), grant_role("a", "r"), AuthOp::RoleDelete { name: "r".into() }]);
    assert_eq!(state.usual_cost(), Some(31));
    run(&mut state, &["a", "b", "junk"].map(|name| AuthOp::UserDelete { name: name.into() }));
    assert_eq!(state.usual_cost(), None);
}

#[test]
fn the_last_root_is_guarded_while_it_is_on() {
    let mut state = AuthState::default();
    assert_eq!(state.apply(&AuthOp::Enable), Err(E::RootUserNotFound));
    run(&mut state, &[user_add(ROOT)]);
    assert_eq!(state.apply(&AuthOp::Enable), Err(E::RootRoleNotGranted));
    let mut state = enabled();
    let revision = state.revision();
    let revoke = |name: &str, role: &str| AuthOp::UserRevokeRole { name: name.into(), role: role.into() };
    for op in [AuthOp::UserDelete { name: ROOT.into() }, AuthOp::RoleDelete { name: ROOT.into() }, revoke(ROOT, ROOT)] {
        assert_eq!(state.apply(&op), Err(E::AuthManagementInvalid), "{op:?}");
    }
    assert_eq!(state.revision(), revision, "what is refused counts as nothing");
    run(&mut state, &[AuthOp::Disable, revoke(ROOT, ROOT)]);
    assert_eq!(state.apply(&AuthOp::Enable), Err(E::RootRoleNotGranted));
}

#[test]
fn callers_are_told_apart() {
    let mut state = enabled();
    let (root, user) = (caller(&state, ROOT), caller(&state, "u"));
    assert!(state.access(&root).expect("root").is_full() && state.check_admin(&root).is_ok());
    assert_eq!(state.check_admin(&user), Err(E::PermissionDenied));
    assert!(!state.access(&user).expect("a user").is_full());
    assert_eq!(state.access(&Caller::Nobody).map(drop), Err(E::UserEmpty));
    assert_eq!(state.check_known(&Caller::Nobody), Err(E::UserEmpty));
    assert_eq!(state.check_admin(&Caller::Nobody), Err(E::UserEmpty));
    let gone = caller(&state, "gone");
    assert_eq!(state.access(&gone).map(drop), Err(E::PermissionDenied));
    assert_eq!(state.check_admin(&gone), Err(E::UserNotFound));
    run(&mut state, &[user_add("other")]);
    assert_eq!(state.access(&user).map(drop), Err(E::AuthRevisionOld), "let in before the change");
    run(&mut state, &[AuthOp::Disable]);
    for caller in [root, user, gone, Caller::Nobody] {
        assert!(state.access(&caller).is_ok_and(|access| access.is_full()));
    }
}

#[test]
fn a_grant_of_the_same_range_replaces() {
    let mut state = enabled();
    run(&mut state, &[grant("r", PermissionKind::Read, "b", "c"), grant("r", PermissionKind::ReadWrite, "b", "d")]);
    run(&mut state, &[grant("r", PermissionKind::Read, "b", "d"), grant("r", PermissionKind::Write, "a", "")]);
    let role = state.role("r").expect("it is there");
    let keys: Vec<_> = role.permissions.iter().map(|held| (held.key.clone(), held.range_end.clone())).collect();
    assert_eq!(keys, [("a".into(), Bytes::new()), ("b".into(), "c".into()), ("b".into(), "d".into())]);
    let access = state.access(&caller(&state, "u")).map(|access| access.write_key(b"b"));
    assert_eq!(access, Ok(Err(E::PermissionDenied)), "what was taken back is gone");
}

#[test]
fn a_token_is_given_only_for_what_was_looked_at() {
    let mut state = enabled();
    let issue = |name: &str, revision| AuthOp::Issue { name: name.into(), token: [0; 32], revision };
    let revision = state.revision();
    assert_eq!(state.apply(&issue("u", revision)), Ok(Vec::new()));
    assert_eq!(state.revision(), revision);
    assert_eq!(state.apply(&issue("gone", revision)), Err(E::AuthRevisionOld));
    run(&mut state, &[AuthOp::UserChangePassword { name: "u".into(), password: hash() }]);
    assert_eq!(state.apply(&issue("u", revision)), Err(E::AuthRevisionOld), "the password may be another one");
    run(&mut state, &[AuthOp::Disable]);
    assert_eq!(state.apply(&issue("u", state.revision())), Err(E::AuthNotEnabled));
}

#[test]
fn damaged_rows_are_named() {
    let row = |key: &'static str, row: &'static [u8]| (Bytes::from(key), Bytes::from_static(row));
    for pair in [row("state", b""), row("user/u", b"\x07"), row("role/r", b"\x01"), row("other", b"")] {
        assert_eq!(AuthState::load(std::slice::from_ref(&pair)).map(drop), Err(pair.0));
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just(ROOT.to_owned()), "[ab]?"]
}

fn op() -> impl Strategy<Value = AuthOp> {
    let kind = prop_oneof![Just(PermissionKind::Read), Just(PermissionKind::Write), Just(PermissionKind::ReadWrite)];
    let key = || "[k-m]?".prop_map(Bytes::from);
    let end = || prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), "[k-m]".prop_map(Bytes::from)];
    prop_oneof![
        1 => Just(AuthOp::Enable),
        1 => Just(AuthOp::Disable),
        3 => (name(), any::<bool>()).prop_map(|(name, has)| AuthOp::UserAdd { name, password: has.then(hash) }),
        1 => name().prop_map(|name| AuthOp::UserDelete { name }),
        1 => name().prop_map(|name| AuthOp::UserChangePassword { name, password: hash() }),
        4 => (name(), name()).prop_map(|(name, role)| AuthOp::UserGrantRole { name, role }),
        2 => (name(), name()).prop_map(|(name, role)| AuthOp::UserRevokeRole { name, role }),
        3 => name().prop_map(|name| AuthOp::RoleAdd { name }),
        1 => name().prop_map(|name| AuthOp::RoleDelete { name }),
        4 => (name(), kind, key(), end())
            .prop_map(|(role, kind, key, range_end)| AuthOp::RoleGrant { role, kind, key, range_end }),
        1 => (name(), key(), end()).prop_map(|(role, key, range_end)| AuthOp::RoleRevoke { role, key, range_end }),
    ]
}

fn held_bytes(state: &AuthState) -> usize {
    state.clone().published(RaftIndex(1)).held_bytes()
}

// Cause: a bound on a role's row says nothing of the keys that each of its users has compiled. Symptom: one more permission of
// a megabyte, for a role of ten thousand users, would take 20 GB.
#[test]
fn what_a_permission_adds_counts_for_each_user_of_the_role() {
    let mut state = enabled();
    let long = || Bytes::from(vec![b'k'; 1 << 20]);
    let both =
        |range_end| AuthOp::RoleGrant { role: "r".into(), kind: PermissionKind::ReadWrite, key: long(), range_end };
    let single = state.growth(&both(Bytes::new())).expect("it grows");
    assert!(single.bytes > 3 << 20, "its row, the end of what is read, and of what is written: {single:?}");
    assert!((1 << 20..2 << 20).contains(&single.row_bytes), "{single:?}");
    for user in 0..9 {
        run(&mut state, &[user_add(&format!("u{user}")), grant_role(&format!("u{user}"), "r")]);
    }
    let of_ten = state.growth(&both(Bytes::new())).expect("it grows");
    assert_eq!(of_ten.row_bytes, single.row_bytes);
    assert!(of_ten.bytes > 21 << 20, "{of_ten:?}");
    let ranges = state.growth(&both(Bytes::from_static(&[0]))).expect("it grows");
    assert!(ranges.bytes < 2 << 20, "the ends of ranges are shared: {ranges:?}");
    // Nothing twice, and what is allowed in another way is no longer row.
    let read = |kind| grant("r", kind, "a", "");
    run(&mut state, &[read(PermissionKind::Read)]);
    assert_eq!(state.growth(&read(PermissionKind::Write)), None);
    let other = state.growth(&read(PermissionKind::ReadWrite)).expect("each user has it in two sets then");
    assert_eq!(other.row_bytes, 0);
    assert!(other.bytes > 0);
}

/// Whether a user may read a key, from the users and roles as they are, without anything compiled.
fn may_read(state: &AuthState, name: &str, key: &[u8]) -> bool {
    let Some(user) = state.user(name) else { return false };
    let held = |role: &String| {
        let role = state.role(role);
        role.is_some_and(|role| role.permissions.iter().any(|held| held.kind.reads() && held.range().contains(key)))
    };
    user.roles.contains(ROOT) || user.roles.iter().any(held)
}

proptest! {
    /// Whatever is done: the rows hold all of it, and what is compiled allows what users and roles say.
    #[test]
    fn rows_and_rights_follow_the_users_and_roles(ops in proptest::collection::vec(op(), 0..40)) {
        let mut state = AuthState::default();
        let mut rows: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        for op in &ops {
            let before = state.revision();
            let (growth, held) = (state.growth(op), held_bytes(&state));
            let counted = (state.user_count(), state.role_count());
            match state.apply(op) {
                Ok(changed) => {
                    let added = growth.unwrap_or_default();
                    let grown = (state.user_count(), state.role_count());
                    prop_assert!(growth.is_none() || (grown, held_bytes(&state))
                        == ((counted.0 + added.users, counted.1 + added.roles), held + added.bytes), "{op:?} {added:?}");
                    prop_assert!(growth.is_some() || (grown <= counted && held_bytes(&state) <= held), "{op:?} adds");
                    let is_it = |(key, row): &(Bytes, Option<Bytes>)| {
                        row.as_ref().is_some_and(|row| key.len() + row.len() == added.row_bytes)
                    };
                    prop_assert!(added.row_bytes == 0 || changed.iter().any(is_it), "{op:?} {added:?}");
                    let counts = !changed.is_empty() && *op != AuthOp::Enable;
                    prop_assert_eq!(state.revision(), before + u64::from(counts));
                    for (key, row) in changed {
                        match row {
                            Some(row) => drop(rows.insert(key, row)),
                            None => drop(rows.remove(&key)),
                        }
                    }
                }
                Err(_) => prop_assert_eq!((state.revision(), growth), (before, None)),
            }
            if state.is_enabled() {
                prop_assert!(state.user(ROOT).is_some_and(|root| root.roles.contains(ROOT)), "nobody is locked out");
            }
        }
        let stored: Vec<_> = rows.into_iter().collect();
        let loaded = AuthState::load(&stored).expect("its own rows");
        prop_assert_eq!((loaded.is_enabled(), loaded.revision()), (state.is_enabled(), state.revision()));
        prop_assert!(loaded.users().eq(state.users()) && loaded.roles().eq(state.roles()));
        let published = |state: &AuthState| state.clone().published(RaftIndex(1)).digest();
        prop_assert_eq!(published(&loaded), published(&state));
        prop_assert_eq!(held_bytes(&loaded), held_bytes(&state));
        prop_assert_eq!(published(&state) == 0, state.revision() == 1);
        if state.is_enabled() {
            for (name, _) in state.users() {
                for key in ["k", "l", "la", "m", "z"] {
                    let access = loaded.access(&caller(&loaded, name)).expect("a user");
                    let single = KeyRange::single(key);
                    prop_assert_eq!(access.read_key(key.as_bytes()).is_ok(), may_read(&state, name, key.as_bytes()));
                    prop_assert_eq!(access.read(&single).is_ok(), access.read_key(key.as_bytes()).is_ok());
                }
            }
        }
    }
}
