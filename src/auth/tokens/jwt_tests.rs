//! Signed tokens with keys made by OpenSSL, which lie in `tests/keys`.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Jwt, JwtError, JwtKeys, JwtOptions};
use crate::auth::Caller;
use crate::types::RequestError;

const RSA_PRIVATE: &[u8] = include_bytes!("../../../tests/keys/rsa.key.pem");
const RSA_PKCS1: &[u8] = include_bytes!("../../../tests/keys/rsa-pkcs1.key.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../../../tests/keys/rsa.pub.pem");
const RSA_CERTIFICATE: &[u8] = include_bytes!("../../../tests/keys/rsa.crt.pem");
const EC_SEC1: &[u8] = include_bytes!("../../../tests/keys/ec-sec1.key.pem");
const EC_PRIVATE: &[u8] = include_bytes!("../../../tests/keys/ec.key.pem");
const EC_PUBLIC: &[u8] = include_bytes!("../../../tests/keys/ec.pub.pem");
const EC384: &[u8] = include_bytes!("../../../tests/keys/ec384.key.pem");
const EC521_SEC1: &[u8] = include_bytes!("../../../tests/keys/ec521-sec1.key.pem");
const EC521_PRIVATE: &[u8] = include_bytes!("../../../tests/keys/ec521.key.pem");
const EC521_PUBLIC: &[u8] = include_bytes!("../../../tests/keys/ec521.pub.pem");
const EC521_CERTIFICATE: &[u8] = include_bytes!("../../../tests/keys/ec521.crt.pem");
const ED_PRIVATE: &[u8] = include_bytes!("../../../tests/keys/ed.key.pem");
const ED_PUBLIC: &[u8] = include_bytes!("../../../tests/keys/ed.pub.pem");

fn caller(jwt: &Jwt, token: &str, wall: SystemTime) -> Result<Caller, RequestError> {
    jwt.check(token, wall).map(|(caller, _)| caller)
}

fn options(text: &str) -> Result<JwtOptions, JwtError> {
    JwtOptions::parse(text, |ttl| ttl.strip_suffix('s')?.parse().ok().map(Duration::from_secs))
}

fn jwt(method: &str, private: Option<&[u8]>, public: Option<&[u8]>) -> Result<Jwt, JwtError> {
    let keys = JwtKeys { public: public.map(<[u8]>::to_vec), private: private.map(<[u8]>::to_vec) };
    Jwt::new(&options(&format!("sign-method={method},ttl=60s"))?, &keys)
}

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

fn user(name: &str, revision: u64) -> Caller {
    Caller::User { name: name.into(), revision }
}

