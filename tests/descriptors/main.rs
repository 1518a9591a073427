//! Holds our schemas against the ones that etcd's Go module v3.7.1 publishes.
//!
//! ```text
//! proto/schema ─► rusd_proto::FILE_DESCRIPTOR_SET ─┐
//!                                                  ├─► one line a field, enum value and method ─► equal sets
//! target/peers/descriptors (etcd's Go module) ─────┘
//! ```
//!
//! Files and comments may differ; whatever is seen on the wire or in JSON may not. The JSON gateway's paths
//! are options there and a table here: `routes.rs`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the test starts real processes, which live in the real world"
)]

#[path = "../support/peers.rs"]
mod peers;
mod routes;

use std::collections::BTreeSet;
use std::process::Command;

use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

#[test]
fn every_message_enum_and_method_is_as_published() {
    let Some(published) = published() else { return };
    let theirs = lines(&FileDescriptorSet::decode(&published[..]).expect("the dump is a descriptor set"));
    let ours = lines(&FileDescriptorSet::decode(rusd_proto::FILE_DESCRIPTOR_SET).expect("ours is a descriptor set"));
    assert!(theirs.len() > 400, "only {} lines: the dump is not the whole API", theirs.len());
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nnot published: {extra:#?}");
    println!("descriptors: {} messages' fields, enum values and methods are equal", ours.len());
}

#[test]
fn a_changed_number_is_seen() {
    let mut set = FileDescriptorSet::decode(rusd_proto::FILE_DESCRIPTOR_SET).expect("ours is a descriptor set");
    let before = lines(&set);
    set.file[0].message_type[0].field[0].number = Some(99);
    assert_ne!(lines(&set), before);
}

/// What etcd's module registers, as an encoded `FileDescriptorSet`; `None` when the program isn't built.
fn published() -> Option<Vec<u8>> {
    let program = peers::peer("descriptors", "descriptors")?;
    let published = Command::new(program).output().expect("the dump program starts");
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    Some(published.stdout)
}

/// Everything in the set that a peer can see, as comparable text.
fn lines(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in &set.file {
        let package = file.package();
        for message in &file.message_type {
            message_lines(package, message, &mut lines);
        }
        for enumeration in &file.enum_type {
            enum_lines(package, enumeration, &mut lines);
        }
        for service in &file.service {
            for method in &service.method {
                lines.insert(format!(
                    "rpc {package}.{}/{} {}{} -> {}{}",
                    service.name(),
                    method.name(),
                    if method.client_streaming() { "stream " } else { "" },
                    method.input_type(),
                    if method.server_streaming() { "stream " } else { "" },
                    method.output_type(),
                ));
            }
        }
    }
    lines
}

fn message_lines(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        let oneof = field.oneof_index.and_then(|at| message.oneof_decl.get(usize::try_from(at).ok()?));
        lines.insert(format!(
            "field {name}.{} = {} {:?} {:?} {} json {} oneof {}",
            field.name(),
            field.number(),
            field.label(),
            field.r#type(),
            field.type_name(),
            field.json_name(),
            oneof.map_or("-", |oneof| oneof.name()),
        ));
    }
    for nested in &message.nested_type {
        message_lines(&name, nested, lines);
    }
    for enumeration in &message.enum_type {
        enum_lines(&name, enumeration, lines);
    }
}

fn enum_lines(scope: &str, enumeration: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &enumeration.value {
        lines.insert(format!("enum {scope}.{}.{} = {}", enumeration.name(), value.name(), value.number()));
    }
}
