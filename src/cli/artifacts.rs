//! The artifact store of schedulers and workers: where payloads lie that are too large for a message.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::context::Context;
use super::exit::Failure;
use crate::artifact::{ArtifactError, FolderStore, PostgresStore, Store};
use crate::database::Database;

/// How long a payload may wait for a database that is away.
const PATIENCE: Duration = Duration::from_secs(60);
/// The folder in a scheduler's state folder, where nothing else is named.
const FOLDER: &str = "artifacts";

/// Where the store is.
#[derive(Clone, Debug, Args)]
pub struct ArtifactArgs {
    /// Where outputs lie that are too large for a message: a folder that schedulers and Kafka workers share [default: the database of DATABASE_URL; without one, `artifacts` in a scheduler's state folder]
    #[arg(long, env = "TOL_ARTIFACT_DIR", value_name = "DIR")]
    pub artifact_dir: Option<PathBuf>,
}

impl ArtifactArgs {
    /// The store of a scheduler, which always has one.
    pub fn of_scheduler(&self, context: &Context) -> Result<Arc<dyn Store>, Failure> {
        if let Some(store) = self.in_database(context)? {
            return Ok(store);
        }
        let folder = self.artifact_dir.clone().unwrap_or_else(|| context.state_dir.join(FOLDER));
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure::invalid(format!("--artifact-dir {}: {error}", folder.display())))?;
        Ok(Arc::new(FolderStore::new(folder)))
    }

    /// The store of a worker that nobody gives one; none if none is named.
    pub fn of_worker(&self, context: &Context) -> Result<Option<Arc<dyn Store>>, Failure> {
        let Some(folder) = &self.artifact_dir else { return self.in_database(context) };
        if !folder.is_dir() {
            // To make it would hide that it is another one than the scheduler's.
            return Err(Failure::invalid(format!(
                "--artifact-dir {}: there is no such folder; name the one of the scheduler, which has made it",
                folder.display()
            )));
        }
        Ok(Some(Arc::new(FolderStore::new(folder))))
    }

    fn in_database(&self, context: &Context) -> Result<Option<Arc<dyn Store>>, Failure> {
        if self.artifact_dir.is_some() {
            return Ok(None);
        }
        let Some(url) = context.database()? else { return Ok(None) };
        let database =
            Database::open(&url, "tol artifacts", PATIENCE).map_err(|error| Failure::failed(error.to_string()))?;
        let store = PostgresStore::open(database).map_err(|error: ArtifactError| Failure::failed(error.to_string()))?;
        Ok(Some(Arc::new(store)))
    }
}
