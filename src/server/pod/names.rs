//! What a pod's name says: which StatefulSet, which ordinal, and by it the names and URLs of all its siblings.
//!
//! ```text
//! release-rusd-1 ─► base release-rusd, ordinal 1
//! https://release-rusd-1.headless.ns.svc:2380 ─► its first label replaced ─► https://release-rusd-0.headless.ns.svc:2380
//! ```

use super::PodError;
use crate::operator::MemberRow;
use crate::ops::config::{Config, InitialCluster, Url};

/// A pod of a StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    base: String,
    ordinal: u32,
    peer: String,
    client: String,
}

impl Pod {
    /// The pod that the server's flags name.
    ///
    /// # Errors
    /// A name without an ordinal, or URLs without the name.
    pub(super) fn of(config: &Config) -> Result<Self, PodError> {
        let name = &config.member.name;
        let split = name.rsplit_once('-').and_then(|(base, ordinal)| Some((base, ordinal.parse().ok()?)));
        let (base, ordinal) = split.filter(|(base, _)| !base.is_empty()).ok_or_else(|| {
            PodError::Flags(format!("--name={name}: a pod's name ends with its ordinal, as in rusd-0"))
        })?;
        let one = |flag: &str, urls: &[Url]| match urls {
            [url] if first_label(&url.to_string()) == Some(name) => Ok(url.to_string()),
            _ => {
                Err(PodError::Flags(format!("--{flag}: it must be one URL whose host begins with {name:?} and a dot")))
            }
        };
        Ok(Self {
            base: base.to_owned(),
            ordinal,
            peer: one("initial-advertise-peer-urls", &config.clustering.initial_advertise_peer_urls)?,
            client: one("advertise-client-urls", &config.clustering.advertise_client_urls)?,
        })
    }

    pub(super) fn ordinal(&self) -> u32 {
        self.ordinal
    }

    fn name(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.base)
    }

    fn sibling(&self, url: &str, ordinal: u32) -> String {
        url.replacen(&format!("//{}.", self.name(self.ordinal)), &format!("//{}.", self.name(ordinal)), 1)
    }

    /// Where members reach the pod of that ordinal.
    pub(super) fn peer_url(&self, ordinal: u32) -> String {
        self.sibling(&self.peer, ordinal)
    }

    /// Where clients do.
    pub(super) fn client_url(&self, ordinal: u32) -> String {
        self.sibling(&self.client, ordinal)
    }

    /// The first cluster of so many pods.
    ///
    /// # Errors
    /// A URL that is none, which can't be.
    pub(super) fn initial_cluster(&self, replicas: u32) -> Result<InitialCluster, PodError> {
        let pairs = (0..replicas).map(|ordinal| format!("{}={}", self.name(ordinal), self.peer_url(ordinal)));
        InitialCluster::parse(&pairs.collect::<Vec<_>>().join(","))
            .map_err(|bad| PodError::Flags(format!("--initial-advertise-peer-urls: expected {}", bad.expected)))
    }

    /// Whether this row is of this pod, now or before it lost its data.
    pub(super) fn is(&self, row: &MemberRow) -> bool {
        row.name == self.name(self.ordinal) || (row.peer_urls.contains(&self.peer) && self.sibling_of(row).is_none())
    }

    /// The ordinal of the sibling that runs as this row, though it is to be reached at this pod's peer URL: a volume that
    /// was bound to another ordinal. Names are told at each start, peer URLs aren't.
    pub(super) fn is_taken_by(&self, row: &MemberRow) -> Option<u32> {
        self.sibling_of(row).filter(|_| row.peer_urls.contains(&self.peer))
    }

    fn sibling_of(&self, row: &MemberRow) -> Option<u32> {
        ordinal_of(&self.base, &row.name).filter(|ordinal| *ordinal != self.ordinal)
    }
}

/// A member's ordinal in the StatefulSet `base`; `None` if it isn't of it. Its name, once it has one, is the truth of now.
pub(super) fn ordinal_in(base: &str, row: &MemberRow) -> Option<u32> {
    let reached_at = row.peer_urls.iter().find_map(|url| ordinal_of(base, first_label(url)?))?;
    Some(ordinal_of(base, &row.name).unwrap_or(reached_at))
}

