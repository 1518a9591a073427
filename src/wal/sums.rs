//! The checksum of any part of a file, in constant time once the file was read.
//!
//! ```text
//! P(i)          crc32c of the bytes before i, kept for every i where a record may start or end
//! crc(s, a..b)  = P(b) ^ shift(s ^ P(a), b - a)          shift: what as many zero bytes do to a register
//! ```
//! crc32c is linear, so two registers that take in the same bytes keep a difference that depends only
//! on how many there were. With it, looking for records behind the end costs no more than one pass
//! over the file, even where clients' values imitate the heads of long records at every step.

use std::io;

use super::format::ALIGN;
use super::scan::Window;

/// crc32c's polynomial, the coefficient of x^0 in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// 1 as such a polynomial.
const ONE: u32 = 1 << 31;
/// Bytes read at a time.
const READ_BYTES: u64 = 64 * 1024;

/// The prefixes' checksums of a part of a file; four bytes of memory for four of the file.
pub(super) struct Sums {
    start: u64,
    prefixes: Vec<u32>,
    powers: Powers,
}

impl Sums {
    /// Reads the file from `start`, where a record may begin, to its end.
    pub(super) fn read(window: &mut Window<'_>, start: u64) -> io::Result<Self> {
        let mut prefixes = vec![0];
        let mut crc = 0;
        let mut at = start;
        loop {
            let len = window.size().saturating_sub(at).min(READ_BYTES);
            let len = usize::try_from(len).unwrap_or(0) / ALIGN * ALIGN;
            let Some(bytes) = window.get(at, len)?.filter(|bytes| !bytes.is_empty()) else { break };
            for word in bytes.chunks_exact(ALIGN) {
                crc = crc32c::crc32c_append(crc, word);
                prefixes.push(crc);
            }
            at += len as u64;
        }
        Ok(Self { start, prefixes, powers: Powers::new() })
    }

    /// crc32c of the bytes `from..to`, begun with `seed`; `None` where they weren't read.
    pub(super) fn crc(&self, seed: u32, from: u64, to: u64) -> Option<u32> {
        let word = |at: u64| usize::try_from(at.checked_sub(self.start)?).ok().map(|at| at / ALIGN);
        let (from, to) = (word(from)?, word(to)?);
        let (before, whole) = (self.prefixes.get(from)?, self.prefixes.get(to)?);
        Some(whole ^ self.powers.shift(seed ^ before, to.checked_sub(from)?))
    }
}

/// x to the power of 32 times any number of words, by the number's bytes.
struct Powers(Vec<[u32; 256]>);

impl Powers {
    fn new() -> Self {
        // x^32 as the square of the square … of x.
        let mut unit = (0..5).fold(ONE >> 1, |power, _| multiply(power, power));
        let tables = (0..4).map(|_| {
            let mut table = [ONE; 256];
            for at in 1..table.len() {
                table[at] = multiply(table[at - 1], unit);
            }
            unit = multiply(table[255], unit);
            table
        });
        Self(tables.collect())
    }

    /// The register after as many words of zeros.
    fn shift(&self, register: u32, words: usize) -> u32 {
        let digits = (words as u64).to_le_bytes();
        let factors = self.0.iter().zip(digits).filter(|(_, digit)| *digit != 0);
        factors.fold(register, |register, (table, digit)| multiply(register, table[usize::from(digit)]))
    }
}

/// The product of two polynomials, modulo crc32c's.
fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut shifted) = (0, b);
    for bit in (0..32).rev() {
        product ^= shifted & ((a >> bit) & 1).wrapping_neg();
        shifted = (shifted >> 1) ^ (POLYNOMIAL & (shifted & 1).wrapping_neg());
    }
    product
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::env::{Access, Disk, DiskFile, MemDisk};

    fn file(bytes: &[u8]) -> Arc<dyn DiskFile> {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/f"), Access::Create).unwrap();
        file.write_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn every_part_has_the_checksum_that_its_bytes_have() {
        let bytes: Vec<u8> = (0..200_003u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let file = file(&bytes);
        let mut window = Window::new(&*file).unwrap();
        let sums = Sums::read(&mut window, 64).unwrap();
        for from in (64..200_000).step_by(9_996) {
            for len in [0, 4, 36, 1020, 1024, 65_536, 100_000] {
                let to = from + len;
                let plain = bytes.get(from..to).filter(|_| to <= 200_000).map(|bytes| crc32c::crc32c_append(77, bytes));
                assert_eq!(sums.crc(77, from as u64, to as u64), plain, "{from}..{to}");
            }
        }
        assert_eq!(sums.crc(77, 60, 80), None, "before the start");
        assert_eq!(sums.crc(77, 100, 96), None);
    }

    #[test]
    fn a_long_way_is_shifted_rightly() {
        let powers = Powers::new();
        for words in [1, 255, 256, 70_000, 5_000_000] {
            let zeros = vec![0; words * ALIGN];
            let difference = crc32c::crc32c_append(0x1234_5678, &zeros) ^ crc32c::crc32c_append(0, &zeros);
            assert_eq!(powers.shift(0x1234_5678, words), difference, "{words}");
        }
    }
}
