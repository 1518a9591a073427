//! What a first start asks the members that may be there already.
//!
//! ```text
//! state new      ─► has this member been there before? ─► then it forgot what it promised: refused
//! state existing ─► GET /members ─► each existing member is in --initial-cluster ─► this one's id, the cluster's id
//! ```

mod http;

use std::io;
use std::time::Duration;

use super::config::{ClusterState, Config, Url};
use super::identity::Identity;
use crate::tls::Connector;
use crate::types::{ClusterId, MemberId};

/// How long one member may take to say who is in the cluster.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// And where the answer is no more than a precaution.
const PRECAUTION_MAX: Duration = Duration::from_millis(500);

/// Why a member can't make or join a cluster; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody else is named.
    #[error(
        "--initial-cluster names this member alone, so there is no cluster to join. Name the others too, or type \
         --initial-cluster-state=new"
    )]
    Alone,
    /// Nobody answered.
    #[error(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs \
         ({why}). Start the others first, or correct --initial-cluster"
    )]
    Unreachable {
        /// What each one answered.
        why: String,
    },
    /// The lists differ in length.
    #[error(
        "error validating peerURLs: member count is unequal: the cluster has {existing} members, --initial-cluster \
         {listed}. Add this member by `etcdctl member add` first, and copy the list that it prints"
    )]
    Count {
        /// Members of the cluster.
        existing: usize,
        /// Members in the flag.
        listed: usize,
    },
    /// A member of the cluster isn't listed.
    #[error(
        "error validating peerURLs: PeerURLs: no match found for existing member ({id}, {urls}). Correct \
         --initial-cluster"
    )]
    NoMatch {
        /// Which.
        id: MemberId,
        /// Its URLs.
        urls: String,
    },
    /// The cluster knows this member as one that was started.
    #[error(
        "member {id} has already been bootstrapped, and its data directory is empty: it no longer knows what it \
         promised. Put the data back, or remove the member and add it anew"
    )]
    Bootstrapped {
        /// Its id.
        id: MemberId,
    },
}

/// A cluster as one of its members tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cluster {
    id: ClusterId,
    members: Vec<Told>,
}

/// A member as told of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    id: MemberId,
    /// Sorted.
    peer_urls: Vec<String>,
    is_started: bool,
}

/// Who this member is in the cluster that it joins; `None` if it begins a new one.
///
/// To be asked only before the first start, when the data directory is empty; over TLS by `connector`.
///
/// # Errors
/// [`JoinError`].
pub async fn ask(config: &Config, connector: Option<&Connector>) -> Result<Option<Identity>, JoinError> {
    let others: Vec<&Url> = config
        .clustering
        .initial_cluster
        .iter()
        .filter(|(name, _)| *name != config.member.name)
        .flat_map(|m| m.1)
        .collect();
    if config.clustering.initial_cluster_state == ClusterState::New {
        let own = Identity::bootstrap(config).member;
        let told =
            futures::future::join_all(others.into_iter().map(|url| cluster_of(url, connector, PRECAUTION_MAX))).await;
        let knows = |cluster: &Cluster| cluster.members.iter().any(|told| told.id == own && told.is_started);
        return if told.iter().flatten().any(knows) { Err(JoinError::Bootstrapped { id: own }) } else { Ok(None) };
    }
    if others.is_empty() {
        return Err(JoinError::Alone);
    }
    let mut refusals = Vec::new();
    for url in others {
        match cluster_of(url, connector, ANSWER_MAX).await {
            Ok(cluster) => return place(config, &cluster).map(Some),
            Err(why) => refusals.push(format!("{url}: {why}")),
        }
    }
    Err(JoinError::Unreachable { why: refusals.join("; ") })
}

/// Whether a member of a cluster answers there.
pub async fn is_member(url: &Url, connector: Option<&Connector>) -> bool {
    cluster_of(url, connector, ANSWER_MAX).await.is_ok_and(|cluster| !cluster.members.is_empty())
}

/// A page of another member, or of what may become one; of a bounded length. There is no time limit here.
///
/// # Errors
/// Those of the connection, and any answer but 200.
pub async fn page(url: &Url, path: &str, connector: Option<&Connector>) -> io::Result<Vec<u8>> {
    Ok(http::get(url, path, connector).await?.body)
}

async fn cluster_of(url: &Url, connector: Option<&Connector>, timeout: Duration) -> Result<Cluster, String> {
    let answer = tokio::time::timeout(timeout, http::get(url, "/members", connector)).await;
    let answer = answer.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    parse(&answer).ok_or_else(|| "what it answers is no list of members".to_owned())
}

fn parse(answer: &http::Answer) -> Option<Cluster> {
    let id = ClusterId(u64::from_str_radix(answer.header("x-etcd-cluster-id")?, 16).ok()?);
    let members: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    let members = members.as_array()?.iter().map(|member| {
        let texts = |name: &str| match member.get(name) {
            None | Some(serde_json::Value::Null) => Some(Vec::new()),
            Some(list) => list.as_array()?.iter().map(|text| Some(text.as_str()?.to_owned())).collect(),
        };
        let mut peer_urls: Vec<String> = texts("peerURLs")?;
        peer_urls.sort();
        Some(Told {
            id: MemberId(member.get("id")?.as_u64()?),
            peer_urls,
            is_started: !texts("clientURLs")?.is_empty(),
        })
    });
    Some(Cluster { id, members: members.collect::<Option<_>>()? })
}

