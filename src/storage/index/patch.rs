//! `Patch`: the loads that a few of a leaf's keys have in place of those behind them.
//!
//! ```text
//! place u8 · length u32 LE · load, place …      in the order in which they came
//! ```
//!
//! A leaf that readers share is some kilobytes long, and a put over a put changes twenty bytes of it. So the copy
//! shares the keys and has the new load here, until there are a few and all of it is made anew.

/// More loads than this, or more bytes, and the leaf is made anew.
const LOADS_MAX: u32 = 8;
const BYTES_MAX: usize = 512;
/// Places that can have a load here.
const PLACES: usize = u64::BITS as usize;
const HEAD_BYTES: usize = 5;

/// Loads by the keys' places.
///
/// Invariant: a bit of `places` is set exactly for those that `bytes` has a load of, once.
#[derive(Clone, Debug, Default)]
pub(super) struct Patch {
    places: u64,
    bytes: Box<[u8]>,
}

impl Patch {
    pub(super) fn is_empty(&self) -> bool {
        self.places == 0
    }

    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it is time to make the leaf anew.
    pub(super) fn is_full(&self) -> bool {
        self.places.count_ones() > LOADS_MAX || self.bytes.len() > BYTES_MAX
    }

    /// The load of a place, if it has one here.
    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        if at >= PLACES || self.places & 1 << at == 0 {
            return None;
        }
        self.loads().find(|(place, _)| *place == at).map(|(_, load)| load)
    }

    /// The same with another load for a place; `None` if that place can't have one.
    pub(super) fn with(&self, at: usize, load: &[u8]) -> Option<Self> {
        let place = u8::try_from(at).ok().filter(|_| at < PLACES)?;
        let length = u32::try_from(load.len()).ok()?;
        let mut bytes = Vec::with_capacity(self.bytes.len() + HEAD_BYTES + load.len());
        if self.places & 1 << at == 0 {
            bytes.extend_from_slice(&self.bytes);
        } else {
            for (other, load) in self.loads().filter(|(other, _)| *other != at) {
                bytes.push(other as u8);
                bytes.extend_from_slice(&(load.len() as u32).to_le_bytes());
                bytes.extend_from_slice(load);
            }
        }
        bytes.push(place);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(load);
        Some(Self { places: self.places | 1 << at, bytes: bytes.into() })
    }

    /// The places that have a load here, ascending, with their loads.
    pub(super) fn ascending(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut left = self.places;
        std::iter::from_fn(move || {
            let at = left.trailing_zeros() as usize;
            left &= left.checked_sub(1)?;
            Some((at, self.get(at)?))
        })
    }

    fn loads(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut rest = &*self.bytes;
        std::iter::from_fn(move || {
            let (&place, behind) = rest.split_first()?;
            let (length, behind) = behind.split_first_chunk()?;
            let (load, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = behind;
            Some((place.into(), load))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_load_of_a_place_is_there() {
        let mut patch = Patch::default();
        for (at, load) in [(63, &b"old"[..]), (0, b""), (7, b"seven"), (63, b"newer"), (0, b"zero")] {
            patch = patch.with(at, load).unwrap();
            assert_eq!(patch.get(at), Some(load));
        }
        let all: Vec<_> = patch.ascending().collect();
        assert_eq!(all, [(0, &b"zero"[..]), (7, b"seven"), (63, b"newer")]);
        assert_eq!((patch.get(1), patch.get(64), patch.get(usize::MAX)), (None, None, None));
        assert!(patch.with(64, b"").is_none());
        assert!(!patch.is_full() && patch.with(9, &[0; 600]).unwrap().is_full());
        let many = (0..9).fold(patch, |patch, at| patch.with(at, b"x").unwrap());
        assert!(many.is_full());
    }
}
