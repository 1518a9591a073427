//! The JSON gateway over TLS: a client certificate lets in, and makes nobody a user.

use std::process::Command;

use rusd::env::Env;
use rusd::tls::{Connector, Pair, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::authority::{Authority, Wanted};
use crate::process::{Member, Place, flag};

/// The answer to a POST over TLS, head and body.
async fn post(url: &str, connector: &Connector, path: &str, token: &str, body: &str) -> String {
    let address = url.split_once("://").expect("a URL").1;
    let socket = TcpStream::connect(address).await.expect("a serving server accepts connections");
    let mut stream = connector.connect(address, socket).await.expect("a handshake");
    let authorization = if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("a request is taken");
    stream.flush().await.expect("a request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer comes");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_makes_nobody_a_user_there() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let ca = authority.write(place.path(), "ca");
    let server = authority.issue(place.path(), "server", &Wanted::default());
    let root = authority.issue(place.path(), "root", &Wanted { common_name: "root", ..Wanted::default() });
    let flags = [
        flag("cert-file", &server.cert),
        flag("key-file", &server.key),
        flag("trusted-ca-file", &ca),
        "--client-cert-auth".to_owned(),
        "--bcrypt-cost=4".to_owned(),
    ];
    let member = Member::new(&place, "m", "https", "http").with(&flags).started();
    let pair = Pair { cert: root.cert.clone(), key: root.key.clone() };
    let settings = Settings { client_pair: Some(pair), trusted_ca: Some(ca.clone()), ..Settings::default() };
    let connector = Connector::new("test", settings, Env::real()).expect("good files");
    let ask = |path: &'static str, token: String, body: &'static str| {
        let (url, connector) = (member.client.clone(), connector.clone());
        async move { post(&url, &connector, path, &token, body).await }
    };
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"p"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        let answer = ask(path, String::new(), body).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let by_certificate = [flag("cacert", &ca), flag("cert", &root.cert), flag("key", &root.key)];
    member.serves(&by_certificate, "k");
    let put = r#"{"key":"aw==","value":"dg=="}"#;
    for path in ["/v3/kv/put", "/v3/kv/range", "/v3/auth/user/list", "/v3/maintenance/snapshot", "/v3/lease/keepalive"]
    {
        let answer = ask(path, String::new(), put).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("user name is empty"), "{path}: {answer}");
    }
    let answer = ask("/v3/auth/authenticate", String::new(), r#"{"name":"root","password":"p"}"#).await;
    let token = answer.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let answer = ask("/v3/kv/put", token.to_owned(), put).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // And over HTTP/2, where gRPC and JSON come in at one door.
    for (token, expected) in [("", "user name is empty"), (token, "\"count\":\"1\"")] {
        let curl = Command::new("curl")
            .args(["-sS", "--http2", "-d", r#"{"key":"aw=="}"#, "-H", &format!("Authorization: {token}")])
            .args(["--cacert".as_ref(), ca.as_os_str(), "--cert".as_ref(), root.cert.as_os_str()])
            .args(["--key".as_ref(), root.key.as_os_str()])
            .arg(format!("{}/v3/kv/range", member.client))
            .output();
        match curl {
            Err(error) => println!("SKIPPED: no curl: {error}"),
            Ok(curl) => {
                let text = String::from_utf8_lossy(&curl.stdout).into_owned();
                assert!(text.contains(expected), "{text} {}", String::from_utf8_lossy(&curl.stderr));
            }
        }
    }
}
