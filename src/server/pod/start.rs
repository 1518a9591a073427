//! `rusd pod start`: from a pod to a member, and what becomes of one that was removed.
//!
//! ```text
//! <data-dir>.agreed    the pods had seen each other without data: this one may begin as a new member. Gone once it served
//! <data-dir>.nonce     what the lowest ordinal says by which the cluster's ids differ from an earlier one's. Gone as well
//! <data-dir>.removed   what a member had that was removed; gone at the start after its pod has served as a new one
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::agreement::{Agreement, Heard, LOWEST, Next};
use super::names::Pod;
use super::room::{Notice, WaitingRoom, nonce_of, nonce_text};
use super::{AGAIN, PodError, TELL_EVERY, io, join};
use crate::api::WAITING_PAGE;
use crate::cli::PodFlags;
use crate::env::{Env, read_all, write_atomic};
use crate::operator::Way;
use crate::ops::config::{ClusterState, Config, InitialCluster, Url};
use crate::ops::data_dir::DataDir;
use crate::ops::identity::Identity;
use crate::ops::join as others;
use crate::ops::signals::{self, Signal};
use crate::server::tls;
use crate::server::tools::{Done, Serve, ToolError};
use crate::tls::Connector;

/// Ordinals that are asked besides the replicas: a cluster may have been larger.
const ORDINALS_ASKED: u32 = 9;
/// How long one pod may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);
/// How long a pod that has agreed stays for those that haven't heard of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a process waits for a number of pods that may have been changed meanwhile: it is told only at a start.
/// Kubelet forgets earlier ends of a container that ran for so long, and starts it at once.
const LOOK_AGAIN: Duration = Duration::from_secs(610);
/// No mark is longer.
const MARK_BYTES_MAX: usize = 256;

/// Finds out how this pod is to start; comes back when it is known.
pub(in crate::server) async fn start(
    env: &Env,
    way: &Way,
    mut config: Box<Config>,
    flags: &PodFlags,
    style: crate::ops::logging::Style,
) -> Result<Done, ToolError> {
    let pod = Pod::of(&config)?;
    let mut signal = std::pin::pin!(signals::first().map_err(|error| ToolError::Found(error.to_string()))?);
    if config.member.wal_dir.is_some() {
        // It would outlive the data that is set aside.
        return Err(PodError::Flags("--wal-dir: a pod keeps its log in its data directory".to_owned()).into());
    }
    let restore = config.member.import_from.take();
    let serve = |config, joined| Done::Serve(Serve { config, style, joined, rejoin_after: Some(flags.rejoin_after) });
    let marked = mark_read(env, &config)?;
    if DataDir::is_made(env.disk.as_ref(), &config).map_err(PodError::from)? {
        if DataDir::is_served(env.disk.as_ref(), &config).map_err(PodError::from)? {
            mark_remove(env, &config)?;
            forget_removed(env, &config)?;
        }
        let replicas = marked.map_or(flags.replicas, |mark| mark.replicas);
        config.clustering.initial_cluster = pod.initial_cluster(replicas)?;
        // If it hasn't begun yet, it is asked whether it is what it was made for.
        distinguish(&mut config, marked.and_then(|mark| mark.nonce));
        // Which it isn't done any more; the start says so.
        config.member.import_from = restore;
        keep_engine(env, &mut config)?;
        return Ok(serve(config, None));
    }
    if restore.is_none() || marked.is_none() {
        // One that was killed while it restored has left what it had: the import knows that, and removes it.
        DataDir::refuse_foreign(env.disk.as_ref(), &config).map_err(PodError::from)?;
    }
    if let Some(mark) = marked {
        let replicas = mark.replicas;
        tracing::info!(replicas, "all pods had no data when they agreed to make a cluster; this one hasn't begun yet");
        return Ok(serve(begins(config, &pod, mark, restore)?, None));
    }
    if pod.ordinal() >= flags.replicas {
        // It is about to go; as a member it would be missed.
        let room = WaitingRoom::open(&config, env, None).map_err(|error| ToolError::Found(error.to_string()))?;
        tracing::warn!(
            replicas = flags.replicas,
            "this pod is one too many and has no data: it waits for its end. A set grows by `helm upgrade`"
        );
        let signal = tokio::time::timeout(LOOK_AGAIN, signal).await.ok();
        room.close().await;
        return Ok(signal.map_or_else(ended, Done::Signalled));
    }
    let connector = tls::connector(&config, env).map_err(|error| ToolError::Found(error.to_string()))?;
    tokio::select! {
        biased;
        signal = &mut signal => Ok(Done::Signalled(signal)),
        found = find(env, way, &config, &pod, (flags, restore.is_some()), connector.as_ref()) => match found? {
            Found::Nobody => Ok(ended()),
            Found::AllWithout(mark) => Ok(serve(begins(config, &pod, mark, restore)?, None)),
            Found::Member(identity) => {
                if let Some(path) = restore {
                    tracing::warn!(path = %path.display(), "there is a cluster already: nothing is restored");
                }
                config.clustering.initial_cluster_state = ClusterState::Existing;
                config.clustering.initial_cluster =
                    InitialCluster::of_one(&config.member.name, &config.clustering.initial_advertise_peer_urls);
                Ok(serve(config, Some(identity)))
            }
        },
    }
}

