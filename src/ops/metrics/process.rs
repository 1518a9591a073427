//! The process as the kernel sees it, and Go's names for what some tools demand to find.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType, Summary};

use super::figures::single;

/// Ticks of a second in `/proc/PID/stat`: `USER_HZ`, 100 on every Linux that rusd runs on.
const TICKS_PER_SEC: f64 = 100.0;

/// Name, type, help of what is read from the kernel, in the order of [`read`].
const PROCESS: [(&str, MetricType, &str); 13] = [
    ("process_cpu_seconds_total", MetricType::COUNTER, "CPU time, user and system."),
    ("process_resident_memory_bytes", MetricType::GAUGE, "Resident memory."),
    ("process_virtual_memory_bytes", MetricType::GAUGE, "Virtual memory."),
    ("process_virtual_memory_max_bytes", MetricType::GAUGE, "Limit of virtual memory; -1 is none."),
    ("process_start_time_seconds", MetricType::GAUGE, "Start, in Unix time."),
    ("process_open_fds", MetricType::GAUGE, "Open file descriptors."),
    ("process_max_fds", MetricType::GAUGE, "Limit of file descriptors."),
    ("os_fd_used", MetricType::GAUGE, "Open file descriptors."),
    ("os_fd_limit", MetricType::GAUGE, "Limit of file descriptors."),
    ("go_threads", MetricType::GAUGE, "Threads of the process."),
    ("go_sched_gomaxprocs_threads", MetricType::GAUGE, "Processors that the process may use."),
    ("process_network_receive_bytes_total", MetricType::COUNTER, "Bytes received by the machine."),
    ("process_network_transmit_bytes_total", MetricType::COUNTER, "Bytes sent by the machine."),
];

/// What only a Go runtime has: present, since etcd's own tests ask for the names, and 0.
const GO: [(&str, MetricType); 26] = [
    ("go_gc_gogc_percent", MetricType::GAUGE),
    ("go_gc_gomemlimit_bytes", MetricType::GAUGE),
    ("go_goroutines", MetricType::GAUGE),
    ("go_memstats_alloc_bytes", MetricType::GAUGE),
    ("go_memstats_alloc_bytes_total", MetricType::COUNTER),
    ("go_memstats_buck_hash_sys_bytes", MetricType::GAUGE),
    ("go_memstats_frees_total", MetricType::COUNTER),
    ("go_memstats_gc_sys_bytes", MetricType::GAUGE),
    ("go_memstats_heap_alloc_bytes", MetricType::GAUGE),
    ("go_memstats_heap_idle_bytes", MetricType::GAUGE),
    ("go_memstats_heap_inuse_bytes", MetricType::GAUGE),
    ("go_memstats_heap_objects", MetricType::GAUGE),
    ("go_memstats_heap_released_bytes", MetricType::GAUGE),
    ("go_memstats_heap_sys_bytes", MetricType::GAUGE),
    ("go_memstats_last_gc_time_seconds", MetricType::GAUGE),
    ("go_memstats_mallocs_total", MetricType::COUNTER),
    ("go_memstats_mcache_inuse_bytes", MetricType::GAUGE),
    ("go_memstats_mcache_sys_bytes", MetricType::GAUGE),
    ("go_memstats_mspan_inuse_bytes", MetricType::GAUGE),
    ("go_memstats_mspan_sys_bytes", MetricType::GAUGE),
    ("go_memstats_next_gc_bytes", MetricType::GAUGE),
    ("go_memstats_other_sys_bytes", MetricType::GAUGE),
    ("go_memstats_stack_inuse_bytes", MetricType::GAUGE),
    ("go_memstats_stack_sys_bytes", MetricType::GAUGE),
    ("go_memstats_sys_bytes", MetricType::GAUGE),
    ("promhttp_metric_handler_requests_in_flight", MetricType::GAUGE),
];
const GO_HELP: &str = "There is no Go runtime; always 0.";
const GO_GC: &str = "go_gc_duration_seconds";

/// Reads the kernel's figures at each scrape.
pub(super) struct ProcessCollector {
    descriptions: Vec<Desc>,
}

