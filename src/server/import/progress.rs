//! How far it is, for a person who waits: a line on the terminal, a few times a second.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::env::Clock;

/// Between two lines.
const EVERY: Duration = Duration::from_millis(100);
const BAR_CELLS: u64 = 30;

/// A bar on the standard error output, if that is a terminal.
pub struct Progress {
    clock: Option<Arc<dyn Clock>>,
    label: &'static str,
    total: u64,
    done: u64,
    shown: Option<Instant>,
}

impl Progress {
    /// Begins at nothing of `total` bytes; 0 if it isn't known.
    pub fn new(clock: &Arc<dyn Clock>, label: &'static str, total: u64) -> Self {
        let clock = std::io::stderr().is_terminal().then(|| Arc::clone(clock));
        Self { clock, label, total, done: 0, shown: None }
    }

    /// So many bytes there will be.
    pub fn expect(&mut self, total: u64) {
        self.total = total;
    }

    /// So many bytes more are done.
    pub fn add(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        let Some(clock) = &self.clock else { return };
        let now = clock.now();
        if self.shown.is_some_and(|shown| now.saturating_duration_since(shown) < EVERY) {
            return;
        }
        self.shown = Some(now);
        // A terminal that is gone misses nothing.
        let _ = write!(std::io::stderr(), "\r\x1b[K{}", self.line());
    }

    fn line(&self) -> String {
        let bytes = human(self.done);
        if self.total == 0 {
            return format!("{} {bytes}", self.label);
        }
        let done = self.done.min(self.total);
        let cells = done * BAR_CELLS / self.total;
        let bar: String = (0..BAR_CELLS).map(|cell| if cell < cells { '█' } else { '░' }).collect();
        format!("{} {bar} {:3} % of {}", self.label, done * 100 / self.total, human(self.total))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Bytes in powers of 1000, as etcd's tools have them.
pub(in crate::server) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} {}", UNITS[unit]);
    }
    // Rounded twice, as theirs are: 364.544 is 364.5, and that 364.
    let tenths = (value * 10.0 + 0.5).floor() / 10.0;
    if tenths < 10.0 { format!("{tenths:.1} {}", UNITS[unit]) } else { format!("{tenths:.0} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_etcds_do() {
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (20_480, "20 kB"),
            (364_544, "364 kB"),
            (2_140_000, "2.1 MB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn a_bar_is_never_longer_than_itself() {
        let clock: Arc<dyn Clock> = Arc::new(crate::env::SystemClock);
        let mut progress = Progress::new(&clock, "reading", 1_000);
        progress.add(500);
        assert!(progress.line().ends_with(" 50 % of 1.0 kB"), "{}", progress.line());
        progress.add(5_000);
        assert!(progress.line().contains("100 %"), "{}", progress.line());
    }
}