/// The configuration of a member of a new cluster; what is to be restored is taken over by each of them.
fn begins(mut config: Box<Config>, pod: &Pod, mark: Mark, restore: Option<PathBuf>) -> Result<Box<Config>, PodError> {
    config.clustering.initial_cluster_state = ClusterState::New;
    config.clustering.initial_cluster = pod.initial_cluster(mark.replicas)?;
    distinguish(&mut config, mark.nonce);
    config.member.import_from = restore;
    Ok(config)
}

/// The ids that follow from the configuration are those of this cluster alone: a kept claim of an earlier one of the same
/// names is then no member of it.
fn distinguish(config: &mut Config, nonce: Option<u64>) {
    if let Some(nonce) = nonce {
        let token = &mut config.clustering.initial_cluster_token;
        *token = format!("{token}/{}", nonce_text(nonce));
    }
}

/// A process that waits in vain ends, so that the next one is told how many pods there are by now.
fn ended() -> Done {
    Done::Said(format!(
        "waited {LOOK_AGAIN:?} in vain: ending, so as to be started with the present number of replicas\n"
    ))
}

/// The engine that the data was made with is kept: what the set says counts for new members.
fn keep_engine(env: &Env, config: &mut Config) -> Result<(), PodError> {
    let made = DataDir::engine(env.disk.as_ref(), config)?;
    if config.engine.kind != made {
        tracing::warn!(
            data = made.name(),
            asked = config.engine.kind.name(),
            "the engine of data that is there stays: for another one delete this pod and its claim"
        );
        config.engine.kind = made;
    }
    Ok(())
}

/// What came of asking.
enum Found {
    /// A cluster, in which this pod is that member now.
    Member(Identity),
    /// All pods are without data, and have agreed to begin.
    AllWithout(Mark),
    /// Neither, for long.
    Nobody,
}

