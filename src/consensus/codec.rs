//! Bytes of votes and memberships in the log and in the store's meta table. Ours, not openraft's.
//!
//! ```text
//! vote       version u8 = 1 · term u64 · node u64 · committed u8
//! membership version u8 = 2 · log id (present u8, term u64, index u64)
//!            · configs u16 × (voters u16 × id u64)
//!            · nodes u16 × (id u64, name, peer urls, client urls, wants vote u8)
//! text       length u16 · UTF-8
//! ```
//! Version 1 of a membership has no "wants vote"; it is still read. Integers are little-endian. Every length is checked against what is left.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::vote::RaftLeaderId;

use super::types::{LogId, Membership, PeerNode, StoredMembership, Vote, log_id};
use crate::types::Term;

const VOTE_VERSION: u8 = 1;
const MEMBERSHIP_VERSION: u8 = 2;

/// Bytes that are no vote or membership of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CodecError {
    /// They end early.
    #[error("the record ends early")]
    Short,
    /// Their version is not known to this release.
    #[error("record version {0} is not known to this release")]
    Version(u8),
    /// A text is not UTF-8, or a membership breaks openraft's rules.
    #[error("the record is malformed: {0}")]
    Malformed(String),
}

/// Encodes a vote.
pub(super) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(VOTE_VERSION);
    out.put_u64_le(vote.leader_id().term());
    out.put_u64_le(*vote.leader_id().node_id());
    out.put_u8(u8::from(vote.is_committed()));
    out.freeze()
}

/// Decodes a vote.
pub(super) fn decode_vote(mut bytes: &[u8]) -> Result<Vote, CodecError> {
    version(&mut bytes, VOTE_VERSION)?;
    let term = u64_le(&mut bytes)?;
    let node = u64_le(&mut bytes)?;
    let committed = u8_of(&mut bytes)? != 0;
    Ok(Vote { leader_id: openraft::impls::leader_id_std::LeaderId::new(term, node), committed })
}

/// The term of a vote as the log keeps it; `None` if that is none of ours.
pub fn term_of_vote(bytes: &[u8]) -> Option<Term> {
    decode_vote(bytes).ok().map(|vote| Term(vote.leader_id().term()))
}

/// How many members the stored membership has; `None` if it is none of ours.
pub fn members_of(bytes: &[u8]) -> Option<usize> {
    decode_membership(bytes).ok().map(|stored| stored.membership().nodes().count())
}

/// Encodes a membership together with the log id that made it.
pub(super) fn encode_membership(stored: &StoredMembership) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_u8(MEMBERSHIP_VERSION);
    match stored.log_id() {
        Some(id) => {
            out.put_u8(1);
            out.put_u64_le(id.committed_leader_id().term);
            out.put_u64_le(id.index());
        }
        None => out.put_slice(&[0; 17]),
    }
    let membership = stored.membership();
    put_len(&mut out, membership.get_joint_config().len());
    for config in membership.get_joint_config() {
        put_len(&mut out, config.len());
        for voter in config {
            out.put_u64_le(*voter);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    put_len(&mut out, nodes.len());
    for (id, node) in nodes {
        out.put_u64_le(*id);
        put_text(&mut out, &node.name);
        for urls in [&node.peer_urls, &node.client_urls] {
            put_len(&mut out, urls.len());
            for url in urls {
                put_text(&mut out, url);
            }
        }
        out.put_u8(u8::from(node.wants_vote));
    }
    out.freeze()
}

/// Decodes a membership and the log id that made it.
pub(super) fn decode_membership(mut bytes: &[u8]) -> Result<StoredMembership, CodecError> {
    let version = version(&mut bytes, MEMBERSHIP_VERSION)?;
    let present = u8_of(&mut bytes)? != 0;
    let (term, index) = (u64_le(&mut bytes)?, u64_le(&mut bytes)?);
    let id: Option<LogId> = present.then(|| log_id(term, index));
    let mut configs = Vec::new();
    for _ in 0..u16_le(&mut bytes)? {
        let mut voters = BTreeSet::new();
        for _ in 0..u16_le(&mut bytes)? {
            voters.insert(u64_le(&mut bytes)?);
        }
        configs.push(voters);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..u16_le(&mut bytes)? {
        let id = u64_le(&mut bytes)?;
        let name = text(&mut bytes)?;
        let peer_urls = texts(&mut bytes)?;
        let client_urls = texts(&mut bytes)?;
        let wants_vote = version > 1 && flag(&mut bytes)?;
        nodes.insert(id, PeerNode { name, peer_urls, client_urls, wants_vote });
    }
    if configs.is_empty() {
        return Ok(StoredMembership::new(id, Membership::default()));
    }
    let membership = Membership::new(configs, nodes).map_err(|error| CodecError::Malformed(error.to_string()))?;
    Ok(StoredMembership::new(id, membership))
}

pub(super) fn put_len(out: &mut BytesMut, len: usize) {
    // Members and their URLs are counted in tens; the config refuses longer lists.
    out.put_u16_le(u16::try_from(len).unwrap_or(u16::MAX));
}

pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    put_len(out, bytes.len());
    out.put_slice(bytes);
}

/// A record's version, if this release reads it.
pub(super) fn version(bytes: &mut &[u8], newest: u8) -> Result<u8, CodecError> {
    match u8_of(bytes)? {
        known if (1..=newest).contains(&known) => Ok(known),
        other => Err(CodecError::Version(other)),
    }
}

pub(super) fn flag(bytes: &mut &[u8]) -> Result<bool, CodecError> {
    match u8_of(bytes)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(CodecError::Malformed(format!("a flag of {other}"))),
    }
}

