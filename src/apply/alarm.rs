//! Alarms: which are raised, and what they forbid.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::{AlarmKind, AlarmOp, Command, cost};
use crate::types::{MemberId, RequestError};

/// The most alarms that may be raised: member ids are not checked, so something must end their number.
pub const ALARMS_MAX: usize = 4096;

/// The alarms that are raised, sorted by member and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    raised: BTreeSet<(MemberId, AlarmKind)>,
}

impl Alarms {
    /// Whether someone's space is used up.
    pub fn no_space(&self) -> bool {
        self.any(AlarmKind::NoSpace)
    }

    /// Whether state was found to differ, and nobody knows whose is right.
    pub fn corrupt(&self) -> bool {
        self.any(AlarmKind::Corrupt)
    }

    fn any(&self, kind: AlarmKind) -> bool {
        self.raised.iter().any(|(_, raised)| *raised == kind)
    }

    /// The alarms of one kind, or all (the wire's GET with NONE).
    pub fn list(&self, kind: Option<AlarmKind>) -> Vec<(MemberId, AlarmKind)> {
        self.raised.iter().filter(|(_, raised)| kind.is_none_or(|kind| kind == *raised)).copied().collect()
    }

    /// Whether the alarms forbid a command.
    ///
    /// # Errors
    /// `Corrupt` for whatever changes keys or leases while that alarm is on; `NoSpace` for what
    /// makes the store grow (a put, a txn with one in any branch, a grant) while that one is.
    pub fn check(&self, command: &Command) -> Result<(), RequestError> {
        if self.raised.is_empty()
            || matches!(command.plain(), Command::Alarm(_) | Command::LeaseCheckpoint { .. } | Command::Auth(_))
        {
            return Ok(());
        }
        if self.corrupt() {
            return Err(RequestError::Corrupt);
        }
        if self.no_space() && cost::of(command) > 0 {
            return Err(RequestError::NoSpace);
        }
        Ok(())
    }

    /// Does what an alarm command says; what it answers (etcd's rules, 02 §11): the alarm, or
    /// nothing where no kind is named or what should be cleared isn't raised.
    pub(super) fn apply(&mut self, op: &AlarmOp) -> Result<Vec<(MemberId, AlarmKind)>, RequestError> {
        let Some(kind) = op.kind else { return Ok(Vec::new()) };
        let alarm = (op.member, kind);
        let raised = self.raised.contains(&alarm);
        match (op.activate, raised) {
            (true, false) if self.raised.len() >= ALARMS_MAX => return Err(RequestError::TooManyRequests),
            (true, _) => {
                self.raised.insert(alarm);
            }
            (false, true) => {
                self.raised.remove(&alarm);
            }
            (false, false) => return Ok(Vec::new()),
        }
        Ok(vec![alarm])
    }

    /// The key of an alarm in the meta table; its value is empty.
    pub fn meta_key(member: MemberId, kind: AlarmKind) -> Bytes {
        let mut key = Self::META_PREFIX.to_vec();
        key.extend_from_slice(&member.get().to_be_bytes());
        key.push(match kind {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
            AlarmKind::Diverged => 3,
        });
        key.into()
    }

    const META_PREFIX: &'static [u8] = b"alarm/";

    /// The alarms among a meta table's pairs; `Err` with the key of one that can't be read.
    pub fn load<'a>(keys: impl IntoIterator<Item = &'a Bytes>) -> Result<Self, Bytes> {
        let mut raised = BTreeSet::new();
        for key in keys {
            let Some(rest) = key.strip_prefix(Self::META_PREFIX) else { continue };
            let (member, kind) = rest.split_at_checked(8).ok_or_else(|| key.clone())?;
            let kind = match kind {
                [1] => AlarmKind::NoSpace,
                [2] => AlarmKind::Corrupt,
                [3] => AlarmKind::Diverged,
                _ => return Err(key.clone()),
            };
            let member = member.try_into().map(u64::from_be_bytes).map_err(|_| key.clone())?;
            raised.insert((MemberId(member), kind));
        }
        Ok(Self { raised })
    }
}

/// The alarms as readers see them; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AlarmView {
    current: Arc<ArcSwap<Alarms>>,
}

impl AlarmView {
    /// The alarms now, frozen.
    pub fn load(&self) -> Arc<Alarms> {
        self.current.load_full()
    }

    /// Whether `command` may be proposed; see [`Alarms::check`].
    ///
    /// # Errors
    /// As there.
    pub fn check(&self, command: &Command) -> Result<(), RequestError> {
        self.current.load().check(command)
    }

