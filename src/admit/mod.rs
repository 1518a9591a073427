//! Pure checks of a request before it costs anything.
