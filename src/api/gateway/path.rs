//! Which method a path means: `/v3/…` as the table has it, `/v3beta/…` likewise.

use std::borrow::Cow;

use rusd_proto::{Route, routes};

use crate::api::methods::Method;

/// Whether the gateway answers a path, be it only that there is nothing.
pub(in crate::api) fn is_served(path: &str) -> bool {
    path.starts_with("/v3/") || path.starts_with("/v3beta/")
}

/// Whether a path is that of a login, by either door.
pub(in crate::api) fn is_login(path: &str) -> bool {
    path.ends_with("/Authenticate")
        || path.ends_with("/authenticate")
        || (is_served(path) && path.contains('%') && route(path).is_some_and(|route| route.method == "Authenticate"))
}

/// The method that a path means, if it means one.
pub(in crate::api) fn method_of(path: &str) -> Option<Method> {
    let route = route(path)?;
    Method::of_path(&format!("/{}/{}", route.service, route.method))
}

/// The route of a path.
pub(super) fn route(path: &str) -> Option<&'static Route> {
    let path = unescaped(path)?;
    let rest = path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"))?;
    routes().iter().find(|route| route.path.strip_prefix("/v3/") == Some(rest))
}

/// Without `%XX`; `None` for what is no such escape, or no text.
fn unescaped(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(path.into());
    }
    let mut out = Vec::with_capacity(path.len());
    let mut parts = path.split('%');
    out.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        out.push(u8::from_str_radix(digits, 16).ok()?);
        out.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(out).ok().map(Cow::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_under_both_prefixes() {
        let method = |path| route(path).map(|route| route.method);
        for path in ["/v3/kv/range", "/v3beta/kv/range", "/v3/kv/rang%65", "/v3/kv%2Frange"] {
            assert_eq!(method(path), Some("Range"), "{path}");
        }
        for path in ["/v3/kv/range/", "/v3/v3/kv/range", "/v3//kv/range", "/v3/kv/rang%6", "/v3/%", "/v3/%é", "/v3/%ff"]
        {
            assert_eq!(method(path), None, "{path}");
        }
        assert!(is_served("/v3/nothing") && !is_served("/v3alpha/kv/range") && !is_served("/v3"));
    }
}
