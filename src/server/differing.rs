//! Which keys differ between two states, of which each tells the digests of the parts of a prefix.
//!
//! ```text
//! prefix ─► 257 digests of either side ─► the key itself differs? ─► named
//!                                      └► a part differs ─► all keys that this side has in it go on alike? ─► they are
//!                                         skipped, if the other side has nothing else there ─► the next prefix
//! time is up ─► the prefixes come to by then are named
//! ```
//! A question for each byte of each key would take minutes where the other side is far away.

use std::future::Future;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::consensus::{PARTS, longer};
use crate::types::RequestError;

/// Keys that are named of those that differ.
const KEYS_MAX: usize = 10;

/// Bytes of a prefix that are found without a pause.
const LEVELS_A_TURN: usize = 16;

/// A prefix in which keys differ, and what the digests of the other side's come to, if that is known.
struct Differing {
    prefix: Bytes,
    theirs: Option<u64>,
}

/// The first keys that differ, or prefixes of them with `…` where more could not be found out `until` then. `own` gives
/// the digests of a prefix's parts on this side, `None` if it is too long; `ask` those of the other one.
///
/// # Errors
/// What `ask` gives; `UnknownMethod` if one of the states isn't kept.
pub(super) async fn keys_that_differ<A>(
    own: impl Fn(&[u8]) -> Option<Vec<u64>>,
    ask: impl Fn(Bytes) -> A,
    until: Instant,
) -> Result<Vec<String>, RequestError>
where
    A: Future<Output = Result<Vec<u64>, RequestError>>,
{
    let mut found = Vec::new();
    // The first one last.
    let mut left = vec![Differing { prefix: Bytes::new(), theirs: None }];
    while found.len() < KEYS_MAX
        && let Some(differing) = left.pop()
    {
        let looked = timeout_at(until, look(&own, &ask, &differing)).await;
        let (prefix, own, theirs) = match looked {
            Ok(Ok(Some(looked))) => looked,
            Ok(Ok(None)) if differing.prefix.is_empty() => return Err(RequestError::UnknownMethod),
            Ok(Ok(None)) => {
                found.push(begins_with(&differing.prefix));
                continue;
            }
            Ok(Err(error)) if found.is_empty() => return Err(error),
            // What is known is named, and of the rest where it begins.
            Ok(Err(_)) | Err(_) => {
                left.push(differing);
                let room = KEYS_MAX - found.len();
                found.extend(left.iter().rev().take(room).map(|differing| begins_with(&differing.prefix)));
                break;
            }
        };
        if own[0] != theirs[0] {
            found.push(prefix.escape_ascii().to_string());
        }
        let parts = (0..=u8::MAX).rev().map(|byte| (byte, 1 + usize::from(byte)));
        let differ = parts.filter(|(_, part)| own[*part] != theirs[*part]);
        left.extend(differ.map(|(byte, part)| Differing { prefix: longer(&prefix, byte), theirs: Some(theirs[part]) }));
    }
    Ok(found)
}

fn begins_with(prefix: &[u8]) -> String {
    format!("{}…", prefix.escape_ascii())
}

/// The parts of either side: of the prefix, or of a longer one in which all that differs lies. `None` if it is too long.
async fn look<A>(
    own: &impl Fn(&[u8]) -> Option<Vec<u64>>,
    ask: &impl Fn(Bytes) -> A,
    differing: &Differing,
) -> Result<Option<(Bytes, Vec<u64>, Vec<u64>)>, RequestError>
where
    A: Future<Output = Result<Vec<u64>, RequestError>>,
{
    let Some(parts) = own(&differing.prefix) else { return Ok(None) };
    if differing.theirs.is_some()
        && let Some((prefix, parts)) = common(own, &differing.prefix, &parts).await
    {
        let theirs = asked(ask, &prefix).await?;
        if Some(theirs.iter().fold(0, |sum: u64, part| sum.wrapping_add(*part))) == differing.theirs {
            return Ok(Some((prefix, parts, theirs)));
        }
    }
    let theirs = asked(ask, &differing.prefix).await?;
    Ok(Some((differing.prefix.clone(), parts, theirs)))
}

async fn asked<A>(ask: &impl Fn(Bytes) -> A, prefix: &Bytes) -> Result<Vec<u64>, RequestError>
where
    A: Future<Output = Result<Vec<u64>, RequestError>>,
{
    let theirs = ask(prefix.clone()).await?;
    if theirs.len() == PARTS { Ok(theirs) } else { Err(RequestError::UnknownMethod) }
}

