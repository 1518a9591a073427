//! Frames of HTTP/2 (RFC 9113): types, flags, heads.

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const SETTING_TABLE_SIZE: u16 = 1;
pub(super) const SETTING_PUSH: u16 = 2;
pub(super) const SETTING_STREAMS_MAX: u16 = 3;
pub(super) const SETTING_WINDOW: u16 = 4;

/// Every frame's head.
pub(super) const HEAD: usize = 9;
/// What a peer must take without being asked.
pub(super) const DATA_MAX: usize = 16_384;
/// Every window before anyone said otherwise.
pub(super) const WINDOW: i64 = 65_535;
/// The largest that one may be.
pub(super) const WINDOW_MAX: i64 = 0x7fff_ffff;

/// A frame's head, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// From the first nine bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, d, e, f, g] = bytes.get(..HEAD)? else { return None };
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff,
        })
    }

    pub(super) fn is(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes a frame.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend([kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Writes the client's greeting: no table for the server's headers, windows as large as they can be.
pub(super) fn greet(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut settings = Vec::new();
    for (name, value) in [(SETTING_TABLE_SIZE, 0), (SETTING_PUSH, 0), (SETTING_WINDOW, WINDOW_MAX as u32)] {
        settings.extend_from_slice(&name.to_be_bytes());
        settings.extend_from_slice(&value.to_be_bytes());
    }
    write(out, SETTINGS, 0, 0, &settings);
    let more = (WINDOW_MAX - WINDOW) as u32;
    write(out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
}
