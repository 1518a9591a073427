//! What the services need from the rooms below, as small traits, so that they can be tried on a
//! machine in the same process with no log and no disk behind it.

use std::future::Future;
use std::io::Read;
use std::pin::Pin;

use crate::apply::{Command, Outcome};
use crate::consensus::MemberChange;
use crate::types::{LeaseId, MemberId, RaftIndex, RequestError, StorageError, Term};

/// A wait with a result.
pub type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The way into the log.
pub trait Propose: Send + Sync + 'static {
    /// Gets a command applied and published, and says what it answered.
    fn propose(&self, command: Command) -> Waiting<Result<Outcome, RequestError>>;

    /// What a linearizable read has to wait for; `None` if it may read at once.
    fn read_barrier(&self) -> Option<Waiting<Result<(), RequestError>>>;

    /// What has to be waited for before something is told that this member did as the leader of `term`; `None` if
    /// nobody else can lead.
    fn confirm_lead(&self, term: Term) -> Option<Waiting<Result<(), RequestError>>>;

    /// Gives a lease its full time again, by whichever member keeps its clock: seconds, or 0 if there is none.
    fn renew_lease(&self, id: LeaseId) -> Waiting<Result<i64, RequestError>>;

    /// What was granted and what is left of a lease, in seconds; `None` if there is none.
    fn lease_left(&self, id: LeaseId) -> Waiting<Result<Option<(i64, i64)>, RequestError>>;

    /// Where this member stands now. Asked for at every request: a few atomic loads.
    fn standing(&self) -> Standing;

    /// Hands leadership to another voter.
    fn move_leader(&self, to: MemberId) -> Waiting<Result<(), RequestError>>;

    /// The cluster's members, by id.
    fn members(&self) -> Vec<MemberInfo>;

    /// Changes who is a member, and gives the members after it, by id.
    fn change_members(&self, change: MemberChange) -> Waiting<Result<Vec<MemberInfo>, RequestError>>;
}

/// A member's place in the cluster at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// The current term.
    pub term: Term,
    /// The last committed entry.
    pub committed: RaftIndex,
    /// The last applied entry.
    pub applied: RaftIndex,
    /// Whether this member has no vote.
    pub is_learner: bool,
    /// Whether this member's state was found to differ from the others'.
    pub is_diverged: bool,
}

/// One member as `MemberList` shows it.
pub use crate::consensus::MemberRecord as MemberInfo;

/// The store's upkeep, as far as clients ask for it. The methods may block.
pub trait Maintain: Send + Sync + 'static {
    /// Gives unused space back to the file system.
    ///
    /// # Errors
    /// The disk's.
    fn defragment(&self) -> Result<(), StorageError>;

    /// The whole state as a file for `snapshot save`, and its length in bytes. The file takes its
    /// room on the disk until it is dropped.
    ///
    /// # Errors
    /// `TooManyRequests` while too many such files are there, too little room, and the disk's.
    fn snapshot_file(&self) -> Result<(Box<dyn Read + Send>, u64), RequestError>;

    /// A checksum of everything that is stored here; not comparable between members.
    ///
    /// # Errors
    /// The disk's.
    fn hash(&self) -> Result<u32, StorageError>;
}