/// This member's place among the members of a cluster, by etcd's rules.
fn place(config: &Config, cluster: &Cluster) -> Result<Identity, JoinError> {
    let listed = &config.clustering.initial_cluster;
    if listed.len() != cluster.members.len() {
        return Err(JoinError::Count { existing: cluster.members.len(), listed: listed.len() });
    }
    let texts = |urls: &[Url]| {
        let mut texts: Vec<_> = urls.iter().map(ToString::to_string).collect();
        texts.sort();
        texts
    };
    let mut own = None;
    for told in &cluster.members {
        let no_match = || JoinError::NoMatch { id: told.id, urls: told.peer_urls.join(",") };
        let (name, _) = listed.iter().find(|(_, urls)| texts(urls) == told.peer_urls).ok_or_else(no_match)?;
        if name == config.member.name && own.replace(told).is_some() {
            return Err(no_match());
        }
    }
    match own {
        Some(told) if told.is_started => Err(JoinError::Bootstrapped { id: told.id }),
        Some(told) => Ok(Identity { cluster: cluster.id, member: told.id }),
        // Nobody has the own URLs, so somebody has another's twice.
        None => Err(JoinError::Count { existing: cluster.members.len(), listed: listed.len() }),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::ops::config::flags;

    fn config(state: &str, cluster: &str) -> Config {
        let mut config = Config::default();
        for (name, value) in [("name", "b"), ("initial-cluster", cluster), ("initial-cluster-state", state)] {
            config.set(flags::find(name).expect("known"), value).expect("well-formed");
        }
        config
    }

    /// A member that answers every request with `body`.
    async fn member(body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.expect("a connection");
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await;
                let head =
                    "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nX-Etcd-Cluster-ID: cdf818194e3a8c32\r\n\r\n";
                let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        format!("http://{address}")
    }

    fn listing(own: &str) -> Cluster {
        let body = format!(
            r#"[{{"id":1,"peerURLs":["http://h:1"],"name":"a","clientURLs":["http://h:9"]}},{{"id":2,"peerURLs":["{own}"]}}]"#
        );
        let head = vec![("x-etcd-cluster-id".to_owned(), "cdf818194e3a8c32".to_owned())];
        parse(&http::Answer { headers: head, body: body.into_bytes() }).expect("a list")
    }

    #[tokio::test]
    async fn a_joining_member_takes_the_ids_that_the_cluster_gave() {
        let body = r#"[{"id":2,"peerURLs":["http://h:2"]},{"id":1,"peerURLs":["http://h:1","http://h:0"],"name":"a","clientURLs":["x"]}]"#;
        let there = member(body).await;
        let found = cluster_of(&there.parse().expect("a URL"), None, ANSWER_MAX).await.expect("it answers");
        let config = config("existing", "a=http://h:0,a=http://h:1,b=http://h:2");
        let identity = place(&config, &found).expect("it has a place");
        assert_eq!((identity.cluster.to_string().as_str(), identity.member), ("cdf818194e3a8c32", MemberId(2)));
    }

    #[test]
    fn lists_that_differ_are_refused() {
        let place = |cluster: &str, told: &Cluster| place(&config("existing", cluster), told).expect_err("refused");
        let told = listing("http://h:2");
        assert!(matches!(place("b=http://h:2", &told), JoinError::Count { existing: 2, listed: 1 }));
        assert!(matches!(place("a=http://h:3,b=http://h:2", &told), JoinError::NoMatch { id: MemberId(1), .. }));
        let own = place("b=http://h:1,c=http://h:2", &told);
        assert!(matches!(own, JoinError::Bootstrapped { id: MemberId(1) }), "{own}");
        let twice = listing("http://h:1");
        assert!(matches!(place("b=http://h:1,c=http://h:2", &twice), JoinError::NoMatch { id: MemberId(2), .. }));
    }

    #[tokio::test]
    async fn whoever_was_there_before_does_not_come_back_empty() {
        let cluster = "a=http://127.0.0.1:1,b=http://h:2";
        let own = Identity::bootstrap(&config("new", cluster)).member;
        assert_eq!(ask(&config("new", cluster), None).await.expect("nobody says otherwise"), None);
        let body =
            format!(r#"[{{"id":{},"peerURLs":["http://h:2"],"name":"b","clientURLs":["http://h:8"]}}]"#, own.get());
        let there = member(Box::leak(body.into_boxed_str())).await;
        // The id follows from the own URLs and the token, wherever the others are.
        let asked = ask(&config("new", &format!("a={there},b=http://h:2")), None).await;
        assert!(matches!(asked, Err(JoinError::Bootstrapped { id }) if id == own), "{asked:?}");
    }

    #[tokio::test]
    async fn nobody_to_ask_is_said_with_what_to_do() {
        let text = |error: JoinError| error.to_string();
        let alone = ask(&config("existing", "b=http://h:2"), None).await.expect_err("refused");
        assert!(text(alone).contains("--initial-cluster-state=new"));
        let dead = ask(&config("existing", "a=http://127.0.0.1:1,b=http://h:2"), None).await.expect_err("refused");
        assert!(text(dead).starts_with("cannot fetch cluster info from peer urls"));
        let other = member("{}").await;
        let odd = ask(&config("existing", &format!("a={other},b=http://h:2")), None).await.expect_err("refused");
        assert!(text(odd).contains("no list of members"));
    }
}