    pub(super) fn store(&self, alarms: Alarms) {
        self.current.store(Arc::new(alarms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{DeleteOp, Op, PutOp, TxnOp};
    use crate::types::{KeyRange, LeaseId};

    fn raise(member: u64, kind: AlarmKind) -> AlarmOp {
        AlarmOp { activate: true, member: MemberId(member), kind: Some(kind) }
    }

    #[test]
    fn answers_follow_etcds_rules() {
        let mut alarms = Alarms::default();
        let five = (MemberId(5), AlarmKind::NoSpace);
        assert_eq!(alarms.apply(&raise(5, AlarmKind::NoSpace)), Ok(vec![five]));
        assert_eq!(alarms.apply(&raise(5, AlarmKind::NoSpace)), Ok(vec![five]), "again");
        assert_eq!(alarms.apply(&AlarmOp { kind: None, ..raise(5, AlarmKind::NoSpace) }), Ok(vec![]));
        let clear = AlarmOp { activate: false, ..raise(5, AlarmKind::NoSpace) };
        assert_eq!(alarms.apply(&AlarmOp { member: MemberId(6), ..clear }), Ok(vec![]), "E131");
        assert_eq!(alarms.apply(&AlarmOp { kind: None, ..clear }), Ok(vec![]), "E131");
        assert!(alarms.no_space() && !alarms.corrupt());
        assert_eq!(alarms.list(None), [five]);
        assert_eq!(alarms.list(Some(AlarmKind::Corrupt)), []);
        assert_eq!(alarms.apply(&clear), Ok(vec![five]));
        assert_eq!(alarms, Alarms::default());
    }

    #[test]
    fn alarms_survive_as_meta_keys() {
        let mut alarms = Alarms::default();
        alarms.apply(&raise(u64::MAX, AlarmKind::NoSpace)).unwrap();
        alarms.apply(&raise(1, AlarmKind::Corrupt)).unwrap();
        alarms.apply(&raise(2, AlarmKind::Diverged)).unwrap();
        let mut keys: Vec<_> =
            alarms.list(None).into_iter().map(|(member, kind)| Alarms::meta_key(member, kind)).collect();
        keys.push("membership".into());
        assert_eq!(Alarms::load(&keys), Ok(alarms));
        assert_eq!(Alarms::load(&[Bytes::from("alarm/x")]), Err(Bytes::from("alarm/x")));
    }

    #[test]
    fn their_number_has_an_end() {
        let mut alarms = Alarms::default();
        for member in 0..ALARMS_MAX as u64 {
            alarms.apply(&raise(member, AlarmKind::NoSpace)).unwrap();
        }
        assert_eq!(alarms.apply(&raise(u64::MAX, AlarmKind::NoSpace)), Err(RequestError::TooManyRequests));
        assert!(alarms.apply(&raise(1, AlarmKind::NoSpace)).is_ok());
    }

    #[test]
    fn each_alarm_forbids_what_etcd_forbids() {
        let put = Op::Put(PutOp { key: "k".into(), ..PutOp::default() });
        let delete = DeleteOp { range: KeyRange::single("k"), prev_kv: false };
        let txn = |failure: Vec<Op>| Command::Txn(TxnOp { failure, ..TxnOp::default() });
        let grow = [
            Command::Put(PutOp::default()),
            txn(vec![put.clone()]),
            txn(vec![Op::Txn(TxnOp { success: vec![put], ..TxnOp::default() })]),
            Command::LeaseGrant { id: LeaseId(1), ttl_secs: 5 },
        ];
        let shrink = [
            Command::DeleteRange(delete.clone()),
            txn(vec![Op::Delete(delete)]),
            Command::Compact { revision: 1 },
            Command::LeaseRevoke { id: LeaseId(1) },
            Command::LeaseExpire { ids: vec![LeaseId(1)] },
        ];
        let always = [
            Command::Alarm(raise(1, AlarmKind::NoSpace)),
            Command::LeaseCheckpoint { remaining: vec![(LeaseId(1), 5)] },
        ];
        let mut no_space = Alarms::default();
        no_space.apply(&raise(5, AlarmKind::NoSpace)).unwrap();
        let mut both = no_space.clone();
        both.apply(&raise(5, AlarmKind::Corrupt)).unwrap();
        let mut diverged = Alarms::default();
        diverged.apply(&raise(5, AlarmKind::Diverged)).unwrap();
        for command in &grow {
            assert_eq!(Alarms::default().check(command), Ok(()));
            assert_eq!(diverged.check(command), Ok(()), "the others go on");
            assert_eq!(no_space.check(command), Err(RequestError::NoSpace), "{command:?}");
            assert_eq!(both.check(command), Err(RequestError::Corrupt), "{command:?}");
        }
        for command in &shrink {
            assert_eq!(no_space.check(command), Ok(()), "{command:?}");
            assert_eq!(both.check(command), Err(RequestError::Corrupt), "{command:?}");
        }
        for command in &always {
            assert_eq!(both.check(command), Ok(()), "{command:?}");
        }
    }
}
