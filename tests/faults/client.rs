//! The few calls that everybody here makes.

#[path = "../support/client.rs"]
mod calls;

use bytes::Bytes;

pub(crate) use calls::{connect, everything, header, revision};

/// The key after which there is none with the same beginning.
pub(crate) fn prefix_end(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix that isn't empty") += 1;
    end.into()
}
