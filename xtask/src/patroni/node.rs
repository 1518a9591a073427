//! Nodes of Patroni, each with its PostgreSQL.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::dcs::{CLIENT_KEY, Dcs, PATRONI, PREFIX};
use super::install::Tools;
use super::{Result, wait};

/// Seconds: how long a leader's key lives, between two looks at it, how long a call may be tried again.
pub(super) const TTL: u64 = 20;
pub(super) const LOOP_WAIT: u64 = 5;
const RETRY_TIMEOUT: u64 = 5;
const PASSWORD: &str = "drill";
const SCOPE: &str = "drill";
const END_MAX: Duration = Duration::from_secs(30);

/// A Patroni; it and its PostgreSQL are killed at drop.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) port: u16,
    api: u16,
    data: PathBuf,
    start: Command,
    child: Option<Child>,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) role: String,
    /// `running`; of a replica that has what the primary has, `streaming`.
    pub(super) state: String,
    pub(super) timeline: u64,
    /// Whether a standby's acknowledgement is waited for, and it is this one.
    pub(super) is_sync: bool,
}

impl Node {
    /// Starts one; `ports` are PostgreSQL's and its own.
    pub(super) fn start(name: &str, tools: &Tools, dcs: &Dcs, run: &Path, ports: [u16; 2]) -> Result<Self> {
        let dir = run.join(name);
        fs::create_dir_all(&dir)?;
        tools.user.own(&dir)?;
        let data = dir.join("data");
        let config = run.join(format!("{name}.json"));
        // JSON is YAML.
        fs::write(&config, configuration(name, tools, dcs, &dir, ports).to_string())?;
        let log = File::options().create(true).append(true).open(run.join(format!("{name}.log")))?;
        let mut start = Command::new(tools.venv.join("patroni"));
        start
            .arg(&config)
            .current_dir(&dir)
            .env("HOME", &dir)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        tools.user.run(&mut start);
        let child = start.spawn().map_err(|error| format!("patroni does not start: {error}"))?;
        Ok(Self { name: name.to_owned(), port: ports[0], api: ports[1], data, start, child: Some(child) })
    }

    /// What it says of itself, if it answers.
    pub(super) fn told(&self) -> Option<Told> {
        let told = self.get("/patroni")?;
        let text = |name: &str| told.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let replication = text("replication_state");
        Some(Told {
            role: text("role"),
            state: if replication.is_empty() { text("state") } else { replication },
            timeline: told.get("timeline").and_then(Value::as_u64).unwrap_or_default(),
            is_sync: told.get("sync_standby").and_then(Value::as_bool).unwrap_or_default(),
        })
    }

    fn get(&self, path: &str) -> Option<Value> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.api)).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        socket.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Kills Patroni and its PostgreSQL at once, as a machine that is switched off.
    pub(super) fn kill(&mut self) -> Result<()> {
        let postgres = self.postgres();
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        for process in &postgres {
            // It may have ended meanwhile, as its postmaster has.
            let _ = kill_process(*process, Signal::KILL);
        }
        wait("the end of a killed PostgreSQL", || {
            Ok(postgres.iter().all(|process| !Path::new(&format!("/proc/{}", process.as_raw_nonzero())).exists()))
        })?;
        Ok(())
    }

    pub(super) fn start_again(&mut self) -> Result<()> {
        self.child = Some(self.start.spawn()?);
        Ok(())
    }

    /// Asks it to end; PostgreSQL ends with it.
    pub(super) fn terminate(&self) {
        if let Some(child) = &self.child {
            // It fails only if it has ended.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
    }

    /// Waits for that.
    pub(super) fn wait_for_end(&mut self) {
        let begun = Instant::now();
        if let Some(child) = &mut self.child {
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < END_MAX {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Its postmaster, if one runs, and the processes that it has.
    fn postgres(&self) -> Vec<Pid> {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let Some(postmaster) = file.lines().next().and_then(|line| line.parse::<i32>().ok()) else { return Vec::new() };
        // A file that was left there may name anybody.
        let program = fs::read_link(format!("/proc/{postmaster}/exe")).unwrap_or_default();
        let directory = fs::read_link(format!("/proc/{postmaster}/cwd")).unwrap_or_default();
        if program.file_name().is_none_or(|name| name != "postgres") || directory != self.data {
            return Vec::new();
        }
        let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
            let process: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            let parent: i32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            (parent == postmaster).then_some(process)
        });
        std::iter::once(postmaster).chain(processes).filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("patroni: {}: {error}", self.name);
        }
    }
}

/// `patronictl` as an operator types it; its output.
pub(super) fn patronictl(tools: &Tools, run: &Path, args: &[&str]) -> Result<String> {
    let mut ctl = Command::new(tools.venv.join("patronictl"));
    ctl.arg("-c").arg(run.join("n0.json")).args(args).current_dir(run.join("n0")).stdin(Stdio::null());
    ctl.env("HOME", run.join("n0")).env("LC_ALL", "C.UTF-8");
    tools.user.run(&mut ctl);
    Ok(String::from_utf8_lossy(&crate::sh::output(ctl)?).into_owned())
}

/// Variables by which a client of PostgreSQL says who it is.
pub(super) fn login() -> [(&'static str, &'static str); 2] {
    [("PGUSER", "postgres"), ("PGPASSWORD", PASSWORD)]
}

fn configuration(name: &str, tools: &Tools, dcs: &Dcs, dir: &Path, [port, api]: [u16; 2]) -> Value {
    let mut etcd3 = json!({ "hosts": dcs.hosts(), "protocol": "http" });
    if let Some(tls) = &dcs.certificates {
        let file = |name: &str| tls.join(name).display().to_string();
        etcd3 = json!({
            "hosts": dcs.hosts(), "protocol": "https", "username": PATRONI.0, "password": PATRONI.1,
            "cacert": file("ca.pem"), "cert": file("cert.pem"), "key": file(CLIENT_KEY),
        });
    }
    let user = |name: &str| json!({ "username": name, "password": PASSWORD });
    json!({
        "scope": SCOPE, "name": name, "namespace": PREFIX, "etcd3": etcd3,
        "restapi": { "listen": format!("127.0.0.1:{api}"), "connect_address": format!("127.0.0.1:{api}") },
        "bootstrap": {
            "dcs": {
                "ttl": TTL, "loop_wait": LOOP_WAIT, "retry_timeout": RETRY_TIMEOUT,
                // An acknowledged row is on two nodes.
                "synchronous_mode": true,
                "postgresql": { "use_pg_rewind": true, "parameters": {
                    "shared_buffers": "16MB", "max_connections": 30, "max_wal_senders": 6, "max_worker_processes": 4,
                } },
            },
            "initdb": [{ "encoding": "UTF8" }, { "locale": "C.UTF-8" }, "data-checksums"],
        },
        "postgresql": {
            "listen": format!("127.0.0.1:{port}"), "connect_address": format!("127.0.0.1:{port}"),
            "data_dir": dir.join("data"), "bin_dir": tools.postgres, "pgpass": dir.join("pgpass"),
            "authentication": { "superuser": user("postgres"), "replication": user("replicator"), "rewind": user("rewind") },
            "parameters": { "unix_socket_directories": "" },
            "pg_hba": [
                "host replication replicator 127.0.0.1/32 scram-sha-256",
                "host all all 127.0.0.1/32 scram-sha-256",
            ],
        },
        "watchdog": { "mode": "off" },
    })
}
