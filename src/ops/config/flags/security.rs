//! Flags of certificates, browsers, users.

use std::time::Duration;

use super::super::{BadValue, value};
use super::{Flag, Kind};
use crate::tls::Version;

/// Certificates and browsers.
pub(super) const FLAGS: &[Flag] = &[
    Flag {
        name: "cert-file",
        kind: Kind::Text,
        default: "",
        help: "certificate for clients",
        set: |config, text| {
            config.client_tls.cert_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "key-file",
        kind: Kind::Text,
        default: "",
        help: "its key",
        set: |config, text| {
            config.client_tls.key_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "client-cert-auth",
        kind: Kind::Bool,
        default: "false",
        help: "demand a certificate from clients",
        set: |config, text| {
            config.client_tls.client_cert_auth = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "trusted-ca-file",
        kind: Kind::Text,
        default: "",
        help: "authorities of the certificates of clients",
        set: |config, text| {
            config.client_tls.trusted_ca_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "client-cert-file",
        kind: Kind::Text,
        default: "",
        help: "certificate for dialling, if another one",
        set: |config, text| {
            config.client_tls.client_cert_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "client-key-file",
        kind: Kind::Text,
        default: "",
        help: "its key",
        set: |config, text| {
            config.client_tls.client_key_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "client-crl-file",
        kind: Kind::Text,
        default: "",
        help: "revoked certificates of clients",
        set: |config, text| {
            config.client_tls.crl_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "client-cert-allowed-hostname",
        kind: Kind::Text,
        default: "",
        help: "host names that clients may have",
        set: |config, text| {
            config.client_tls.allowed_hostname = value::list(text);
            Ok(())
        },
    },
    Flag {
        name: "auto-tls",
        kind: Kind::Bool,
        default: "false",
        help: "make a certificate for clients at start",
        set: |config, text| {
            config.client_tls.auto = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "peer-cert-file",
        kind: Kind::Text,
        default: "",
        help: "certificate for members",
        set: |config, text| {
            config.peer_tls.cert_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "peer-key-file",
        kind: Kind::Text,
        default: "",
        help: "its key",
        set: |config, text| {
            config.peer_tls.key_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "peer-client-cert-auth",
        kind: Kind::Bool,
        default: "false",
        help: "demand a certificate from members",
        set: |config, text| {
            config.peer_tls.client_cert_auth = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "peer-trusted-ca-file",
        kind: Kind::Text,
        default: "",
        help: "authorities of the certificates of members",
        set: |config, text| {
            config.peer_tls.trusted_ca_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "peer-client-cert-file",
        kind: Kind::Text,
        default: "",
        help: "certificate for dialling, if another one",
        set: |config, text| {
            config.peer_tls.client_cert_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "peer-client-key-file",
        kind: Kind::Text,
        default: "",
        help: "its key",
        set: |config, text| {
            config.peer_tls.client_key_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "peer-crl-file",
        kind: Kind::Text,
        default: "",
        help: "revoked certificates of members",
        set: |config, text| {
            config.peer_tls.crl_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "peer-cert-allowed-hostname",
        kind: Kind::Text,
        default: "",
        help: "host names that members may have",
        set: |config, text| {
            config.peer_tls.allowed_hostname = value::list(text);
            Ok(())
        },
    },
    Flag {
        name: "peer-auto-tls",
        kind: Kind::Bool,
        default: "false",
        help: "make a certificate for members at start",
        set: |config, text| {
            config.peer_tls.auto = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "peer-cert-allowed-cn",
        kind: Kind::Text,
        default: "",
        help: "common names that members may have",
        set: |config, text| {
            config.peer_tls.allowed_cn = value::list(text);
            Ok(())
        },
    },
    Flag {
        name: "peer-skip-client-san-verification",
        kind: Kind::Bool,
        default: "false",
        help: "do not compare a member with its certificate",
        set: |config, text| {
            config.peer_tls.skip_client_san_verification = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "self-signed-cert-validity",
        kind: Kind::Number,
        default: "1",
        help: "years that made certificates last",
        set: |config, text| {
            config.security.self_signed_cert_validity_years = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "cipher-suites",
        kind: Kind::Text,
        default: "",
        help: "allowed TLS cipher suites",
        set: |config, text| {
            config.security.cipher_suites = value::list(text);
            Ok(())
        },
    },
    Flag {
        name: "tls-min-version",
        kind: Kind::Text,
        default: "TLS1.2",
        help: "oldest TLS version",
        set: |config, text| {
            config.security.tls_min_version = version(text)?.unwrap_or(Version::V12);
            Ok(())
        },
    },
    Flag {
        name: "tls-max-version",
        kind: Kind::Text,
        default: "",
        help: "newest TLS version",
        set: |config, text| {
            config.security.tls_max_version = version(text)?;
            Ok(())
        },
    },
    Flag {
        name: "cors",
        kind: Kind::Text,
        default: "*",
        help: "origins that browsers may call from",
        set: |config, text| {
            config.security.cors = value::list(text);
            Ok(())
        },
    },
    Flag {
        name: "host-whitelist",
        kind: Kind::Text,
        default: "*",
        help: "host names that plain HTTP may be addressed to",
        set: |config, text| {
            config.security.host_whitelist = value::list(text);
            Ok(())
        },
    },
];

/// Users.
pub(super) const AUTH: &[Flag] = &[
    Flag {
        name: "auth-token",
        kind: Kind::Text,
        default: "simple",
        help: "simple, or jwt,pub-key=…,priv-key=…,sign-method=…,ttl=…",
        set: |config, text| {
            config.auth.token = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "bcrypt-cost",
        kind: Kind::Number,
        default: "10",
        help: "cost of a password hash, 4 to 31",
        set: |config, text| {
            config.auth.bcrypt_cost = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "auth-token-ttl",
        kind: Kind::Number,
        default: "300",
        help: "seconds that a simple token lasts",
        set: |config, text| {
            config.auth.token_ttl = Duration::from_secs(value::integer::<u32>(text)?.into());
            Ok(())
        },
    },
];

fn version(text: &str) -> Result<Option<Version>, BadValue> {
    let versions = [("", None), ("TLS1.2", Some(Version::V12)), ("TLS1.3", Some(Version::V13))];
    value::choice(text, &versions)
}
