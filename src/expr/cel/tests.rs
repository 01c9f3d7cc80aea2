//! Expressions as tables: what they give, where their mistakes are, what they refer to.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::Expression;
use crate::expr::names::{Fields, Found, Names};
use crate::expr::types::{Type, TypeNames};

fn names() -> Map<String, Value> {
    let value = json!({
        "a": {"n": 21, "r": 2.5, "s": "größe", "yes": true, "nothing": null, "l": [1, 2, 3], "words": ["oak", "elm", "pine"],
              "m": {"x": 1, "odd key": [{"name": "first"}]}, "big": u64::MAX, "zero": 0},
        "max": i64::MAX, "min": i64::MIN
    });
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn parsed(source: &str) -> Expression {
    Expression::parse(source).unwrap_or_else(|problems| panic!("{source}: {problems:?}"))
}

fn check(source: &str, expect: Value) {
    assert_eq!(parsed(source).evaluate(&names()), Ok(expect), "{source}");
}

fn check_error(source: &str, expect: &str) {
    match parsed(source).evaluate(&names()) {
        Err(error) if error.message.contains(expect) => {}
        other => panic!("{source}: {other:?} lacks {expect}"),
    }
}

/// The first mistake of the form: the text that it is at, and words of its message or help.
fn check_syntax(source: &str, at: &str, words: &str) {
    let problems = Expression::parse(source).map(|_| ()).expect_err(source);
    let problem = problems.first().expect("there is a problem");
    let text = format!("{} {:?}", problem.message, problem.help);
    assert_eq!((&source[problem.range.clone()], text.contains(words)), (at, true), "{source}: {text}");
}

/// All mistakes of names and types.
fn check_types(source: &str, expect: &[(&str, &str)]) {
    let problems = parsed(source).check(&Types).1;
    let found: Vec<(&str, String)> = problems
        .iter()
        .map(|problem| (&source[problem.range.clone()], format!("{} {:?}", problem.message, problem.help)))
        .collect();
    assert_eq!(found.len(), expect.len(), "{source}: {found:?}");
    for ((place, text), (at, words)) in found.iter().zip(expect) {
        assert_eq!((place, text.contains(words)), (at, true), "{source}: {text} lacks {words}");
    }
}

fn check_type(source: &str, expect: &Type) {
    assert_eq!(parsed(source).check(&Types), (expect.clone(), Vec::new()), "{source}");
}

struct Types;

impl TypeNames for Types {
    fn type_of(&self, root: &str) -> Option<Type> {
        Some(match root {
            "params" => Type::closed([
                ("question", Type::String),
                ("depth", Type::Int),
                ("ratio", Type::Double),
                ("fast", Type::Bool),
                ("tags", Type::list(Type::String)),
                ("any", Type::Any),
            ]),
            "page" => Type::closed([("outputs", Type::closed([("status", Type::Int)])), ("status", Type::String)]),
            "scan" => Type::closed([("outputs", Type::Any), ("stderr", Type::String), ("exit_code", Type::Int)]),
            "env" => Type::map(Type::String),
            _ => return None,
        })
    }

    fn root_names(&self) -> Vec<String> {
        ["params", "page", "scan", "env"].map(str::to_owned).to_vec()
    }
}

#[test]
fn literals() {
    check("1", json!(1));
    check("-9223372036854775808", json!(i64::MIN));
    check("0xFF", json!(255));
    check("7u", json!(7));
    check("1.5e1", json!(15.0));
    check("-0.5", json!(-0.5));
    check("'a' + \"b\"", json!("ab"));
    check("r'\\d'", json!("\\d"));
    check("[1, 'a', [true, null],]", json!([1, "a", [true, null]]));
    check("{'a': 1, 'b': {'c': []}}", json!({"a": 1, "b": {"c": []}}));
    check("[]", json!([]));
    check("{}", json!({}));
    check("1 // the rest is a note", json!(1));
}

#[test]
fn arithmetic() {
    check("1 + 2 * 3 - 4", json!(3));
    check("(1 + 2) * 3", json!(9));
    check("7 / 2", json!(3));
    check("-7 / 2", json!(-3));
    check("-7 % 4", json!(-3));
    check("5.0 / 2.0", json!(2.5));
    check("-a.n", json!(-21));
    check("- -1", json!(1));
    check("8 - 2 - 1", json!(5));
    check("[1] + [2]", json!([1, 2]));
    check("a.n * 2", json!(42));
    check("double(a.n) / 2.0", json!(10.5));
    check("max", json!(i64::MAX));
    check_error("max + 1", "overflow");
    check_error("min - 1", "overflow");
    check_error("-min", "64 bits");
    check_error("max * 2", "overflow");
    check_error("min / -1", "overflow");
    check_error("min % -1", "overflow");
    check_error("1 / 0", "division by zero");
    check_error("1 % a.zero", "division by zero");
    check_error("1.0 / 0.0", "division by zero");
    check_error("1e308 * 10.0", "too large");
    check("1 + a.r", json!(3.5));
    check("a.r * 2", json!(5.0));
    check_error("a.s + 1", "type string and one of type int");
    check_error("a.big + 1", "does not take");
    check("a.big", json!(u64::MAX));
    check("a.big > max", json!(true));
    check("a.big == a.big", json!(true));
}

#[test]
fn comparison() {
    check("1 == 1.0", json!(true));
    check("9223372036854775807 == 9223372036854775808.0", json!(false));
    check("1 < 1.5", json!(true));
    check("2.5 >= 2", json!(true));
    check("'a' < 'b'", json!(true));
    check("false < true", json!(true));
    check("a.n != 21", json!(false));
    check("a.nothing == null", json!(true));
    check("a.s == null", json!(false));
    check("[1, {'a': 2.0}] == [1.0, {'a': 2}]", json!(true));
    check("{'a': 1, 'b': 2} == {'b': 2, 'a': 1}", json!(true));
    check("'1' == dyn(1)", json!(false));
    check("'elm' in a.words", json!(true));
    check("'x' in a.m", json!(true));
    check("2.0 in a.l", json!(true));
    check("4 in a.l", json!(false));
    check_error("1 < 'a'", "type int and one of type string");
    check_error("null < 1", "type null");
    check_error("1 in 2", "`in`");
}

#[test]
fn logic_absorbs_errors() {
    check("true || 1 / 0 == 1", json!(true));
    check("1 / 0 == 1 || true", json!(true));
    check("false && a.missing", json!(false));
    check("a.missing && false", json!(false));
    check("!a.yes || a.n > 20 && a.yes", json!(true));
    check("a.yes ? 'yes' : 1 / 0", json!("yes"));
    check("false ? 1 : true ? 2 : 3", json!(2));
    check_error("1 / 0 == 1 || false", "division by zero");
    check_error("1 || false", "a bool is needed");
    check_error("'x' ? 1 : 2", "a bool is needed");
    check("[1, 0].exists(x, 1 / x == 1)", json!(true));
    check("[0, 1].exists(x, 1 / x == 1)", json!(true));
    check("[0, 2].all(x, 1 / x > 1)", json!(false));
    check_error("[0, 1].all(x, 1 / x == 1)", "division by zero");
}

#[test]
fn selection() {
    check("a.m.x", json!(1));
    check("a['m']['x']", json!(1));
    check("a.m[\"odd key\"][0].name", json!("first"));
    check("a.l[2]", json!(3));
    check("[[1, 2], [3]][0][1]", json!(2));
    check("{'k': {'v': 7}}.k.v", json!(7));
    check("a.words[a.l[0]]", json!("elm"));
    check_error("a.m.y", "`a.m` has no key `y`");
    check_error("a.wordz", "did you mean `words`");
    check_error("a.s.x", "type string");
    check_error("a.l[3]", "3 element(s)");
    check_error("a.l[-1]", "none at index -1");
    check_error("a.l['x']", "type list");
    check_error("b", "there is no `b`");
    check("has(a.m.x)", json!(true));
    check("has(a.m.y)", json!(false));
    check("has(a.nothing)", json!(true));
    check("has(a.nothing.x)", json!(false));
    check("has(a.m['odd key'])", json!(true));
    check_error("has(a.m.y.z)", "no key `y`");
    check("has(a.other) ? a.other : 'none'", json!("none"));
}

#[test]
fn comprehensions() {
    check("a.words.filter(w, size(w) > 3)", json!(["pine"]));
    check("a.words.map(w, size(w))", json!([3, 3, 4]));
    check("a.l.map(x, x > 1, x * 10)", json!([20, 30]));
    check("a.l.all(x, x > 0) && a.l.exists(x, x == 3)", json!(true));
    check("a.l.exists_one(x, x > 2)", json!(true));
    check("a.l.exists_one(x, x > 1)", json!(false));
    check("{'b': 1, 'a': 2}.map(k, k + '!')", json!(["b!", "a!"]));
    check("[[1, 2], [3]].map(l, l.map(x, x + l[0]))", json!([[2, 3], [6]]));
    check("[1].map(x, [2].map(y, [3].map(z, x + y + z)))", json!([[[6]]]));
    check("[1].map(x, [2].map(x, x))", json!([[2]]));
    check("[1].map(a, a)", json!([1]));
    check("[{'size': 1}].map(x, x.size)", json!([1]));
    check("[].all(x, x)", json!(true));
    check_error("a.s.map(x, x)", "a list or a map is needed");
    check_error("a.l.filter(x, x)", "a bool is needed");
}

#[test]
fn functions() {
    check("size('a🌳b') + size([1]) + {'a': 1}.size()", json!(5));
    check("int('42') + int(2.9) + int(-2.9) + int(1)", json!(43));
    check("double('1.5') + double(1)", json!(2.5));
    check("string(1) + string(2.5) + string(2.0) + string(true) + string('s')", json!("12.52trues"));
    check("bool('true') && !bool('0')", json!(true));
    check(
        "[1, 1.0, '', null, true, [], {}].map(x, type(x))",
        json!(["int", "double", "string", "null", "bool", "list", "map"]),
    );
    check("'fast'.matches('^f[a-z]+$') && matches('ab', 'b')", json!(true));
    check("'ab'.matches('a' + '.')", json!(true));
    check("a.s.contains('öß') && a.s.startsWith('gr') && a.s.endsWith('e')", json!(true));
    check("'aBß'.upperAscii() + 'ABÄ'.lowerAscii() + ' x '.trim() + 'äb'.reverse()", json!("ABßabÄxbä"));
    check("'größe'.charAt(2) + 'ab'.charAt(2)", json!("ö"));
    check("'größe'.substring(3) + 'größe'.substring(1, 3)", json!("ßerö"));
    check(
        "['hello'.indexOf('l'), 'hello'.lastIndexOf('l'), 'hello'.indexOf('l', 3), 'hello'.indexOf('z')]",
        json!([2, 3, 3, -1]),
    );
    check("['hello'.lastIndexOf('l', 2), 'höl'.indexOf('l'), 'x'.indexOf('')]", json!([2, 2, 0]));
    check("'a-b-c'.replace('-', '+') + 'a-b-c'.replace('-', '', 1)", json!("a+b+cab-c"));
    check("'a,b,c'.split(',')", json!(["a", "b", "c"]));
    check("'a,b,c'.split(',', 2)", json!(["a", "b,c"]));
    check("'aß'.split('')", json!(["a", "ß"]));
    check("'a'.split(',', 0)", json!([]));
    check("['a', 'b'].join('-') + ['c'].join() + [].join(',')", json!("a-bc"));
    check("dyn(1) == 1", json!(true));
    check_error("int('4x')", "not an integer");
    check_error("int(1e19)", "64 bits");
    check_error("double('nan')", "not a number");
    check_error("bool('maybe')", "neither");
    check_error("size(dyn(1))", "`size` cannot be called with (int)");
    check_error("'a'.substring(2)", "`substring`");
    check_error("'a'.substring(-1)", "below zero");
    check_error("['a', dyn(1)].join()", "index 1 is of type int");
    check_error("'a'.matches('(' + '')", "pattern");
    check_error("string(a.l)", "`string`");
}

#[test]
fn precedence_and_names() {
    check("1 + 2 == 3 && 2 < 3 || false", json!(true));
    check("!true == false", json!(true));
    check("2 * 3 % 4", json!(2));
    check("-1 + 2", json!(1));
    check("-a.l[0] + 3", json!(2));
    check("1 in [1] == true", json!(true));
    check("{'in': 1, 'for': 2}.for", json!(2));
}

#[test]
fn mistakes_of_the_form() {
    check_syntax("params.depth = 3", "=", "did you mean `==`");
    check_syntax("params.fast & params.depth > 2", "&", "did you mean `&&`");
    check_syntax("params.fast | params.slow", "|", "`||`");
    check_syntax("(params.depth > 2 && params.fast", "(", "`)` expected");
    check_syntax("a and b", "and", "`&&`");
    check_syntax("not a", "not", "`!`");
    check_syntax("[1, 2", "[", "`]`");
    check_syntax("f(1", "(", "`)`");
    check_syntax("1 +", "", "ends here");
    check_syntax("", "", "empty");
    check_syntax("   ", "   ", "empty");
    check_syntax("a.", "", "field");
    check_syntax("a.1", ".1", "unexpected");
    check_syntax("a ? b", "", "`:`");
    check_syntax("'abc", "'abc", "closed");
    check_syntax("for", "for", "reserved");
    check_syntax("1 2", "2", "unexpected");
    check_syntax(")", ")", "a value expected");
    check_syntax("a == $b", "$", "unexpected");
    check_syntax("{{ params.x }}", "{{", "without");
    check_syntax("9223372036854775808", "9223372036854775808", "64 bits");
    check_syntax("siez(a)", "siez", "did you mean `size`");
    check_syntax("a.startswith('x')", "startswith", "did you mean `startsWith`");
    check_syntax("size(a, b)", "size", "takes 1");
    check_syntax("a.contains()", "contains", "takes 1");
    check_syntax("trim(a)", "trim", "value.trim");
    check_syntax("a.int()", "int", "int(value)");
    check_syntax("a.map(x)", "map", "list.map(x");
    check_syntax("a.all(1, true)", "all", "list.all(x");
    check_syntax("has(a)", "a", "one field");
    check_syntax("a.matches('(')", "'('", "regular expression");
    check_syntax("größe > 1", "ö", "unexpected");
}

#[test]
fn mistakes_of_names_and_types() {
    check_types("params.question > 3", &[("params.question > 3", "type string with one of type int")]);
    check_types("size(3) > 0", &[("3", "this is of type int")]);
    check_types("\"a\" + 1 == \"a1\"", &[("\"a\" + 1", "type string and one of type int")]);
    check_types("params.dept > 2", &[("dept", "did you mean `depth`")]);
    check_types("params['dept'] > 2", &[("'dept'", "did you mean `depth`")]);
    check_types("evidense.status == 'x' && param.depth == 1", &[("evidense", "not a name"), ("param", "`params`")]);
    check_types("page.outputs.bdy == page.staus", &[("bdy", "no key"), ("staus", "did you mean `status`")]);
    check_types("params.depth && true", &[("params.depth", "needs a bool")]);
    check_types("!params.depth", &[("params.depth", "needs a bool")]);
    check_types("params.depth + 1.5", &[("params.depth + 1.5", "int and one of type double")]);
    check_types("params.question == 3", &[("params.question == 3", "never equal")]);
    check_types("3 in params.tags", &[("3 in params.tags", "`in`")]);
    check_types("params.tags.map(t, t + 1)", &[("t + 1", "string")]);
    check_types("params.depth.all(x, true)", &[("params.depth", "type int")]);
    check_types("params.question.foo", &[("foo", "type string")]);
    check_types("params.tags.first", &[("first", "index")]);
    check_types("params.fast ? 1 : params.x", &[("x", "no key")]);
    check_types("params.depth ? 1 : 2", &[("params.depth", "bool")]);
    check_types("-params.question", &[("params.question", "needs a number")]);
    check_types("1.5 % 2.0", &[("1.5 % 2.0", "double")]);
    check_types("nope + 1 > 'a'", &[("nope", "not a name"), ("nope + 1 > 'a'", "int")]);
    check_types("nope.x.y > 1 && nope2", &[("nope", ""), ("nope2", "")]);
    check_types("scan.outputs.files.exists(file, file.size > 1024)", &[]);
    check_types("params.question.startsWith(1)", &[("1", "a string")]);
    check_types("has(page.outputs.bdy)", &[("bdy", "no key")]);
}

#[test]
fn types_of_expressions() {
    check_type("params.depth >= 2 && params.depth < 10 || params.fast", &Type::Bool);
    check_type("params.ratio >= 0.25 && params.ratio < 1", &Type::Bool);
    check_type("'urgent' in params.tags || size(params.tags) == 0", &Type::Bool);
    check_type("page.outputs.status / 100 == 2", &Type::Bool);
    check_type("params.depth * 2 + 1", &Type::Int);
    check_type("scan.outputs.n * 2", &Type::Int);
    check_type("scan.outputs[\"odd key\"][0].name != null", &Type::Bool);
    check_type("has(scan.outputs.summary) && scan.outputs.summary.total > 0", &Type::Bool);
    check_type("params.fast ? 1 : 'x'", &Type::Any);
    check_type("params.fast ? 1 : 2", &Type::Int);
    check_type("params.tags.filter(t, t != '')", &Type::list(Type::String));
    check_type("params.tags.map(t, size(t))", &Type::list(Type::Int));
    check_type("scan.outputs.map(f, f.name)", &Type::list(Type::Any));
    check_type("env.HOME + '/x'", &Type::String);
    check_type("scan.exit_code == 0 && !scan.stderr.contains(\"warning: nope.outputs #1\")", &Type::Bool);
    check_type("{'a': 1, 'b': [1, 2]}.b", &Type::list(Type::Int));
    check_type("params.any", &Type::Any);
    check_type("dyn(params.question) > 3", &Type::Bool);
    check_type("[1, 'a']", &Type::list(Type::Any));
}

#[test]
fn references_have_their_places() {
    let check = |source: &str, expect: &[&str]| {
        let found: Vec<String> = parsed(source)
            .references()
            .iter()
            .map(|reference| {
                for segment in &reference.segments {
                    assert!(source[segment.range.clone()].contains(&segment.name), "{source}: {segment:?}");
                }
                let names: Vec<&str> = reference.segments.iter().map(|segment| segment.name.as_str()).collect();
                names.join("/")
            })
            .collect();
        assert_eq!(found, expect, "{source}");
    };
    check("a.outputs.b + c", &["a/outputs/b", "c"]);
    check("a.outputs[\"odd key\"][0].name", &["a/outputs/odd key"]);
    check("a.outputs[b.c].d", &["a/outputs", "b/c"]);
    check("x.y.size() > size(z)", &["x/y", "z"]);
    check("l.m.exists(v, v.x == w.x && v.all(l, l))", &["l/m", "w/x"]);
    check("'nope.outputs #1' == a.stderr", &["a/stderr"]);
    check("has(a.b) ? a.b : {'k': c.d}.k", &["a/b", "a/b", "c/d"]);
    check("1 + 2", &[]);
    let found = parsed("ab . cd").references();
    let ranges: Vec<_> = found.iter().flat_map(|found| &found.segments).map(|segment| segment.range.clone()).collect();
    assert_eq!(ranges, [0..2, 5..7]);
}

#[test]
fn constants() {
    assert_eq!(parsed("1 > 2").constant(), Some(json!(false)));
    assert_eq!(parsed("[1].map(x, x + 1)").constant(), Some(json!([2])));
    assert_eq!(parsed("a > 2").constant(), None);
    assert_eq!(parsed("1 / 0").constant(), None);
    assert_eq!(parsed("true || a").constant(), None);
}

#[test]
fn hostile_texts_get_an_answer() {
    let many = 10_000;
    let refused = |source: String| assert!(Expression::parse(&source).is_err(), "{}", &source[..20]);
    refused(format!("{}true{}", "(".repeat(many), ")".repeat(many)));
    refused("(".repeat(many));
    refused("[".repeat(many));
    refused("!".repeat(many) + "true");
    refused("-".repeat(many) + "a");
    refused("a[".repeat(many));
    refused("{'a':".repeat(many));
    refused("a?".repeat(many));
    refused("a?b:".repeat(many));
    refused("a.map(x,".repeat(many / 2));
    refused("a+".repeat(many) + "a");
    refused(format!("a{}", ".b".repeat(many)));
    refused("a".repeat(70_000));
    check(&format!("{}true{}", "(".repeat(47), ")".repeat(47)), json!(true));
    check(&format!("{}1{}", "[1].map(x, ".repeat(47), ")[0]".repeat(47)), json!(1));
    check(&format!("{}1{}", "{'a': ".repeat(47), "}.a".repeat(47)), json!(1));
    check(&format!("{}true", "false || ".repeat(5_000)), json!(true));
    check(&format!("0{}", " + 1".repeat(200)), json!(200));
    check_types(&format!("'0'{}", " + 'x'".repeat(200)), &[]);
}

#[test]
fn work_and_data_are_bounded() {
    let list = |name: &str| {
        let mut names = names();
        names.insert(name.to_owned(), Value::Array(vec![Value::from(1); 200]));
        names.insert("text".to_owned(), Value::String("x".repeat(1 << 20)));
        names
    };
    let check = |source: &str, expect: &str| match parsed(source).evaluate(&list("l")) {
        Err(error) if error.message.contains(expect) => {}
        other => panic!("{source}: {:?} lacks {expect}", other.map(|_| "a value")),
    };
    check("l.map(x, l.map(y, l.map(z, x + y + z)))", "does too much work");
    check("l.all(x, l.all(y, l.all(z, x == y)))", "does too much work");
    check("l.exists(x, l.all(y, l.all(z, x == y)) && false) || true", "does too much work");
    check("l.map(x, text)", "too much data");
    check("l.map(x, l.map(y, l))", "too much data");
    check("size(text.replace('x', text))", "too much data");
    check("l.all(x, l.all(y, text == text))", "does too much work");
    check("l.all(x, l.all(y, !'a'.matches('b' + string(x))))", "does too much work");
}

/// A root whose large field is never made whole for a small question.
struct Step;

impl Fields for Step {
    fn field(&self, name: &str) -> Option<Cow<'_, Value>> {
        match name {
            "status" => Some(Cow::Owned(json!("succeeded"))),
            "outputs" => Some(Cow::Owned(json!({"n": 1}))),
            _ => None,
        }
    }

    fn field_names(&self) -> Vec<String> {
        vec!["outputs".to_owned(), "status".to_owned()]
    }
}

