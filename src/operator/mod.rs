//! A cluster seen from outside, by whoever looks after it: what its members say of themselves, and who they are.
//!
//! ```text
//! Way (dial, user, limits) ─► one Line a member ─┬► status, a read, alarms ─► Health          (health)
//!                                                ├► members: list, add, remove                (members)
//!                                                └► root, authentication on                   (users)
//! ```
//! Everything goes over the API that any client uses, so it works on etcd, too.

mod error;
mod health;
mod line;
mod members;
mod users;

pub use error::AskError;
pub use health::{ClusterHealth, MemberHealth, Role, Says};
pub use line::{Line, Way, WayOptions};
pub use members::{Added, MemberRow};
