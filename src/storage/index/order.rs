//! The order of very many keys, found by eight bytes at a time.
//!
//! ```text
//! keys ─► what all begin with is skipped ─► (8 bytes, end, place) of each, sorted ─► groups with the same 8 bytes ─► again
//! ```
//! A comparison of two keys waits for memory twice, for where each lies and for its bytes, and a sort makes twenty for each
//! key. Here the bytes are brought once for each eight of them, for all keys of a group without waiting for one another, and
//! what is compared lies together.

/// Bytes that are compared at a time.
const STEP: usize = 8;
/// A group of so many keys is sorted as it is.
const FEW: usize = 24;
/// The most bytes that are looked at to skip them.
const AHEAD: usize = 64;
/// Above the place in a sorted word: how many of the bytes are the key's, as long as it ends with them.
const END_SHIFT: u32 = 56;
/// The key is the one before.
const SAME: u64 = 1 << (END_SHIFT - 1);
/// The key goes on.
const GOES_ON: u64 = STEP as u64 + 1;

/// A key's place among those that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: usize,
    /// It is the same key as the one before in the order.
    pub(crate) is_same: bool,
}

/// The places of the keys in ascending order; equal keys stay in the order in which they came. Takes 32 bytes a key.
pub(crate) fn ascending<K: AsRef<[u8]>>(
    keys: impl ExactSizeIterator<Item = K> + Clone,
    at: impl Fn(usize) -> K,
) -> Vec<Place> {
    let mut words: Vec<(u64, u64)> = Vec::with_capacity(keys.len());
    let depth = common(keys.clone(), 0);
    words.extend(keys.enumerate().map(|(place, key)| word(key.as_ref(), depth, place)));
    sort(&mut words, depth, &|place| at(place));
    words.into_iter().map(|(_, low)| Place { at: place(low), is_same: low & SAME > 0 }).collect()
}

/// How many bytes all keys begin with; so many are known to be the same, and no more than [`AHEAD`] of others are looked at.
fn common<K: AsRef<[u8]>>(mut keys: impl Iterator<Item = K>, known: usize) -> usize {
    let Some(first) = keys.next() else { return 0 };
    let first = first.as_ref();
    keys.fold(first.len().min(known + AHEAD), |len, key| {
        let pairs = first[known..len].iter().zip(&key.as_ref()[known..]);
        known + pairs.take_while(|(a, b)| a == b).count()
    })
}

/// The next bytes of a key, and below them whether it ends there, and its place.
fn word(key: &[u8], depth: usize, place: usize) -> (u64, u64) {
    let rest = key.get(depth..).unwrap_or_default();
    let (bytes, end) = match rest.first_chunk::<STEP>() {
        Some(bytes) if rest.len() > STEP => (*bytes, GOES_ON),
        _ => {
            let mut bytes = [0; STEP];
            bytes[..rest.len()].copy_from_slice(rest);
            (bytes, rest.len() as u64)
        }
    };
    (u64::from_be_bytes(bytes), end << END_SHIFT | place as u64)
}

fn place(low: u64) -> usize {
    (low & (SAME - 1)) as usize
}

/// Sorts words made at `depth`, and the keys that they don't tell apart.
fn sort<K: AsRef<[u8]>>(words: &mut [(u64, u64)], depth: usize, at: &impl Fn(usize) -> K) {
    // No recursion: how deep it goes is the clients' to say.
    let mut left = vec![(0..words.len(), depth)];
    while let Some((range, depth)) = left.pop() {
        let mut start = range.start;
        let words = &mut words[range];
        words.sort_unstable();
        for group in words.chunk_by_mut(|a, b| a.0 == b.0 && goes_on(a.1) == goes_on(b.1)) {
            let range = start..start + group.len();
            start = range.end;
            if group.len() == 1 {
                continue;
            }
            // Keys that end here are the same if as many of the bytes are theirs, and lie in their order already.
            if !goes_on(group[0].1) {
                mark(group, |a, b| a >> END_SHIFT == b >> END_SHIFT);
                continue;
            }
            let depth = depth + STEP;
            if group.len() <= FEW {
                group.sort_unstable_by(|a, b| {
                    let (a, b) = (place(a.1), place(b.1));
                    at(a).as_ref()[depth..].cmp(&at(b).as_ref()[depth..]).then(a.cmp(&b))
                });
                mark(group, |a, b| at(place(a)).as_ref()[depth..] == at(place(b)).as_ref()[depth..]);
                continue;
            }
            // So each round tells some apart, however long the keys are.
            let depth = common(group.iter().map(|slot| at(place(slot.1))), depth);
            for slot in group.iter_mut() {
                let place = place(slot.1);
                *slot = word(at(place).as_ref(), depth, place);
            }
            left.push((range, depth));
        }
    }
}

