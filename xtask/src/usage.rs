//! What a command takes: told on `--help`, and held against what was typed before anything runs.
//!
//! ```text
//! arguments ─► help? ─► usage, nothing runs
//!           └► each known, with its value? ─► the command
//!                                        └──► an error that names the nearest
//! ```

/// One option of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opt {
    /// With its dashes.
    pub(crate) name: &'static str,
    /// What its value is called; empty if it has none.
    pub(crate) value: &'static str,
}

/// An option with a value.
pub(crate) const fn with(name: &'static str, value: &'static str) -> Opt {
    Opt { name, value }
}

/// An option without one.
pub(crate) const fn flag(name: &'static str) -> Opt {
    Opt { name, value: "" }
}

/// What a command takes besides its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takes {
    /// What its one word is called; empty if it takes none.
    pub(crate) word: &'static str,
    pub(crate) options: &'static [Opt],
}

impl Takes {
    /// A command without arguments.
    pub(crate) const NOTHING: Self = Self { word: "", options: &[] };

    /// `[NAME] [--steps N]`
    pub(crate) fn show(&self) -> String {
        let word = (!self.word.is_empty()).then(|| format!("[{}]", self.word));
        let options = self.options.iter().map(|option| match option.value {
            "" => format!("[{}]", option.name),
            value => format!("[{} {value}]", option.name),
        });
        word.into_iter().chain(options).collect::<Vec<_>>().join(" ")
    }

    /// Whether all arguments are known.
    ///
    /// # Errors
    /// The first that isn't, with the nearest one that is, or an option without its value.
    pub(crate) fn check(&self, args: &[String]) -> Result<(), String> {
        let mut words = usize::from(!self.word.is_empty());
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if !arg.starts_with('-') {
                words = words.checked_sub(1).ok_or_else(|| format!("`{arg}` is one word too many"))?;
                continue;
            }
            let (name, value) = arg.split_once('=').map_or((arg.as_str(), None), |(name, value)| (name, Some(value)));
            let Some(option) = self.options.iter().find(|option| option.name == name) else {
                let known = self.options.iter().map(|option| option.name);
                return Err(unknown("option", name, known));
            };
            match (option.value, value) {
                ("", Some(_)) => return Err(format!("{name} takes no value")),
                ("", None) | (_, Some(_)) => {}
                (wanted, None) if args.next().is_none() => return Err(format!("{name} needs its {wanted}")),
                (_, None) => {}
            }
        }
        Ok(())
    }
}

/// Whether help is asked for and nothing else.
pub(crate) fn is_help(args: &[String]) -> bool {
    args.iter().any(|arg| matches!(arg.as_str(), "--help" | "-h" | "help"))
}

/// That `what` isn't known, and which one may have been meant.
pub(crate) fn unknown<'a>(what: &str, typed: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.max_by(|a, b| strsim::jaro_winkler(a, typed).total_cmp(&strsim::jaro_winkler(b, typed)));
    match nearest {
        Some(nearest) => format!("there is no {what} `{typed}`; the nearest is `{nearest}`"),
        None => format!("there is no {what} `{typed}`, and none is taken"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKES: Takes =
        Takes { word: "NAME", options: &[with("--steps", "N"), with("--seed", "S"), flag("--record")] };

    fn check(args: &[&str]) -> Result<(), String> {
        TAKES.check(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_known_passes_and_the_rest_names_the_nearest() {
        assert_eq!(check(&["put", "--steps", "9", "--seed=4", "--record"]), Ok(()));
        assert_eq!(check(&["--step", "9"]), Err("there is no option `--step`; the nearest is `--steps`".to_owned()));
        assert_eq!(check(&["a", "b"]), Err("`b` is one word too many".to_owned()));
        assert_eq!(check(&["--seed"]), Err("--seed needs its S".to_owned()));
        assert_eq!(check(&["--record=1"]), Err("--record takes no value".to_owned()));
        assert!(Takes::NOTHING.check(&["--x".to_owned()]).is_err());
        assert_eq!(TAKES.show(), "[NAME] [--steps N] [--seed S] [--record]");
    }
}