fn ordinal_of(base: &str, name: &str) -> Option<u32> {
    name.strip_prefix(base)?.strip_prefix('-')?.parse().ok()
}

fn first_label(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split_once('.').map(|(label, _)| label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::config::flags;
    use crate::types::MemberId;

    fn config(name: &str, peer: &str, client: &str) -> Config {
        let mut config = Config::default();
        let flags = [("name", name), ("initial-advertise-peer-urls", peer), ("advertise-client-urls", client)];
        for (flag, value) in flags {
            config.set(flags::find(flag).expect("known"), value).expect("well-formed");
        }
        config
    }

    fn row(name: &str, url: &str) -> MemberRow {
        MemberRow {
            id: MemberId(1),
            name: name.to_owned(),
            peer_urls: vec![url.to_owned()],
            client_urls: Vec::new(),
            is_learner: false,
        }
    }

    #[test]
    fn siblings_follow_from_a_name() {
        let config = config("a-1-rusd-1", "https://a-1-rusd-1.h.ns.svc:2380", "http://a-1-rusd-1.h.ns.svc:2379");
        let pod = Pod::of(&config).expect("a pod");
        assert_eq!((pod.base.as_str(), pod.ordinal()), ("a-1-rusd", 1));
        assert_eq!(pod.peer_url(11), "https://a-1-rusd-11.h.ns.svc:2380");
        assert_eq!(pod.client_url(0), "http://a-1-rusd-0.h.ns.svc:2379");
        let cluster = pod.initial_cluster(3).expect("URLs");
        assert_eq!((cluster.len(), cluster.urls_of("a-1-rusd-2").map(<[Url]>::len)), (3, Some(1)));
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        for (name, peer, client) in [
            ("rusd", "http://rusd.h:2380", "http://rusd.h:2379"),
            ("rusd-x", "http://rusd-x.h:2380", "http://rusd-x.h:2379"),
            ("-1", "http://-1.h:2380", "http://-1.h:2379"),
            ("rusd-1", "http://rusd-1:2380", "http://rusd-1.h:2379"),
            ("rusd-1", "http://rusd-1.h:2380", "http://rusd-10.h:2379"),
            ("rusd-1", "http://rusd-1.h:2380,http://10.0.0.1:2380", "http://rusd-1.h:2379"),
        ] {
            assert!(Pod::of(&config(name, peer, client)).is_err(), "{name} {peer} {client}");
        }
    }

    #[test]
    fn a_member_is_known_by_its_url() {
        let of = |url: &str| ordinal_in("rusd", &row("", url));
        assert_eq!(of("http://rusd-12.h.ns.svc:2380"), Some(12));
        // Somebody's own member, another release's, and one whose name only begins so.
        for url in ["http://10.0.0.1:2380", "http://b-rusd-1.h:2380", "http://rusd-b-1.h:2380", "http://rusd-1:2380"] {
            assert_eq!(of(url), None, "{url}");
        }
        let pod = Pod::of(&config("rusd-1", "http://rusd-1.h:2380", "http://rusd-1.h:2379")).expect("a pod");
        assert!(pod.is(&row("", "http://rusd-1.h:2380")) && pod.is(&row("rusd-1", "https://old:1")));
        assert!(pod.is(&row("of-etcd", "http://rusd-1.h:2380")), "a name from before the set");
        assert!(!pod.is(&row("rusd-2", "http://rusd-2.h:2380")));
    }

    #[test]
    fn a_volume_at_another_ordinal_is_not_this_pod() {
        let pod = Pod::of(&config("rusd-2", "http://rusd-2.h:2380", "http://rusd-2.h:2379")).expect("a pod");
        let moved = row("rusd-0", "http://rusd-2.h:2380");
        assert!(!pod.is(&moved), "it would remove the survivor");
        assert_eq!(pod.is_taken_by(&moved), Some(0));
        assert_eq!(pod.is_taken_by(&row("rusd-0", "http://rusd-0.h:2380")), None);
        assert_eq!(pod.is_taken_by(&row("rusd-2", "http://rusd-2.h:2380")), None);
        // Pod 0 runs it: a set that shrinks to one keeps it.
        assert_eq!(ordinal_in("rusd", &moved), Some(0));
        assert_eq!(ordinal_in("rusd", &row("rusd-0", "http://10.0.0.1:2380")), None);
    }
}
