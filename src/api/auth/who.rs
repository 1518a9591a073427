//! `Who`: what a request shows of its caller: a token in its metadata, or a certificate's common name.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

/// What a request shows of its caller.
#[derive(Clone, Default)]
pub(crate) enum Who {
    /// Nothing.
    #[default]
    Nobody,
    /// A token, as it came.
    Token(HeaderValue),
    /// The common name of a client certificate that was verified, where that counts.
    Named(Arc<str>),
}

impl Who {
    /// Of a request's metadata: `token`, else `authorization`, as in etcd; else `common_name`.
    pub(crate) fn of(headers: &HeaderMap, common_name: Option<&str>) -> Self {
        match headers.get("token").or_else(|| headers.get(http::header::AUTHORIZATION)) {
            Some(token) => Self::Token(token.clone()),
            None => common_name.filter(|name| !name.is_empty()).map_or(Self::Nobody, |name| Self::Named(name.into())),
        }
    }

    /// The token's text; `None` if there is none, or it is no text.
    pub(crate) fn token(&self) -> Option<&str> {
        let Self::Token(value) = self else { return None };
        let text = value.to_str().ok()?;
        Some(text.strip_prefix("Bearer ").unwrap_or(text))
    }

    /// The entry that gave a simple token out, as far as it says so.
    pub(crate) fn token_index(&self) -> Option<u64> {
        self.token()?.rsplit_once('.')?.1.parse().ok()
    }
}

impl std::fmt::Debug for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Token(_) => f.write_str("Token"),
            Self::Named(name) => f.debug_tuple("Named").field(name).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_before_a_name() {
        let mut headers = HeaderMap::new();
        assert!(matches!(Who::of(&headers, None), Who::Nobody));
        assert!(matches!(Who::of(&headers, Some("")), Who::Nobody));
        assert!(matches!(Who::of(&headers, Some("cn")), Who::Named(name) if &*name == "cn"));
        headers.insert("authorization", HeaderValue::from_static("Bearer abc.7"));
        let who = Who::of(&headers, Some("cn"));
        assert_eq!((who.token(), who.token_index()), (Some("abc.7"), Some(7)));
        headers.insert("token", HeaderValue::from_static("bearer x"));
        let who = Who::of(&headers, None);
        assert_eq!((who.token(), who.token_index()), (Some("bearer x"), None));
        assert_eq!(format!("{who:?}"), "Token", "it isn't shown");
        headers.insert("token", HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(Who::of(&headers, None).token(), None);
    }
}
