//! What users cost: the same puts and gets with authentication off, and on by a user whose role may use the keys.
//!
//! The two servers of a side stand beside each other and are measured in slices by turns, so that what the machine does
//! meanwhile hits both.

use std::io;
use std::time::Duration;

use super::loads::{Draw, Gets, Puts};
use super::{Bench, figures};
use crate::h2::Method;
use crate::load::{self, Load, Measured, Plan};
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

/// Slices of each of a pair, half of them before the other's and half after it.
const SLICES: usize = 16;
const WARM_UP: Duration = Duration::from_millis(200);
const SLICE: Duration = Duration::from_millis(800);

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    let open = Server::start(side, &bench.scratch.join("open"), &[])?;
    let closed = Server::start(side, &bench.scratch.join("closed"), &[])?;
    for server in [&open, &closed] {
        load::repeat(server, 256, KEYS, &mut Puts::in_turn(256))?;
    }
    let token = close(&closed)?;
    let both = [(&open, None), (&closed, Some(token.as_str()))];
    for (rows, in_flight) in ROWS.chunks_exact(4).zip([64, 1000]) {
        pair(bench, &rows[..2], side, both, in_flight, || Puts::any(KEYS, 256));
        let gets = || Gets { keys: KEYS, serializable: false, draw: Draw::new() };
        pair(bench, &rows[2..], side, both, in_flight, gets);
    }
    Ok(())
}

/// Both rows of a pair, by turns of less than a second: what differs by a twentieth doesn't show beside a machine whose own
/// speed moves by more from one second to the next.
fn pair<L: Load>(
    bench: &mut Bench,
    rows: &[&'static str],
    side: &Side,
    both: [(&Server, Option<&str>); 2],
    in_flight: u64,
    load: impl Fn() -> L,
) {
    if !bench.wants(rows) {
        return;
    }
    let plan = Plan { in_flight, warm_up: WARM_UP, measure: SLICE };
    let slices = bench.size(SLICES as u64).max(2);
    let measured = (|| {
        let mut sums: [Measured; 2] = Default::default();
        for (server, _) in both {
            bench.settle(server);
        }
        for slice in 0..slices {
            for turn in 0..2 {
                let of = if slice % 2 == 0 { turn } else { 1 - turn };
                let (server, token) = both[of];
                sums[of].add(&load::run(server, plan, &mut By { token, load: load() })?);
            }
        }
        io::Result::Ok(sums)
    })();
    for (of, row) in rows.iter().enumerate() {
        bench.row(row, side, |_| match &measured {
            Ok(sums) => Ok(figures(&sums[of])),
            Err(error) => Err(io::Error::other(error.to_string())),
        });
    }
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