pub(super) fn u8_of(bytes: &mut &[u8]) -> Result<u8, CodecError> {
    bytes.try_get_u8().map_err(|_| CodecError::Short)
}

pub(super) fn u16_le(bytes: &mut &[u8]) -> Result<u16, CodecError> {
    bytes.try_get_u16_le().map_err(|_| CodecError::Short)
}

pub(super) fn u64_le(bytes: &mut &[u8]) -> Result<u64, CodecError> {
    bytes.try_get_u64_le().map_err(|_| CodecError::Short)
}

pub(super) fn text(bytes: &mut &[u8]) -> Result<String, CodecError> {
    let len = usize::from(u16_le(bytes)?);
    let (head, tail) = bytes.split_at_checked(len).ok_or(CodecError::Short)?;
    *bytes = tail;
    String::from_utf8(head.to_vec()).map_err(|error| CodecError::Malformed(error.to_string()))
}

pub(super) fn texts(bytes: &mut &[u8]) -> Result<Vec<String>, CodecError> {
    (0..u16_le(bytes)?).map(|_| text(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> StoredMembership {
        let node = PeerNode {
            name: "a".into(),
            peer_urls: vec!["http://localhost:2380".into()],
            client_urls: vec!["http://localhost:2379".into(), "http://127.0.0.1:2379".into()],
            wants_vote: true,
        };
        let nodes = BTreeMap::from([(7, node.clone()), (9, PeerNode::default())]);
        let membership = Membership::new(vec![BTreeSet::from([7])], nodes).expect("a valid membership");
        StoredMembership::new(Some(log_id(3, 12)), membership)
    }

    #[test]
    fn votes_and_memberships_come_back_as_they_went() {
        let vote = Vote { leader_id: openraft::impls::leader_id_std::LeaderId::new(5, 77), committed: true };
        assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
        assert_eq!(decode_membership(&encode_membership(&membership())), Ok(membership()));
        let none = StoredMembership::default();
        assert_eq!(decode_membership(&encode_membership(&none)), Ok(none));
    }

    /// What version 1 wrote: one voter without name or URLs.
    #[test]
    fn memberships_of_the_first_version_are_read() {
        let mut bytes = vec![1, 1];
        bytes.extend([3_u64.to_le_bytes(), 12_u64.to_le_bytes()].concat());
        bytes.extend([1, 0, 1, 0]);
        bytes.extend(7_u64.to_le_bytes());
        bytes.extend([1, 0]);
        bytes.extend(7_u64.to_le_bytes());
        bytes.extend([0; 6]);
        let nodes = BTreeMap::from([(7, PeerNode::default())]);
        let membership = Membership::new(vec![BTreeSet::from([7])], nodes).expect("a valid membership");
        assert_eq!(decode_membership(&bytes), Ok(StoredMembership::new(Some(log_id(3, 12)), membership)));
    }

    #[test]
    fn cut_records_are_errors() {
        let bytes = encode_membership(&membership());
        for len in 0..bytes.len() {
            assert!(decode_membership(&bytes[..len]).is_err(), "cut at {len}");
        }
        assert_eq!(decode_vote(&[9; 18]), Err(CodecError::Version(9)));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
            let _ = decode_vote(bytes);
            let _ = decode_membership(bytes);
        });
    }
}
