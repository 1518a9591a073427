//! The registry: keys in an etcd or rusd that is there already, laid out as etcd 3.7 has them.
//!
//! ```text
//! /_etcd/registry/<token>/_config/size     how many members the cluster begins with, written by whoever sets it up
//! /_etcd/registry/<token>/members/<id>     name=url,… of one of them; the first ones count, in their order
//! ```

use std::time::Duration;

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{DiscoveryError, way};
use crate::env::Env;
use crate::ops::config::{Config, InitialCluster};
use crate::ops::identity::member_id;

/// The most members that a cluster can begin with.
const SIZE_MAX: usize = 128;
/// Keys that are read at a time: more members than count may have written themselves down.
const KEYS_MAX: i64 = 1_024;
/// Between two looks for members that are missing.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Between two tries of a registry that doesn't answer, at first and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(16);

/// A member in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    created: i64,
    key: String,
    value: String,
}

/// Writes this member down and waits until all of them are.
pub(super) async fn find(config: &Config, env: &Env) -> Result<InitialCluster, DiscoveryError> {
    let registry = Registry::new(config, env)?;
    let urls = &config.clustering.initial_advertise_peer_urls;
    let id = member_id(urls, &config.discovery.token, None);
    let own = format!("{}/members/{id}", registry.root);
    let pairs: Vec<_> = urls.iter().map(|url| format!("{}={url}", config.member.name)).collect();
    let value = pairs.join(",");
    let size = registry.patiently(|| registry.size()).await?;
    let listed = registry.patiently(|| registry.members()).await?;
    if !is_among(&listed, &own, size)? {
        registry.patiently(|| registry.put(&own, &value)).await?;
        tracing::info!(key = own, "wrote this member down in the registry");
    }
    loop {
        let listed = registry.patiently(|| registry.members()).await?;
        // Others may have been faster.
        is_among(&listed, &own, size)?;
        if listed.len() >= size {
            return cluster(&listed[..size]);
        }
        tracing::info!(found = listed.len(), size, "waiting for members in the registry");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether the member counts; an error if those that count are others.
fn is_among(listed: &[Listed], own: &str, size: usize) -> Result<bool, DiscoveryError> {
    let is_there = listed.iter().take(size).any(|member| member.key == own);
    if !is_there && listed.len() >= size {
        return Err(DiscoveryError::Registry {
            why: "cluster is full".into(),
            instead: "Make a new token for a new cluster, or add this member by `etcdctl member add`",
        });
    }
    Ok(is_there)
}

fn cluster(listed: &[Listed]) -> Result<InitialCluster, DiscoveryError> {
    let all: Vec<_> = listed.iter().map(|member| member.value.as_str()).collect();
    let bad =
        |why: String| DiscoveryError::Registry { why, instead: "Make a new token, and let all members join anew" };
    let cluster = InitialCluster::parse(&all.join(",")).map_err(|error| bad(format!("a member's value: {error}")))?;
    if cluster.len() != listed.len() {
        return Err(bad(format!("two members are of one name, or one of none, in {cluster}")));
    }
    Ok(cluster)
}

struct Registry {
    root: String,
    endpoints: Vec<Channel>,
    limit: Duration,
    /// `--discovery-user`, with the password.
    user: Option<(String, String)>,
}

/// Why a call came to nothing.
enum Failure {
    /// It may come to something later.
    Later(Status),
    Never(DiscoveryError),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Later(status)
    }
}

impl Registry {
    fn new(config: &Config, env: &Env) -> Result<Self, DiscoveryError> {
        let discovery = &config.discovery;
        let user = match discovery.user.split_once(':') {
            Some((name, password)) => Some((name.to_owned(), password.to_owned())),
            None if discovery.user.is_empty() => None,
            None => Some((discovery.user.clone(), discovery.password.clone())),
        };
        Ok(Self {
            root: format!("/_etcd/registry/{}", discovery.token),
            endpoints: way::channels(discovery, env)?,
            limit: discovery.request_timeout,
            user,
        })
    }

    /// Tries until it comes to something, or never will.
    async fn patiently<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, DiscoveryError> {
        let mut pause = RETRY_MIN;
        loop {
            match call().await {
                Ok(done) => return Ok(done),
                Err(Failure::Never(error)) => return Err(error),
                Err(Failure::Later(status)) => {
                    tracing::warn!(error = way::told(&status), again_in = ?pause, "the registry doesn't answer; will try again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(RETRY_MAX);
        }
    }

    /// Makes a call at one endpoint after the other, until one answers.
    async fn call<T, F: Future<Output = Result<tonic::Response<T>, Status>>>(
        &self,
        call: impl Fn(KvClient<Channel>, Option<AsciiMetadataValue>) -> F,
    ) -> Result<T, Status> {
        let mut last = Status::unavailable("there are no endpoints");
        for channel in &self.endpoints {
            let answer = async {
                let token = self.token(channel).await?;
                call(KvClient::new(channel.clone()), token).await
            };
            match tokio::time::timeout(self.limit, answer).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => last = status,
                Err(_) => last = Status::deadline_exceeded("no answer in time"),
            }
        }
        Err(last)
    }

    async fn token(&self, channel: &Channel) -> Result<Option<AsciiMetadataValue>, Status> {
        let Some((name, password)) = self.user.clone() else { return Ok(None) };
        let request = pb::AuthenticateRequest { name, password };
        let answer = AuthClient::new(channel.clone()).authenticate(request).await?.into_inner();
        let token = answer.token.parse().map_err(|_| Status::internal("a token that is none"))?;
        Ok(Some(token))
    }

    async fn range(&self, key: String, prefix: bool) -> Result<Vec<rusd_proto::mvccpb::KeyValue>, Status> {
        let mut range_end = key.clone().into_bytes();
        match range_end.last_mut().filter(|_| prefix) {
            // The prefix ends with a slash, which has a next byte.
            Some(last) => *last += 1,
            None => range_end.clear(),
        }
        let request =
            pb::RangeRequest { key: key.into(), range_end: range_end.into(), limit: KEYS_MAX, ..Default::default() };
        let found = self.call(|mut kv, token| {
            let request = with(request.clone(), token);
            async move { kv.range(request).await }
        });
        Ok(found.await?.kvs)
    }

    async fn size(&self) -> Result<usize, Failure> {
        let instead = "Write the number of members to /_etcd/registry/<token>/_config/size first";
        let never = |why: &str| Failure::Never(DiscoveryError::Registry { why: why.to_owned(), instead });
        let found = self.range(format!("{}/_config/size", self.root), false).await?;
        let size = found.first().ok_or_else(|| never("size key not found"))?;
        let size = std::str::from_utf8(&size.value).ok().and_then(|text| text.parse().ok());
        size.filter(|size| (1..=SIZE_MAX).contains(size)).ok_or_else(|| never("size key is bad"))
    }

    async fn members(&self) -> Result<Vec<Listed>, Failure> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = self.range(format!("{}/members/", self.root), true).await?;
        let mut listed: Vec<_> = found
            .iter()
            .map(|kv| Listed { created: kv.create_revision, key: text(&kv.key), value: text(&kv.value) })
            .collect();
        listed.sort_by_key(|member| member.created);
        Ok(listed)
    }

    async fn put(&self, key: &str, value: &str) -> Result<(), Failure> {
        let request = pb::PutRequest {
            key: key.to_owned().into_bytes().into(),
            value: value.to_owned().into_bytes().into(),
            ..Default::default()
        };
        let put = self.call(|mut kv, token| {
            let request = with(request.clone(), token);
            async move { kv.put(request).await }
        });
        put.await?;
        Ok(())
    }
}

fn with<T>(message: T, token: Option<AsciiMetadataValue>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(members: &[(i64, &str, &str)]) -> Vec<Listed> {
        let listed = |(created, key, value): &(i64, &str, &str)| Listed {
            created: *created,
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        members.iter().map(listed).collect()
    }

    #[test]
    fn the_first_ones_count() {
        let three = listed(&[(2, "a", ""), (5, "b", ""), (9, "c", "")]);
        assert!(is_among(&three, "b", 3).unwrap());
        assert!(!is_among(&three, "d", 4).unwrap(), "there is room");
        for (own, size) in [("d", 3), ("c", 2)] {
            let error = is_among(&three, own, size).unwrap_err().to_string();
            assert!(error.starts_with("failed to join discovery cluster (discovery: cluster is full)"), "{error}");
        }
    }

    #[test]
    fn the_cluster_is_what_the_members_wrote() {
        let two = listed(&[(2, "a", "m1=http://h:1,m1=http://h:2"), (5, "b", "m2=http://h:3")]);
        assert_eq!(cluster(&two).unwrap().to_string(), "m1=http://h:1,m1=http://h:2,m2=http://h:3");
        let twice = listed(&[(2, "a", "m1=http://h:1"), (5, "b", "m1=http://h:3")]);
        assert!(cluster(&twice).unwrap_err().to_string().contains("of one name"));
        let broken = listed(&[(2, "a", "m1")]);
        assert!(cluster(&broken).unwrap_err().to_string().contains("a member's value"));
    }
}
