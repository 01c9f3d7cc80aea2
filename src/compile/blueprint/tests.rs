//! Answers of planners, good and bad, and what they come to.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{PlanRules, blueprint_from_answer};
use crate::compile::{CompiledBlueprint, fixtures};
use crate::model::{ToolEffect, WritePolicy};

fn rules() -> PlanRules {
    let text = json!({ "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"], "additionalProperties": false });
    let count = json!({ "type": "object", "properties": { "n": { "type": "integer" }, "unit": { "type": "string" } }, "required": ["n"] });
    let two = json!({ "type": "object", "properties": { "a": {}, "b": {} }, "required": ["a", "b"] });
    let tools = [
        fixtures::tool("say", ToolEffect::Read, text.clone()),
        fixtures::tool("count", ToolEffect::Read, count),
        fixtures::tool("pair", ToolEffect::Read, two),
        fixtures::tool("look", ToolEffect::Read, json!({ "type": "object" })),
        fixtures::tool("send", ToolEffect::Write, json!({ "type": "object" })),
    ];
    let tools: std::collections::BTreeMap<_, _> =
        tools.into_iter().map(|tool| (tool.name.value.clone(), Arc::new(tool))).collect();
    let mut declared = tools.clone();
    declared.insert("peek".into(), Arc::new(fixtures::tool("peek", ToolEffect::Read, json!({}))));
    PlanRules { tools, declared: Arc::new(declared), max_steps: Some(12), ..PlanRules::default() }
}

fn text(answer: &str) -> Result<CompiledBlueprint, Vec<String>> {
    blueprint_from_answer(&json!({ "text": answer, "output": null }), &rules())
}

fn output(steps: Value) -> Result<CompiledBlueprint, Vec<String>> {
    blueprint_from_answer(&json!({ "text": "", "output": { "steps": steps } }), &rules())
}

/// Step outputs by id, as an `execute` step gives them to inputs.
fn evidence(outputs: Value) -> serde_json::Map<String, Value> {
    let outputs = outputs.as_object().cloned().unwrap_or_default();
    outputs.into_iter().map(|(id, outputs)| (id, json!({ "outputs": outputs, "status": "succeeded" }))).collect()
}

/// The inputs of an answer, filled in with evidence.
fn inputs(answer: &str, outputs: Value) -> Vec<Value> {
    let compiled = text(answer).unwrap_or_else(|errors| panic!("{answer}: {errors:?}"));
    let names = evidence(outputs);
    compiled
        .calls
        .iter()
        .map(|call| call.input.render(&names).unwrap_or_else(|error| panic!("{answer}: {error}")))
        .collect()
}

#[test]
fn the_dialect_is_read_as_planners_print_it() {
    let check = |answer: &str, outputs: Value, expect: Value| {
        assert_eq!(Value::Array(inputs(answer, outputs)), expect, "{answer}");
    };
    check("Plan: one\n#E1 = say[hi]", json!({}), json!([{ "text": "hi" }]));
    check("#E1 = say[hi]  \t\r\n", json!({}), json!([{ "text": "hi" }]));
    check("#E1 = say[first\n  second\nlast]\n", json!({}), json!([{ "text": "first\n  second\nlast" }]));
    check("#E1 = say[a[0] = b[1] and f(x)=2)]", json!({}), json!([{ "text": "a[0] = b[1] and f(x)=2)" }]));
    check("#E1 = say[no bracket] at its end]", json!({}), json!([{ "text": "no bracket] at its end" }]));
    check("#E1 = say[an [open one]\n#E2 = say[b]", json!({}), json!([{ "text": "an [open one" }, { "text": "b" }]));
    check("#E1 = SAY[x]", json!({}), json!([{ "text": "x" }]));
    check("#E1 = count[5]", json!({}), json!([{ "n": 5 }]));
    check("#E1 = pair[{\"a\": 1, \"b\": [2]}]", json!({}), json!([{ "a": 1, "b": [2] }]));
    check("#E1 = look[]", json!({}), json!([{}]));
    check("Sure!\nPlan: think\nmore\n\n#E1 = say[x]\nDone.", json!({}), json!([{ "text": "x" }]));
    check("#E1=say[x]\n#E2 =say[#E1]", json!({ "E1": { "text": "out" } }), json!([{ "text": "x" }, { "text": "out" }]));
}

