//! Picks the handler of a task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use crate::dispatch::{Perform, StopSignal};
use crate::handler::{WorkerContext, agent, breaker, http, run};
use crate::task::{Outcome, Task, Work};

/// Does one task to its end, or until the signal asks for it.
pub async fn perform(task: Task, context: Arc<WorkerContext>, mut stop: StopSignal) -> Outcome {
    let target = breaker::target_of(&task.work);
    if let Some(target) = &target
        && let Err(failure) = context.breakers.ask(target, Instant::now())
    {
        return Outcome::failed(failure);
    }
    // Dropped in the middle, it has been stopped: a try of a half-open target must not be waited for for ever.
    let mut asked = Asked { target, context: &context, outcome: Outcome::Stopped };
    let outcome = match &task.work {
        Work::Run(script) => run::run(&task, script, &context, &mut stop).await,
        Work::Http(request) => http::send(request, &context, &mut stop).await,
        Work::Agent(call) => agent::call(&task, call, &context, &mut stop).await,
    };
    asked.outcome.clone_from(&outcome);
    outcome
}

/// Tells a target's breaker how the call has ended.
struct Asked<'a> {
    target: Option<String>,
    context: &'a WorkerContext,
    outcome: Outcome,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(target) = &self.target {
            self.context.breakers.tell(target, &self.outcome, Instant::now());
        }
    }
}

/// Does tasks with the handlers of this process.
#[derive(Clone)]
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::{Value, json};
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::dispatch::{Dispatch, InProcess, Stop};
    use crate::id::{LeaseToken, RunId, UnitPath};
    use crate::task::{AgentCall, AgentPhase, Command, HttpRequest, Provider, Script};

    fn task(unit: &str, work: Work) -> Task {
        Task {
            run: RunId::new("r"),
            pipeline: Arc::from("p"),
            unit: UnitPath::new(unit),
            attempt: 1,
            token: LeaseToken(1),
            idempotency_key: "k".to_owned(),
            deadline: None,
            place: Default::default(),
            work,
        }
    }

    fn script(argv: &[&str]) -> Work {
        Work::Run(Script {
            command: Command::Argv(argv.iter().map(|&word| word.to_owned()).collect()),
            env: Vec::new(),
            inherit_env: Vec::new(),
            dir: "/".to_owned(),
            json: false,
            permanent_exit_codes: Vec::new(),
            max_output: 1000,
        })
    }

    fn context(folder: &std::path::Path) -> Arc<WorkerContext> {
        Arc::new(WorkerContext::new(folder, BTreeMap::new(), None))
    }

    #[tokio::test]
    async fn each_kind_of_work_has_its_handler() {
        let folder = tempfile::tempdir().unwrap();
        let perform = |work| perform(task("a", work), context(folder.path()), StopSignal::never());
        let Outcome::Succeeded { outputs, .. } = perform(script(&["echo", "hi"])).await else { panic!("it failed") };
        assert_eq!(*outputs, json!({"text": "hi"}));
        let request = HttpRequest {
            method: "GET".to_owned(),
            url: "no url".to_owned(),
            headers: Vec::new(),
            query: Vec::new(),
            body: None,
            follow_redirects: true,
            max_bytes: 1,
        };
        let Outcome::Failed { failure, .. } = perform(Work::Http(request)).await else { panic!("it succeeded") };
        assert!(failure.message.contains("not a URL"), "{failure:?}");
        let argv = ["printf", "yes"].map(str::to_owned).to_vec();
        let call = AgentCall {
            agent: "a".to_owned(),
            phase: AgentPhase::Execute,
            system_prompt: String::new(),
            prompt: String::new(),
            input: Value::Null,
            schema: None,
            tools: Vec::new(),
            max_tokens: 1,
            temperature: None,
            model: None,
            provider: Provider::Command { argv, dir: "/".to_owned() },
            env: Vec::new(),
        };
        let Outcome::Succeeded { outputs, .. } = perform(Work::Agent(call)).await else { panic!("it failed") };
        assert_eq!(*outputs, json!({"text": "yes", "output": null}));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_scripts_at_once_report_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut reports) = unbounded_channel();
        let worker = Arc::new(Worker::new(context(folder.path())));
        let dispatch = InProcess::new(tokio::runtime::Handle::current(), worker, sender);
        for item in 0..60 {
            dispatch.dispatch(task(&format!("each[{item}]"), script(&["echo", &item.to_string()])));
        }
        dispatch.dispatch(task("slow", script(&["sleep", "50"])));
        let mut seen = BTreeSet::new();
        while seen.len() < 60 {
            let report = reports.recv().await.unwrap();
            let Ok(Outcome::Succeeded { outputs, .. }) = report.result else { panic!("{report:?}") };
            let (_, item) = report.unit.split_item();
            assert_eq!(*outputs, json!({"text": item.unwrap().to_string()}));
            assert!(seen.insert(report.unit.clone()), "{} came twice", report.unit);
        }
        dispatch.stop(&RunId::new("r"), &UnitPath::new("slow"), LeaseToken(1), Stop::Now);
        assert_eq!(reports.recv().await.unwrap().result, Ok(Outcome::Stopped));
        assert_eq!(dispatch.running_count(), 0);
    }
}