/// Marks those of a sorted group that are the same key as the one before.
fn mark(group: &mut [(u64, u64)], is_same: impl Fn(u64, u64) -> bool) {
    for next in 1..group.len() {
        if is_same(group[next - 1].1, group[next].1) {
            group[next].1 |= SAME;
        }
    }
}

fn goes_on(low: u64) -> bool {
    low >> END_SHIFT == GOES_ON
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(keys: &[Vec<u8>]) -> Vec<usize> {
        let places = ascending(keys.iter(), |place| &keys[place]);
        for (at, place) in places.iter().enumerate() {
            assert_eq!(place.is_same, at > 0 && keys[places[at - 1].at] == keys[place.at], "{place:?}");
        }
        places.into_iter().map(|place| place.at).collect()
    }

    fn expected(keys: &[Vec<u8>]) -> Vec<usize> {
        let mut places: Vec<usize> = (0..keys.len()).collect();
        places.sort_by(|a, b| keys[*a].cmp(&keys[*b]));
        places
    }

    #[test]
    fn keys_that_end_come_before_those_that_go_on_with_zeros() {
        let keys: Vec<Vec<u8>> =
            [&b"a"[..], b"a\0", b"", b"a\0\0\0\0\0\0\0\0", b"a\0\0\0\0\0\0\0", b"a\0\0\0\0\0\0\0\x01", b"a"]
                .map(<[u8]>::to_vec)
                .to_vec();
        assert_eq!(order(&keys), expected(&keys));
        assert_eq!(order(&[]), Vec::<usize>::new());
        assert_eq!(order(&vec![b"the same".to_vec(); 100]), (0..100).collect::<Vec<_>>());
        assert_eq!(order(&vec![b"the same and longer".to_vec(); 100]), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn any_keys_come_in_their_order() {
        bolero::check!().with_type::<(Vec<u8>, Vec<(u8, Vec<u8>)>)>().for_each(|(start, parts)| {
            // Of few starts, so that many begin alike, and more than are sorted as they are.
            let keys: Vec<Vec<u8>> = (0..3u8)
                .flat_map(|times| parts.iter().map(move |(of, rest)| (times, of, rest)))
                .map(|(times, of, rest)| [start, &vec![of % 3; usize::from(of % 11 * times)][..], rest].concat())
                .collect();
            assert_eq!(order(&keys), expected(&keys));
        });
    }

    // Cause: a call for each eight bytes. Symptom, not to be: keys that end one after another used up the stack of each start.
    #[test]
    fn keys_of_any_length_come_in_their_order() {
        let keys: Vec<Vec<u8>> = (0..1000).rev().map(|len| vec![b'k'; len * 9]).collect();
        assert_eq!(order(&keys), (0..1000).rev().collect::<Vec<_>>());
        let keys = vec![vec![b'k'; 1 << 18]; 30];
        assert_eq!(order(&keys), (0..30).collect::<Vec<_>>());
    }

    #[test]
    fn many_keys_come_in_their_order() {
        let key = |number: u64| format!("/registry/pods/namespace-{}/pod-{:05}", number % 7, number * 7919 % 3001);
        let keys: Vec<Vec<u8>> = (0..5000).map(|number| key(number).into_bytes()).collect();
        assert_eq!(order(&keys), expected(&keys));
    }
}
