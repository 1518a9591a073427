//! The trace: one line for each thing that happened, and a checksum of all of them. Two runs of a seed have the same.

use std::fmt::{Arguments, Write as _};

use rusd_sim::history::Micros;

/// Lines that are kept for a run that fails.
const TAIL: usize = 400;

/// The lines so far.
#[derive(Default)]
pub(crate) struct Trace {
    crc: crc32fast::Hasher,
    lines: u64,
    tail: std::collections::VecDeque<String>,
    verbose: bool,
}

impl Trace {
    pub(crate) fn new(verbose: bool) -> Self {
        Self { verbose, ..Self::default() }
    }

    pub(crate) fn note(&mut self, now: Micros, line: Arguments<'_>) {
        let mut text = String::new();
        // Writing to a string doesn't fail.
        let _ = write!(text, "{}.{:06} {line}", now / 1_000_000, now % 1_000_000);
        self.crc.update(text.as_bytes());
        self.lines += 1;
        if self.verbose {
            println!("{text}");
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(text);
    }

    pub(crate) fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    pub(crate) fn tail(&self) -> impl Iterator<Item = &String> {
        self.tail.iter()
    }
}