impl ProcessCollector {
    pub(super) fn new() -> prometheus::Result<Self> {
        let names = PROCESS.iter().map(|(name, _, help)| (*name, *help));
        let go = GO.iter().map(|(name, _)| (*name, GO_HELP)).chain([(GO_GC, GO_HELP)]);
        let descriptions = names
            .chain(go)
            .map(|(name, help)| Desc::new(name.into(), help.into(), Vec::new(), Default::default()))
            .collect::<prometheus::Result<_>>()?;
        Ok(Self { descriptions })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let values = read();
        let process = PROCESS.iter().zip(values).map(|((name, kind, help), v)| single(name, *kind, help, v));
        let go = GO.iter().map(|(name, kind)| single(name, *kind, GO_HELP, 0.0));
        process.chain(go).chain([empty_summary()]).collect()
    }
}

fn empty_summary() -> MetricFamily {
    let mut metric = Metric::default();
    metric.set_summary(Summary::default());
    let mut family = MetricFamily::default();
    family.set_name(GO_GC.to_owned());
    family.set_help(GO_HELP.to_owned());
    family.set_field_type(MetricType::SUMMARY);
    family.set_metric(vec![metric]);
    family
}

/// The values of [`PROCESS`]; 0 where the kernel doesn't say.
fn read() -> [f64; PROCESS.len()] {
    let stat = Stat::parse(&proc_text("self/stat")).unwrap_or_default();
    let page = rustix::param::page_size() as f64;
    let boot = proc_text("stat")
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())
        .unwrap_or(0.0);
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let fd_limit = limits.current.map_or(-1.0, |limit| limit as f64);
    let memory = rustix::process::getrlimit(rustix::process::Resource::As);
    let fds = open_fds();
    let (received, sent) = network(&proc_text("self/net/dev"));
    let processors = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    [
        stat.cpu_ticks / TICKS_PER_SEC,
        stat.resident_pages * page,
        stat.virtual_bytes,
        memory.current.map_or(-1.0, |limit| limit as f64),
        boot + stat.start_ticks / TICKS_PER_SEC,
        fds,
        fd_limit,
        fds,
        fd_limit,
        stat.threads,
        processors,
        received,
        sent,
    ]
}

#[expect(clippy::disallowed_methods, reason = "the kernel's figures, not data of ours: no fault to put there")]
fn proc_text(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "the kernel's figures, not data of ours: no fault to put there")]
fn open_fds() -> f64 {
    // The descriptor that lists them is one of them.
    std::fs::read_dir("/proc/self/fd").map_or(0.0, |entries| entries.count().saturating_sub(1) as f64)
}

/// Fields of `/proc/self/stat` (proc(5)).
#[derive(Debug, Default, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name may hold spaces and brackets; what follows the last one is numbers.
        let fields: Vec<f64> =
            text.rsplit_once(')')?.1.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0.0)).collect();
        let field = |number: usize| fields.get(number - 4).copied();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Bytes received and sent by all interfaces.
fn network(text: &str) -> (f64, f64) {
    text.lines().filter_map(|line| line.split_once(':')).fold((0.0, 0.0), |sum, (_, fields)| {
        let fields: Vec<f64> = fields.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        let at = |n: usize| fields.get(n).copied().unwrap_or(0.0);
        (sum.0 + at(0), sum.1 + at(8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let text = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 70 30 13 14 15 16 9 18 500 4096 3 99";
        let want =
            Stat { cpu_ticks: 100.0, threads: 9.0, start_ticks: 500.0, virtual_bytes: 4096.0, resident_pages: 3.0 };
        assert_eq!(Stat::parse(text), Some(want));
        assert_eq!(Stat::parse("12 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let values = read();
        assert!(values[1] > 1e6, "resident {}", values[1]);
        assert!(values[5] >= 3.0 && values[6] > values[5]);
        assert!(values[4] > 1.6e9, "start {}", values[4]);
    }

    #[test]
    fn interfaces_are_summed() {
        let text = "Inter-| Receive\n face |bytes\n lo: 10 0 0 0 0 0 0 0 20 0\n e0: 1 0 0 0 0 0 0 0 2 0\n";
        assert_eq!(network(text), (11.0, 22.0));
    }
}
