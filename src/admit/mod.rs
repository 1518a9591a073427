//! Pure checks of a request before it costs anything.
//!
//! ```text
//! api: raw enums ─► sort ─┐
//! api: own types ─► check_put, check_delete, check_range, check_txn, lease_ttl   (shape, etcd's order)
//!                   then, as a Command: Quota::check ─► check_size ─► AlarmView::check ─► propose
//! ```
//!
//! etcd looks at the quota before it looks at the request; so does [`command`], which does all of
//! it in etcd's order. Nothing here changes anything: raising the NOSPACE alarm is the caller's.

mod duplicates;
mod request;
mod sort;
mod txn;

pub use request::{Refusal, check_delete, check_put, check_range, check_size, command, lease_ttl, quota, quota_for};
pub use sort::{sort_order, sort_target};
pub use txn::{check_txn, is_read_only};
