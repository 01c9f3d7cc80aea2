//! Templates as tables: what they give, where their mistakes are, what they refer to.

use serde_json::{Map, Value, json};

use super::Template;
use crate::expr::types::{Type, TypeNames};

fn names() -> Map<String, Value> {
    let value = json!({
        "params": {
            "title": "Weekly", "n": 5, "ratio": 2.5, "whole": 2.0, "dry": false, "none": null, "empty": [], "tags": ["a", "b"],
            "map": {"first": "Ada", "odd key": 1}, "code": "{{ params.title }} <b>&\"", "big": 9_007_199_254_740_993_i64
        },
        "scan": {"outputs": {"files": [{"name": "x", "size": 1}, {"name": "y", "size": 20}]}, "status": "succeeded"},
        "run": {"id": "r1"}, "name": "root name"
    });
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn check(source: &str, expect: Value) {
    let template = Template::parse(source).unwrap_or_else(|problems| panic!("{source}: {problems:?}"));
    assert_eq!(template.render(&names()), Ok(expect), "{source}");
}

fn check_error(source: &str, expect: &str) {
    let template = Template::parse(source).unwrap_or_else(|problems| panic!("{source}: {problems:?}"));
    let message = template.render(&names()).map(|value| value.to_string()).map_err(|error| error.message);
    match message {
        Err(message) if message.contains(expect) => {}
        other => panic!("{source}: {other:?} lacks {expect}"),
    }
}

/// All mistakes: the text that each is at, and words of its message or help.
fn check_problems(source: &str, expect: &[(&str, &str)]) {
    let problems = match Template::parse(source) {
        Err(problems) => problems,
        Ok(template) => template.check(&Types).1,
    };
    compare_problems(source, &problems, expect);
}

fn compare_problems(source: &str, problems: &[crate::expr::Problem], expect: &[(&str, &str)]) {
    let found: Vec<(&str, String)> = problems
        .iter()
        .map(|problem| (&source[problem.range.clone()], format!("{} {:?}", problem.message, problem.help)))
        .collect();
    assert_eq!(found.len(), expect.len(), "{source}: {found:?}");
    for ((place, message), (at, words)) in found.iter().zip(expect) {
        assert_eq!(place, at, "{source}: {found:?}");
        assert!(message.contains(words), "{source}: {message} lacks {words}");
    }
}

struct Types;

impl TypeNames for Types {
    fn type_of(&self, root: &str) -> Option<Type> {
        let item = Type::closed([("name", Type::String), ("size", Type::Int)]);
        Some(match root {
            "params" => Type::closed([
                ("question", Type::String),
                ("tags", Type::list(Type::String)),
                ("depth", Type::Int),
                ("items", Type::list(item)),
                ("any", Type::Any),
            ]),
            "fetch" => Type::closed([("outputs", Type::open::<String>([])), ("status", Type::String)]),
            "page" => Type::closed([
                ("outputs", Type::closed([("status", Type::Int), ("body", Type::Any)])),
                ("status", Type::String),
            ]),
            "secrets" | "env" => Type::map(Type::String),
            "run" => Type::closed([("id", Type::String)]),
            _ => return None,
        })
    }

    fn root_names(&self) -> Vec<String> {
        ["params", "fetch", "page", "secrets", "env", "run"].map(str::to_owned).to_vec()
    }
}

#[test]
fn one_whole_template_keeps_its_type() {
    check("{{ params.n }}", json!(5));
    check("{{params.tags}}", json!(["a", "b"]));
    check("{{{params.map}}}", json!({"first": "Ada", "odd key": 1}));
    check("{{& params.none}}", json!(null));
    check("{{ params.dry }}", json!(false));
    check("{{ params.big }}", json!(9_007_199_254_740_993_i64));
    check("{{ params.tags.[1] }}", json!("b"));
    check("{{ params.map.[odd key] }}", json!(1));
    check("{{ @root.params.n }}", json!(5));
    check("{{ lookup params.map \"first\" }}", json!("Ada"));
    check("{{ json params.tags }}", json!("[\"a\",\"b\"]"));
    check("{{ json \"nope.outputs.text\" }}", json!("\"nope.outputs.text\""));
    check("{{ len params.tags }}", json!(2));
    check("{{ eq params.n 5 }}", json!(true));
    check("{{ eq \"{{\" \"}}\" }}", json!(false));
    check("{{ params.n }}{{! note }}", json!("5"));
    check("{{~ params.n }} ", json!("5 "));
    check(
        "{{ scan }}",
        json!({"outputs": {"files": [{"name": "x", "size": 1}, {"name": "y", "size": 20}]}, "status": "succeeded"}),
    );
}

#[test]
fn in_text_everything_is_text() {
    check(" {{ params.n }}", json!(" 5"));
    check("n={{ params.n }}, {{ params.dry }}{{ params.none }}.", json!("n=5, false."));
    check("{{ params.tags }} {{ params.map }}", json!("[\"a\",\"b\"] {\"first\":\"Ada\",\"odd key\":1}"));
    check("{{ params.ratio }}/{{ params.whole }}", json!("2.5/2"));
    check("got {{ params.code }}", json!("got {{ params.title }} <b>&\""));
    check("{{ json params.title }}!", json!("\"Weekly\"!"));
    check("{{ params.title }}{{! a note }}", json!("Weekly"));
    check("a {{!-- }} --}}b", json!("a b"));
    check("a  {{~ params.n ~}}  b", json!("a5b"));
    check("日本 {{ params.title }} 🎉", json!("日本 Weekly 🎉"));
}

#[test]
fn literals_and_constants() {
    check("plain { braces } and }}", json!("plain { braces } and }}"));
    check("\\{{ params.n }}", json!("{{ params.n }}"));
    check("\\{{{ x }}} {{ params.n }}", json!("{{{ x }}} 5"));
    check("\\\\{{ params.n }}", json!("\\5"));
    check("c:\\x\\ y", json!("c:\\x\\ y"));
    check("{{! only a comment }}", json!(""));
    let constant = |source: &str| Template::parse(source).ok().and_then(|found| found.constant().map(str::to_owned));
    assert_eq!(constant("plain"), Some("plain".to_owned()));
    assert_eq!(constant("\\{{x}}"), Some("{{x}}".to_owned()));
    assert_eq!(constant("{{x}}"), None);
}

#[test]
fn blocks() {
    check("{{#if params.dry}}dry{{else}}wet{{/if}}", json!("wet"));
    check("{{#unless params.dry}}for real{{/unless}}", json!("for real"));
    check("{{#each params.tags}}{{ this }},{{/each}}", json!("a,b,"));
    check("{{#each params.tags as |tag i|}}{{ i }}={{ tag }}{{#unless @last}};{{/unless}}{{/each}}", json!("0=a;1=b"));
    check("{{#each params.map}}{{ @key }}:{{ this }} {{/each}}", json!("first:Ada odd key:1 "));
    check("{{#each params.empty}}x{{else}}none{{/each}}", json!("none"));
    check("{{#each params.empty}}x{{/each}}", json!(""));
    check(
        "{{#each scan.outputs.files}}{{ this.name }}/{{ params.n }}/{{ @root.run.id }} {{/each}}",
        json!("x/5/r1 y/5/r1 "),
    );
    check(
        "{{#each scan.outputs.files}}{{ this }}{{/each}}",
        json!("{\"name\":\"x\",\"size\":1}{\"name\":\"y\",\"size\":20}"),
    );
    check("{{#each scan.outputs.files}}{{ ./name }}{{#if (gt this.size 5)}}!{{/if}}{{/each}}", json!("xy!"));
    check("{{#with params.map}}{{ this.first }} {{ name }}{{/with}}", json!("Ada root name"));
    check("{{#with params.map as |m|}}{{ m.first }}{{ m.[odd key] }}{{/with}}", json!("Ada1"));
    check("{{#with params.none}}x{{else}}nothing{{/with}}", json!("nothing"));
    check("{{#if params.dry}}1{{else if params.n}}2{{else}}3{{/if}}", json!("2"));
    check("{{#if params.dry}}1{{else if params.none}}2{{else}}3{{/if}}", json!("3"));
    check("{{#if (and params.n (not params.dry))}}{{#if (or params.none \"x\")}}y{{/if}}{{/if}}", json!("y"));
    check("{{#each params.tags as |name|}}{{ name }}{{ @root.name }}{{/each}}", json!("aroot namebroot name"));
    check("{{#each scan.outputs.files as |name|}}{{ this.name }}{{ name.size }}{{/each}}", json!("x1y20"));
    check("{{#each (lookup scan.outputs \"files\") as |file|}}{{ file.name }}{{ this.size }}{{/each}}", json!("x1y20"));
}

#[test]
fn block_tags_alone_on_their_lines_leave_no_lines() {
    check("{{#each params.tags}}\n- {{ this }}\n{{/each}}\nend", json!("- a\n- b\nend"));
    check("a\n  {{#if params.n}}\n  b\n  {{else}}\n  c\n  {{/if}}\nd", json!("a\n  b\nd"));
    check("a\r\n{{! note }}\r\nb {{ params.n }}", json!("a\r\nb 5"));
    check("x {{#if params.n}} y {{/if}} z", json!("x  y  z"));
    check("{{#if params.n~}}  y  {{~/if}}", json!("y"));
}

#[test]
fn what_is_missing_is_an_error() {
    check_error("{{ params.quesion }}", "`params` has no key `quesion`");
    check_error("a {{ scan.outputs.file }}", "did you mean `files`");
    check_error("a {{ nope.x }}", "there is no `nope`");
    check_error("{{ params.tags.[2] }}", "2 element(s)");
    check_error("{{ params.title.x }}", "type string");
    check_error("{{#if params.missing}}x{{/if}}", "`params` has no key `missing`");
    check_error("{{#if nope}}x{{/if}}", "there is no `nope`");
    check_error("{{#each scan.outputs.files}}{{ this.nme }}{{/each}}", "`this.nme` is not there");
    check_error("{{#each scan.outputs.files as |file|}}{{ file.nme }}{{/each}}", "`file.nme` is not there");
    check_error("{{#each params.title}}x{{/each}}", "needs a list or a map");
    check_error("{{#if (gt params.title 1)}}x{{/if}}", "does not compare");
    check_error("{{ lookup params.map \"second\" }}", "no key `second`");
    check("{{#if params.n}}ok{{else}}{{ params.missing }}{{/if}}", json!("ok"));
}

#[test]
fn mistakes_of_the_form() {
    check_problems("ask: {{ params.question", &[("{{", "unclosed `{{`: `}}` expected")]);
    check_problems("{{ jsn params.tags }}", &[("jsn", "did you mean `json`")]);
    check_problems("{{ params.question | upper }}", &[("|", "no filters (pipes)")]);
    check_problems("{{#if params.question}}yes", &[("{{#if params.question}}", "`{{#if}}` is never closed")]);
    check_problems("{{ a {{ params.question }}", &[("{{", "unclosed")]);
    check_problems("{{> part }} {{* deco }} {{{{raw}}}}", &[(">", "partials"), ("*", "decorators"), ("{{{{", "raw")]);
    check_problems("{{/if}}", &[("if", "closes nothing")]);
    check_problems("{{#if run.id}}x{{/each}}", &[("each", "`{{/if}}` expected")]);
    check_problems("{{else}}", &[("{{else", "outside")]);
    check_problems("{{#iff run.id}}x{{/iff}}", &[("iff", "did you mean `#if`")]);
    check_problems("{{#if run.id run}}x{{/if}}", &[("run", "takes one value")]);
    check_problems("{{#if}}x{{/if}}", &[("if", "needs a value")]);
    check_problems("{{ json }}", &[("json", "takes 1")]);
    check_problems("{{ eq run.id }}", &[("eq", "takes 2")]);
    check_problems("{{}}", &[("{{}}", "empty")]);
    check_problems("{{ this }}", &[("this", "inside")]);
    check_problems("{{ @index }}", &[("@index", "inside")]);
    check_problems("{{#each params.tags}}{{ ../x }}{{/each}}", &[("..", "as |name|")]);
    check_problems("{{ a..b }}", &[(".", "a name expected")]);
    check_problems("{{ json x=1 }}", &[("=", "named")]);
    check_problems("{{{ run.id }}", &[("{{{", "}}}")]);
    check_problems("{{ \"abc }}", &[("\"", "string")]);
    check_problems("{{ run.id }", &[("{{", "unclosed")]);
    check_problems("{{ a b }} {{ c d }}", &[("a", "no helper"), ("c", "no helper")]);
}

#[test]
fn mistakes_of_names_and_types() {
    check_problems("{{ param.question }}", &[("param", "did you mean `params`")]);
    check_problems("{{ secret.TOKEN }}", &[("secret", "did you mean `secrets`")]);
    check_problems("x {{ params.quesion }}", &[("quesion", "did you mean `question`")]);
    check_problems("{{ fetch.output.text }}", &[("output", "did you mean `outputs`")]);
    check_problems("{{ json page.outputs.bdy }}", &[("bdy", "did you mean `body`")]);
    check_problems("日本 {{ fetch.outpts.text }}", &[("outpts", "outputs")]);
    check_problems("{{ fetch.outputs.whatever.x }}", &[]);
    check_problems(
        "{{#each params.items}}{{ this.nme }}{{ params.depht }}{{/each}}",
        &[("nme", "name"), ("depht", "depth")],
    );
    check_problems("{{#each params.items as |it|}}{{ it.sze }}{{/each}}", &[("sze", "size")]);
    check_problems("{{#each params.items}}{{ colour }}{{/each}}", &[("colour", "this.colour")]);
    check_problems("{{#each params.depth}}x{{/each}}", &[("params.depth", "type int")]);
    check_problems("{{ params.items.[0].nme }}", &[("nme", "name")]);
    check_problems("{{ len params.depth }}", &[("len params.depth", "int")]);
    check_problems("{{#if nope}}{{ nope.x }}{{/if}}", &[("nope", ""), ("nope", "")]);
}

#[test]
fn types_of_templates() {
    let check = |source: &str, expect: Type| {
        let template = Template::parse(source).unwrap_or_else(|problems| panic!("{source}: {problems:?}"));
        assert_eq!(template.check(&Types), (expect, Vec::new()), "{source}");
    };
    check("plain", Type::String);
    check("{{ params.depth }}", Type::Int);
    check("{{ params.tags }}", Type::list(Type::String));
    check("n {{ params.depth }}", Type::String);
    check("{{ json params.tags }}", Type::String);
    check("{{ page.outputs.body.x }}", Type::Any);
    check("{{ params.tags.[0] }}", Type::String);
    check("{{#each params.tags}}{{ this }}{{/each}}", Type::String);
}

#[test]
fn references_have_their_places() {
    let check = |source: &str, expect: &[&str]| {
        let template = Template::parse(source).unwrap_or_else(|problems| panic!("{source}: {problems:?}"));
        let found: Vec<String> = template
            .references()
            .iter()
            .map(|reference| {
                let parts: Vec<&str> = reference.segments.iter().map(|part| &source[part.range.clone()]).collect();
                let names: Vec<&str> = reference.segments.iter().map(|part| part.name.as_str()).collect();
                assert_eq!(parts, names, "{source}");
                names.join("/")
            })
            .collect();
        assert_eq!(found, expect, "{source}");
    };
    check("plain", &[]);
    check("{{ a.outputs.b }} {{ json c }}", &["a/outputs/b", "c"]);
    check("{{ scan.outputs.files.[0].name }}", &["scan/outputs/files/0/name"]);
    check("{{ a.[odd key].b }}", &["a/odd key/b"]);
    check("{{#each a.b as |x|}}{{ this.c }}{{ x.d }}{{ @index }}{{ e.f }}{{/each}}{{ x.y }}", &["a/b", "e/f", "x/y"]);
    check("{{ json \"nope.outputs\" }}\\{{ no }}{{! no }}", &[]);
    check("{{#if a}}b{{else if c.d}}{{ e }}{{/if}}", &["a", "c/d", "e"]);
    check("{{ lookup m.n \"k\" }}", &["m/n"]);
}

#[test]
fn hostile_templates_end() {
    let nested = format!("{}x{}", "{{#if run.id}}".repeat(10_000), "{{/if}}".repeat(10_000));
    let problems = Template::parse(&nested).map_err(|problems| problems.len());
    assert_eq!(problems.err(), Some(1));
    let fits = format!("{}x{}", "{{#if run.id}}".repeat(64), "{{/if}}".repeat(64));
    check(&fits, json!("x"));
    let chained = format!("{{{{#if run.id}}}}x{}{{{{/if}}}}", "{{else if run.id}}".repeat(10_000));
    assert!(Template::parse(&chained).is_err());
    let calls = format!("{{{{ json {}", "(".repeat(100_000));
    assert!(Template::parse(&calls).is_err());
    assert!(Template::parse(&"{{".repeat(100_000)).is_err());
    assert!(Template::parse(&"{{{{x".repeat(50_000)).is_err());
    assert!(Template::parse(&"{{!--".repeat(50_000)).is_err());
    assert!(Template::parse(&"{{!-- x --}}".repeat(50_000)).is_ok());
    assert!(Template::parse(&"{{ a.".repeat(50_000)).is_err());
    assert!(Template::parse(&"{{ a \"".repeat(20_000)).is_err());

    let mut names = Map::new();
    names.insert("list".to_owned(), Value::Array(vec![Value::from(1); 300]));
    let each = "{{#each list}}".repeat(3) + &"{{/each}}".repeat(3);
    let outcome = Template::parse(&each).map(|template| template.render(&names));
    assert!(matches!(outcome, Ok(Err(error)) if error.message.contains("too much work")));
    names.insert("text".to_owned(), Value::String("x".repeat(1 << 20)));
    let outcome = Template::parse("{{#each list}}{{ text }}{{/each}}").map(|template| template.render(&names));
    assert!(matches!(outcome, Ok(Err(error)) if error.message.contains("too much text")));
}

#[test]
fn a_template_is_small() {
    assert!(size_of::<Template>() <= 24);
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_panic(source in "[{}a-c./#@~ |()\\[\\]\"!&>=\\\\\n日-]{0,60}") {
        if let Ok(template) = Template::parse(&source) {
            let _ = template.check(&Types);
            let _ = template.render(&names());
            proptest::prop_assert!(template.references().iter().all(|found| !found.root().is_empty()));
        }
    }

    #[test]
    fn any_tags_are_read_without_panic(parts in proptest::collection::vec(proptest::sample::select(vec![
        "{{#if a}}", "{{#each a.b as |x|}}", "{{else}}", "{{else if b}}", "{{/if}}", "{{/each}}", "{{ x }}", "{{ this.[q] }}",
        "{{~ a ~}}", "\n", "  ", "text", "\\{{", "{{!c}}", "{{", "}}", "{{#with a}}", "{{/with}}", "{{ @key }}", "{{ eq a b }}",
    ]), 0..14)) {
        let source = parts.concat();
        if let Ok(template) = Template::parse(&source) {
            let _ = template.check(&Types);
            let _ = template.render(&names());
            let mut more = names();
            more.insert("a".to_owned(), json!({"b": [1, {"q": "v"}, null]}));
            more.insert("b".to_owned(), json!([]));
            let _ = template.render(&more);
        }
    }
}
