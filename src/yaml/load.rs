//! From text to tree: the limits, the parser's events one by one, and what is wrong with the file as a whole.
//!
//! The tree itself grows in `build`; the words for a syntax error are in `syntax`.

use granit_parser::Parser;

use super::build::Builder;
use super::syntax;
use super::{Node, codes};
use crate::diagnostic::{Diagnostic, FileId, Span};

/// How much a file may ask for before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The size of the text, in bytes.
    pub max_bytes: usize,
    /// How many lists and mappings may stand within each other.
    pub max_depth: usize,
    /// How many nodes all aliases together may expand to.
    pub max_alias_nodes: usize,
    /// How many nodes the whole tree may have, copies that aliases make included.
    pub max_nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A pipeline of 100,000 steps has 6 MB and half a million nodes; the bounds leave room above that and keep
        // the worst file below a gigabyte of memory.
        Self { max_bytes: 16 << 20, max_depth: 128, max_alias_nodes: 100_000, max_nodes: 4_000_000 }
    }
}

/// Reads one YAML document.
///
/// The tree is there unless the syntax is broken, a limit is passed or the file is empty. Next to a tree there can
/// still be diagnostics: what could not be understood (an alias of nothing, a list as a key) is left out of the tree
/// or is null in it.
pub fn load(file: FileId, text: &str, limits: &Limits) -> (Option<Node>, Vec<Diagnostic>) {
    if let Some(refused) = refuse(file, text, limits) {
        return (None, vec![refused]);
    }
    let mut builder = Builder::new(file, text, limits);
    let mut options = granit_parser::options! {
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        flow_nesting_limit: limits.max_depth,
        block_nesting_limit: limits.max_depth,
    };
    options.set_emit_comments(false);
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => {
                if builder.take(event, &span).is_break() {
                    break;
                }
            }
            Err(error) => {
                let trouble = syntax::explain(file, text, &error, &builder.context(), limits);
                builder.fail(trouble);
                break;
            }
        }
    }
    builder.finish()
}

