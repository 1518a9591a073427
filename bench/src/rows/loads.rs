//! The requests that the rows are made of.

use crate::h2::{LEASE_GRANT, Method, PUT, RANGE, TXN};
use crate::load::Load;
use crate::proto::{self, Message};

/// Numbers that are the same in every run: xorshift (Marsaglia 2003).
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// `k` and eight digits.
pub(super) fn key(number: u64) -> [u8; 9] {
    let mut key = *b"k00000000";
    let mut rest = number;
    for digit in key[1..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// A value that no compression shrinks much.
pub(super) fn value(length: usize) -> Vec<u8> {
    let mut draw = Draw::new();
    (0..length).map(|_| b' ' + draw.below(94) as u8).collect()
}

/// Puts: each key in turn, or any of them.
pub(super) struct Puts {
    pub(super) value: Vec<u8>,
    pub(super) keys: u64,
    pub(super) in_turn: Option<u64>,
    pub(super) draw: Draw,
}

impl Puts {
    /// Overwrites any of `keys`.
    pub(super) fn any(keys: u64, bytes: usize) -> Self {
        Self { value: value(bytes), keys, in_turn: None, draw: Draw::new() }
    }

    /// Writes one key after the other.
    pub(super) fn in_turn(bytes: usize) -> Self {
        Self { value: value(bytes), keys: u64::MAX, in_turn: Some(0), draw: Draw::new() }
    }
}

impl Load for Puts {
    fn next(&mut self, _slot: u64, message: &mut Message) -> Method {
        let number = match &mut self.in_turn {
            Some(next) => {
                *next += 1;
                *next - 1
            }
            None => self.draw.below(self.keys),
        };
        // What changes in the value keeps engines from storing it once.
        self.value[..8].copy_from_slice(&self.draw.below(u64::MAX).to_be_bytes());
        message.bytes(1, &key(number)).bytes(2, &self.value);
        PUT
    }
}

/// Gets of single keys.
pub(super) struct Gets {
    pub(super) keys: u64,
    pub(super) serializable: bool,
    pub(super) draw: Draw,
}

impl Load for Gets {
    fn next(&mut self, _slot: u64, message: &mut Message) -> Method {
        message.bytes(1, &key(self.draw.below(self.keys))).int(7, self.serializable.into());
        RANGE
    }
}

/// Ranges of so many neighbours.
pub(super) struct Ranges {
    pub(super) keys: u64,
    pub(super) count: u64,
    pub(super) draw: Draw,
}

impl Load for Ranges {
    fn next(&mut self, _slot: u64, message: &mut Message) -> Method {
        let first = self.draw.below(self.keys - self.count + 1);
        message.bytes(1, &key(first)).bytes(2, &key(first + self.count));
        RANGE
    }
}

/// The transaction of kube-apiserver's update: if the key is as I know it, put, else get.
#[derive(Debug, Default)]
pub(super) struct KubeTxn([Message; 3]);

impl KubeTxn {
    /// Writes it into `message`; `known` is the revision that the key had when last seen, 0 if it never was.
    pub(super) fn write(&mut self, message: &mut Message, key: &[u8], value: &[u8], mut known: u64) {
        let [compare, put, operation] = &mut self.0;
        // Compare: result EQUAL (0), target MOD (2), mod_revision field 6; a zero must be written too.
        compare.clear().int(2, 2).bytes(3, key);
        compare.0.push(6 << 3);
        while known >= 0x80 {
            compare.0.push(known as u8 | 0x80);
            known >>= 7;
        }
        compare.0.push(known as u8);
        message.bytes(1, compare.fields());
        put.clear().bytes(1, key).bytes(2, value);
        message.bytes(2, operation.clear().bytes(2, put.fields()).fields());
        put.clear().bytes(1, key);
        message.bytes(3, operation.clear().bytes(1, put.fields()).fields());
    }

    /// The revision that the answer says the key has now.
    pub(super) fn revision(answer: &[u8]) -> Option<u64> {
        if proto::int(answer, 2) == Some(1) {
            return proto::bytes(answer, 1).and_then(|header| proto::int(header, 3));
        }
        let range = proto::bytes(answer, 3).and_then(|response| proto::bytes(response, 1))?;
        proto::bytes(range, 2).and_then(|kv| proto::int(kv, 3))
    }
}

/// Each loop updates a key of its own.
pub(super) struct KubeTxns {
    value: Vec<u8>,
    /// The revision that each loop's key had when last seen.
    known: Vec<u64>,
    txn: KubeTxn,
}

impl KubeTxns {
    pub(super) fn new(in_flight: u64, bytes: usize) -> Self {
        Self { value: value(bytes), known: vec![0; in_flight as usize], txn: KubeTxn::default() }
    }
}

impl Load for KubeTxns {
    const SHOWN: bool = true;

    fn next(&mut self, slot: u64, message: &mut Message) -> Method {
        self.txn.write(message, &key(50_000_000 + slot), &self.value, self.known[slot as usize]);
        TXN
    }

    fn message(&mut self, slot: u64, body: &[u8]) {
        if let Some(revision) = KubeTxn::revision(body) {
            self.known[slot as usize] = revision;
        }
    }
}

/// Grants of leases, with ids of our own.
pub(super) struct Grants {
    pub(super) ttl_secs: u64,
    pub(super) next_id: u64,
}

impl Load for Grants {
    fn next(&mut self, _slot: u64, message: &mut Message) -> Method {
        message.int(1, self.ttl_secs).int(2, self.next_id);
        self.next_id += 1;
        LEASE_GRANT
    }
}

/// Puts of keys that hang on the leases of [`Grants`].
pub(super) struct LeasedPuts {
    pub(super) next_id: u64,
}

impl Load for LeasedPuts {
    fn next(&mut self, _slot: u64, message: &mut Message) -> Method {
        message.bytes(1, &key(self.next_id)).bytes(2, b"leased").int(3, self.next_id);
        self.next_id += 1;
        PUT
    }
}
