//! What a program's header says: for which machine it is, and whether it needs anything else to start.

/// `PT_INTERP`: the loader that a dynamic program asks for.
const INTERPRETER: u32 = 3;
/// Where the fields of a 64-bit header lie.
const MACHINE: usize = 18;
const HEADERS: usize = 32;
const HEADER_BYTES: usize = 54;
const HEADER_COUNT: usize = 56;

/// What the header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// `EM_X86_64` is 62, `EM_AARCH64` 183.
    pub(super) machine: u16,
    /// Nothing has to be there beside it: no loader, so no library either.
    pub(super) is_static: bool,
}

/// Reads the header of a 64-bit little-endian program.
///
/// # Errors
/// If it is anything else, or cut off.
pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("it is no 64-bit little-endian ELF file".to_owned());
    }
    let machine = u16::from_le_bytes(field(bytes, MACHINE)?);
    let first = usize::try_from(u64::from_le_bytes(field(bytes, HEADERS)?)).map_err(|error| error.to_string())?;
    let size = usize::from(u16::from_le_bytes(field(bytes, HEADER_BYTES)?));
    let count = usize::from(u16::from_le_bytes(field(bytes, HEADER_COUNT)?));
    let mut is_static = count > 0;
    for at in 0..count {
        let offset = first.checked_add(at * size).ok_or("its headers lie nowhere")?;
        is_static &= u32::from_le_bytes(field(bytes, offset)?) != INTERPRETER;
    }
    Ok(Header { machine, is_static })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    let field = at.checked_add(N).and_then(|end| bytes.get(at..end)).and_then(|field| field.try_into().ok());
    field.ok_or_else(|| format!("it ends before byte {}", at.saturating_add(N)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header for arm64 with segments of these types.
    fn program(segments: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[MACHINE] = 183;
        bytes[HEADERS] = 64;
        bytes[HEADER_BYTES] = 56;
        bytes[HEADER_COUNT] = u8::try_from(segments.len()).expect("few");
        for kind in segments {
            let at = bytes.len();
            bytes.resize(at + 56, 0);
            bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        assert_eq!(header(&program(&[1, 2])), Ok(Header { machine: 183, is_static: true }));
        assert_eq!(header(&program(&[1, INTERPRETER])), Ok(Header { machine: 183, is_static: false }));
        assert_eq!(header(&program(&[])), Ok(Header { machine: 183, is_static: false }));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(header(b"#!/bin/sh\n").is_err());
        assert!(header(&program(&[1])[..66]).is_err());
        let mut far = program(&[1]);
        far[HEADERS..HEADERS + 8].fill(0xff);
        assert!(header(&far).is_err());
    }

    #[test]
    fn the_program_that_tests_this_has_a_loader() {
        let own = std::fs::read(std::env::current_exe().expect("a program")).expect("it is there");
        let header = header(&own).expect("a program");
        assert_eq!(header.is_static, cfg!(target_feature = "crt-static"));
    }
}
