//! What processes use, as Linux counts it: processor, memory, disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// Of one process, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Time on a processor since the start.
    pub(super) cpu: Duration,
    /// Bytes in memory now, those of them that aren't a file's, and the most that there ever were.
    pub(super) resident: u64,
    pub(super) anonymous: u64,
    pub(super) peak: u64,
    /// Bytes that were given to the disk to write since the start.
    pub(super) written: u64,
    /// Bytes that are taken on the disk now.
    pub(super) disk: u64,
}

impl Usage {
    /// Both together, of two processes.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            resident: self.resident + other.resident,
            anonymous: self.anonymous + other.anonymous,
            peak: self.peak + other.peak,
            written: self.written + other.written,
            disk: self.disk + other.disk,
        }
    }

    /// Of one that took the place of another.
    pub(super) fn after(self, before: Self) -> Self {
        Self {
            cpu: self.cpu + before.cpu,
            written: self.written + before.written,
            peak: self.peak.max(before.peak),
            ..self
        }
    }
}

/// Of a process of ours; nothing if it is gone.
pub(super) fn of_process(id: u32) -> Usage {
    let read = |name: &str| fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_default();
    parse(&read("stat"), &read("status"), &read("io"), rustix::param::clock_ticks_per_second())
}

fn parse(stat: &str, status: &str, io: &str, ticks_per_second: u64) -> Usage {
    // Its name comes second, in brackets, and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| rest.split_whitespace().collect());
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let millis = (ticks(11) + ticks(12)) * 1000 / ticks_per_second.max(1);
    let number = |text: &str, name: &str| -> u64 {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        value.unwrap_or_default()
    };
    Usage {
        cpu: Duration::from_millis(millis),
        resident: number(status, "VmRSS:") * 1024,
        anonymous: number(status, "RssAnon:") * 1024,
        peak: number(status, "VmHWM:") * 1024,
        written: number(io, "write_bytes:"),
        disk: 0,
    }
}

/// Bytes that the files below a directory take.
pub(super) fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        // Blocks are of 512 bytes, whatever the file system's own are.
        Ok(metadata) => metadata.blocks() * 512,
        // It was removed meanwhile.
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4 9 0 0 0 150 50 0 0 20 0 1 0 5 6";
        let status = "Name:\tx\nVmHWM:\t   4096 kB\nVmRSS:\t   2048 kB\nRssAnon:\t 1024 kB\n";
        let usage = parse(stat, status, "rchar: 1\nwrite_bytes: 4096\n", 100);
        let cpu = Duration::from_secs(2);
        let expected = Usage { cpu, resident: 2 << 20, anonymous: 1 << 20, peak: 4 << 20, written: 4096, disk: 0 };
        assert_eq!(usage, expected);
        assert_eq!(usage.after(usage), Usage { cpu: 2 * cpu, written: 8192, ..usage });
        assert_eq!(parse("", "", "", 0), Usage::default());
    }
}
