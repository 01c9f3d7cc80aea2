//! What workers come back with, by chance.

use std::sync::Arc;

use serde_json::{Value, json};
use tol::task::{AgentCall, AgentPhase, ErrorClass, Failure, Outcome, Usage, Work};

use super::generate::blueprint;
use super::rng::Rng;

/// How some work ends. What was asked to stop has mostly done so.
pub fn outcome(rng: &mut Rng, work: &Work, stop: bool) -> Outcome {
    if stop && rng.percent(80) {
        return Outcome::Stopped;
    }
    let usage = match work {
        Work::Agent(_) => {
            Some(Usage { input_tokens: rng.next() % 200, output_tokens: rng.next() % 100 }).filter(|_| rng.percent(90))
        }
        Work::Run(_) | Work::Http(_) => None,
    };
    if rng.percent(30) {
        let class = [ErrorClass::Transient, ErrorClass::Permanent, ErrorClass::Timeout][rng.below(3)];
        let retry_after_ms = rng.percent(10).then(|| rng.next() % 5000);
        let failure = Failure {
            stderr: Some("no".to_owned()),
            exit_code: Some(3),
            retry_after_ms,
            ..Failure::new(class, "exit code 3")
        };
        return Outcome::Failed { failure, usage };
    }
    let outputs = Arc::new(match work {
        Work::Run(script) if script.json => (0..rng.below(5)).map(|number| json!(number)).collect(),
        Work::Run(_) | Work::Http(_) => json!({ "text": "said", "x": rng.unit() }),
        Work::Agent(call) => answer(rng, call),
    });
    Outcome::Succeeded { outputs, exit_code: Some(0), stderr: Some(String::new()), usage, cached: false }
}

fn answer(rng: &mut Rng, call: &AgentCall) -> Value {
    match call.phase {
        AgentPhase::Plan => match rng.below(4) {
            0 => json!({ "text": "I cannot plan." }),
            1 => json!({ "output": { "steps": [{ "id": "E1", "tool": "nothing", "input": {} }] } }),
            _ => json!({ "output": blueprint(rng, true, true) }),
        },
        AgentPhase::Execute if rng.percent(50) => json!({ "text": "said", "output": { "a": 1 } }),
        AgentPhase::Execute => json!({ "text": "said" }),
        AgentPhase::Synthesize => json!({ "text": format!("draft {}", rng.below(3)) }),
        AgentPhase::Critique if rng.percent(10) => json!({ "text": "fine" }),
        AgentPhase::Critique => {
            let accepted = rng.percent(50);
            json!({ "output": { "score": rng.unit(), "accepted": accepted, "critiques": [{ "id": "c", "severity": "minor", "message": "m" }] } })
        }
    }
}
