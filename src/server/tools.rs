//! What the subcommands do, and what they say.

mod health;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::import::{self, FollowError, FollowOptions, Follower, ImportFailure, ImportOptions, Progress, Source};
use super::pod::{self, PodError, Shelf};
use crate::auth::Secret;
use crate::cli::{Format, RemoteFlags, Tool};
use crate::env::{Access, Env};
use crate::import::remote::{Remote, RemoteOptions, SaveError};
use crate::import::{Database, ImportError, Status, Trailer, check_trailer};
use crate::operator::{Way, WayOptions};
use crate::ops::config::Config;
use crate::ops::doctor;
use crate::ops::identity::Identity;
use crate::ops::logging::{self, Style};
use crate::ops::signals::{self, Signal};
use crate::tls::{Connector, Pair, Settings, TlsError};

/// What a subcommand ended with.
#[derive(Debug)]
pub enum Done {
    /// What to print.
    Said(String),
    /// The same, and whether what was found is as it should be.
    Found {
        /// What to print.
        text: String,
        /// The process ends with 0 if so, with 1 if not.
        is_fine: bool,
    },
    /// A signal asked for the end.
    Signalled(Signal),
    /// The process goes on as a server.
    Serve(Serve),
}

/// The server that a process goes on as.
#[derive(Debug)]
pub struct Serve {
    /// Its settings.
    pub config: Box<Config>,
    /// How it speaks.
    pub style: Style,
    /// Who it is in the cluster that it was added to.
    pub joined: Option<Identity>,
    /// For a pod: how long it waits for its end once its member was removed.
    pub rejoin_after: Option<Duration>,
}

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// A file can't be read.
    #[error(transparent)]
    File(#[from] ImportError),
    /// No data directory was made.
    #[error(transparent)]
    Import(#[from] ImportFailure),
    /// The source's certificates.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// Nothing was saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// Nothing was taken over.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// A pod.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// What was found isn't as it should be.
    #[error("{0}")]
    Found(String),
}

/// Does what a subcommand says; blocks.
///
/// # Errors
/// See [`ToolError`].
pub fn run(tool: Tool) -> Result<Done, ToolError> {
    let env = Env::real();
    match tool {
        Tool::Health { remote, flags } => runtime()?.block_on(async {
            let endpoints = remote.endpoints.clone();
            health::run(way(&env, remote)?, endpoints, flags, env.clock.as_ref()).await
        }),
        Tool::Doctor { data_dir, wal_dir, json } => {
            let findings = doctor::examine(&env, &data_dir, wal_dir.as_deref());
            let text = if json { doctor::as_json(&findings) } else { doctor::as_text(&findings) };
            Ok(Done::Found { text, is_fine: !findings.iter().any(doctor::Finding::is_bad) })
        }
        Tool::PodStart { remote, config, flags } => {
            let style = log(&config)?;
            runtime()?.block_on(async { pod::start(&env, &way(&env, remote)?, config, &flags, style).await })
        }
        Tool::PodShrink { remote, set, replicas, before, patience } => {
            log(&Config::default())?;
            runtime()?.block_on(async {
                let endpoints = remote.endpoints.clone();
                let what = pod::Shrinking { base: &set, replicas, before, patience };
                let files = [&remote.cacert, &remote.cert, &remote.key];
                let is_missing = |file: &&PathBuf| !env.disk.exists(file).unwrap_or(false);
                let missing = files.into_iter().flatten().find(is_missing).cloned();
                let said = match missing {
                    Some(file) => pod::shrink_without(&file, what)?,
                    None => pod::shrink(&env, &way(&env, remote)?, &endpoints, what).await?,
                };
                Ok(Done::Said(said))
            })
        }
        Tool::PodUsers { mut remote, patience } => {
            log(&Config::default())?;
            // Nobody asks: authentication may be off yet.
            remote.user.clear();
            runtime()?.block_on(async {
                let (endpoints, password) = (remote.endpoints.clone(), remote.password.clone());
                Ok(Done::Said(pod::users(&env, &way(&env, remote)?, &endpoints, &password, patience).await?))
            })
        }
        Tool::PodBackup { remote: flags, dir, keep, set } => {
            runtime()?.block_on(async {
                // Process 1 of a container ends by a signal only if it looks for it.
                let signal = signals::first().map_err(|error| ToolError::Found(error.to_string()))?;
                let (remote, shelf) = (remote(&env, flags)?, Shelf { dir, set });
                tokio::select! {
                    biased;
                    signal = signal => Ok(Done::Signalled(signal)),
                    saved = pod::backup(&env, &remote, &shelf, keep) => saved.map(Done::Said),
                }
            })
        }
        Tool::Status { file, format } => status(&env, &file, format).map(Done::Said),
        Tool::Verify { file, skip_hash_check } => verify(&env, &file, skip_hash_check).map(Done::Said),
        Tool::Import { source, wal, config, bump_revision, mark_compacted, skip_hash_check } => {
            log(&config)?;
            let options = ImportOptions { bump_revision, mark_compacted, skip_hash_check };
            let source_path = source;
            let source = Source::open(&env, &source_path, wal.as_deref(), options)?;
            let imported = import::build(&env, &config, &source, options)?;
            let mut said = format!(
                "imported {} into {}: revision {}\n",
                source_path.display(),
                config.member.data_dir.display(),
                imported.revision
            );
            if imported.replayed > 0 {
                said += &format!(
                    "{} requests of etcd's log were not in its database yet; {} of them it didn't know to be committed, \
                     and {} are refused, as by etcd\n",
                    imported.replayed, imported.uncertain, imported.refused
                );
            }
            Ok(Done::Said(said))
        }
        Tool::Save { file, remote } => save(&env, &file, remote).map(Done::Said),
        Tool::Follow { remote, config, serve, fence, skip_hash_check } => {
            follow(env, remote, config, serve, FollowOptions { fence, compare: !skip_hash_check })
        }
        Tool::TakeOver { data_dir, without_source } => {
            runtime()?.block_on(import::tell_to_take_over(&env, &data_dir, without_source))?;
            Ok(Done::Said(format!("took over into {}\n", data_dir.display())))
        }
    }
}

fn log(config: &Config) -> Result<Style, ToolError> {
    logging::init(config).map_err(|error| ToolError::Found(error.to_string()))
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, ToolError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("rusd-tool").build();
    runtime.map_err(|error| ToolError::Found(format!("the runtime: {error}")))
}

fn remote(env: &Env, flags: RemoteFlags) -> Result<Remote, ToolError> {
    let (connector, user) = (connector(env, &flags)?, user(&flags));
    Ok(Remote::new(RemoteOptions { endpoints: flags.endpoints, user, connector, dial_timeout: flags.dial_timeout }))
}

/// The way to a cluster that is looked after.
fn way(env: &Env, flags: RemoteFlags) -> Result<Way, ToolError> {
    Ok(Way::new(WayOptions {
        user: user(&flags),
        connector: connector(env, &flags)?,
        dial_timeout: flags.dial_timeout,
        call_timeout: flags.command_timeout,
        clock: env.clock.clone(),
    }))
}

fn user(flags: &RemoteFlags) -> Option<(String, Secret)> {
    (!flags.user.is_empty()).then(|| (flags.user.clone(), flags.password.clone()))
}

fn connector(env: &Env, flags: &RemoteFlags) -> Result<Option<Connector>, ToolError> {
    let settings = Settings {
        client_pair: flags.cert.clone().zip(flags.key.clone()).map(|(cert, key)| Pair { cert, key }),
        trusted_ca: flags.cacert.clone(),
        trust_anyone: flags.trust_anyone,
        http2: true,
        ..Settings::default()
    };
    // Members that the endpoints tell of may speak TLS where these don't.
    let is_tls = flags.endpoints.iter().any(|url| url.starts_with("https://") || url.starts_with("unixs://"))
        || settings.trusted_ca.is_some()
        || settings.trust_anyone;
    match is_tls {
        true => Ok(Some(Connector::new("connections to servers", settings, env.clone())?)),
        false => Ok(None),
    }
}

fn save(env: &Env, path: &Path, flags: RemoteFlags) -> Result<String, ToolError> {
    let endpoints = flags.endpoints.join(",");
    let mut progress = Progress::new(&env.clock, "snapshot", 0);
    let mut seen = 0;
    let mut tell = |done: u64, total: u64| {
        progress.expect(total);
        progress.add(done - seen);
        seen = done;
    };
    let (bytes, version) = runtime()?.block_on(async {
        let remote = remote(env, flags)?;
        remote.save(env.disk.clone(), path, &mut tell).await.map_err(ToolError::from)
    })?;
    drop(progress);
    Ok(format!(
        "Snapshot saved at {}\nServer version {version}\n{} from {endpoints}\n",
        path.display(),
        import::human(bytes)
    ))
}

fn follow(
    env: Env,
    flags: RemoteFlags,
    config: Box<Config>,
    serve: bool,
    options: FollowOptions,
) -> Result<Done, ToolError> {
    let style = log(&config)?;
    // A supervisor, and a process that starts itself again, come by the same line for ever.
    if serve && import::is_taken_over(&env, &config)? {
        tracing::warn!(
            "data-dir" = %config.member.data_dir.display(),
            "--from is ignored: the directory is a member's already, which was taken over before; serving it"
        );
        return Ok(Done::Serve(Serve { config, style, joined: None, rejoin_after: None }));
    }
    let taken = runtime()?.block_on(async {
        let remote = remote(&env, flags)?;
        let follower = Follower::open(env.clone(), (*config).clone(), remote, options)?;
        follower.run().await.map_err(ToolError::from)
    })?;
    tracing::info!(revision = taken.revision, pause = ?taken.pause, "took over");
    if serve {
        return Ok(Done::Serve(Serve { config, style, joined: None, rejoin_after: None }));
    }
    Ok(Done::Said(format!(
        "took over into {} at revision {}: start rusd with the same flags\n",
        config.member.data_dir.display(),
        taken.revision
    )))
}

fn size(env: &Env, path: &Path) -> Result<u64, ImportError> {
    let file = env.disk.open(path, Access::Read).map_err(ImportError::io("open", path))?;
    file.size().map_err(ImportError::io("read", path))
}

fn status(env: &Env, path: &Path, format: Format) -> Result<String, ToolError> {
    let database = Database::open(env.disk.as_ref(), path)?;
    let mut progress = Progress::new(&env.clock, "reading", 2 * database.size());
    database.check(&mut |bytes| progress.add(bytes))?;
    let status = database.status(&mut |bytes| progress.add(bytes))?;
    drop(progress);
    Ok(told(&status, format))
}

fn told(status: &Status, format: Format) -> String {
    let Status { hash, revision, total_key, total_size, version } = status;
    match format {
        Format::Json => {
            let json = serde_json::json!({
                "hash": hash, "revision": revision, "totalKey": total_key, "totalSize": total_size, "version": version,
            });
            format!("{json}\n")
        }
        Format::Simple => {
            format!("{hash:x}, {revision}, {total_key}, {}, {version}\n", import::human(*total_size))
        }
        Format::Fields => format!(
            "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {total_key}\n\"Size\" : {total_size}\n\
             \"Version\" : {version}\n"
        ),
        Format::Table => table(&[
            ("HASH", format!("{hash:x}")),
            ("REVISION", revision.to_string()),
            ("TOTAL KEYS", total_key.to_string()),
            ("TOTAL SIZE", import::human(*total_size)),
            ("VERSION", version.clone()),
        ]),
    }
}

fn table(cells: &[(&str, String)]) -> String {
    let widths: Vec<_> = cells.iter().map(|(head, cell)| head.len().max(cell.len()) + 2).collect();
    let line = |left, middle, right| {
        let parts: Vec<_> = widths.iter().map(|width| "─".repeat(*width)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let head: Vec<_> = cells.iter().zip(&widths).map(|((head, _), width)| format!("{head:^width$}")).collect();
    let row: Vec<_> =
        cells.iter().zip(&widths).map(|((_, cell), width)| format!("{cell:>w$} ", w = width - 1)).collect();
    format!(
        "{}│{}│\n{}│{}│\n{}",
        line("┌", "┬", "┐"),
        head.join("│"),
        line("├", "┼", "┤"),
        row.join("│"),
        line("└", "┴", "┘")
    )
}

fn verify(env: &Env, path: &Path, skip_hash_check: bool) -> Result<String, ToolError> {
    let disk = env.disk.as_ref();
    let len = size(env, path)?;
    let mut progress = Progress::new(&env.clock, "checksum", len);
    let checksum = match check_trailer(disk, path, &mut |bytes| progress.add(bytes))? {
        Trailer::Right => "its SHA-256 is right",
        Trailer::Missing if skip_hash_check => "it has no SHA-256",
        Trailer::Missing => {
            return Err(ToolError::Found(format!(
                "{}: it has no SHA-256 at its end: type --skip-hash-check if it is a copy of a member/snap/db",
                path.display()
            )));
        }
        Trailer::Wrong => return Err(ToolError::Found(format!("{}: its SHA-256 is wrong", path.display()))),
    };
    drop(progress);
    let database = Database::open(disk, path)?;
    let mut progress = Progress::new(&env.clock, "pages", 2 * database.size());
    let checked = database.check(&mut |bytes| progress.add(bytes))?;
    // Everything that an import reads can be read.
    database.rows()?;
    let mut records = 0u64;
    database.records(|_, record| {
        records += 1;
        progress.add((record.key.len() + record.version.as_ref().map_or(0, |version| version.value.len())) as u64);
        Ok(())
    })?;
    drop(progress);
    Ok(format!(
        "{}: {checksum}; {} buckets, {} pairs, {records} revisions of keys, all readable; revision {}\n",
        path.display(),
        checked.buckets,
        checked.pairs,
        database.revision()?
    ))
}
