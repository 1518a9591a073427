//! What users cost: the same puts and gets with authentication off, and on by a user whose role may use the keys.
//!
//! The two servers of a side stand beside each other and are measured in turn, so that what the machine does
//! meanwhile hits both.

use std::io;

use super::loads::{Draw, Gets, Puts};
use super::{Bench, figures};
use crate::h2::Method;
use crate::load::{self, Load};
use crate::proto::{self, Message};
use crate::server::{Server, Side};

pub(super) const ROWS: &[&str] = &[
    "put by anybody, 64 in flight",
    "put by a user, 64 in flight",
    "get by anybody, 64 in flight",
    "get by a user, 64 in flight",
    "put by anybody, 1000 in flight",
    "put by a user, 1000 in flight",
    "get by anybody, 1000 in flight",
    "get by a user, 1000 in flight",
];

const KEYS: u64 = 100_000;
const PASSWORD: &[u8] = b"a password";
/// `authpb.Permission.Type.READWRITE`
const READ_WRITE: u64 = 2;
/// Roles and permissions beside the one that counts, as a user of a real cluster has them.
const MORE_PERMISSIONS: u64 = 20;

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    let open = Server::start(side, &bench.scratch.join("open"), &[])?;
    let closed = Server::start(side, &bench.scratch.join("closed"), &[])?;
    for server in [&open, &closed] {
        load::repeat(server, 256, KEYS, &mut Puts::in_turn(256))?;
    }
    let token = close(&closed)?;
    let with_token = Some(token.as_str());
    for (rows, in_flight) in ROWS.chunks_exact(4).zip([64, 1000]) {
        for (name, server, token) in [(rows[0], &open, None), (rows[1], &closed, with_token)] {
            row(bench, name, side, server, in_flight, &mut By { token, load: Puts::any(KEYS, 256) });
        }
        for (name, server, token) in [(rows[2], &open, None), (rows[3], &closed, with_token)] {
            let load = Gets { keys: KEYS, serializable: false, draw: Draw::new() };
            row(bench, name, side, server, in_flight, &mut By { token, load });
        }
    }
    Ok(())
}

fn row(bench: &mut Bench, name: &'static str, side: &Side, server: &Server, in_flight: u64, load: &mut impl Load) {
    bench.row(name, side, |bench| {
        bench.settle(server);
        Ok(figures(&load::run(server, bench.plan(in_flight), load)?))
    });
}

/// A load of somebody's.
struct By<'a, L> {
    token: Option<&'a str>,
    load: L,
}

impl<L: Load> Load for By<'_, L> {
    const SHOWN: bool = L::SHOWN;

    fn next(&mut self, slot: u64, message: &mut Message) -> Method {
        self.load.next(slot, message)
    }

    fn message(&mut self, slot: u64, body: &[u8]) {
        self.load.message(slot, body);
    }

    fn token(&self) -> Option<&str> {
        self.token
    }
}

/// Turns authentication on; the token of a user who may read and write the keys of the loads.
fn close(server: &Server) -> io::Result<String> {
    const USER: &[u8] = b"reader";
    let mut message = Message::default();
    let mut ask = |method, fields: &dyn Fn(&mut Message)| {
        fields(message.clear());
        load::ask(server, method, &mut message)
    };
    let named = |message: &mut Message, name: &[u8], more: &[u8]| {
        message.bytes(1, name).bytes(2, more);
    };
    for user in [b"root", USER] {
        ask("/etcdserverpb.Auth/UserAdd", &|message| named(message, user, PASSWORD))?;
    }
    for number in 0..=MORE_PERMISSIONS {
        let role = format!("role{number}");
        // The one that counts is among the others: `k` to `l`.
        let (key, end) = if number == MORE_PERMISSIONS / 2 {
            (b"k".to_vec(), b"l".to_vec())
        } else {
            (format!("{number:02}").into_bytes(), format!("{number:02}~").into_bytes())
        };
        ask("/etcdserverpb.Auth/RoleAdd", &|message| {
            message.bytes(1, role.as_bytes());
        })?;
        let mut permission = Message::default();
        permission.clear().int(1, READ_WRITE).bytes(2, &key).bytes(3, &end);
        ask("/etcdserverpb.Auth/RoleGrantPermission", &|message| named(message, role.as_bytes(), permission.fields()))?;
        ask("/etcdserverpb.Auth/UserGrantRole", &|message| named(message, USER, role.as_bytes()))?;
    }
    ask("/etcdserverpb.Auth/UserGrantRole", &|message| named(message, b"root", b"root"))?;
    ask("/etcdserverpb.Auth/AuthEnable", &|_| {})?;
    let answer = ask("/etcdserverpb.Auth/Authenticate", &|message| named(message, USER, PASSWORD))?;
    let token = proto::bytes(&answer, 2).and_then(|token| String::from_utf8(token.to_vec()).ok());
    token.ok_or_else(|| io::Error::other("a login was answered without a token"))
}
