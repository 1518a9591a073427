//! The few messages of etcd's API that the rows send, written by hand: an encoder from a schema
//! would cost more than the request itself.

/// A gRPC message in the making: the five bytes of its frame and the fields.
#[derive(Debug, Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    /// Starts anew.
    pub(crate) fn clear(&mut self) -> &mut Self {
        self.0.clear();
        self.0.extend([0; 5]);
        self
    }

    /// A whole number.
    pub(crate) fn int(&mut self, field: u8, value: u64) -> &mut Self {
        if value != 0 {
            self.0.push(field << 3);
            varint(&mut self.0, value);
        }
        self
    }

    /// Bytes, or a message already written.
    pub(crate) fn bytes(&mut self, field: u8, value: &[u8]) -> &mut Self {
        self.0.push(field << 3 | 2);
        varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// The message with its length filled in.
    pub(crate) fn finish(&mut self) -> &[u8] {
        let length = (self.0.len() - 5) as u32;
        self.0[1..5].copy_from_slice(&length.to_be_bytes());
        &self.0
    }

    /// The fields alone, for a message inside another.
    pub(crate) fn fields(&self) -> &[u8] {
        &self.0[5..]
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
}

/// Walks the fields of a message; ends at the first that can't be read.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = take_varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Int(take_varint(&mut self.0)?),
            2 => {
                let length = usize::try_from(take_varint(&mut self.0)?).ok()?;
                let (head, tail) = self.0.split_at_checked(length)?;
                self.0 = tail;
                Value::Bytes(head)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A field that is a number.
pub(crate) fn int(message: &[u8], field: u64) -> Option<u64> {
    Fields(message).find_map(|(number, value)| match value {
        Value::Int(value) if number == field => Some(value),
        _ => None,
    })
}

/// A field that is bytes or a message.
pub(crate) fn bytes(message: &[u8], field: u64) -> Option<&[u8]> {
    Fields(message).find_map(|(number, value)| match value {
        Value::Bytes(value) if number == field => Some(value),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = Message::default();
        let framed = message.clear().int(3, 300).bytes(1, b"abc").int(4, 0).finish();
        assert_eq!(&framed[..5], [0, 0, 0, 0, 8]);
        assert_eq!(int(message.fields(), 3), Some(300));
        assert_eq!(bytes(message.fields(), 1), Some(&b"abc"[..]));
        assert_eq!(int(message.fields(), 4), None);
        assert_eq!(Fields(&[0x0a, 0x05, 1]).count(), 0);
    }
}