/// The longest prefix that all keys of this side with `prefix` have, and its parts; `None` if that is no longer one. Each
/// byte more is hundreds of looks into the index, so others have their turns meanwhile, and time may be up.
async fn common(own: &impl Fn(&[u8]) -> Option<Vec<u64>>, prefix: &Bytes, parts: &[u64]) -> Option<(Bytes, Vec<u64>)> {
    let mut longest: Option<(Bytes, Vec<u64>)> = None;
    for level in 1_usize.. {
        if level.is_multiple_of(LEVELS_A_TURN) {
            tokio::task::yield_now().await;
        }
        let (prefix, parts) = longest.as_ref().map_or((prefix, parts), |(prefix, parts)| (prefix, &parts[..]));
        let mut there = (0..PARTS).filter(|part| parts[*part] != 0);
        let next = match (there.next(), there.next()) {
            (Some(part), None) => part.checked_sub(1).and_then(|byte| u8::try_from(byte).ok()),
            _ => None,
        };
        let found = next.map(|byte| longer(prefix, byte)).and_then(|longer| own(&longer).map(|parts| (longer, parts)));
        match found {
            Some(found) => longest = Some(found),
            None => break,
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    type Keys = BTreeMap<Vec<u8>, u64>;

    fn keys(list: &[(&str, u64)]) -> Keys {
        list.iter().map(|(key, digest)| (key.as_bytes().to_vec(), *digest)).collect()
    }

    fn parts(keys: &Keys, prefix: &[u8]) -> Vec<u64> {
        let mut parts = vec![0_u64; PARTS];
        for (key, digest) in keys.iter().filter(|(key, _)| key.starts_with(prefix)) {
            let part = key.get(prefix.len()).map_or(0, |byte| 1 + usize::from(*byte));
            parts[part] = parts[part].wrapping_add(*digest);
        }
        parts
    }

    /// What differs, how often was asked, and for how long; each question takes half a second.
    async fn search(own: &Keys, other: &Keys) -> (Vec<String>, u32, Duration) {
        let (asked, begun) = (Cell::new(0), Instant::now());
        let ask = |prefix: Bytes| {
            asked.set(asked.get() + 1);
            async move {
                tokio::time::sleep(Duration::from_millis(500)).await;
                Ok(parts(other, &prefix))
            }
        };
        let until = begun + Duration::from_secs(10);
        let found = keys_that_differ(|prefix| Some(parts(own, prefix)), ask, until).await.expect("answered");
        (found, asked.get(), begun.elapsed())
    }

    /// Cause: a question for each byte of a key. Symptom: with keys of some length, and the other member far away, nobody
    /// was compared, told or healed for minutes.
    #[tokio::test(start_paused = true)]
    async fn what_all_keys_have_in_common_is_not_asked_for() {
        let long = format!("/registry/{}", "a".repeat(500));
        let own = keys(&[(&long, 1), (&format!("{long}b"), 2), ("/registry/c", 3), ("z", 4)]);
        let mut other = own.clone();
        other.insert(format!("{long}b").into_bytes(), 7);
        let (found, asked, _) = search(&own, &other).await;
        assert_eq!(found, [format!("{long}b")]);
        assert!(asked < 6, "{asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_one_side_has_is_found() {
        let common = [("key", 1), ("kex", 2)];
        let more = [("key", 1), ("kex", 2), ("key/1", 3), ("kf", 4), ("", 5)];
        for (own, other) in [(&common[..], &more[..]), (&more[..], &common[..])] {
            let (found, _, _) = search(&keys(own), &keys(other)).await;
            assert_eq!(found, ["", "key/1", "kf"]);
        }
        assert_eq!(search(&keys(&more), &keys(&more)).await.0, Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn when_time_is_up_what_is_known_is_named() {
        let own = keys(&[("b", 1)]);
        let hidden = format!("a/{}", "x".repeat(100));
        let (found, _, took) = search(&own, &keys(&[("b", 2), (&hidden, 3)])).await;
        assert_eq!(found.len(), 2);
        let prefix = found[0].strip_suffix('…').expect("only where it begins");
        assert!(hidden.starts_with(prefix) && prefix.len() > 3, "{prefix}");
        assert_eq!(found[1], "b…");
        assert_eq!(took, Duration::from_secs(10));
    }

    /// Cause: what all keys have in common was looked for without a pause. Symptom: keys of some KiB kept a thread that serves
    /// for seconds, whatever time there was.
    #[tokio::test]
    async fn a_long_search_on_this_side_ends_in_time_too() {
        let long = Keys::from([(vec![b'x'; 4_000], 1)]);
        let other = Keys::from([(vec![b'x'; 3_999], 2)]);
        let looks = Cell::new(0_u32);
        let until = Instant::now() + Duration::from_millis(30);
        let own = |prefix: &[u8]| {
            looks.set(looks.get() + 1);
            assert!(looks.get() < 2_000, "without an end");
            std::thread::sleep(Duration::from_millis(1));
            Some(parts(&long, prefix))
        };
        let ask = |prefix: Bytes| std::future::ready(Ok(parts(&other, &prefix)));
        let found = keys_that_differ(own, ask, until).await.expect("answered");
        assert!(found.len() == 1 && found[0].ends_with('…'), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_is_named_though_a_later_question_has_no_answer() {
        let (own, other) = (keys(&[("a", 1), ("b", 1)]), keys(&[("a", 2), ("b", 2)]));
        let asked = Cell::new(0);
        let ask = |prefix: Bytes| {
            asked.set(asked.get() + 1);
            std::future::ready(if asked.get() > 2 { Err(RequestError::NoLeader) } else { Ok(parts(&other, &prefix)) })
        };
        let until = Instant::now() + Duration::from_secs(10);
        let found = keys_that_differ(|prefix| Some(parts(&own, prefix)), &ask, until).await.expect("something");
        assert_eq!(found, ["a", "b…"]);
        let none = keys_that_differ(|prefix| Some(parts(&own, prefix)), &ask, until).await;
        assert_eq!(none.expect_err("nothing is known"), RequestError::NoLeader);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_first_of_many_are_named() {
        let many: Keys = (0..100).map(|at| (vec![at], 1)).collect();
        let (found, asked, _) = search(&many, &Keys::new()).await;
        assert!(found.len() == KEYS_MAX && asked <= 12, "{found:?} {asked}");
    }
}