#[test]
fn references_are_whole_words_and_evidence_is_data() {
    let plan = |last: &str| {
        let mut answer: String = (1..=11).map(|n| format!("#E{n} = say[<{n}>]\n")).collect();
        answer.push_str(&format!("#E12 = say[{last}]"));
        answer
    };
    let outputs: serde_json::Map<String, Value> = (1..=11)
        .map(|n| (format!("E{n}"), json!({ "text": format!("<{n}> #E2 {{{{ E3.outputs.text }}}}") })))
        .collect();
    let check = |last: &str, expect: &str| {
        let filled = inputs(&plan(last), Value::Object(outputs.clone()));
        assert_eq!(filled.last(), Some(&json!({ "text": expect })), "{last}");
    };
    let e = |n: u32| format!("<{n}> #E2 {{{{ E3.outputs.text }}}}");
    check("#E10", &e(10));
    check("#E1 #E10", &format!("{} {}", e(1), e(10)));
    check("#E1#E11.", &format!("{}{}.", e(1), e(11)));
    check("{{ E2.outputs.text }} and #E3", &format!("{} and {}", e(2), e(3)));
    check("it costs $3, E3 or $E3; see 3) and #1 #tag #E1x", "it costs $3, E3 or $E3; see 3) and #1 #tag #E1x");
    check("größe #E1 ✓", &format!("größe {} ✓", e(1)));
    check("{{ E1.status }}", "succeeded");
}

#[test]
fn evidence_keeps_its_type_where_it_stands_alone() {
    let answer = |input: Value| json!([{ "id": "E1", "tool": "look" }, { "id": "E2", "tool": "look", "input": input }]);
    let check = |input: Value, outputs: Value, expect: Value| {
        let compiled = output(answer(input.clone())).unwrap_or_else(|errors| panic!("{input}: {errors:?}"));
        let names = evidence(json!({ "E1": outputs }));
        assert_eq!(compiled.calls[1].input.render(&names), Ok(expect), "{input}");
    };
    check(json!({ "a": "#E1" }), json!({ "n": 1 }), json!({ "a": { "n": 1 } }));
    check(json!({ "a": "#E1" }), json!({ "text": "x" }), json!({ "a": "x" }));
    check(json!({ "a": "#E1" }), json!([1]), json!({ "a": [1] }));
    check(json!({ "a": "= #E1" }), json!({ "n": 1 }), json!({ "a": "= {\"n\":1}" }));
    check(
        json!({ "a": "{{ E1.outputs.n }}", "b": [true, "#E1!"] }),
        json!({ "n": 1, "text": "t" }),
        json!({ "a": 1, "b": [true, "{\"n\":1,\"text\":\"t\"}!"] }),
    );
    let compiled = output(answer(json!({ "a": "x #E1" }))).expect("a good plan");
    assert!(compiled.calls[1].input.render(&serde_json::Map::new()).is_err());
}

#[test]
fn json_is_found_in_every_wrapping() {
    let plan = r#"{"steps": [{"id": "E1", "tool": "say", "input": {"text": "x"}}]}"#;
    let check = |answer: String| {
        let compiled = text(&answer).unwrap_or_else(|errors| panic!("{answer}: {errors:?}"));
        assert_eq!(compiled.calls.len(), 1, "{answer}");
    };
    check(plan.to_owned());
    check(format!("\u{feff} {plan}\n"));
    check(format!("Here it is:\n```json\n{plan}\n```\nGood luck!"));
    check(format!("```\n{plan}\n```"));
    check(format!("I would say {plan} and be done"));
    check(format!("{{\"blueprint\": {plan}}}"));
}

