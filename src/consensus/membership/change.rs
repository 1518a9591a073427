//! One change of the membership, as it travels from the member that was asked to the leader.
//!
//! ```text
//! change  version u8 = 1 · kind u8 · id u64 · by kind
//!         1 add      peer urls, learner u8
//!         2 remove
//!         3 update   peer urls
//!         4 promote
//!         5 publish  name, client urls
//! urls    u16 × text          text  length u16 · UTF-8
//! ```
//! Integers are little-endian; every length is checked against what is left.

use bytes::{BufMut, Bytes, BytesMut};

use crate::consensus::codec::{self, CodecError};
use crate::types::MemberId;

const VERSION: u8 = 1;

/// A change of who is in the cluster, or of what is known of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member.
    Add {
        /// Its id, made of the URLs and the time by whoever was asked.
        id: MemberId,
        /// Where it will be reached.
        peer_urls: Vec<String>,
        /// Whether it stays without a vote until it is promoted.
        learner: bool,
    },
    /// A member goes, for ever.
    Remove {
        /// Who.
        id: MemberId,
    },
    /// A member is reached elsewhere from now on; whether it votes stays as it is.
    Update {
        /// Who.
        id: MemberId,
        /// Where.
        peer_urls: Vec<String>,
    },
    /// A learner gets its vote.
    Promote {
        /// Who.
        id: MemberId,
    },
    /// A member has started and says what it is called.
    Publish {
        /// Who.
        id: MemberId,
        /// Its name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
    },
}

/// A member as clients see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
    /// Whether it has no vote and waits for none.
    pub is_learner: bool,
}

impl MemberChange {
    /// Whom it is about.
    pub fn id(&self) -> MemberId {
        match self {
            Self::Add { id, .. }
            | Self::Remove { id }
            | Self::Update { id, .. }
            | Self::Promote { id }
            | Self::Publish { id, .. } => *id,
        }
    }

    /// Its bytes.
    pub(in crate::consensus) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(VERSION);
        out.put_u8(match self {
            Self::Add { .. } => 1,
            Self::Remove { .. } => 2,
            Self::Update { .. } => 3,
            Self::Promote { .. } => 4,
            Self::Publish { .. } => 5,
        });
        out.put_u64_le(self.id().get());
        match self {
            Self::Add { peer_urls, learner, .. } => {
                put_texts(&mut out, peer_urls);
                out.put_u8(u8::from(*learner));
            }
            Self::Update { peer_urls, .. } => put_texts(&mut out, peer_urls),
            Self::Publish { name, client_urls, .. } => {
                codec::put_text(&mut out, name);
                put_texts(&mut out, client_urls);
            }
            Self::Remove { .. } | Self::Promote { .. } => {}
        }
        out.freeze()
    }

    /// Reads what [`MemberChange::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`]; no bytes make it panic.
    pub(in crate::consensus) fn decode(mut bytes: &[u8]) -> Result<Self, CodecError> {
        codec::version(&mut bytes, VERSION)?;
        let kind = codec::u8_of(&mut bytes)?;
        let id = MemberId(codec::u64_le(&mut bytes)?);
        let change = match kind {
            1 => Self::Add { id, peer_urls: codec::texts(&mut bytes)?, learner: codec::flag(&mut bytes)? },
            2 => Self::Remove { id },
            3 => Self::Update { id, peer_urls: codec::texts(&mut bytes)? },
            4 => Self::Promote { id },
            5 => Self::Publish { id, name: codec::text(&mut bytes)?, client_urls: codec::texts(&mut bytes)? },
            other => return Err(CodecError::Malformed(format!("a change of kind {other}"))),
        };
        ended(bytes).map(|()| change)
    }
}

fn put_texts(out: &mut BytesMut, texts: &[String]) {
    codec::put_len(out, texts.len());
    for text in texts {
        codec::put_text(out, text);
    }
}

fn ended(rest: &[u8]) -> Result<(), CodecError> {
    if rest.is_empty() { Ok(()) } else { Err(CodecError::Malformed(format!("{} bytes too many", rest.len()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Vec<MemberChange> {
        let id = MemberId(u64::MAX - 7);
        let urls = vec!["http://localhost:1".to_owned(), "unix://b:2".to_owned()];
        vec![
            MemberChange::Add { id, peer_urls: urls.clone(), learner: true },
            MemberChange::Remove { id },
            MemberChange::Update { id, peer_urls: urls.clone() },
            MemberChange::Promote { id },
            MemberChange::Publish { id, name: "näme".into(), client_urls: urls },
        ]
    }

    #[test]
    fn changes_come_back_as_they_went_and_cut_ones_are_errors() {
        for change in changes() {
            let bytes = change.encode();
            assert_eq!(MemberChange::decode(&bytes), Ok(change));
            for len in 0..bytes.len() {
                assert!(MemberChange::decode(&bytes[..len]).is_err(), "cut at {len}");
            }
            assert!(MemberChange::decode(&[&bytes[..], &[0]].concat()).is_err(), "too long");
        }
        assert_eq!(MemberChange::decode(&[9, 1]), Err(CodecError::Version(9)));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
            let _ = MemberChange::decode(bytes);
        });
    }
}
