//! Users, roles, permissions, tokens: who asks, and may they?
//!
//! ```text
//! log ─► AuthOp ─► AuthState ─► AuthView ─► access(Caller) ─► read, write?       (no lock on the way)
//!           └─ Issue ─► IssuedTokens ─┐
//! token, password, common name ─► Tokens ─► Caller ─► with the command into the log, looked at again there
//!                                    └► Proof: what was found out of a token, for who shows it again
//! ```
//! The state is replicated and changes only as the log says; tokens are each member's own memory, told to all of
//! them by the log. What runs a clock or random numbers gets them from its caller.

mod access;
mod caller;
mod growth;
mod op;
mod password;
mod record;
mod secret;
mod spans;
mod state;
#[cfg(test)]
mod state_tests;
mod tokens;
mod view;

pub use access::Access;
pub use caller::Caller;
pub use growth::Growth;
pub use op::{AuthOp, TokenHash};
pub use password::{PASSWORD_BYTES_MAX, PasswordTooLong, Verified, hash, usable, verify};
pub use record::{Permission, PermissionKind, Role, User, rows};
pub use secret::{PasswordHash, Secret};
pub use spans::Spans;
pub use state::{AuthState, ROOT, RowChanges};
pub use tokens::{IssuedTokens, Jwt, JwtError, JwtKeys, JwtOptions, Proof, Tokens, new_token, token_hash};
pub use view::AuthView;