#[test]
fn every_method_knows_its_own_tokens_again() {
    /// Method, private and public key.
    type Case = (&'static str, &'static [u8], Option<&'static [u8]>);
    let cases: [Case; 19] = [
        ("RS256", RSA_PRIVATE, Some(RSA_PUBLIC)),
        ("RS256", RSA_PKCS1, Some(RSA_CERTIFICATE)),
        ("RS384", RSA_PRIVATE, None),
        ("RS512", RSA_PRIVATE, None),
        ("PS256", RSA_PRIVATE, Some(RSA_PUBLIC)),
        ("PS384", RSA_PRIVATE, None),
        ("PS512", RSA_PRIVATE, None),
        ("ES256", EC_PRIVATE, Some(EC_PUBLIC)),
        ("ES256", EC_SEC1, Some(EC_PUBLIC)),
        ("ES256", EC_PRIVATE, None),
        ("ES384", EC384, None),
        ("ES512", EC521_PRIVATE, Some(EC521_PUBLIC)),
        ("ES512", EC521_SEC1, Some(EC521_CERTIFICATE)),
        ("ES512", EC521_SEC1, None),
        ("EdDSA", ED_PRIVATE, Some(ED_PUBLIC)),
        ("EdDSA", ED_PRIVATE, None),
        ("HS256", b"secret", None),
        ("HS384", b"secret", Some(RSA_PUBLIC)),
        ("HS512", b"secret", None),
    ];
    for (method, private, public) in cases {
        let jwt = jwt(method, Some(private), public).unwrap_or_else(|error| panic!("{method}: {error}"));
        let token = jwt.sign("ü", 7, at(1_000)).expect("there is a key");
        let token = token.reveal();
        for _ in 0..2 {
            assert_eq!(caller(&jwt, token, at(1_059)), Ok(user("ü", 7)), "{method}");
        }
        assert_eq!(caller(&jwt, token, at(1_060)), Err(RequestError::AuthTokenInvalid), "{method}: its time is over");
        let cut = &token[..token.len() - 4];
        assert_eq!(caller(&jwt, cut, at(1_000)), Err(RequestError::AuthTokenInvalid), "{method}");
        assert!(!format!("{jwt:?}").contains("secret"));
    }
}

#[test]
fn a_public_key_alone_verifies_and_signs_nothing() {
    let signer = jwt("RS256", Some(RSA_PRIVATE), None).expect("a key");
    let token = signer.sign("u", 3, at(0)).expect("a key to sign with");
    for public in [RSA_PUBLIC, RSA_CERTIFICATE] {
        let verifier = jwt("RS256", None, Some(public)).expect("a key");
        assert_eq!(caller(&verifier, token.reveal(), at(1)), Ok(user("u", 3)));
        assert_eq!(verifier.sign("u", 3, at(0)), Err(RequestError::VerifyOnlyKey));
    }
}

/// A signature of OpenSSL's over `header.claims`, and the same with a bit changed, cut, or with a zero for a number.
#[test]
fn a_signature_of_another_maker_over_p521_is_known_and_nothing_near_it() {
    let verifier = jwt("ES512", None, Some(EC521_PUBLIC)).expect("a key");
    let token = include_str!("../../../tests/keys/es512.token").trim();
    assert_eq!(caller(&verifier, token, at(1)), Ok(user("u", 3)));
    assert_eq!(verifier.sign("u", 3, at(0)), Err(RequestError::VerifyOnlyKey));
    let (message, signature) = token.rsplit_once('.').expect("it has parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    let (r, s) = signature.split_at(signature.len() / 2);
    let (mut other, zero) = (signature.clone(), [0; 66]);
    other[100] ^= 1;
    for bad in [&other, &signature[1..], &[&zero, s].concat(), &[r, &zero].concat(), &[255; 132], &[]] {
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(bad));
        assert_eq!(caller(&verifier, &token, at(1)), Err(RequestError::AuthTokenInvalid));
    }
}

/// A token can't choose how it is looked at: not `none`, and not the public key as a shared secret.
#[test]
fn the_algorithm_is_the_servers() {
    let server = jwt("RS256", Some(RSA_PRIVATE), Some(RSA_PUBLIC)).expect("keys");
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = part(r#"{"username":"root","revision":9,"exp":99999999999}"#);
    let forged = jwt("HS256", Some(RSA_PUBLIC), None).expect("any bytes are a secret").sign("root", 9, at(0));
    let unsigned = format!("{}.{claims}.", part(r#"{"alg":"none"}"#));
    let stolen = format!("{}.{claims}.{}", part(r#"{"alg":"RS256"}"#), part("x"));
    for token in [forged.expect("signed").reveal(), &unsigned, &stolen, "", ".", "..", "a.b.c", &"x".repeat(1 << 20)] {
        assert_eq!(caller(&server, token, at(1)), Err(RequestError::AuthTokenInvalid));
    }
}

#[test]
fn claims_of_another_maker_are_read() {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
    let sign_with = |head: &str, claims: &str| {
        let head = URL_SAFE_NO_PAD.encode(head);
        let message = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes()).as_ref()))
    };
    let sign = |claims: &str| sign_with(r#"{"typ":"JWT","alg":"HS256"}"#, claims);
    let server = jwt("HS256", Some(b"secret"), None).expect("a secret");
    let token = sign(r#"{"exp":1.7e9,"revision":4.0,"username":"u"}"#);
    assert_eq!(caller(&server, &token, at(1_000)), Ok(user("u", 4)));
    let critical = sign_with(r#"{"alg":"HS256","crit":["x"],"x":1}"#, r#"{"exp":99,"revision":4,"username":"u"}"#);
    assert_eq!(caller(&server, &critical, at(1)), Err(RequestError::AuthTokenInvalid), "that isn't understood");
    let later = sign(r#"{"exp":99,"nbf":50,"revision":4,"username":"u"}"#);
    assert_eq!(caller(&server, &later, at(49)), Err(RequestError::AuthTokenInvalid));
    assert_eq!(caller(&server, &later, at(50)), Ok(user("u", 4)));
    for claims in
        [r#"{"revision":4,"exp":99}"#, r#"{"username":"u","exp":99}"#, r#"{"username":"u","revision":4}"#, "[]"]
    {
        assert_eq!(caller(&server, &sign(claims), at(1)), Err(RequestError::AuthTokenInvalid), "{claims}");
    }
}

#[test]
fn options_and_keys_are_looked_at() {
    for text in ["sign-method=RS256,what=1", "RS256", "sign-method=RS256,sign-method=RS256"] {
        assert!(matches!(options(text), Err(JwtError::BadOption(_))), "{text}");
    }
    for text in ["", "pub-key=a", "sign-method=none", "sign-method=ES521", "sign-method=rs256"] {
        assert!(matches!(options(text), Err(JwtError::BadMethod(_))), "{text}");
    }
    assert_eq!(options("sign-method=RS256,ttl=5"), Err(JwtError::BadTtl("5".into())));
    assert_eq!(options("sign-method=RS256,ttl=0s"), Err(JwtError::BadTtl("0s".into())));
    let read = options("pub-key=a,ttl=5s,priv-key=b,sign-method=RS256").expect("all of them");
    assert_eq!((read.public_key.as_deref(), read.private_key.as_deref()), (Some("a"), Some("b")));
    let error = |method, private, public| jwt(method, private, public).err();
    assert_eq!(error("RS256", None, None), Some(JwtError::MissingKey));
    assert_eq!(error("HS256", None, Some(RSA_PUBLIC)), Some(JwtError::MissingKey));
    assert_eq!(error("HS256", Some(b""), None), Some(JwtError::BadKey("priv-key")));
    assert_eq!(error("RS256", Some(EC_PRIVATE), None), Some(JwtError::BadKey("priv-key")));
    assert_eq!(error("ES256", Some(EC384), None), Some(JwtError::BadKey("priv-key")));
    for other in [EC384, EC_PRIVATE, EC_SEC1, RSA_PRIVATE, ED_PRIVATE, EC521_PUBLIC, b"junk"] {
        assert_eq!(error("ES512", Some(other), None), Some(JwtError::BadKey("priv-key")));
    }
    for method in ["ES256", "ES384"] {
        assert_eq!(error(method, Some(EC521_PRIVATE), None), Some(JwtError::BadKey("priv-key")));
        assert_eq!(error(method, None, Some(EC521_PUBLIC)), Some(JwtError::BadKey("pub-key")));
    }
    for other in [EC_PUBLIC, ED_PUBLIC, RSA_PUBLIC, RSA_CERTIFICATE] {
        assert_eq!(error("ES512", None, Some(other)), Some(JwtError::BadKey("pub-key")));
        assert_eq!(error("ES512", Some(EC521_PRIVATE), Some(other)), Some(JwtError::KeysDiffer));
    }
    assert_eq!(error("RS256", Some(RSA_PRIVATE), Some(b"junk")), Some(JwtError::BadKey("pub-key")));
    assert_eq!(error("RS256", Some(RSA_PRIVATE), Some(EC_PUBLIC)), Some(JwtError::KeysDiffer));
}
