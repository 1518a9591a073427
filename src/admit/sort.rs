//! The wire's sort numbers, which a client may set to anything.

use crate::storage::{SortOrder, SortTarget};
use crate::types::RequestError;

/// The order that a wire number names.
///
/// # Errors
/// `InvalidSortOption` for one that names none (E20).
pub fn sort_order(number: i32) -> Result<SortOrder, RequestError> {
    match number {
        0 => Ok(SortOrder::None),
        1 => Ok(SortOrder::Ascend),
        2 => Ok(SortOrder::Descend),
        _ => Err(RequestError::InvalidSortOption),
    }
}

/// The target that a wire number names.
///
/// # Errors
/// `InvalidSortOption` for one that names none (E20).
pub fn sort_target(number: i32) -> Result<SortTarget, RequestError> {
    match number {
        0 => Ok(SortTarget::Key),
        1 => Ok(SortTarget::Version),
        2 => Ok(SortTarget::Create),
        3 => Ok(SortTarget::Mod),
        4 => Ok(SortTarget::Value),
        _ => Err(RequestError::InvalidSortOption),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_the_enum_are_refused() {
        for number in [-1, 3, 9] {
            assert_eq!(sort_order(number), Err(RequestError::InvalidSortOption));
        }
        for number in [-1, 5, 9] {
            assert_eq!(sort_target(number), Err(RequestError::InvalidSortOption));
        }
        assert_eq!(sort_order(2), Ok(SortOrder::Descend));
        assert_eq!(sort_target(4), Ok(SortTarget::Value));
    }
}
