//! Ports for members that come back on the same one: outside the range that the kernel takes for
//! outgoing connections, and never the same twice in this process.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;

use rand::Rng;

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that nobody listens on.
pub(crate) fn free() -> u16 {
    let mut taken = TAKEN.lock().unwrap();
    loop {
        let port = rand::rng().random_range(13_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && taken.insert(port) {
            return port;
        }
    }
}
