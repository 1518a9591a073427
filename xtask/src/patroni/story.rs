//! The bad day: each step does something to a node or to a member, and checks what became of it.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use super::dcs::{CLIENT_KEY, Dcs, MEMBERS};
use super::install::Tools;
use super::node::{LOOP_WAIT, Node, TTL, patronictl};
use super::rows::Rows;
use super::{Result, wait};
use crate::ports;

type Step = fn(&mut Drill) -> Result<String>;

const NODES: usize = 3;
/// Longer than a leader's key lives and is looked at: a primary that could not renew it would have stepped down.
const STEADY: Duration = Duration::from_secs(TTL + LOOP_WAIT);
/// By then a replica has to be promoted, and it takes a moment to be one.
const PROMOTED_MAX: Duration = Duration::from_secs(TTL + LOOP_WAIT + 10);

const STEPS: &[(&str, Step)] = &[
    ("begins", begins),
    ("kill -9 of the primary and its Patroni", kill_primary),
    ("the old primary comes back", old_primary_returns),
    ("kill -9 of the leading member", kill_leader),
    ("SIGSTOP of the leading member", pause_leader),
    ("rolling restart of the members", rolling_restart),
    ("patronictl switchover", switchover),
    ("every acknowledged row", every_row),
];

/// All that runs. The order of the fields is the order in which they end.
pub(super) struct Drill {
    rows: Rows,
    nodes: Vec<Node>,
    dcs: Dcs,
    tools: Tools,
    run: PathBuf,
    begun: Instant,
    /// The node that was killed.
    killed: usize,
}

impl Drill {
    pub(super) fn start(tools: Tools, dcs: Dcs, run: &Path) -> Result<Self> {
        let begun = Instant::now();
        if let Some(tls) = &dcs.certificates {
            tools.user.own(&tls.join(CLIENT_KEY))?;
        }
        let ports = ports::free(2 * NODES)?;
        let mut nodes = Vec::new();
        for at in 0..NODES {
            let own = [ports[2 * at], ports[2 * at + 1]];
            nodes.push(Node::start(&format!("n{at}"), &tools, &dcs, run, own)?);
        }
        let postgres: Vec<_> = nodes.iter().map(|node| node.port).collect();
        let rows = Rows::start(&tools, run, &postgres)?;
        Ok(Self { rows, nodes, dcs, tools, run: run.into(), begun, killed: 0 })
    }

    /// Runs all steps in order; how many there were.
    pub(super) fn tell(&mut self) -> Result<usize> {
        for (name, step) in STEPS {
            let begun = Instant::now();
            let detail = step(self).map_err(|error| format!("{name}: {error}"))?;
            println!("ok  {name}: {detail} ({:.1} s)", begun.elapsed().as_secs_f64());
        }
        Ok(STEPS.len())
    }

    /// Ends the nodes as an operator does, so that no shared memory stays.
    pub(super) fn end(&mut self) {
        self.rows.end();
        self.nodes.iter().for_each(Node::terminate);
        self.nodes.iter_mut().for_each(Node::wait_for_end);
    }

    /// The node that is the primary, and its timeline.
    fn primary(&self) -> Option<(usize, u64)> {
        let told = self.nodes.iter().map(Node::told).enumerate();
        let mut primaries = told.filter_map(|(at, told)| {
            let told = told.filter(|told| ["primary", "master"].contains(&told.role.as_str()))?;
            (told.state == "running").then_some((at, told.timeline))
        });
        primaries.next()
    }

    fn wait_for_primary(&self) -> Result<(usize, u64)> {
        let mut primary = None;
        wait("a primary", || {
            primary = self.primary();
            Ok(primary.is_some())
        })?;
        primary.ok_or_else(|| "there is no primary".into())
    }

    /// Waits until all others replicate from the primary, one of them synchronously.
    fn wait_for_replicas(&self) -> Result<Duration> {
        let (primary, timeline) = self.wait_for_primary()?;
        wait("replicas of the primary, one of them synchronous", || {
            let others = self.nodes.iter().enumerate().filter(|(at, _)| *at != primary);
            let told: Vec<_> = others.filter_map(|(_, node)| node.told()).collect();
            let follows = told.iter().filter(|told| told.state == "streaming" && told.timeline == timeline).count();
            Ok(follows == NODES - 1 && told.iter().any(|told| told.is_sync))
        })
    }

    fn wait_for_rows(&self, more: usize) -> Result<()> {
        let before = self.rows.count()?;
        wait("rows", || Ok(self.rows.count()? >= before + more))?;
        Ok(())
    }