/// What makes a text unfit to be parsed at all.
fn refuse(file: FileId, text: &str, limits: &Limits) -> Option<Diagnostic> {
    if text.len() > limits.max_bytes {
        let message = format!("the file has {} bytes, more than the {} that are read", text.len(), limits.max_bytes);
        let whole = Span { file, start: 0, end: 0 };
        return Some(
            Diagnostic::error(codes::TOO_LARGE, whole, message).help("split it, or keep the data in a file of its own"),
        );
    }
    let is_control = |byte: u8| (byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r')) || byte == 0x7f;
    let start = text.bytes().position(is_control)?;
    let byte = text.as_bytes().get(start).copied().unwrap_or_default();
    Some(control_character(file, start, char::from(byte)))
}

/// The diagnostic for a character that YAML does not allow.
pub(super) fn control_character(file: FileId, start: usize, character: char) -> Diagnostic {
    let name = if character == '\0' { " (NUL)" } else { "" };
    let message = format!("control character U+{:04X}{name} cannot stand in YAML", u32::from(character));
    let span = span(file, start, start + character.len_utf8());
    let escape = if u32::from(character) < 0x100 {
        format!("\\x{:02x}", u32::from(character))
    } else {
        format!("\\u{:04x}", u32::from(character))
    };
    Diagnostic::error(codes::CONTROL_CHARACTER, span, message)
        .help(format!("delete it, or write it as \"{escape}\" in double quotes"))
}

/// A span of byte offsets; the size limit keeps them within 32 bits.
pub(super) fn span(file: FileId, start: usize, end: usize) -> Span {
    let narrow = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    Span { file, start: narrow(start), end: narrow(end.max(start)) }
}

#[cfg(test)]
mod tests {
    use super::{Limits, load};
    use crate::diagnostic::{FileId, Files, Span};
    use crate::yaml::{Node, Yaml};

    fn read(text: &str) -> (Option<Node>, Vec<String>) {
        read_within(text, &Limits::default())
    }

    /// The tree and the diagnostics as `CODE line:column-end_line:end_column`.
    fn read_within(text: &str, limits: &Limits) -> (Option<Node>, Vec<String>) {
        let mut files = Files::default();
        let file = files.add("a.yaml", text.into());
        let (node, diagnostics) = load(file, text, limits);
        let said = diagnostics
            .iter()
            .map(|one| {
                let place = files.place(one.span);
                assert!(one.help.is_some(), "{} says what to do", one.code);
                format!("{} {}:{}-{}:{}", one.code, place.line, place.column, place.end_line, place.end_column)
            })
            .collect();
        (node, said)
    }

    /// The tree as JSON and nothing wrong.
    fn check(text: &str, expect: serde_json::Value) {
        let (node, said) = read(text);
        assert_eq!(said, Vec::<String>::new(), "for {text:?}");
        assert_eq!(node.map(|node| node.to_json()), Some(expect), "for {text:?}");
    }

    /// Exactly these diagnostics.
    fn check_wrong(text: &str, expect: &[&str]) {
        assert_eq!(read(text).1, expect, "for {text:?}");
    }

    /// The text under a node's or key's span.
    fn slice(text: &str, span: Span) -> &str {
        &text[span.start as usize..span.end as usize]
    }

    #[test]
    fn reads_maps_lists_and_scalars() {
        check("a: 1\nb: [x, {c: no}]\n", serde_json::json!({"a": 1, "b": ["x", {"c": "no"}]}));
        check("- 014\n- '014'\n- ~\n-\n", serde_json::json!([14, "014", null, null]));
        check("1: a\ntrue: b\n~: c\n1.5: d\n", serde_json::json!({"1": "a", "true": "b", "~": "c", "1.5": "d"}));
        check(
            "a: !!str 12\nb: !!int \"12\"\nc: ! 3\nd: !!float 3\n",
            serde_json::json!({"a": "12", "b": 12, "c": "3", "d": 3.0}),
        );
        check("\u{feff}a: |\r\n  x\r\n  y\r\n", serde_json::json!({"a": "x\ny\n"}));
        check("--- # first\na: {b, c: }\n...\n", serde_json::json!({"a": {"b": null, "c": null}}));
    }

    #[test]
    fn gives_exact_spans() {
        let text = "\u{feff}größe: '🎉'  # c\r\nlist:\r\n- a: b\r\n  c: |2-\r\n      x\r\n\r\nflow: [1, {k: v} ]\r\nnull_value:\r\n";
        let (node, said) = read(text);
        assert_eq!(said, Vec::<String>::new());
        let node = node.expect("a tree");
        let keys: Vec<&str> = node.entries().iter().map(|entry| slice(text, entry.key_span)).collect();
        assert_eq!(keys, ["größe", "list", "flow", "null_value"]);
        let values: Vec<&str> = node.entries().iter().map(|entry| slice(text, entry.node.span)).collect();
        assert_eq!(values, ["'🎉'", "- a: b\r\n  c: |2-\r\n      x", "[1, {k: v} ]", ""]);
        let item = &node.get("list").expect("list").items()[0];
        assert_eq!(slice(text, item.span), "a: b\r\n  c: |2-\r\n      x");
        assert_eq!(item.get("c").expect("c").as_str(), Some("  x"));
        assert_eq!(slice(text, node.span), text.trim_start_matches('\u{feff}').trim_end_matches(":\r\n"));
    }

    #[test]
    fn merges() {
        let base = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\n";
        let get = |rest: &str| {
            let (node, said) = read(&format!("{base}{rest}"));
            assert_eq!(said, Vec::<String>::new());
            node.expect("a tree").get("c").expect("c").to_json().to_string()
        };
        assert_eq!(get("c:\n  <<: *a\n  y: 5\n"), r#"{"x":1,"y":5}"#);
        assert_eq!(get("c:\n  y: 5\n  <<: [*a, *b]\n"), r#"{"y":5,"x":1,"z":4}"#);
        assert_eq!(get("c:\n  <<: [*b, *a]\n"), r#"{"y":3,"z":4,"x":1}"#);
        assert_eq!(get("c:\n  <<: {q: 1}\n"), r#"{"q":1}"#);
        assert_eq!(get("c:\n  \"<<\": 1\n"), r#"{"<<":1}"#);
        assert_eq!(get("c: *a\n"), r#"{"x":1,"y":2}"#);
        assert_eq!(get("c:\n  &k key: &v v\n  *v : *k\n"), r#"{"key":"v","v":"key"}"#);
        check_wrong("a:\n  <<: 1\n", &["TOL0010 2:7-2:8"]);
        check_wrong("a:\n  <<: [1]\n", &["TOL0010 2:7-2:10"]);
        check_wrong("a: &a {}\nb:\n  <<: *a\n  <<: *a\n", &["TOL0005 4:3-4:5"]);
    }

    #[test]
    fn finds_what_is_wrong_with_keys() {
        check_wrong("a: 1\nb: 2\na: 3\n", &["TOL0005 3:1-3:2"]);
        let (node, _) = read("a: 1\na: 3\n");
        assert_eq!(node.map(|node| node.to_json()), Some(serde_json::json!({"a": 1})));
        let many: String = (0..40).map(|i| format!("k{i}: 1\n")).collect();
        check_wrong(&format!("{many}k3: 2\nk39: 2\n"), &["TOL0005 41:1-41:3", "TOL0005 42:1-42:4"]);
        check_wrong("? [a, b]\n: c\nd: e\n", &["TOL0009 1:3-1:9"]);
        check_wrong("{{a: b}: c}: d\n", &["TOL0017 1:1-1:12"]);
        check_wrong(": a\n", &["TOL0009 1:1-1:1"]);
    }

    #[test]
    fn finds_what_is_wrong_with_aliases_and_tags() {
        check_wrong("a: &patient 1\nb: *patent\n", &["TOL0006 2:4-2:11"]);
        check_wrong("a: &a [*a]\n", &["TOL0007 1:8-1:10"]);
        check_wrong("a: *.txt\n", &["TOL0006 1:4-1:9"]);
        check_wrong("a: !thing x\n", &["TOL0011 1:4-1:10"]);
        check_wrong("a: !!int x\n", &["TOL0011 1:10-1:11"]);
        check_wrong("a: !!map [x]\n", &["TOL0011 1:10-1:11"]);
    }

    #[test]
    fn finds_what_is_wrong_with_the_file() {
        check_wrong("", &["TOL0003 1:1-1:1"]);
        check_wrong("# nothing\n", &["TOL0003 1:1-1:1"]);
        check_wrong("---\n", &["TOL0003 1:1-1:1"]);
        check_wrong("a: 1\n--- {b: 2}\n", &["TOL0004 2:1-2:4"]);
        check_wrong("a: nul \0 here\n", &["TOL0015 1:8-1:9"]);
        check_wrong("a: \"\u{85}\u{9b}\"\n", &["TOL0015 1:6-1:7"]);
        check_wrong("a: b\n# \u{1b}[0m\n", &["TOL0015 2:3-2:4"]);
    }

    #[test]
    fn explains_syntax_errors() {
        check_wrong("a: first: second # c\n", &["TOL0018 1:4-1:17"]);
        check_wrong("steps:\n\t- id: a\n\t  run: x\n", &["TOL0016 2:1-2:2"]);
        check_wrong("steps:\n  - id: a\n\t  run: x\n", &["TOL0016 3:1-3:2"]);
        check_wrong("h:\n  url: {{ params.url }}\n", &["TOL0017 2:8-2:24"]);
        check_wrong("h:\n  url: {{{ params.url }}}\n", &["TOL0017 2:8-2:26"]);
        check_wrong("h:\n  url: {{ params.url }}/path # c\n", &["TOL0017 2:8-2:29"]);
        check_wrong("h: [a, {{ b }}]\n", &["TOL0017 1:8-1:15"]);
        check_wrong("h: {{ f \"x\" }}\n", &["TOL0017 1:4-1:15"]);
        check_wrong("a: \"x\nb: c\n", &["TOL0002 1:4-1:5"]);
        check_wrong("a: 'x\n", &["TOL0002 1:4-1:5"]);
        check_wrong("a: [1, 2\nb: c\n", &["TOL0002 1:4-1:5"]);
        check_wrong("a: [1, 2\n", &["TOL0002 1:4-1:5"]);
        check_wrong("a: {b: 1\n", &["TOL0002 1:4-1:5"]);
        check_wrong("a: [1, 2}\n", &["TOL0002 1:4-1:5"]);
        check_wrong("a: \"b\" c\n", &["TOL0002 1:8-1:9"]);
        check_wrong("a: @b\n", &["TOL0002 1:4-1:6"]);
        check_wrong("a: \"\\d\"\n", &["TOL0002 1:5-1:7"]);
        check_wrong("a: 1\nb\nc: 2\n", &["TOL0002 2:1-2:2"]);
        check_wrong("a:\n  b: 1\n c: 2\n", &["TOL0002 3:2-3:4"]);
        check_wrong("a: 1\n  b: 2\n", &["TOL0002 2:3-2:4"]);
        check_wrong("- id:a\n  run: x\n", &["TOL0002 1:3-1:6"]);
        check_wrong("a: - b\n", &["TOL0002 1:4-1:5"]);
    }

    #[test]
    fn a_template_without_quotes_is_taken_as_text() {
        let (node, _) = read("url: {{ params.url }}\nb: 1\n");
        let expect = serde_json::json!({"url": "{{ params.url }}", "b": 1});
        assert_eq!(node.map(|node| node.to_json()), Some(expect));
    }

    #[test]
    fn survives_depth() {
        for (open, close) in [("[", "]"), ("{a: ", "}"), ("{", "}"), ("- ", ""), ("? ", ""), ("[{a: ", "")] {
            let text = format!("{}x{}", open.repeat(100_000), close.repeat(100_000));
            let (node, said) = read(&text);
            assert_eq!((node, said.len()), (None, 1), "for {open:?}");
            assert!(said[0].starts_with("TOL0013"), "{said:?}");
        }
        let nested: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(read(&nested).1[0].starts_with("TOL0013"));
        let mixed = format!("a:\n{}", (0..90).map(|depth| format!("{}- [[\n", " ".repeat(depth))).collect::<String>());
        assert_eq!(read(&mixed).1.len(), 1);
    }

    #[test]
    fn bounds_aliases() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            bomb += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        let (node, said) = read(&bomb);
        assert_eq!((node, said.len()), (None, 1));
        assert!(said[0].starts_with("TOL0008"), "{said:?}");
        let mut chain = "- &a0 [x]\n".to_owned();
        for level in 1..2000 {
            chain += &format!("- &a{level} [*a{}]\n", level - 1);
        }
        assert!(read(&chain).1[0].starts_with("TOL0013"));
        let limits = Limits { max_nodes: 10, ..Limits::default() };
        assert!(read_within("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]", &limits).1[0].starts_with("TOL0014"));
        let limits = Limits { max_bytes: 10, ..Limits::default() };
        assert_eq!(read_within("a: 123456789", &limits).1, ["TOL0012 1:1-1:1"]);
    }

    #[test]
    fn never_panics() {
        let parts = [
            "a: ", "- ", "\n", "  ", "[", "]", "{", "}", "{{ x }}", "&a ", "*a", "<<: ", "|", ">-\n", "'", "\"", "\\",
            "\t", "#", "!x ", "é", "🎉", "\r\n", "? ", ": ", ",", "---", "%", "~",
        ];
        // A fixed linear congruence gives the same many texts in every run.
        let mut seed: u64 = 1;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(parts[(seed >> 33) as usize % parts.len()]);
            }
            let (node, diagnostics) = load(FileId(0), &text, &Limits::default());
            assert!(node.is_some() || !diagnostics.is_empty(), "{text:?}");
            for one in &diagnostics {
                let range = one.span.start as usize..one.span.end as usize;
                assert!(text.get(range).is_some(), "{text:?} {one:?}");
            }
            visit(&text, node.as_ref());
        }
    }

    /// Every span lies in the text on character boundaries.
    fn visit(text: &str, node: Option<&Node>) {
        let Some(node) = node else { return };
        assert!(text.get(node.span.start as usize..node.span.end as usize).is_some(), "{text:?} {node:?}");
        if let Yaml::Map(entries) = &node.value {
            entries.iter().for_each(|entry| visit(text, Some(&entry.node)));
        }
        node.items().iter().for_each(|item| visit(text, Some(item)));
    }
}
