//! Passwords: hashed before they enter the log, compared in the same time whoever they are for.
//!
//! Both functions take tens of milliseconds on purpose and are for threads that may block.

use super::{PasswordHash, Secret};

/// bcrypt looks at no more.
pub const PASSWORD_BYTES_MAX: usize = 72;

/// The costs that bcrypt has.
pub(super) const COSTS: std::ops::RangeInclusive<u32> = 4..=31;
/// What stands for another one, as in etcd.
const COST_DEFAULT: u32 = 10;

/// A cost that bcrypt has.
pub fn usable(cost: u32) -> u32 {
    if COSTS.contains(&cost) { cost } else { COST_DEFAULT }
}

/// A password of which bcrypt would see only the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bcrypt: password length exceeds 72 bytes")]
pub struct PasswordTooLong;

/// The bcrypt hash of a password, in the form that etcd stores.
///
/// # Errors
/// [`PasswordTooLong`].
pub fn hash(password: &Secret, cost: u32, salt: [u8; 16]) -> Result<PasswordHash, PasswordTooLong> {
    if password.reveal().len() > PASSWORD_BYTES_MAX {
        return Err(PasswordTooLong);
    }
    let cost = usable(cost);
    let parts = bcrypt::hash_with_salt(password.reveal(), cost, salt).map_err(|_| PasswordTooLong)?;
    Ok(PasswordHash::new(parts.format_for_version(bcrypt::Version::TwoA)))
}

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The password is the one that was hashed.
    pub matches: bool,
    /// bcrypt's rounds, which are what it takes.
    pub rounds: u64,
}

/// Whether a password is the one that was hashed. Whatever isn't right takes the same number of rounds, those of
/// `cost_max`, which is no less than the cost of any user's hash: neither whether there is such a user nor with which
/// cost the password was hashed can be told from the time.
pub fn verify(password: &Secret, hash: Option<&PasswordHash>, cost_max: u32) -> Verified {
    let compare = |hash: &str| std::hint::black_box(bcrypt::verify(password.reveal(), hash)).ok();
    let compared = hash.and_then(|hash| Some((hash.cost()?, compare(hash.reveal())?)));
    // Each cost is twice the one before: those from the hash's own on add up to the highest.
    let (mut rounds, stand_ins) = match compared {
        Some((cost, true)) => return Verified { matches: true, rounds: 1 << cost },
        Some((cost, false)) => (1 << cost, cost..cost_max),
        None => (0, cost_max..cost_max.saturating_add(1)),
    };
    for cost in stand_ins {
        compare(&stand_in(cost));
        rounds += 1 << cost;
    }
    Verified { matches: false, rounds }
}

/// The form of a hash, for which nobody knows a password.
fn stand_in(cost: u32) -> String {
    format!("$2a${cost:02}${}", ".".repeat(53))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again() {
        let cost = 4;
        for text in ["pw", "", "ü€", &"x".repeat(72)] {
            let password = Secret::new(text);
            let hashed = hash(&password, cost, [7; 16]).expect("short enough");
            assert!(hashed.reveal().starts_with("$2a$04$"), "etcd's form");
            assert_eq!(hashed.cost(), Some(4));
            assert!(verify(&password, Some(&hashed), cost).matches);
            let longer = Secret::new(format!("{text}."));
            assert!(!verify(&longer, Some(&hashed), cost).matches || text.len() == 72);
        }
        assert_eq!(hash(&Secret::new("x".repeat(73)), cost, [7; 16]), Err(PasswordTooLong));
    }

    #[test]
    fn a_hash_of_go_is_understood() {
        let hashed = PasswordHash::new("$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy");
        assert!(!verify(&Secret::new("wrong"), Some(&hashed), 10).matches);
        assert!(!verify(&Secret::new("x"), Some(&PasswordHash::new("junk")), 4).matches);
    }

    /// Not a time limit: that the stand-in really is a hash, which bcrypt runs at the cost that is asked for.
    #[test]
    fn an_unknown_user_costs_a_hash() {
        for cost in [4, 5] {
            let parts: bcrypt::HashParts = stand_in(cost).parse().expect("bcrypt takes it");
            assert_eq!(parts.get_cost(), cost);
            assert_eq!(bcrypt::verify("anything", &stand_in(cost)).ok(), Some(false), "it is compared, and differs");
        }
    }

    // Cause: a wrong password cost what the user's hash costs, a name without a user the highest cost of all. Symptom:
    // after a change of `--bcrypt-cost`, users of before could be told from nobody by the time.
    #[test]
    fn whatever_is_wrong_costs_the_same() {
        let right = Secret::new("right");
        let hash_of = |cost| hash(&right, cost, [7; 16]).expect("short enough");
        let hashes = [None, Some(PasswordHash::new("junk")), Some(hash_of(4)), Some(hash_of(6)), Some(hash_of(7))];
        for hash in &hashes {
            let wrong = verify(&Secret::new("wrong"), hash.as_ref(), 7);
            assert_eq!(wrong, Verified { matches: false, rounds: 1 << 7 }, "{hash:?}");
        }
        assert_eq!(verify(&right, Some(&hash_of(4)), 7), Verified { matches: true, rounds: 1 << 4 });
    }
}
