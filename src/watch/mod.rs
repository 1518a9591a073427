//! The watch hub: from a published batch to every stream that wants it.
