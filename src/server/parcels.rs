//! What is too large for a message on the bus goes by way of the artifact store.

use std::sync::Arc;

use crate::artifact::{INLINE_LIMIT, Store, load_outcome, offload_task};
use crate::dispatch::kafka::Parcels;
use crate::proto::{Form, v1};
use crate::task::{Outcome, Task};

/// Parcels in a store. The store may wait for a disk or a database; only what is too large for a message does.
pub struct StoredParcels(pub Arc<dyn Store>);

impl Parcels for StoredParcels {
    fn task(&self, task: &Task) -> Result<v1::Task, String> {
        let pack = || offload_task(task, Some(&*self.0), Form::Protobuf, INLINE_LIMIT);
        tokio::task::block_in_place(pack).map_err(|error| error.to_string())
    }

    fn outcome(&self, outcome: v1::Outcome) -> Result<Outcome, String> {
        tokio::task::block_in_place(|| load_outcome(outcome, Some(&*self.0))).map_err(|error| error.to_string())
    }
}
