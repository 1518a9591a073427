//! `--import-from`: a member that has nothing yet begins with what etcd left.

use std::sync::Arc;

use super::{ImportFailure, ImportOptions, Source, build};
use crate::env::Env;
use crate::ops::config::Config;

/// Makes the data directory of what the flag names; blocks. Called only where there is none.
pub(in crate::server) fn at_first_start(env: &Env, config: &Arc<Config>) -> Result<(), ImportFailure> {
    let Some(path) = &config.member.import_from else { return Ok(()) };
    tracing::info!(from = %path.display(), "this member has no data yet: taking over what is there");
    let options = ImportOptions::default();
    let source = Source::open(env, path, None, options)?;
    let imported = build(env, config, &source, options)?;
    tracing::info!(
        revision = imported.revision,
        replayed = imported.replayed,
        uncertain = imported.uncertain,
        refused = imported.refused,
        "took over what was there"
    );
    Ok(())
}
