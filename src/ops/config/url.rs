//! A listen or advertise URL: a scheme and an address, nothing else.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// How the address is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// TCP.
    Http,
    /// TCP under TLS.
    Https,
    /// A Unix socket.
    Unix,
    /// A Unix socket under TLS.
    Unixs,
}

/// A URL without path, as all of etcd's flags take it. Ordered as its text is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    /// `host:port`, or the socket's name for the Unix schemes.
    address: String,
}

/// Why a text isn't such a URL; the texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    /// No port, or no host.
    #[error("URL address does not have the form \"host:port\": {0}")]
    Address(String),
    /// Something after the port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
}

impl Url {
    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port`, or the socket's name.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether TLS is asked for.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs)
    }

    /// The host without the port and without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    /// The port; `None` for Unix sockets whose name has none.
    pub fn port(&self) -> Option<u16> {
        self.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
    }

    /// Whether a listener may bind it: an IP address, `localhost`, or a Unix socket.
    pub fn is_bindable(&self) -> bool {
        self.is_unix() || self.host() == "localhost" || self.host().parse::<IpAddr>().is_ok()
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.is_unix() || self.host() == "localhost" || self.host().parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let scheme = |name: &str| {
            Some(match name {
                "http" => Scheme::Http,
                "https" => Scheme::Https,
                "unix" => Scheme::Unix,
                "unixs" => Scheme::Unixs,
                _ => return None,
            })
        };
        let (scheme, rest) = text
            .split_once("://")
            .and_then(|(name, rest)| Some((scheme(name)?, rest)))
            .ok_or_else(|| UrlError::Scheme(text.to_owned()))?;
        let url = Self { scheme, address: rest.to_owned() };
        if url.is_unix() {
            return if rest.is_empty() { Err(UrlError::Address(text.to_owned())) } else { Ok(url) };
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (address, path) = rest.split_at(end);
        let url = Self { scheme, address: address.to_owned() };
        let bracketed = address.starts_with('[') && address.contains("]:");
        if url.port().is_none() || url.host().contains(':') && !bracketed || address.contains('@') {
            return Err(UrlError::Address(text.to_owned()));
        }
        if path.is_empty() { Ok(url) } else { Err(UrlError::Path(text.to_owned())) }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Unix => "unix",
            Scheme::Unixs => "unixs",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

impl PartialOrd for Url {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Url {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_apart_and_puts_together() {
        let url: Url = "http://[::1]:2379".parse().expect("well-formed");
        assert_eq!((url.host(), url.port()), ("::1", Some(2379)));
        assert!(url.is_bindable() && url.is_loopback() && !url.is_tls());
        assert_eq!(url.to_string(), "http://[::1]:2379");
        let url: Url = "unixs://localhost:20001".parse().expect("well-formed");
        assert!(url.is_unix() && url.is_tls());
    }

    #[test]
    fn names_what_is_wrong() {
        let error = |text: &str| text.parse::<Url>().expect_err("malformed");
        for text in ["localhost:2379", "ftp://a:1", "", "://a:1"] {
            assert!(matches!(error(text), UrlError::Scheme(_)), "{text}");
        }
        for text in ["http://a", "http://", "http://a:x", "http://a:70000", "http://::1:2379", "unix://"] {
            assert!(matches!(error(text), UrlError::Address(_)), "{text}");
        }
        for text in ["http://a:1/", "http://a:1/x", "http://a:1?x"] {
            assert!(matches!(error(text), UrlError::Path(_)), "{text}");
        }
    }

    #[test]
    fn a_name_or_no_host_is_not_for_binding() {
        for text in ["http://example.com:2379", "http://:2379"] {
            assert!(!text.parse::<Url>().expect("well-formed").is_bindable(), "{text}");
        }
    }
}
