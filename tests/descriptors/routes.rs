//! Holds the JSON gateway's paths against the `google.api.http` options in etcd's published files.
//!
//! ```text
//! rusd_proto::routes() ──────────────────────────────────────────┐
//!                                                                ├─► one line a path ─► equal sets
//! target/peers/descriptors ─► each method's option, own decoder ─┘
//! ```
//!
//! prost's descriptor types drop options they don't know, so the few fields on the way are declared here.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorSet;
use rusd_proto::routes;

/// `google.protobuf.FileDescriptorSet`, as far as options of methods lie on the way.
#[derive(Message)]
struct Set {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Service>,
}

#[derive(Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<Method>,
}

#[derive(Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "4")]
    options: Option<Options>,
}

#[derive(Message)]
struct Options {
    /// The extension `google.api.http`.
    #[prost(message, optional, tag = "72295728")]
    http: Option<HttpRule>,
}

/// `google.api.HttpRule`: a path stands in the field of its verb.
#[derive(Message)]
struct HttpRule {
    #[prost(string, tag = "2")]
    get: String,
    #[prost(string, tag = "3")]
    put: String,
    #[prost(string, tag = "4")]
    post: String,
    #[prost(string, tag = "5")]
    delete: String,
    #[prost(string, tag = "6")]
    patch: String,
    /// The request's field that the body is; `*` for the whole request.
    #[prost(string, tag = "7")]
    body: String,
    #[prost(message, repeated, tag = "11")]
    additional_bindings: Vec<HttpRule>,
}

#[test]
fn every_path_is_as_published() {
    let Some(published) = super::published() else { return };
    let theirs = published_lines(&Set::decode(&published[..]).expect("the dump is a descriptor set"));
    assert!(theirs.len() > 50, "only {} paths: the options are not all there", theirs.len());
    let ours: BTreeSet<String> = routes().iter().map(|route| line("post", route.path, "*", &full(route))).collect();
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nnot published: {extra:#?}");
    println!("routes: {} paths are equal", ours.len());
}

#[test]
fn every_route_names_a_method_with_its_types_and_all_but_four_methods_have_one() {
    let set = FileDescriptorSet::decode(rusd_proto::FILE_DESCRIPTOR_SET).expect("ours is a descriptor set");
    let mut without = BTreeSet::new();
    let mut found = 0;
    for file in &set.file {
        for service in &file.service {
            let service_name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                let mut calls = routes().iter().filter(|r| r.service == service_name && r.method == method.name());
                let Some(first) = calls.next() else {
                    without.insert(format!("{service_name}/{}", method.name()));
                    continue;
                };
                found += 1;
                for route in std::iter::once(first).chain(calls.inspect(|_| found += 1)) {
                    assert_eq!(format!(".{}", route.request), method.input_type(), "{route:?}");
                    assert_eq!(format!(".{}", route.response), method.output_type(), "{route:?}");
                    assert_eq!(route.request_stream, method.client_streaming(), "{route:?}");
                    assert_eq!(route.response_stream, method.server_streaming(), "{route:?}");
                }
            }
        }
    }
    assert_eq!(found, routes().len(), "a route names a method that isn't there");
    let grpc_only = ["etcdserverpb.KV/RangeStream"];
    let health = ["Check", "List", "Watch"].map(|method| format!("grpc.health.v1.Health/{method}"));
    assert_eq!(without, grpc_only.map(str::to_owned).into_iter().chain(health).collect());
}

#[test]
fn paths_are_told_apart_and_leases_keep_their_old_ones() {
    let paths: BTreeSet<_> = routes().iter().map(|route| route.path).collect();
    assert_eq!(paths.len(), routes().len(), "two routes have one path");
    assert!(paths.iter().all(|path| path.starts_with("/v3/")));
    for (old, new) in
        ["revoke", "timetolive", "leases"].map(|call| (format!("/v3/kv/lease/{call}"), format!("/v3/lease/{call}")))
    {
        let call = |path: &str| routes().iter().find(|route| route.path == path).map(full);
        assert!(call(&old).is_some());
        assert_eq!(call(&old), call(&new));
    }
    let streams: Vec<_> = routes().iter().filter(|route| route.response_stream).map(|route| route.path).collect();
    assert_eq!(streams, ["/v3/watch", "/v3/lease/keepalive", "/v3/maintenance/snapshot", "/v3/election/observe"]);
}

#[test]
fn verb_path_body_and_a_second_path_are_seen() {
    let second = HttpRule { get: "/b".into(), body: "key".into(), ..HttpRule::default() };
    let http =
        HttpRule { post: "/a".into(), body: "*".into(), additional_bindings: vec![second], ..HttpRule::default() };
    let method = Method { name: "M".into(), options: Some(Options { http: Some(http) }) };
    let bare = Method { name: "N".into(), options: None };
    let service = Service { name: "S".into(), method: vec![method, bare] };
    let set = Set { file: vec![File { package: "p".into(), service: vec![service] }] };
    assert_eq!(published_lines(&set), ["get /b key p.S/M", "post /a * p.S/M"].map(str::to_owned).into());
}

fn full(route: &rusd_proto::Route) -> String {
    format!("{}/{}", route.service, route.method)
}

fn line(verb: &str, path: &str, body: &str, method: &str) -> String {
    format!("{verb} {path} {body} {method}")
}

/// Every path of every option.
fn published_lines(set: &Set) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let Some(http) = method.options.as_ref().and_then(|options| options.http.as_ref()) else { continue };
                let name = format!("{}.{}/{}", file.package, service.name, method.name);
                for rule in std::iter::once(http).chain(&http.additional_bindings) {
                    let HttpRule { get, put, post, delete, patch, .. } = rule;
                    let verbs = [("get", get), ("put", put), ("post", post), ("delete", delete), ("patch", patch)];
                    let (verb, path) = verbs.into_iter().find(|(_, path)| !path.is_empty()).expect("a known verb");
                    lines.insert(line(verb, path, &rule.body, &name));
                }
            }
        }
    }
    lines
}
