//! Versions and cipher suites, under the names that Go's TLS has for them.
//!
//! Only forward-secret suites with authenticated encryption are spoken here. Those that Go knows
//! besides are passed over, as long as one is left; a name that Go doesn't know is an error. The
//! suites of TLS 1.3 can't be chosen, as in Go.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion};

use super::settings::Settings;

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.2.
    #[default]
    V12,
    /// 1.3.
    V13,
}

/// Those of TLS 1.2 that are spoken here.
const SPOKEN: &[(&str, CipherSuite)] = &[
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Those of TLS 1.3, all of which are always offered.
const OF_13: &[&str] = &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Those that Go knows and that are not spoken here: no forward secrecy, CBC, RC4, 3DES.
const PASSED_OVER: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// The cipher suites of TLS 1.2 to speak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suites {
    /// `None` is all.
    chosen: Option<Vec<CipherSuite>>,
    /// Those named that are not spoken here.
    passed_over: Vec<String>,
}

/// Why a list of names is no choice of suites.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuitesError {
    /// Nobody knows the name; the text is etcd's.
    #[error("unexpected TLS cipher suite {0:?}")]
    Unknown(String),
    /// Nothing is left.
    #[error("none of these cipher suites is spoken here: {0}")]
    NoneLeft(String),
}

impl Suites {
    /// A choice by names; none are all.
    ///
    /// # Errors
    /// [`SuitesError`].
    pub fn parse(names: &[String]) -> Result<Self, SuitesError> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        let (mut chosen, mut passed_over, mut of_13) = (Vec::new(), Vec::new(), false);
        for name in names {
            match SPOKEN.iter().find(|(known, _)| known == name) {
                Some((_, suite)) => chosen.push(*suite),
                None if OF_13.contains(&name.as_str()) => of_13 = true,
                None if PASSED_OVER.contains(&name.as_str()) => passed_over.push(name.clone()),
                None => return Err(SuitesError::Unknown(name.clone())),
            }
        }
        if chosen.is_empty() && !of_13 {
            return Err(SuitesError::NoneLeft(names.join(",")));
        }
        Ok(Self { chosen: Some(chosen), passed_over })
    }

    /// Names that were given and are not spoken here.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    fn is_chosen(&self, suite: &SupportedCipherSuite) -> bool {
        match (&self.chosen, suite) {
            (Some(chosen), SupportedCipherSuite::Tls12(_)) => chosen.contains(&suite.suite()),
            _ => true,
        }
    }
}

/// The cryptography with the suites that are chosen.
pub(super) fn provider(settings: &Settings) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| settings.suites.is_chosen(suite));
    Arc::new(provider)
}

/// The versions to speak.
pub(super) fn versions(settings: &Settings) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(Version::V13, &rustls::version::TLS13), (Version::V12, &rustls::version::TLS12)];
    // Without a suite of its own there is no 1.2.
    let no_12 = settings.suites.chosen.as_ref().is_some_and(Vec::is_empty);
    let is_wanted = |version: Version| {
        version >= settings.version_min
            && settings.version_max.is_none_or(|max| version <= max)
            && !(no_12 && version == Version::V12)
    };
    all.into_iter().filter(|(version, _)| is_wanted(*version)).map(|(_, known)| known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(names: &[&str]) -> Result<Suites, SuitesError> {
        Suites::parse(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    fn count(suites: Suites) -> (usize, usize) {
        let settings = Settings { suites, ..Settings::default() };
        let provider = provider(&settings);
        let of_12 = provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count();
        (of_12, provider.cipher_suites.len() - of_12)
    }

    #[test]
    fn names_choose_suites_of_12_alone() {
        assert_eq!(count(Suites::default()), (6, 3));
        let two = parse(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]);
        assert_eq!(count(two.expect("known")), (2, 3));
        let one =
            parse(&["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]).expect("one is left");
        assert_eq!(one.passed_over(), ["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        assert_eq!(count(one), (1, 3));
    }

    #[test]
    fn names_that_nobody_knows_and_lists_of_nothing_are_refused() {
        let error = parse(&["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "x"]).expect_err("unknown");
        assert_eq!(error.to_string(), "unexpected TLS cipher suite \"x\"");
        assert!(matches!(parse(&["TLS_RSA_WITH_RC4_128_SHA"]), Err(SuitesError::NoneLeft(_))));
    }

    #[test]
    fn versions_lie_between_the_bounds() {
        let count = |min, max, suites| {
            let settings = Settings { version_min: min, version_max: max, suites, ..Settings::default() };
            versions(&settings).len()
        };
        assert_eq!(count(Version::V12, None, Suites::default()), 2);
        assert_eq!(count(Version::V12, Some(Version::V12), Suites::default()), 1);
        assert_eq!(count(Version::V13, None, Suites::default()), 1);
        let only_13 = parse(&["TLS_AES_128_GCM_SHA256"]).expect("known");
        assert_eq!(count(Version::V12, None, only_13.clone()), 1);
        assert_eq!(count(Version::V12, Some(Version::V12), only_13), 0);
    }
}
