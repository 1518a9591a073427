//! A line for a person: level, message, fields; no time, since a person is there.

use std::fmt::Write as _;

use serde_json::Value;
use tracing::Event;

use super::fields::{Fields, level_name};

/// The line, with its end.
pub(super) fn line(event: &Event<'_>) -> String {
    let fields = Fields::of(event);
    let mut line = format!("{}: {}", level_name(*event.metadata().level()), fields.message);
    for (name, value) in &fields.others {
        // Writing to a String can't fail.
        let _ = match value {
            Value::String(text) if !text.contains([' ', '\n']) => write!(line, " {name}={text}"),
            value => write!(line, " {name}={value}"),
        };
    }
    line.push('\n');
    line
}
