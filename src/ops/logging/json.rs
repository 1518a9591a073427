//! A line for programs: `level`, `ts`, `caller`, `msg`, then the event's own fields.

use serde_json::Value;
use time::OffsetDateTime;
use tracing::Event;

use super::fields::{Fields, caller, level_name};
use crate::env::{Clock, SystemClock};

/// The line, with its end.
pub(super) fn line(event: &Event<'_>) -> String {
    let metadata = event.metadata();
    let fields = Fields::of(event);
    let mut line = String::with_capacity(256);
    line.push('{');
    push(&mut line, "level", &level_name(*metadata.level()).into());
    push(&mut line, "ts", &timestamp(SystemClock.wall().into()).into());
    push(&mut line, "caller", &caller(metadata).into());
    push(&mut line, "msg", &fields.message.into());
    for (name, value) in &fields.others {
        push(&mut line, name, value);
    }
    line.push_str("}\n");
    line
}

fn push(line: &mut String, name: &str, value: &Value) {
    if !line.ends_with('{') {
        line.push(',');
    }
    line.push_str(&Value::from(name).to_string());
    line.push(':');
    line.push_str(&value.to_string());
}

/// Go's `2006-01-02T15:04:05.999999Z0700` in UTC: microseconds without trailing zeros.
fn timestamp(at: OffsetDateTime) -> String {
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.microsecond()
    );
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Subscriber;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Caught(Arc<Mutex<String>>);

    impl<S: Subscriber> Layer<S> for Caught {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().expect("not poisoned").push_str(&line(event));
        }
    }

    #[test]
    fn a_line_is_an_object_with_etcds_keys() {
        let caught = Caught::default();
        let subscriber = tracing_subscriber::registry().with(caught.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("took-ms" = 7, path = %"a\"b\n", ready = true, "slow {}", "disk");
        });
        let text = caught.0.lock().expect("not poisoned").clone();
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["level"], "warn");
        assert_eq!(value["msg"], "slow disk");
        assert_eq!(value["took-ms"], 7);
        assert_eq!(value["path"], "a\"b\n");
        assert_eq!(value["ready"], true);
        let caller = value["caller"].as_str().expect("text");
        assert!(caller.starts_with("logging/json.rs:"), "{caller}");
        assert!(text.starts_with("{\"level\":\"warn\",\"ts\":\"2") && text.ends_with("}\n"));
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn the_time_is_in_gos_form() {
        let at = |nanos: i128| timestamp(OffsetDateTime::from_unix_timestamp_nanos(nanos).expect("in range"));
        assert_eq!(at(1_136_239_445_123_456_789), "2006-01-02T22:04:05.123456Z");
        assert_eq!(at(1_136_239_445_120_000_000), "2006-01-02T22:04:05.12Z");
        assert_eq!(at(1_136_239_450_000_000_000), "2006-01-02T22:04:10Z");
    }
}
