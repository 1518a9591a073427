//! `--cors` and `--host-whitelist`: which browsers may call, and under which host names.

use http::header::HOST;
use http::{HeaderValue, Request, Response, StatusCode};

use super::error;
use crate::api::grpc::body::ReplyBody;

/// What stands for everybody in both lists.
const ANY: &str = "*";

/// Who may call the pages of a client URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebPolicy {
    origins: Vec<String>,
    hosts: Vec<String>,
}

impl Default for WebPolicy {
    /// Everybody, under any name: etcd's default.
    fn default() -> Self {
        Self::new(vec![ANY.to_owned()], vec![ANY.to_owned()])
    }
}

impl WebPolicy {
    /// `origins` as browsers send them; `hosts` without ports. `*` in a list, and a list of hosts that
    /// is empty, lets everybody in.
    pub fn new(origins: Vec<String>, hosts: Vec<String>) -> Self {
        Self { origins, hosts }
    }

    /// What `Access-Control-Allow-Origin` says to a request with this `Origin`, if anything.
    pub(in crate::api) fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        if self.origins.iter().any(|origin| origin == ANY) {
            return Some(HeaderValue::from_static(ANY));
        }
        let origin = origin?;
        self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    /// The refusal of a request under a host name that isn't listed: a page of another site whose name
    /// was bent to this machine's address must not read what is here.
    pub(super) fn refusal<B>(&self, request: &Request<B>) -> Option<Response<ReplyBody>> {
        let host = request
            .uri()
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| request.headers().get(HOST).and_then(|host| host.to_str().ok()))
            .unwrap_or_default();
        let host = without_port(host);
        let hosts = &self.hosts;
        if hosts.is_empty() || hosts.iter().any(|listed| listed == ANY || listed == host) {
            return None;
        }
        Some(error(
            StatusCode::MISDIRECTED_REQUEST,
            &format!("the host name {host:?} is not served here; it can be added to --host-whitelist"),
        ))
    }
}

/// `host` of `host:port` and of `[host]:port`.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &str, host: Option<&str>) -> Request<()> {
        let mut request = http::Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn hosts_are_compared_without_their_ports() {
        let policy = WebPolicy::new(vec![], vec!["good.com".into(), "::1".into()]);
        let refused = |uri, host| policy.refusal(&asked(uri, host)).is_some();
        for host in ["good.com", "good.com:2379", "[::1]:3", "[::1]"] {
            assert!(!refused("/health", Some(host)), "{host}");
        }
        for host in ["evil.com", "GOOD.com", "good.com.evil", "", "[::2]"] {
            assert!(refused("/health", Some(host)), "{host}");
        }
        assert!(refused("/health", None));
        assert!(!refused("http://good.com:1/health", None), "HTTP/2 has it in the URI");
        assert!(refused("http://evil.com/health", Some("good.com")));
        assert!(WebPolicy::default().refusal(&asked("/health", Some("evil.com"))).is_none());
        assert!(WebPolicy::new(vec![], vec![]).refusal(&asked("/health", None)).is_none());
    }

    #[test]
    fn only_listed_origins_are_named() {
        let policy = WebPolicy::new(vec!["http://a.com:80".into()], vec![]);
        let (a, c) = (HeaderValue::from_static("http://a.com:80"), HeaderValue::from_static("http://c.com:80"));
        assert_eq!(policy.allowed(Some(&a)), Some(a.clone()));
        assert_eq!((policy.allowed(Some(&c)), policy.allowed(None)), (None, None));
        assert_eq!(WebPolicy::default().allowed(Some(&c)), Some(HeaderValue::from_static("*")));
    }
}
