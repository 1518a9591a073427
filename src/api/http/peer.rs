//! What the peer URL answers: who this is and who the members are. Members talk to each other elsewhere.

use http::header::HeaderName;
use http::{HeaderValue, Method, Response, StatusCode};

use super::{JSON, not_allowed, not_found, pages, plain};
use crate::api::grpc::body::ReplyBody;
use crate::api::seams::MemberInfo;
use crate::types::ClusterId;

/// The header that says which cluster answers.
const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");

/// What etcd calls plain text here.
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain");

/// Serves one request.
pub(in crate::api) fn route(
    cluster: ClusterId,
    members: &dyn Fn() -> Vec<MemberInfo>,
    method: &Method,
    path: &str,
) -> Response<ReplyBody> {
    match path {
        "/version" | "/members" | "/downgrade/enabled" if method != Method::GET => not_allowed(),
        "/version" => pages::version(),
        "/members" => list(cluster, members()),
        // None ever is.
        "/downgrade/enabled" => of(cluster, plain(StatusCode::OK, Some(PLAIN), "false".to_owned())),
        _ => not_found(),
    }
}

fn list(cluster: ClusterId, mut members: Vec<MemberInfo>) -> Response<ReplyBody> {
    members.sort_unstable_by_key(|member| member.id);
    let members: Vec<String> = members.iter().map(json).collect();
    of(cluster, plain(StatusCode::OK, Some(JSON), format!("[{}]\n", members.join(","))))
}

/// Says whose answer it is.
fn of(cluster: ClusterId, mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    if let Ok(id) = HeaderValue::from_str(&cluster.to_string()) {
        response.headers_mut().insert(CLUSTER_ID, id);
    }
    response
}

/// A member, with the keys in etcd's order.
fn json(member: &MemberInfo) -> String {
    let (peers, clients) = (serde_json::json!(member.peer_urls), serde_json::json!(member.client_urls));
    let mut text = format!(r#"{{"id":{},"peerURLs":{peers}"#, member.id.get());
    if member.is_learner {
        text.push_str(r#","isLearner":true"#);
    }
    if !member.name.is_empty() {
        text.push_str(&format!(r#","name":{}"#, serde_json::json!(member.name)));
    }
    if !member.client_urls.is_empty() {
        text.push_str(&format!(r#","clientURLs":{clients}"#));
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MemberId;

    #[test]
    fn a_member_is_written_as_etcd_writes_it() {
        let mut member = MemberInfo {
            id: MemberId(9_265_619_892_315_062_708),
            name: "a".into(),
            peer_urls: vec!["http://127.0.0.1:33800".into()],
            client_urls: vec!["http://127.0.0.1:33790".into()],
            is_learner: false,
        };
        let text = r#"{"id":9265619892315062708,"peerURLs":["http://127.0.0.1:33800"],"name":"a","clientURLs":["http://127.0.0.1:33790"]}"#;
        assert_eq!(json(&member), text);
        member = MemberInfo { name: String::new(), client_urls: vec![], is_learner: true, ..member };
        assert_eq!(
            json(&member),
            r#"{"id":9265619892315062708,"peerURLs":["http://127.0.0.1:33800"],"isLearner":true}"#
        );
    }
}