/// Asks the other pods until it is known what this one is.
async fn find(
    env: &Env,
    way: &Way,
    config: &Config,
    pod: &Pod,
    (flags, restores): (&PodFlags, bool),
    connector: Option<&Connector>,
) -> Result<Found, ToolError> {
    let replicas = flags.replicas;
    // Before it is said: another process on this volume must not say another one.
    let nonce = if pod.ordinal() == LOWEST { Some(nonce(env, config)?) } else { None };
    // One alone has nobody to see.
    let may_begin = replicas > 1 || flags.largest <= 1 || restores;
    if !may_begin {
        tracing::warn!(
            replicas,
            largest = flags.largest,
            "this set was larger and this pod has no data: it begins nothing, since what is left may be on another pod's \
             claim (the chart's README, \"Disaster\"); it joins a cluster that is there"
        );
    }
    let mut agreement = Agreement::new(pod.ordinal(), replicas, nonce, may_begin);
    let token = config.clustering.initial_cluster_token.clone();
    let notice = Notice { token, replicas, agreed: false, nonce: agreement.nonce() };
    let room = WaitingRoom::open(config, env, Some(notice.clone()));
    let room = room.map_err(|error| ToolError::Found(error.to_string()))?;
    let asked: Vec<u32> = (0..replicas.max(ORDINALS_ASKED)).filter(|ordinal| *ordinal != pod.ordinal()).collect();
    let (mut agreed_at, mut told_at): (Option<Instant>, Option<Instant>) = (None, None);
    let begun = env.clock.now();
    let found = loop {
        let heard = join_all(asked.iter().map(|ordinal| ask(pod, *ordinal, connector, &notice))).await;
        let now = env.clock.now();
        let since = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let next = agreement.take(&heard, since(agreed_at) < PATIENCE);
        if agreement.is_agreed() && agreed_at.is_none() {
            // Written down before it is said: others begin by it, and this one must not ask again then.
            mark_write(env, config, Mark { replicas, nonce: agreement.nonce() })?;
            room.agree(agreement.nonce());
            agreed_at = Some(now);
            tracing::info!(replicas, "no pod has any data: they agree to make a cluster");
        }
        match next {
            Next::Begin => break Found::AllWithout(Mark { replicas, nonce: agreement.nonce() }),
            Next::Join(members) => match join::join(env, way, pod, &members).await? {
                Some(identity) => break Found::Member(identity),
                // Those members may be gone by now, and others be there.
                None if now.saturating_duration_since(begun) < LOOK_AGAIN => {}
                None => break Found::Nobody,
            },
            Next::Ask(_) if agreed_at.is_none() && now.saturating_duration_since(begun) >= LOOK_AGAIN => {
                break Found::Nobody;
            }
            Next::Ask(missing) => {
                if told_at.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY) {
                    told_at = Some(now);
                    tracing::info!(
                        ordinals = ?missing,
                        agreed = agreement.is_agreed(),
                        "waiting for these pods: without data, a pod begins only with all of them, or joins a cluster"
                    );
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    room.close().await;
    Ok(found)
}

async fn ask(pod: &Pod, ordinal: u32, connector: Option<&Connector>, own: &Notice) -> (u32, Heard) {
    let Ok(url) = pod.peer_url(ordinal).parse::<Url>() else { return (ordinal, Heard::Nothing) };
    let asking = async {
        if others::is_member(&url, connector).await {
            return Heard::Member;
        }
        let page = others::page(&url, WAITING_PAGE, connector).await;
        match page.ok().and_then(|page| Notice::parse(&page)) {
            Some(notice) if notice.token == own.token && notice.replicas == own.replicas => {
                Heard::Waiting { agreed: notice.agreed, nonce: notice.nonce }
            }
            _ => Heard::Nothing,
        }
    };
    (ordinal, tokio::time::timeout(ANSWER_MAX, asking).await.unwrap_or(Heard::Nothing))
}

fn beside(config: &Config, what: &str) -> PathBuf {
    let mut path = config.member.data_dir.clone().into_os_string();
    path.push(what);
    path.into()
}

/// What had been agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    replicas: u32,
    /// None in a mark of an older build.
    nonce: Option<u64>,
}

impl Mark {
    fn text(self) -> String {
        let nonce = self.nonce.map_or_else(String::new, |nonce| format!("{}\n", nonce_line(nonce)));
        format!("replicas {}\n{nonce}", self.replicas)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let replicas = lines.next()?.strip_prefix("replicas ")?.trim().parse().ok()?;
        let nonce = match lines.next() {
            None => None,
            Some(line) => Some(nonce_of_line(line)?),
        };
        Some(Self { replicas, nonce })
    }
}

fn nonce_line(nonce: u64) -> String {
    format!("nonce {}", nonce_text(nonce))
}

fn nonce_of_line(line: &str) -> Option<u64> {
    nonce_of(line.strip_prefix("nonce ")?.trim())
}

fn mark_read(env: &Env, config: &Config) -> Result<Option<Mark>, PodError> {
    read_mark(env, &beside(config, ".agreed"), Mark::parse)
}

fn read_mark<T>(env: &Env, path: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, PodError> {
    match read_all(env.disk.as_ref(), path, MARK_BYTES_MAX) {
        Ok(bytes) => parse(&String::from_utf8_lossy(&bytes)).map(Some).ok_or_else(|| {
            PodError::Flags(format!("{} is damaged: remove it, and this pod asks the others again", path.display()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("read", path)(error)),
    }
}

fn mark_write(env: &Env, config: &Config, mark: Mark) -> Result<(), PodError> {
    let path = beside(config, ".agreed");
    write_atomic(env.disk.as_ref(), &path, mark.text().as_bytes()).map_err(io("write", &path))
}

/// What this pod says if it is the lowest ordinal: the same as long as it has no data.
fn nonce(env: &Env, config: &Config) -> Result<u64, PodError> {
    let path = beside(config, ".nonce");
    if let Some(nonce) = read_mark(env, &path, nonce_of_line)? {
        return Ok(nonce);
    }
    let nonce = env.rng.next_u64();
    let text = format!("{}\n", nonce_line(nonce));
    write_atomic(env.disk.as_ref(), &path, text.as_bytes()).map_err(io("write", &path))?;
    Ok(nonce)
}

fn mark_remove(env: &Env, config: &Config) -> Result<(), PodError> {
    for what in [".agreed", ".nonce"] {
        let path = beside(config, what);
        match env.disk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// What a member had that was removed, long ago: this pod has served since then as a new one.
fn forget_removed(env: &Env, config: &Config) -> Result<(), PodError> {
    let path = beside(config, ".removed");
    if env.disk.exists(&path).map_err(io("look for", &path))? {
        tracing::info!(path = %path.display(), "the data of the member that this pod was before is removed");
        env.disk.remove_dir(&path).map_err(io("remove", &path))?;
    }
    Ok(())
}

/// What a member does that was removed: its data is set aside, so that the pod, if it is still wanted, comes back as
/// a new member; and it waits, because most likely it isn't.
pub fn removed(config: &Config, rejoin_after: Duration) -> Result<Option<Signal>, ToolError> {
    let env = Env::real();
    set_aside(&env, config)?;
    tracing::warn!(
        after = ?rejoin_after,
        "this member was removed and its data set aside; if the pod is still there then, it joins as a new member"
    );
    crate::server::tools::runtime()?.block_on(async {
        let signal = signals::first().map_err(|error| ToolError::Found(error.to_string()))?;
        let room = WaitingRoom::open(config, &env, None).map_err(|error| ToolError::Found(error.to_string()))?;
        let signal = tokio::time::timeout(rejoin_after, signal).await.ok();
        room.close().await;
        Ok(signal)
    })
}

fn set_aside(env: &Env, config: &Config) -> Result<(), PodError> {
    let disk = env.disk.as_ref();
    let (data, aside) = (&config.member.data_dir, beside(config, ".removed"));
    mark_remove(env, config)?;
    if disk.exists(&aside).map_err(io("look for", &aside))? {
        disk.remove_dir(&aside).map_err(io("remove", &aside))?;
    }
    disk.rename(data, &aside).map_err(io("set aside", data))?;
    let above = data.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(above).map_err(io("sync", above))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::config::flags;

    fn config(dir: &Path) -> Config {
        let mut config = Config::default();
        config.set(flags::find("data-dir").expect("known"), &dir.join("data").display().to_string()).expect("a path");
        config
    }

    #[test]
    fn a_mark_is_read_as_it_was_written_and_goes_with_the_data() {
        let dir = tempfile::tempdir().expect("a directory");
        let (env, config) = (Env::real(), config(dir.path()));
        assert_eq!(mark_read(&env, &config).expect("none"), None);
        for nonce in [None, Some(0xab)] {
            mark_write(&env, &config, Mark { replicas: 5, nonce }).expect("written");
            assert_eq!(mark_read(&env, &config).expect("read"), Some(Mark { replicas: 5, nonce }));
        }
        for round in ["first", "second"] {
            env.disk.create_dir_all(&config.member.data_dir).expect("made");
            write_atomic(env.disk.as_ref(), &config.member.data_dir.join("x"), round.as_bytes()).expect("written");
            set_aside(&env, &config).expect("set aside");
            assert_eq!(mark_read(&env, &config).expect("none"), None);
            let kept = read_all(env.disk.as_ref(), &dir.path().join("data.removed/x"), 9).expect("kept");
            assert_eq!(kept, round.as_bytes());
            assert!(!env.disk.exists(&config.member.data_dir).expect("a look"));
        }
        for damaged in ["what", "replicas 3\nnonce 7\n", "replicas 3\nwhat\n"] {
            write_atomic(env.disk.as_ref(), &dir.path().join("data.agreed"), damaged.as_bytes()).expect("written");
            assert!(mark_read(&env, &config).is_err(), "damage isn't taken for anything: {damaged}");
        }
    }

    #[test]
    fn a_nonce_stays_as_long_as_there_is_no_data() {
        let dir = tempfile::tempdir().expect("a directory");
        let (env, mut config) = (Env::real(), config(dir.path()));
        let first = nonce(&env, &config).expect("made");
        assert_eq!(nonce(&env, &config).expect("kept"), first);
        mark_remove(&env, &config).expect("removed");
        assert_ne!(nonce(&env, &config).expect("made"), first);
        config.clustering.initial_cluster_token = "ns/set".to_owned();
        distinguish(&mut config, None);
        assert_eq!(config.clustering.initial_cluster_token, "ns/set");
        distinguish(&mut config, Some(10));
        assert_eq!(config.clustering.initial_cluster_token, "ns/set/000000000000000a");
    }

    /// Cause: what was set aside stayed until the next removal. Symptom: the volume held two states for good.
    #[test]
    fn what_was_set_aside_goes_when_the_new_member_has_served() {
        let dir = tempfile::tempdir().expect("a directory");
        let (env, config) = (Env::real(), config(dir.path()));
        forget_removed(&env, &config).expect("nothing there");
        env.disk.create_dir_all(&config.member.data_dir).expect("made");
        set_aside(&env, &config).expect("set aside");
        assert!(dir.path().join("data.removed").exists());
        forget_removed(&env, &config).expect("removed");
        assert!(!dir.path().join("data.removed").exists());
    }
}
