//! Workers that are lost, and schedulers that take over.

use crate::id::UnitPath;
use crate::scheduler::tests::Run;
use crate::scheduler::{Input, Rejection};

#[test]
fn a_lost_hand_out_goes_out_again_and_costs_no_retry() {
    let mut run = Run::of(
        "steps:\n  - { id: a, run: x }\n  - { id: once, run: x, retry: never }\n  - { id: b, run: x, depends: [a] }\n",
    );
    let lose = |run: &mut Run, unit: &str| {
        let token = crate::id::LeaseToken(run.unit(unit).token);
        let lost = Input::Lost { unit: UnitPath::new(unit), token, why: "silence".to_owned() };
        run.take(lost.clone()).unwrap();
        assert_eq!(run.take(lost), Err(Rejection::Stale(UnitPath::new(unit))));
    };
    for _ in 0..4 {
        lose(&mut run, "a");
    }
    lose(&mut run, "once");
    run.check("a=running once=unknown b=pending: running");
    assert_eq!((run.unit("a").attempt, run.unit("a").retries), (5, 0));
    // What kills every worker that has it is taken for a failure in the end.
    lose(&mut run, "a");
    run.check("a=failed once=unknown b=skipped: waiting");
    assert!(run.unit("a").failure.as_ref().unwrap().message.contains("5 workers in a row"));
}

#[test]
fn a_reclaimed_run_leaves_hand_outs_with_their_workers() {
    let mut run = Run::of("steps:\n  - { id: a, run: x }\n  - { id: b, run: x, retry: never, depends: [a] }\n");
    let token = run.unit("a").token;
    run.take(Input::Idle).unwrap();
    run.take(Input::Reclaim).unwrap();
    assert_eq!((run.unit("a").token, run.unit("a").attempt), (token, 1));
    run.ok("a");
    run.take(Input::Reclaim).unwrap();
    run.check("a=succeeded b=running: running");
    run.ok("b").check("a=succeeded b=succeeded: succeeded");
    run.check_done(&["a", "reclaim a", "b", "reclaim b"]);
}
