//! Pipelines made by hand: edges, cycles and size. What files say is tested beside the checker.

use super::{compile_pipeline, fixtures};
use crate::compile::codes;

#[test]
fn dependencies_cycles_and_ids() {
    let check = |steps: &[(&str, &[&str])], expect: &[&str]| {
        let steps = steps.iter().map(|(id, depends)| fixtures::script(id, depends)).collect();
        let found = compile_pipeline(fixtures::pipeline(steps)).err().unwrap_or_default();
        assert_eq!(found.iter().map(|diagnostic| diagnostic.code).collect::<Vec<_>>(), expect, "{found:?}");
    };
    check(&[("a", &[]), ("b", &["a"])], &[]);
    check(&[("a", &["b"]), ("b", &[])], &[]);
    check(&[("a", &["a"])], &[codes::SELF_REFERENCE]);
    check(&[("a", &["b"]), ("b", &["a"])], &[codes::CYCLE]);
    check(&[("a", &["x"]), ("a", &[])], &[codes::DUPLICATE_ID, codes::UNKNOWN_STEP]);
    check(&[("a", &["b"]), ("b", &["a"]), ("c", &["d"]), ("d", &["c", "b"])], &[codes::CYCLE, codes::CYCLE]);
}

#[test]
fn a_hundred_thousand_steps_and_as_many_wrong_names() {
    let count = 100_000;
    let good = (0..count).map(|number: usize| {
        let before = format!("s{}", number / 2);
        let waits: &[&str] = if number == 0 { &[] } else { &[&before] };
        fixtures::script(&format!("s{number}"), waits)
    });
    let compiled = compile_pipeline(fixtures::pipeline(good.collect())).expect("a good pipeline");
    assert_eq!(compiled.graph.dag.edge_count(), count - 1);
    let bad = (0..count).map(|number| fixtures::script(&format!("s{number}"), &["nowhere_near_it"]));
    let found = compile_pipeline(fixtures::pipeline(bad.collect())).expect_err("a bad pipeline");
    assert_eq!(found.len(), count);
}
