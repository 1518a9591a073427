//! What a point does: gofail's terms.
//!
//! ```text
//! terms = term { "->" term }      term = [ number "%" | count "*" ] action [ "(" value ")" ]
//! action = off | return | sleep | panic | break | print
//! ```
//! The first term whose turn it is acts: a count is used up, a percentage is a matter of chance.

use std::time::Duration;

/// The longest text that is taken.
const TEXT_MAX: usize = 4_096;
/// Terms of one point.
const TERMS_MAX: usize = 64;

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Nothing. `return` and `break` too: no point here has a value to give or a loop to leave.
    Nothing,
    /// The thread stands still.
    Sleep(Duration),
    /// The process ends as if something had panicked.
    Panic(String),
    /// A line on standard error.
    Print(String),
}

#[derive(Clone, Debug, PartialEq)]
enum Mode {
    Always,
    /// In so many of a million.
    Chance(u32),
    /// Times that are left.
    Count(u64),
}

/// What one point does, in its own words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Terms {
    /// As it was told.
    pub(super) text: String,
    terms: Vec<(Mode, Action)>,
}

impl Terms {
    /// Reads them; `None` if they can't be read.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return None;
        }
        let terms: Vec<_> = text.split("->").take(TERMS_MAX + 1).map(term).collect::<Option<_>>()?;
        (terms.len() <= TERMS_MAX).then(|| Self { text: text.to_owned(), terms })
    }

    /// What is to be done now; `chance` is a number below a million.
    pub(super) fn next(&mut self, chance: u32) -> Action {
        for (mode, action) in &mut self.terms {
            match mode {
                Mode::Always => return action.clone(),
                Mode::Chance(most) if chance < *most => return action.clone(),
                Mode::Count(left @ 1..) => {
                    *left -= 1;
                    return action.clone();
                }
                Mode::Chance(_) | Mode::Count(_) => {}
            }
        }
        Action::Nothing
    }
}

fn term(text: &str) -> Option<(Mode, Action)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(0);
    let (number, rest) = text.split_at(end);
    let (mode, rest) = match (number, rest.as_bytes().first()) {
        ("", _) => (Mode::Always, rest),
        (number, Some(b'%')) => {
            let percent: f64 = number.parse().ok()?;
            (Mode::Chance((percent * 10_000.0) as u32), rest.get(1..)?)
        }
        (number, Some(b'*')) => (Mode::Count(number.parse().ok()?), rest.get(1..)?),
        _ => return None,
    };
    let (name, value) = match rest.split_once('(') {
        None => (rest, ""),
        Some((name, value)) => (name, value.strip_suffix(')')?),
    };
    let value = value.trim();
    let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let action = match name.trim() {
        "off" | "return" | "break" => Action::Nothing,
        "sleep" => Action::Sleep(duration(text.unwrap_or(value))?),
        "panic" => Action::Panic(text.unwrap_or(value).to_owned()),
        "print" => Action::Print(text.unwrap_or(value).to_owned()),
        _ => return None,
    };
    Some((mode, action))
}

/// A number of milliseconds, or a number with its unit.
fn duration(text: &str) -> Option<Duration> {
    if let Ok(millis) = text.parse() {
        return Some(Duration::from_millis(millis));
    }
    let units = [("ms", 0.001), ("us", 0.000_001), ("ns", 0.000_000_001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
    let seconds =
        units.iter().find_map(|(unit, seconds)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * seconds));
    Duration::try_from_secs_f64(seconds?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Option<Action> {
        Some(Terms::parse(text)?.next(0))
    }

    #[test]
    fn actions_and_values_are_read() {
        assert_eq!(first("off"), Some(Action::Nothing));
        assert_eq!(first("return(\"x\")"), Some(Action::Nothing));
        assert_eq!(first("panic"), Some(Action::Panic(String::new())));
        assert_eq!(first("panic(\"why\")\n"), Some(Action::Panic("why".into())));
        for (text, millis) in [("sleep(100)", 100), ("sleep(\"1s\")", 1000), ("sleep(0.5s)", 500), ("sleep(2ms)", 2)] {
            assert_eq!(first(text), Some(Action::Sleep(Duration::from_millis(millis))), "{text}");
        }
        for bad in ["", "jump", "sleep", "sleep(x)", "panic(", "3panic", "x%panic", "1*"] {
            assert_eq!(Terms::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn counts_are_used_up_and_percents_are_chance() {
        let mut terms = Terms::parse("2*sleep(1)->1*panic->off").expect("terms");
        let sleep = Action::Sleep(Duration::from_millis(1));
        let acts: Vec<_> = (0..4).map(|_| terms.next(0)).collect();
        assert_eq!(acts, [sleep.clone(), sleep, Action::Panic(String::new()), Action::Nothing]);
        let mut terms = Terms::parse("50%panic").expect("terms");
        assert_eq!((terms.next(499_999), terms.next(500_000)), (Action::Panic(String::new()), Action::Nothing));
    }

    #[test]
    fn arbitrary_text_never_panics() {
        bolero::check!().with_iterations(20_000).with_type::<String>().for_each(|text: &String| {
            let _ = Terms::parse(text);
        });
    }
}
