//! Signed tokens on both servers, for each kind of key; and what isn't one.

use std::process::{Command, Stdio};

use tonic::Code;

use crate::key;
use crate::server::{Kind, Server};
use crate::users::{add_role, add_user, enable, get, grant_role, login, put};

/// What a fresh server says about a signed token's life.
async fn play(kind: Kind, options: &str) {
    let flags = [format!("--auth-token=jwt,{options}"), "--bcrypt-cost=4".to_owned()];
    let Some(server) = Server::start(kind, &flags, "signed tokens").await else { return };
    let what = format!("{kind:?} {options}");
    let channel = server.connect().await;
    add_user(&channel, None, "root", "pw").await.expect("root is added");
    grant_role(&channel, None, "root", "root").await.expect("it gets its role");
    enable(&channel).await.expect("it is turned on");
    let token = login(&channel, "root", "pw").await.unwrap_or_else(|status| panic!("{what}: {status}"));
    assert_eq!(token.split('.').count(), 3, "{what}");
    put(&channel, Some(&token), "a", "1").await.unwrap_or_else(|status| panic!("{what}: {status}"));
    assert_eq!(get(&channel, Some(&token), "a").await.expect("root reads").as_deref(), Some("1"), "{what}");
    let junk = put(&channel, Some(&token[..token.len() - 6]), "a", "1").await.expect_err("it is cut");
    assert_eq!((junk.code(), junk.message()), (Code::Unauthenticated, "etcdserver: invalid auth token"), "{what}");
    // Any change of users or roles ends it for keys; users and roles are still root's.
    add_role(&channel, Some(&token), "r", None).await.expect("a role is added");
    for refused in [put(&channel, Some(&token), "a", "2").await, get(&channel, Some(&token), "a").await.map(drop)] {
        let refused = refused.expect_err("it is of before");
        let found = (refused.code(), refused.message());
        assert_eq!(found, (Code::InvalidArgument, "etcdserver: revision of auth store is old"), "{what}");
    }
    add_role(&channel, Some(&token), "r2", None).await.unwrap_or_else(|status| panic!("{what}: {status}"));
    let token = login(&channel, "root", "pw").await.expect("root logs in again");
    put(&channel, Some(&token), "a", "2").await.unwrap_or_else(|status| panic!("{what}: {status}"));
}

fn keys(method: &str, private: &str, public: &str) -> String {
    let mut options = format!("sign-method={method},ttl=10m");
    for (name, file) in [("priv-key", private), ("pub-key", public)] {
        if !file.is_empty() {
            options.push_str(&format!(",{name}={}", key(file)));
        }
    }
    options
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_key() {
    for options in [
        keys("RS256", "rsa.key.pem", "rsa.pub.pem"),
        keys("RS512", "rsa-pkcs1.key.pem", "rsa.crt.pem"),
        keys("PS384", "rsa.key.pem", ""),
        keys("ES256", "ec.key.pem", "ec.pub.pem"),
        keys("ES384", "ec384.key.pem", ""),
        keys("ES512", "ec521-sec1.key.pem", "ec521.pub.pem"),
        keys("EdDSA", "ed.key.pem", "ed.pub.pem"),
        keys("HS256", "rsa.key.pem", ""),
    ] {
        for kind in [Kind::Etcd, Kind::Rusd] {
            play(kind, &options).await;
        }
    }
}

/// A member that only has the public key takes tokens and gives out none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_key_gives_no_tokens_out() {
    for kind in [Kind::Etcd, Kind::Rusd] {
        let flags = [format!("--auth-token=jwt,{}", keys("RS256", "", "rsa.pub.pem")), "--bcrypt-cost=4".to_owned()];
        let Some(server) = Server::start(kind, &flags, "signed tokens").await else { continue };
        let channel = server.connect().await;
        add_user(&channel, None, "root", "pw").await.expect("root is added");
        grant_role(&channel, None, "root", "root").await.expect("it gets its role");
        enable(&channel).await.expect("it is turned on");
        let refused = login(&channel, "root", "pw").await.expect_err("there is no key");
        let text = "auth: token signing attempted with verify-only key";
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, text), "{kind:?}");
    }
}

#[test]
fn what_can_not_be_followed_is_refused_at_start() {
    for (options, words) in [
        ("jwt", "sign-method"),
        ("jwt,sign-method=none", "sign-method"),
        ("jwt,sign-method=RS256", "a key is missing"),
        ("jwt,sign-method=RS256,priv-key=/there/is/none", "can't be read"),
        (&format!("jwt,sign-method=ES512,priv-key={}", key("ec384.key.pem")), "priv-key holds no key for this"),
        (&format!("jwt,sign-method=ES384,pub-key={}", key("ec521.pub.pem")), "pub-key holds no key for this"),
        ("jwt,sign-method=RS256,ttl=x", "is no time"),
        ("jwt,sign-method=RS256,key=x", "is no option"),
        ("other", "neither simple nor jwt"),
    ] {
        let dir = tempfile::TempDir::new().expect("a temporary directory can be made");
        let output = Command::new(env!("CARGO_BIN_EXE_rusd"))
            .args([&format!("--data-dir={}", dir.path().join("d").display()), &format!("--auth-token={options}")])
            .stdin(Stdio::null())
            .output()
            .expect("rusd starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && text.contains("--auth-token") && text.contains(words),
            "{options}: {text}"
        );
        assert!(!dir.path().join("d").exists(), "{options}: before anything is made");
    }
}
