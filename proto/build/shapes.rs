//! The messages of the JSON gateway's methods as a Rust table: what a translator between JSON and the wire asks for.
//!
//! ```text
//! routes' requests and responses ─► every message within them ─► Shape { name, fields }, in the order of names
//! ```
//! A kind of field that none of etcd's messages has today (maps, floats, groups) ends the build: the translator
//! must learn it first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Two slice expressions: of `Shape`s and of `Choice`s.
///
/// # Errors
/// A field of a kind that isn't translated.
pub(crate) fn generate(schemas: &FileDescriptorSet) -> Result<(String, String), String> {
    let mut all = Names::default();
    for file in &schemas.file {
        all.add(file.package(), &file.message_type, &file.enum_type);
    }
    let wanted = reached(schemas, &all);
    let messages: BTreeMap<&str, usize> = wanted.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let choices: BTreeMap<&str, usize> = all.enums.keys().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let mut shapes = String::from("&[\n");
    for name in &wanted {
        let message = all.messages[name];
        write(&mut shapes, format_args!("    Shape {{ name: {name:?}, fields: &[\n"));
        let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        for field in fields {
            write(&mut shapes, format_args!("        {},\n", field_of(name, message, field, &messages, &choices)?));
        }
        shapes.push_str("    ] },\n");
    }
    shapes.push(']');
    let mut values = String::from("&[\n");
    for (name, list) in &all.enums {
        let pairs: Vec<String> =
            list.value.iter().map(|value| format!("({:?}, {})", value.name(), value.number())).collect();
        write(&mut values, format_args!("    Choice {{ name: {name:?}, values: &[{}] }},\n", pairs.join(", ")));
    }
    values.push(']');
    Ok((shapes, values))
}

/// Messages and enums by their full names.
#[derive(Default)]
struct Names<'a> {
    messages: BTreeMap<String, &'a DescriptorProto>,
    enums: BTreeMap<String, &'a EnumDescriptorProto>,
}

impl<'a> Names<'a> {
    fn add(&mut self, scope: &str, messages: &'a [DescriptorProto], enums: &'a [EnumDescriptorProto]) {
        self.enums.extend(enums.iter().map(|list| (format!("{scope}.{}", list.name()), list)));
        for message in messages {
            let name = format!("{scope}.{}", message.name());
            self.add(&name, &message.nested_type, &message.enum_type);
            self.messages.insert(name, message);
        }
    }
}

/// The messages that the gateway's methods take and give, and those within them. Methods without a path are taken
/// along: a table of routes that grows needs no second list here.
fn reached(schemas: &FileDescriptorSet, all: &Names) -> BTreeSet<String> {
    let services = schemas.file.iter().filter(|file| file.package() != "grpc.health.v1").flat_map(|file| &file.service);
    let methods = services.flat_map(|service| &service.method);
    let mut open: Vec<String> =
        methods.flat_map(|method| [plain(method.input_type()), plain(method.output_type())]).collect();
    let mut found = BTreeSet::new();
    while let Some(name) = open.pop() {
        let within = all.messages[&name].field.iter().filter(|field| field.r#type() == Type::Message);
        open.extend(within.map(|field| plain(field.type_name())).filter(|inner| !found.contains(inner)));
        found.insert(name);
    }
    found
}

fn field_of(
    name: &str,
    message: &DescriptorProto,
    field: &FieldDescriptorProto,
    messages: &BTreeMap<&str, usize>,
    choices: &BTreeMap<&str, usize>,
) -> Result<String, String> {
    let type_name = plain(field.type_name());
    let kind = match field.r#type() {
        Type::Bool => "Kind::Bool".to_owned(),
        Type::Int32 => "Kind::Int32".to_owned(),
        Type::Int64 => "Kind::Int64".to_owned(),
        Type::Uint32 => "Kind::Uint32".to_owned(),
        Type::Uint64 => "Kind::Uint64".to_owned(),
        Type::String => "Kind::String".to_owned(),
        Type::Bytes => "Kind::Bytes".to_owned(),
        Type::Enum => format!("Kind::Enum({})", choices[type_name.as_str()]),
        Type::Message => format!("Kind::Message({})", messages[type_name.as_str()]),
        other => return Err(format!("{name}.{}: {other:?} is not translated to JSON yet", field.name())),
    };
    if message.nested_type.iter().any(|nested| nested.options.as_ref().is_some_and(|options| options.map_entry())) {
        return Err(format!("{name}: maps are not translated to JSON yet"));
    }
    if field.proto3_optional() {
        return Err(format!("{name}.{}: optional fields are not translated to JSON yet", field.name()));
    }
    let oneof = match field.oneof_index {
        Some(at) => {
            let at = usize::try_from(at).map_err(|error| error.to_string())?;
            format!("Some(({at}, {:?}))", format!("{name}.{}", message.oneof_decl[at].name()))
        }
        None => "None".to_owned(),
    };
    Ok(format!(
        "Field {{ number: {}, name: {:?}, json_name: {:?}, kind: {kind}, repeated: {}, oneof: {oneof} }}",
        field.number(),
        field.name(),
        field.json_name(),
        field.label() == Label::Repeated,
    ))
}

/// Types are written from the root, with a dot in front.
fn plain(type_name: &str) -> String {
    type_name.trim_start_matches('.').to_owned()
}

fn write(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string doesn't fail.
    let _ = out.write_fmt(text);
}
