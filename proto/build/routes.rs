//! `schema/routes.txt` as a Rust table: each path with what the schemas say about its method.
//!
//! ```text
//! line = PATH PACKAGE.SERVICE/METHOD     blank lines and those that start with `#` don't count
//! ```
//! A path that stands twice and a method that no schema has end the build.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use prost_types::{FileDescriptorSet, MethodDescriptorProto};

/// A slice expression of `Route`s, in the table's order.
///
/// # Errors
/// The first line that names nothing, with its number.
pub(crate) fn generate(table: &str, schemas: &FileDescriptorSet) -> Result<String, String> {
    let methods = methods(schemas);
    let mut paths = HashSet::new();
    let mut out = String::from("&[\n");
    for (at, line) in table.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |what: &str| format!("schema/routes.txt:{}: {what}: {line}", at + 1);
        let (path, name) = line.split_once(' ').ok_or_else(|| fault("a path and a method belong here"))?;
        if !paths.insert(path) {
            return Err(fault("the path stands twice"));
        }
        let method = methods.get(name.trim()).ok_or_else(|| fault("no schema has this method"))?;
        let (service, _) = name.trim().split_once('/').ok_or_else(|| fault("a method belongs here"))?;
        writeln!(
            out,
            "    Route {{ path: {path:?}, service: {service:?}, method: {:?}, request: {:?}, response: {:?}, \
             request_stream: {}, response_stream: {} }},",
            method.name(),
            // Types are written from the root, with a dot in front.
            method.input_type().trim_start_matches('.'),
            method.output_type().trim_start_matches('.'),
            method.client_streaming(),
            method.server_streaming(),
        )
        .map_err(|error| fault(&error.to_string()))?;
    }
    out.push(']');
    Ok(out)
}

/// All methods by `package.Service/Method`.
fn methods(schemas: &FileDescriptorSet) -> HashMap<String, &MethodDescriptorProto> {
    let services = schemas.file.iter().flat_map(|file| file.service.iter().map(move |service| (file, service)));
    services
        .flat_map(|(file, service)| {
            let service_name = format!("{}.{}", file.package(), service.name());
            service.method.iter().map(move |method| (format!("{service_name}/{}", method.name()), method))
        })
        .collect()
}
