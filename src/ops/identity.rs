//! Who this member is: ids made as etcd makes them, so that tools see the ones they expect.

use sha1::{Digest, Sha1};

use super::config::{Config, Url};
use crate::types::{ClusterId, MemberId};

/// The ids of a member and its cluster. Kept in the data directory from the first start on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
}

impl Identity {
    /// The identity that the initial cluster gives to the configured member.
    pub fn bootstrap(config: &Config) -> Self {
        let token = &config.clustering.initial_cluster_token;
        let cluster = &config.clustering.initial_cluster;
        let own = cluster.urls_of(&config.member.name).unwrap_or_default();
        Self {
            cluster: cluster_id(cluster.iter().map(|(_, urls)| member_id(urls, token, None))),
            member: member_id(own, token, None),
        }
    }
}

/// First 8 bytes, big-endian, of SHA-1 over the sorted peer URLs and the cluster's token; for a
/// member that is added later also the time in Unix seconds (facts on etcd 3.7.1, membership).
pub fn member_id(peer_urls: &[Url], token: &str, added_unix_secs: Option<i64>) -> MemberId {
    let mut urls: Vec<String> = peer_urls.iter().map(ToString::to_string).collect();
    urls.sort();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    if let Some(secs) = added_unix_secs {
        hash.update(secs.to_string());
    }
    MemberId(head(hash))
}

/// First 8 bytes of SHA-1 over the sorted ids of the first members.
pub fn cluster_id(members: impl IntoIterator<Item = MemberId>) -> ClusterId {
    let mut ids: Vec<u64> = members.into_iter().map(MemberId::get).collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.to_be_bytes());
    }
    ClusterId(head(hash))
}

fn head(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_member_has_the_ids_that_etcd_gives_it() {
        // Seen on etcd 3.7.1 started without flags.
        let identity = Identity::bootstrap(&Config::default());
        assert_eq!(identity.member.to_string(), "8e9e05c52164694d");
        assert_eq!(identity.cluster.to_string(), "cdf818194e3a8c32");
    }

    #[test]
    fn ids_do_not_depend_on_the_order() {
        let url = |text: &str| text.parse::<Url>().expect("well-formed");
        let (a, b) = (url("http://h:1"), url("http://h:2"));
        assert_eq!(member_id(&[a.clone(), b.clone()], "t", None), member_id(&[b, a.clone()], "t", None));
        assert_ne!(member_id(std::slice::from_ref(&a), "t", None), member_id(&[a], "t", Some(1)));
        assert_eq!(cluster_id([MemberId(1), MemberId(2)]), cluster_id([MemberId(2), MemberId(1)]));
    }
}
