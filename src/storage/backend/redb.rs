//! The redb engine: a copy-on-write B-tree in one file, with memory bounded by its cache alone.
//!
//! ```text
//! write ─► a transaction that is only in memory (durability none) ─► flush ─► a durable one
//! ```
//!
//! Between two flushes nothing reaches the commit slots, so a crash leaves the last flush. Every
//! flush also stores the allocator's state ("quick repair"), so that opening after a kill does
//! not walk the file. The file is reached through `env::Disk`, where tests put faults.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, StorageBackend, TableDefinition, WriteTransaction,
};

use super::{Backend, BackendConfig, Batch, Table, Visitor};
use crate::env::{Access, DiskFile, Env};
use crate::types::StorageError;

const FILE: &str = "data.redb";

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Kv => "kv",
        Table::Meta => "meta",
        Table::Lease => "lease",
        Table::Auth => "auth",
        Table::Index => "index",
    })
}

/// How often and at what distance the lock is asked for.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The engine.
pub(super) struct Redb {
    env: Env,
    config: BackendConfig,
    database: RwLock<Option<Database>>,
    failed: AtomicBool,
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb").field("dir", &self.config.dir).finish_non_exhaustive()
    }
}

/// Takes the lock, though a child that this process is just starting may hold it for a moment.
fn lock(file: &dyn DiskFile) -> io::Result<bool> {
    for _ in 0..LOCK_TRIES {
        if file.try_lock()? {
            return Ok(true);
        }
        #[expect(clippy::disallowed_methods, reason = "opening blocks anyway, and nothing else runs on this thread")]
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(false)
}

impl Redb {
    /// Opens what is in the directory, or makes it.
    pub(super) fn open(env: &Env, config: &BackendConfig) -> Result<Self, StorageError> {
        let io = |action, error| StorageError::io(action, &config.dir, error);
        env.disk.create_dir_all(&config.dir).map_err(|error| io("make", error))?;
        let path = config.dir.join(FILE);
        let file = env.disk.open(&path, Access::Create).map_err(|error| StorageError::io("open", &path, error))?;
        if !lock(&*file).map_err(|error| StorageError::io("lock", &path, error))? {
            return Err(StorageError::Mismatch(format!("{} is in use by another process", path.display())));
        }
        let database = guarded(config, || {
            let database = Database::builder()
                .set_cache_size(usize::try_from(config.cache_bytes).unwrap_or(usize::MAX))
                .create_with_backend(Through(file))
                .map_err(|error| failure(config, error.into()))?;
            // Reads need the tables to be there.
            let transaction = database.begin_write().map_err(|error| failure(config, error.into()))?;
            for table in Table::ALL {
                transaction.open_table(definition(table)).map_err(|error| failure(config, error.into()))?;
            }
            commit(config, transaction, Durability::Immediate)?;
            Ok(database)
        })?;
        for dir in [Some(&*config.dir), config.dir.parent()].into_iter().flatten() {
            if !dir.as_os_str().is_empty() {
                env.disk.sync_dir(dir).map_err(|error| StorageError::io("fsync", dir, error))?;
            }
        }
        Ok(Self {
            env: env.clone(),
            config: config.clone(),
            database: RwLock::new(Some(database)),
            failed: AtomicBool::new(false),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, StorageError>) -> Result<T, StorageError> {
        let database = self.database.read();
        let database = database
            .as_ref()
            .ok_or_else(|| StorageError::Closed(format!("the redb engine in {}", self.config.dir.display())))?;
        guarded(&self.config, || work(database))
    }

    fn read<T>(&self, work: impl FnOnce(ReadTransaction) -> Result<T, StorageError>) -> Result<T, StorageError> {
        self.with(|database| work(database.begin_read().map_err(|error| self.failure(error))?))
    }

    /// One transaction; an error ends the engine, since what was in memory only is then unknown.
    fn transact(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(StorageError::Closed("an earlier write failed".into()));
        }
        let result = self.with(|database| {
            let transaction = database.begin_write().map_err(|error| self.failure(error))?;
            work(&transaction)?;
            commit(&self.config, transaction, durability)
        });
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn failure(&self, error: impl Into<redb::Error>) -> StorageError {
        failure(&self.config, error.into())
    }
}

impl Backend for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(|transaction| {
            let table = transaction.open_table(definition(table)).map_err(|error| self.failure(error))?;
            let value = table.get(key).map_err(|error| self.failure(error))?;
            Ok(value.map(|value| value.value().to_vec()))
        })
    }

    fn get_many(
        &self,
        table: Table,
        keys: &mut dyn Iterator<Item = Vec<u8>>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        self.read(|transaction| {
            let table = transaction.open_table(definition(table)).map_err(|error| self.failure(error))?;
            for key in keys {
                let value = table.get(key.as_slice()).map_err(|error| self.failure(error))?;
                if value.is_some_and(|value| visitor(&key, value.value()).is_break()) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn visit(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        self.read(|transaction| {
            let table = transaction.open_table(definition(table)).map_err(|error| self.failure(error))?;
            let range = match end {
                Some(end) => table.range(start..end),
                None => table.range(start..),
            };
            for pair in range.map_err(|error| self.failure(error))? {
                let (key, value) = pair.map_err(|error| self.failure(error))?;
                if visitor(key.value(), value.value()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        self.transact(Durability::None, |transaction| {
            let open = |table| transaction.open_table(definition(table)).map_err(|error| self.failure(error));
            for of in Table::ALL {
                let mut writes = batch.iter().filter(|(table, ..)| *table == of).peekable();
                if writes.peek().is_none() {
                    continue;
                }
                let mut table = open(of)?;
                for (_, key, value) in writes {
                    match value {
                        Some(value) => table.insert(key, value).map(drop),
                        None => table.remove(key).map(drop),
                    }
                    .map_err(|error| self.failure(error))?;
                }
            }
            Ok(())
        })
    }

    fn remove(&self, table: Table, keys: &[Vec<u8>]) -> Result<(), StorageError> {
        self.transact(Durability::None, |transaction| {
            let mut table = transaction.open_table(definition(table)).map_err(|error| self.failure(error))?;
            for key in keys {
                table.remove(key.as_slice()).map_err(|error| self.failure(error))?;
            }
            Ok(())
        })
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.transact(Durability::Immediate, |_| Ok(()))
    }

    fn room(&self, bytes: u64) -> Result<(), StorageError> {
        super::check_room(&self.env, &self.config, bytes)
    }

    fn size(&self) -> Result<u64, StorageError> {
        super::disk_usage(&self.env, &self.config.dir)
    }

    fn close(&self) -> Result<(), StorageError> {
        let failed = self.failed.swap(true, Ordering::Relaxed);
        let Some(database) = self.database.write().take() else {
            return Ok(());
        };
        guarded(&self.config, || {
            if failed {
                // It holds writes that were never flushed and must not become durable by closing.
                drop(database);
                return Ok(());
            }
            let transaction = database.begin_write().map_err(|error| self.failure(error))?;
            commit(&self.config, transaction, Durability::Immediate)?;
            database.close().map_err(|error| self.failure(error))
        })
    }
}

fn commit(
    config: &BackendConfig,
    mut transaction: WriteTransaction,
    durability: Durability,
) -> Result<(), StorageError> {
    transaction.set_quick_repair(matches!(durability, Durability::Immediate));
    transaction
        .set_durability(durability)
        .map_err(|error| StorageError::Engine { engine: "redb", message: error.to_string() })?;
    transaction.commit().map_err(|error| failure(config, error.into()))
}

/// Turns a panic of the engine into damage: it asserts where it doubts what it read.
fn guarded<T>(config: &BackendConfig, work: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let what = "redb met what it can't read and panicked".to_owned();
        Err(StorageError::Damaged { path: config.dir.clone(), offset: 0, what })
    })
}

fn failure(config: &BackendConfig, error: redb::Error) -> StorageError {
    let damaged = |what: String| StorageError::Damaged { path: config.dir.clone(), offset: 0, what };
    match error {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => damaged(error.to_string()),
        redb::Error::Io(error) => StorageError::io("use", &config.dir, error),
        redb::Error::Corrupted(what) => damaged(what),
        // The file was ours: what is another format or type now was damaged.
        error @ (redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TypeDefinitionChanged { .. }) => damaged(error.to_string()),
        error => StorageError::Engine { engine: "redb", message: error.to_string() },
    }
}

/// The file behind the door.
#[derive(Debug)]
struct Through(Arc<dyn DiskFile>);

impl StorageBackend for Through {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_at(data, offset)
    }
}
