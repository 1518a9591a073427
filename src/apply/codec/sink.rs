//! Where encoded bytes go: a buffer, or a counter that only wants to know how many there are.

use bytes::{BufMut, BytesMut};

/// Takes bytes; the rest is made of that.
pub(super) trait Sink {
    /// One byte.
    fn byte(&mut self, byte: u8);

    /// Some bytes as they are.
    fn raw(&mut self, bytes: &[u8]);

    /// LEB128.
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    /// Zigzag, so that small negative numbers are short too.
    fn signed(&mut self, number: i64) {
        self.varint(((number << 1) ^ (number >> 63)) as u64);
    }

    /// Eight bytes little-endian: ids are random, a varint would be longer.
    fn fixed(&mut self, number: u64) {
        self.raw(&number.to_le_bytes());
    }

    /// A byte string with its length in front.
    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }
}

impl Sink for BytesMut {
    fn byte(&mut self, byte: u8) {
        self.put_u8(byte);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes.
#[derive(Default)]
pub(super) struct Count(pub(super) usize);

impl Sink for Count {
    fn byte(&mut self, _: u8) {
        self.0 += 1;
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}
