//! What a client asked and was answered: an [`Op`] for each request of keys, a [`Call`] for each of a lease.
//!
//! ```text
//! request ─► answer or Status ─► Op::of, Call::of ─► done · not there · surely not done · nobody knows
//! ```

use std::time::Instant;

use bytes::Bytes;
use tonic::Status;

/// Keys with this beginning go with the lease whose number follows.
pub(crate) const LEASED: &str = "l/";
/// What is said of a lease that isn't there.
pub(crate) const NO_LEASE: &str = "etcdserver: requested lease not found";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
/// Errors after which it is sure that nothing was written.
const REFUSALS: [&str; 4] =
    ["etcdserver: no leader", "etcdserver: too many requests", "etcdserver: mvcc: database space exceeded", NO_LEASE];

/// What a write wants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) keys: Vec<Bytes>,
    /// What is put under each of them, and nowhere else.
    pub(crate) value: Bytes,
    /// First key and end of what is deleted besides.
    pub(crate) gone: Option<(Bytes, Bytes)>,
    /// The revision at which the first key must have been changed last.
    pub(crate) expected: Option<i64>,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It was done at this revision.
    Wrote(i64),
    /// A read, or a write whose condition didn't hold: the header's revision, and the key's as found.
    Found(i64, Option<(i64, Bytes)>),
    /// A read of a revision that isn't kept any more.
    Compacted,
    /// It surely wasn't done.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A pair that was deleted: key, revision of its last change, value.
pub(crate) type Taken = (Bytes, i64, Bytes);

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    /// The number of the process that was asked; whoever takes its place has another one.
    pub(crate) member: usize,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) serializable: bool,
    pub(crate) key: Bytes,
    /// The revision that was to be read, if it wasn't the last.
    pub(crate) at: Option<i64>,
    pub(crate) wish: Option<Wish>,
    pub(crate) outcome: Outcome,
    /// What it deleted, as answered.
    pub(crate) took: Vec<Taken>,
    /// What was said, if it failed.
    pub(crate) error: String,
}

impl Op {
    /// One of a key that ends now.
    pub(crate) fn of(member: usize, begun: Instant, key: Bytes, outcome: Result<Outcome, Status>) -> Self {
        let (outcome, error) = match outcome {
            Ok(outcome) => (outcome, String::new()),
            Err(status) => {
                let outcome = match status.message() {
                    COMPACTED => Outcome::Compacted,
                    text if REFUSALS.contains(&text) => Outcome::Refused,
                    _ => Outcome::Unknown,
                };
                (outcome, told(&status))
            }
        };
        let (ended, took) = (Instant::now(), Vec::new());
        Self { member, begun, ended, serializable: false, key, at: None, wish: None, outcome, took, error }
    }

    /// The same as a write.
    pub(crate) fn wishing(self, wish: Wish) -> Self {
        Self { wish: Some(wish), ..self }
    }
}

/// An error in a line.
pub(crate) fn told(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// What is asked of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Grant,
    /// A put of a key that goes with it.
    Attach,
    Keep,
    Revoke,
}

/// What was said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It lives for so many seconds.
    Lives(u64),
    /// It was done at this revision.
    Done(i64),
    /// There is no such lease.
    Gone,
    /// Nobody knows.
    Unknown,
}

/// One request of a lease.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) lease: i64,
    pub(crate) ask: Ask,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) said: Said,
    /// What was said, if it failed.
    pub(crate) error: String,
}

impl Call {
    /// One that ends now.
    pub(crate) fn of(lease: i64, ask: Ask, begun: Instant, said: Result<Said, Status>) -> Self {
        let (said, error) = match said {
            Ok(said) => (said, String::new()),
            Err(status) if status.message() == NO_LEASE => (Said::Gone, told(&status)),
            Err(status) => (Said::Unknown, told(&status)),
        };
        Self { lease, ask, begun, ended: Instant::now(), said, error }
    }
}
