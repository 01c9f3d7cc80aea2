//! Picks the handler of a task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::dispatch::{Perform, StopSignal};
use crate::handler::{WorkerContext, agent, http, run};
use crate::task::{Outcome, Task, Work};

/// Does one task to its end, or until the signal asks for it.
pub async fn perform(task: Task, context: Arc<WorkerContext>, mut stop: StopSignal) -> Outcome {
    match &task.work {
        Work::Run(script) => run::run(&task, script, &context, &mut stop).await,
        Work::Http(request) => http::send(request, &context, &mut stop).await,
        Work::Agent(call) => agent::call(&task, call, &context, &mut stop).await,
    }
}

/// Does tasks with the handlers of this process.
pub struct Worker {
    context: Arc<WorkerContext>,
}

impl Worker {
    /// A worker whose tasks share a context.
    pub fn new(context: Arc<WorkerContext>) -> Self {
        Self { context }
    }
}

impl Perform for Worker {
    fn perform(&self, task: Task, stop: StopSignal) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(perform(task, self.context.clone(), stop))
    }
}