impl Names for Step {
    fn lookup(&self, root: &str) -> Option<Found<'_>> {
        (root == "fetch").then_some(Found::Fields(self))
    }
}

#[test]
fn fields_are_made_when_asked_for() {
    let check = |source: &str, expect: Result<Value, &str>| {
        let found = parsed(source).evaluate(&Step).map_err(|error| error.message);
        assert_eq!(found, expect.map_err(str::to_owned), "{source}");
    };
    check("fetch.status == 'succeeded'", Ok(json!(true)));
    check("fetch['outputs'].n", Ok(json!(1)));
    check("fetch", Ok(json!({"outputs": {"n": 1}, "status": "succeeded"})));
    check("size(fetch)", Ok(json!(2)));
    check("has(fetch.other)", Ok(json!(false)));
    check("fetch.staus", Err("`fetch` has no key `staus`: did you mean `status`?"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_panic(source in "\\PC{0,40}") {
        let _ = Expression::parse(&source);
    }

    #[test]
    fn any_expression_is_evaluated_without_panic(parts in proptest::collection::vec(proptest::sample::select(vec![
        "a", "a.m", "a.l", "a.s", "a.n", "a.r", "a.nothing", "min", "max", " + ", " - ", " * ", " / ", " % ", " == ", " < ", " in ",
        " && ", " || ", "!", "-", "(", ")", "[", "]", "{", "}", ":", " ? ", ",", "'s'", "0", "1.5", "9223372036854775807", ".map(x, ",
        ".exists(x, ", ".filter(x, ", "x", "size(", "int(", "string(", ".split(", ".replace('a', ", ".substring(", ".lastIndexOf('e', ",
        "has(", ".x", ".y", "null", "true",
    ]), 0..12)) {
        let source = parts.concat();
        if let Ok(expression) = Expression::parse(&source) {
            let _ = expression.check(&Types);
            let _ = expression.evaluate(&names());
            let _ = expression.constant();
            for reference in expression.references() {
                proptest::prop_assert!(source.get(reference.segments[0].range.clone()) == Some(reference.root()));
            }
        }
    }
}
