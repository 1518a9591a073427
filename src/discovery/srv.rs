//! The members as DNS names them: SRV records of `_etcd-server-ssl._tcp` (https) and `_etcd-server._tcp` (http).
//!
//! Records have no names of members. The one at this member's own address is this member; the others are called 0, 1, …
//! until they tell theirs. That doesn't matter, as a member's id follows from its URLs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use super::{DiscoveryError, dns};
use crate::env::{Env, read_all};
use crate::ops::config::{Config, InitialCluster, Url};

/// Where the system says which DNS servers there are.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The longest such file that is read.
const RESOLV_CONF_BYTES_MAX: usize = 64 << 10;

/// The services, and what the URLs of their members begin with.
const SERVICES: [(&str, &str); 2] = [("etcd-server-ssl", "https"), ("etcd-server", "http")];

/// The name whose records say who serves, in the cluster called `srv_name` if that isn't empty.
fn asked(service: &str, srv_name: &str, domain: &str) -> String {
    let dash = if srv_name.is_empty() { "" } else { "-" };
    format!("_{service}{dash}{srv_name}._tcp.{domain}")
}

/// Asks for both services.
pub(super) async fn find(config: &Config, env: &Env) -> Result<InitialCluster, DiscoveryError> {
    let discovery = &config.discovery;
    let servers = match discovery.srv_resolver {
        Some(server) => vec![server],
        None => {
            let bytes = read_all(env.disk.as_ref(), Path::new(RESOLV_CONF), RESOLV_CONF_BYTES_MAX).unwrap_or_default();
            dns::servers(&String::from_utf8_lossy(&bytes))
        }
    };
    let mut members = Vec::new();
    let mut refusals = Vec::new();
    for (service, scheme) in SERVICES {
        let name = asked(service, &discovery.srv_name, &discovery.srv);
        let id = u16::try_from(env.rng.next_u64() & 0xffff).unwrap_or_default();
        match dns::services(&name, &servers, id).await {
            Ok(services) => members.extend(services.into_iter().map(|service| (scheme, service))),
            Err(error) => refusals.push(format!("error querying DNS SRV records for _{service}: {name}: {error}")),
        }
    }
    if members.is_empty() {
        return Err(DiscoveryError::Records { why: refusals.join("; ") });
    }
    let mut own = BTreeSet::new();
    for url in &config.clustering.initial_advertise_peer_urls {
        own.extend(addresses(url.address()).await);
    }
    let advertised = &config.clustering.initial_advertise_peer_urls;
    let mut pairs = Vec::new();
    let mut others = 0_u32;
    for (scheme, service) in members {
        let address = format!("{}:{}", service.target, service.port);
        let url = format!("{scheme}://{address}");
        let is_same = advertised.iter().any(|own| own.to_string() == url);
        let is_own = is_same || addresses(&address).await.iter().any(|address| own.contains(address));
        let is_mismatch = is_own && !advertised.iter().any(|own| scheme_of(own) == scheme);
        if is_mismatch {
            tracing::warn!(url, "a record names this member's address with another scheme; it is left out");
            continue;
        }
        if is_own {
            pairs.push(format!("{}={url}", config.member.name));
        } else {
            // Whoever is called by a number keeps it.
            others += u32::from(others.to_string() == config.member.name);
            pairs.push(format!("{others}={url}"));
            others += 1;
        }
    }
    listed(config, &pairs.join(","))
}

fn listed(config: &Config, text: &str) -> Result<InitialCluster, DiscoveryError> {
    let cluster = InitialCluster::parse(text).map_err(|error| DiscoveryError::Records { why: error.to_string() })?;
    let name = &config.member.name;
    if cluster.urls_of(name).is_none() {
        return Err(DiscoveryError::NotListed { name: name.clone(), cluster: cluster.to_string() });
    }
    Ok(cluster)
}

fn scheme_of(url: &Url) -> &'static str {
    if url.is_tls() { "https" } else { "http" }
}

/// What a `host:port` stands for; nothing if that can't be found out.
async fn addresses(host: &str) -> Vec<SocketAddr> {
    match tokio::net::lookup_host(host).await {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::warn!(host, %error, "this address can't be looked up");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: a name that is put together otherwise than etcd's. Symptom: records that etcd's members found aren't found.
    #[test]
    fn the_names_are_those_that_etcd_asks_for() {
        let names = |srv_name| SERVICES.map(|(service, scheme)| (asked(service, srv_name, "example.com"), scheme));
        let plain = ["_etcd-server-ssl._tcp.example.com", "_etcd-server._tcp.example.com"];
        let named = ["_etcd-server-ssl-blue._tcp.example.com", "_etcd-server-blue._tcp.example.com"];
        for (srv_name, wanted) in [("", plain), ("blue", named)] {
            let [tls, open] = wanted.map(str::to_owned);
            assert_eq!(names(srv_name), [(tls, "https"), (open, "http")]);
        }
    }
}
