//! What was made of files, made anew when they change.
//!
//! ```text
//! handshake ─► current ─► looked less than LOOK_EVERY ago, or somebody is looking ─► what is there
//!                      └► read the files (blocking thread) ─► as before ─► what is there
//!                                                         ├► good ─► the new one from here on
//!                                                         ├► but for the own pair ─► new, with the pair before
//!                                                         └► bad  ─► logged once; what was there before
//! ```
//! The contents are compared, not times: files that are swapped by links or within the clock's
//! grain are seen, too. Certificate and key change one after the other: in between they don't fit
//! each other, and the old ones stay until they do. Whom to trust and who is revoked must not wait for
//! that: it is taken at once, whatever is wrong with the own pair.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::error::TlsError;
use super::files::{Files, Mark};
use super::material::Shown;
use super::settings::Settings;
use crate::env::Env;

/// How often the files are looked at, if there are handshakes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is made of files.
pub(super) struct Made<T> {
    pub(super) value: Arc<T>,
    /// The certificate that it shows, if it shows one.
    pub(super) shown: Option<Shown>,
    /// What is wrong with the certificate or key in the files.
    pub(super) fault: Option<TlsError>,
}

/// How it is made; the certificate is the one that was shown before.
pub(super) type Make<T> = fn(&Settings, &Files, Option<&Shown>, &Env) -> Result<Made<T>, TlsError>;

/// The newest that could be made.
pub(super) struct Reloading<T> {
    current: ArcSwap<T>,
    looking: Mutex<Looking>,
    source: Arc<Source<T>>,
}

struct Source<T> {
    /// What it is for, in logs.
    name: &'static str,
    settings: Settings,
    env: Env,
    make: Make<T>,
}

struct Looking {
    last: Instant,
    mark: Mark,
    shown: Option<Shown>,
}

impl<T: Send + Sync + 'static> Reloading<T> {
    /// Makes the first one. Blocks while it reads.
    ///
    /// # Errors
    /// What is wrong with the files. A certificate that is over is used, as in etcd, and an error logged.
    pub(super) fn new(name: &'static str, settings: Settings, env: Env, make: Make<T>) -> Result<Self, TlsError> {
        let files = Files::read(env.disk.as_ref(), &settings);
        let made = make(&settings, &files, None, &env)?;
        if let Some(error) = &made.fault {
            tracing::error!(%error, "this certificate is shown to {name}, and whoever checks it will refuse it");
        }
        let looking = Looking { last: env.clock.now(), mark: files.mark(), shown: made.shown };
        Ok(Self {
            current: ArcSwap::new(made.value),
            looking: Mutex::new(looking),
            source: Arc::new(Source { name, settings, env, make }),
        })
    }

    /// The newest.
    pub(super) async fn current(&self) -> Arc<T> {
        if let Ok(mut looking) = self.looking.try_lock() {
            let now = self.source.env.clock.now();
            if now.saturating_duration_since(looking.last) >= LOOK_EVERY {
                looking.last = now;
                self.look(&mut looking).await;
            }
        }
        self.current.load_full()
    }

    async fn look(&self, looking: &mut Looking) {
        let (source, before, shown) = (self.source.clone(), looking.mark, looking.shown.clone());
        let looked = tokio::task::spawn_blocking(move || source.look(before, shown.as_ref())).await;
        // If the runtime ends, what was there before is as good.
        let Ok(Some((mark, made))) = looked else { return };
        looking.mark = mark;
        match made {
            Ok(made) => {
                looking.shown = made.shown;
                self.current.store(made.value);
                match made.fault {
                    None => tracing::info!("the changed TLS files for {} are in use", self.source.name),
                    Some(error) => tracing::error!(
                        %error, "the changed TLS files for {} are in use, but their certificate is not good: \
                        as long as there is no better one, the newest that can be used is shown", self.source.name
                    ),
                }
            }
            Err(error) => tracing::error!(
                %error, "the changed TLS files for {} can't be used; those before stay in use", self.source.name
            ),
        }
    }
}

impl<T> Source<T> {
    /// What the files make now, if they are others than before.
    fn look(&self, before: Mark, shown: Option<&Shown>) -> Option<(Mark, Result<Made<T>, TlsError>)> {
        let files = Files::read(self.env.disk.as_ref(), &self.settings);
        let mark = files.mark();
        (mark != before).then(|| (mark, (self.make)(&self.settings, &files, shown, &self.env)))
    }
}

/// The time of day, as certificates have it.
pub(super) fn wall(env: &Env) -> SystemTime {
    env.clock.wall()
}