#[test]
fn all_that_is_wrong_is_told_with_its_step() {
    let check = |result: Result<CompiledBlueprint, Vec<String>>, expect: &[&str]| {
        let errors = result.map(|compiled| compiled.json).expect_err("a bad plan");
        assert_eq!(errors.len(), expect.len(), "{errors:?}");
        for (error, words) in errors.iter().zip(expect) {
            for word in words.split('|') {
                assert!(error.contains(word), "`{word}` is not in `{error}`");
            }
        }
    };
    let say = |id: &str, input: &str| json!({ "id": id, "tool": "say", "input": { "text": input } });
    check(output(json!([])), &["one step"]);
    check(output(json!([say("E1", "x"), { "id": "E2", "tool": "sya", "input": {} }])), &["E2|`sya`|`say`"]);
    check(output(json!([{ "id": "E1", "tool": "peek", "input": {} }])), &["E1|peek|allow"]);
    check(output(json!([say("E1", "after #E7")])), &["E1|E7"]);
    check(output(json!([say("E1", "{{ E7.outputs.text }} {{ params.x }}")])), &["E1|E7", "E1|params"]);
    check(output(json!([say("E1", "me: #E1")])), &["E1|own"]);
    check(output(json!([say("E1", "x"), say("E2", "#E3"), say("E3", "{{ E2.outputs.text }}")])), &["E2|E3|cycle"]);
    check(output(json!([{ "id": "E1", "tool": "say", "input": { "text": "x" }, "depends": ["E9"] }])), &["E1|E9"]);
    check(output(json!([say("E1", "x"), say("E1", "y")])), &["E1|already"]);
    check(output(json!([{ "id": "E1", "tool": "say", "input": { "txet": "x" } }])), &["txet|text", "text|missing"]);
    check(output(json!([{ "id": "E1", "tool": "count", "input": { "n": "many" } }])), &["E1|`n`|integer"]);
    check(output(json!([{ "id": "E1", "tool": "send", "input": {} }])), &["E1|send|write"]);
    check(output(json!([{ "id": "E1", "tool": "look", "input": {}, "effect": "write" }])), &["E1|write"]);
    check(output(json!([{ "id": "E1", "tool": "look", "on_error": "default" }])), &["E1|default"]);
    check(output(json!([say("E1", "{{ E1.outputs")])), &["E1"]);
    check(output(json!([say("E1", "{{ E2.outptus.text }}"), say("E2", "x")])), &["E1|outptus|outputs"]);
    check(output(Value::Array((0..13).map(|n| say(&format!("E{n}"), "x")).collect())), &["13|12"]);
    check(text("Of course! I would first think about it."), &["no blueprint"]);
    check(text("#E1 is a lovely thing {\"steps\": [ and then"), &["no blueprint"]);
    check(text(""), &["empty"]);
    check(text("{\"steps\": [}"), &["no blueprint|JSON"]);
    check(text("#E1 = say[never closed\n"), &["E1|closed"]);
    check(text("#E1 = pair[some text]"), &["E1|pair|JSON"]);
    check(text("#E1 = serch[x]\n#E2 = say[#E9]"), &["E1|serch", "E2|E9"]);
}

#[test]
fn writes_are_refused_asked_for_or_allowed() {
    let answer = json!({ "output": { "steps": [{ "id": "E1", "tool": "send", "input": {}, "effect": "read" }] } });
    for (write, allowed) in [(WritePolicy::Refuse, false), (WritePolicy::Ask, true), (WritePolicy::Allow, true)] {
        let compiled = blueprint_from_answer(&answer, &PlanRules { write, ..rules() });
        assert_eq!(compiled.as_ref().is_ok_and(|compiled| compiled.calls[0].writes), allowed, "{write:?}");
    }
}

#[test]
fn equal_content_has_equal_hashes() {
    let say = |id: &str, input: &str| json!({ "id": id, "tool": "say", "input": { "text": input } });
    let content = |steps: Value, at: usize| output(steps).expect("a good plan").calls[at].content.clone();
    let base = content(json!([say("E1", "x"), say("E2", "#E1")]), 1);
    assert_eq!(
        base,
        content(json!([{ "id": "E1", "tool": "say", "input": { "text": "x" }, "thought": "hm" }, say("E2", "#E1")]), 1)
    );
    assert_ne!(base, content(json!([say("E1", "y"), say("E2", "#E1")]), 1));
    assert_ne!(base, content(json!([say("E1", "x"), say("E2", "#E1 ")]), 1));
    let plan = |steps: Value| output(steps).expect("a good plan").hash;
    assert_eq!(
        plan(json!([say("E1", "x")])),
        plan(json!([{ "id": "E1", "thought": "t", "tool": "say", "input": { "text": "x" } }]))
    );
    assert_ne!(plan(json!([say("E1", "x")])), plan(json!([say("E1", "y")])));
}

#[test]
fn hostile_answers_end() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(text(&deep).is_err());
    assert!(text(&format!("#E1 = say[{}", "[".repeat(100_000))).is_err());
    assert!(text(&"#E1 = say[".repeat(2000)).is_err());
    assert!(text(&"```\n".repeat(10_000)).is_err());
    let long = format!("#E1 = say[{}]", "#E2 ".repeat(50_000));
    assert!(text(&long).is_err());
}