    /// Watches over the primary for as long as its key lives; the longest time without an acknowledged row.
    fn stays(&self, (primary, timeline): (usize, u64), since: SystemTime) -> Result<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < STEADY {
            let told = self.nodes[primary].told().ok_or("the primary's Patroni doesn't answer")?;
            if told.role != "primary" && told.role != "master" || told.timeline != timeline {
                return Err(
                    format!("{} was the primary on timeline {timeline}: {told:?}", self.nodes[primary].name).into()
                );
            }
            sleep(Duration::from_millis(500));
        }
        self.wait_for_rows(20)?;
        self.rows.longest_pause(since)
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn begins(drill: &mut Drill) -> Result<String> {
    drill.wait_for_primary()?;
    let primary = drill.begun.elapsed();
    drill.wait_for_replicas()?;
    let replicas = drill.begun.elapsed();
    drill.wait_for_rows(100)?;
    Ok(format!("a primary after {}, two replicas after {}", seconds(primary), seconds(replicas)))
}

fn kill_primary(drill: &mut Drill) -> Result<String> {
    let (old, timeline) = drill.wait_for_primary()?;
    let since = SystemTime::now();
    drill.nodes[old].kill()?;
    drill.killed = old;
    let begun = Instant::now();
    let (new, later) = drill.wait_for_primary()?;
    let promoted = begun.elapsed();
    if new == old || later <= timeline || promoted > PROMOTED_MAX {
        return Err(format!("{} on timeline {later} after {promoted:?}", drill.nodes[new].name).into());
    }
    drill.wait_for_rows(100)?;
    let pause = drill.rows.longest_pause(since)?;
    Ok(format!("a replica was promoted after {}; no rows for {}", seconds(promoted), seconds(pause)))
}

fn old_primary_returns(drill: &mut Drill) -> Result<String> {
    let primary = drill.wait_for_primary()?;
    let old = drill.killed;
    drill.nodes[old].start_again()?;
    let took = drill.wait_for_replicas()?;
    if drill.primary() != Some(primary) {
        return Err("the primary changed".into());
    }
    Ok(format!("a replica after {}", seconds(took)))
}

fn kill_leader(drill: &mut Drill) -> Result<String> {
    let primary = drill.wait_for_primary()?;
    let leader = drill.dcs.leader(None)?;
    let since = SystemTime::now();
    drill.dcs.kill(leader)?;
    let pause = drill.stays(primary, since)?;
    drill.dcs.leader(Some(leader))?;
    drill.dcs.start_again(leader)?;
    drill.dcs.wait_until_well()?;
    Ok(format!("the primary stays; no rows for {} at most", seconds(pause)))
}

fn pause_leader(drill: &mut Drill) -> Result<String> {
    let primary = drill.wait_for_primary()?;
    let leader = drill.dcs.leader(None)?;
    let since = SystemTime::now();
    drill.dcs.signal(leader, Signal::STOP)?;
    let stayed = drill.stays(primary, since);
    drill.dcs.signal(leader, Signal::CONT)?;
    let pause = stayed?;
    drill.dcs.wait_until_well()?;
    Ok(format!("the primary stays; no rows for {} at most", seconds(pause)))
}

fn rolling_restart(drill: &mut Drill) -> Result<String> {
    let primary = drill.wait_for_primary()?;
    let since = SystemTime::now();
    for at in 0..MEMBERS {
        drill.dcs.terminate(at)?;
        drill.dcs.start_again(at)?;
        drill.dcs.wait_until_well()?;
        sleep(Duration::from_secs(LOOP_WAIT));
    }
    let pause = drill.stays(primary, since)?;
    Ok(format!("the primary stays; no rows for {} at most", seconds(pause)))
}

fn switchover(drill: &mut Drill) -> Result<String> {
    let (old, timeline) = drill.wait_for_primary()?;
    drill.wait_for_replicas()?;
    let target = drill.nodes.iter().find(|node| node.told().is_some_and(|told| told.is_sync));
    let target = target.ok_or("there is no synchronous standby")?.name.clone();
    let since = SystemTime::now();
    let begun = Instant::now();
    let leader = &drill.nodes[old].name;
    let said = patronictl(
        &drill.tools,
        &drill.run,
        &["switchover", "drill", "--leader", leader, "--candidate", &target, "--force"],
    )?;
    let (new, later) = drill.wait_for_primary()?;
    let took = begun.elapsed();
    if drill.nodes[new].name != target || later <= timeline {
        return Err(format!("{} leads on timeline {later}; patronictl said:\n{said}", drill.nodes[new].name).into());
    }
    drill.wait_for_rows(100)?;
    let pause = drill.rows.longest_pause(since)?;
    let back = drill.wait_for_replicas()?;
    Ok(format!(
        "done after {}; no rows for {}; the old primary is a replica {} later",
        seconds(took),
        seconds(pause),
        seconds(back)
    ))
}

fn every_row(drill: &mut Drill) -> Result<String> {
    drill.rows.end();
    let (primary, _) = drill.wait_for_primary()?;
    let said = drill.rows.check(drill.nodes[primary].port)?;
    for node in &drill.nodes {
        wait("the rows on a replica", || Ok(drill.rows.check(node.port).is_ok()))?;
    }
    Ok(format!("{said} on the primary and on both replicas"))
}
