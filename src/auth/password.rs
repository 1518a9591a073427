//! Passwords: hashed before they enter the log, compared in the same time whoever they are for.
//!
//! Both functions take tens of milliseconds on purpose and are for threads that may block.

use super::{PasswordHash, Secret};

/// bcrypt looks at no more.
pub const PASSWORD_BYTES_MAX: usize = 72;

/// The costs that bcrypt has.
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;
/// What stands for another one, as in etcd.
const COST_DEFAULT: u32 = 10;

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
    let cost = if COSTS.contains(&cost) { cost } else { COST_DEFAULT };
    let parts = bcrypt::hash_with_salt(password.reveal(), cost, salt).map_err(|_| PasswordTooLong)?;
    Ok(PasswordHash::new(parts.format_for_version(bcrypt::Version::TwoA)))
}

/// Whether a password is the one that was hashed. Without a hash it is compared with nothing that it could be,
/// at `cost`, and is never right: whether there is such a user can't be told from the time it takes.
pub fn verify(password: &Secret, hash: Option<&PasswordHash>, cost: u32) -> bool {
    match hash {
        Some(hash) => bcrypt::verify(password.reveal(), hash.reveal()).unwrap_or(false),
        None => {
            let cost = if COSTS.contains(&cost) { cost } else { COST_DEFAULT };
            let stand_in = format!("$2a${cost:02}${}", ".".repeat(53));
            // It has the form of a hash, and nobody knows a password for it; whether it matches is not asked.
            std::hint::black_box(bcrypt::verify(password.reveal(), &stand_in).unwrap_or(false));
            false
        }
    }
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
            assert!(verify(&password, Some(&hashed), cost));
            assert!(!verify(&Secret::new(format!("{text}.")), Some(&hashed), cost) || text.len() == 72);
        }
        assert_eq!(hash(&Secret::new("x".repeat(73)), cost, [7; 16]), Err(PasswordTooLong));
    }

    #[test]
    fn a_hash_of_go_is_understood() {
        let hashed = PasswordHash::new("$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy");
        assert!(!verify(&Secret::new("wrong"), Some(&hashed), 10));
        assert!(!verify(&Secret::new("x"), Some(&PasswordHash::new("junk")), 10));
    }

    /// Not a time limit: that the stand-in really is a hash, which bcrypt runs at the cost that is asked for.
    #[test]
    fn an_unknown_user_costs_a_hash() {
        let stand_in = format!("$2a$04${}", ".".repeat(53));
        let parts: bcrypt::HashParts = stand_in.parse().expect("bcrypt takes it");
        assert_eq!(parts.get_cost(), 4);
        assert_eq!(bcrypt::verify("anything", &stand_in).ok(), Some(false), "it is compared, and differs");
        assert!(!verify(&Secret::new("anything"), None, 4));
    }
}
