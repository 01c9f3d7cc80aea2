//! Holds the code to `docs/architecture.md`: which room may import which, what a pure room may not touch, and how a
//! file is laid out. The lists of exceptions here may only get shorter: one that is not needed any more is a failure.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, has_word, sources};
use crate::support::{check_none, read};

/// What no pure room may use, and why.
const BANNED_IN_PURE_ROOMS: [(&str, &str); 14] = [
    ("std::fs", "a pure room reads no file"),
    ("std::env", "a pure room reads no environment"),
    ("std::net", "a pure room has no sockets"),
    ("std::process", "a pure room starts nothing"),
    ("std::thread", "a pure room does not wait"),
    ("SystemTime", "time arrives inside events"),
    ("Instant", "time arrives inside events"),
    ("Timestamp::now", "time arrives inside events"),
    ("Zoned::now", "time arrives inside events"),
    ("tokio", "a pure room is not asynchronous"),
    ("async", "a pure room is not asynchronous"),
    ("rand", "random draws arrive inside events"),
    ("Uuid::new_v4", "random draws arrive inside events"),
    ("Uuid::now_v7", "time and random draws arrive inside events"),
];

/// What no room may use, and why.
const BANNED_EVERYWHERE: [(&str, &str); 7] = [
    ("super::super", "write the path from `crate::`"),
    ("todo!", "finish it, or leave it out"),
    ("unimplemented!", "finish it, or leave it out"),
    ("dbg!", "it is for trying things"),
    ("#[allow(", "write #[expect(…, reason = \"…\")]"),
    ("#![allow(", "write #![expect(…, reason = \"…\")]"),
    ("process::exit", "return an exit code: what is open must be closed"),
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 100;

/// Files that are too long today, with their length. They may shrink, not grow.
const LONG_FILES: [(&str, usize); 1] = [("src/expr/cel/parser.rs", 606)];
/// Functions that are too long today, with their length. They may shrink, not grow.
const LONG_FUNCTIONS: [(&str, usize); 0] = [];
/// Files named mod.rs that hold more than docs, `mod` and `use` today.
const FULL_MOD_FILES: [&str; 9] = [
    "src/cli/mod.rs",
    "src/diagnostic/mod.rs",
    "src/dispatch/mod.rs",
    "src/expr/cel/mod.rs",
    "src/expr/template/mod.rs",
    "src/graph/picture/mod.rs",
    "src/llm/mod.rs",
    "src/schema/mod.rs",
    "src/yaml/mod.rs",
];

/// A row of the table of rooms.
struct Room {
    may_import: BTreeSet<String>,
    is_pure: bool,
}

/// The table of rooms in docs/architecture.md: `| name | sentence | imports |`, the pure rooms above the row `—`.
fn rooms() -> (Vec<String>, BTreeMap<String, Room>) {
    let text = read("docs/architecture.md");
    let mut order: Vec<String> = Vec::new();
    let mut rooms = BTreeMap::new();
    let mut is_pure = true;
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if line.starts_with("| — |") {
            is_pure = false;
            continue;
        }
        let [name, _, imports] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let imports = imports.replace('`', "");
        let may_import = match imports.strip_prefix("all above but ").or_else(|| imports.strip_prefix("all")) {
            Some(but) => order.iter().filter(|room| *room != but.trim()).cloned().collect(),
            None => imports
                .split(',')
                .map(|room| room.trim().to_owned())
                .filter(|room| room.starts_with(char::is_alphabetic))
                .collect(),
        };
        rooms.insert(name.to_owned(), Room { may_import, is_pure });
        order.push(name.to_owned());
    }
    assert!(rooms.len() > 10 && !is_pure, "docs/architecture.md has no table of rooms with a line below the pure ones");
    (order, rooms)
}

#[test]
fn the_table_of_rooms_has_no_way_back() {
    let (order, rooms) = rooms();
    let mut findings = Vec::new();
    for (place, name) in order.iter().enumerate() {
        for import in &rooms[name].may_import {
            match order.iter().position(|room| room == import) {
                None => findings.push(format!("{name} may import {import}, which is no room")),
                Some(other) if other >= place => {
                    findings.push(format!("{name} may import {import}, which stands below it"))
                }
                Some(_) if rooms[name].is_pure && !rooms[import].is_pure => {
                    findings.push(format!("{name} is pure and may import {import}, which is not"));
                }
                Some(_) => {}
            }
        }
    }
    check_none(&findings, "docs/architecture.md: a room imports only from rooms above it");
}

#[test]
fn every_module_is_a_room() {
    let (_, rooms) = rooms();
    let modules: BTreeSet<String> = read("src/lib.rs")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
        .collect();
    let rooms: BTreeSet<String> = rooms.into_keys().collect();
    assert_eq!(modules, rooms, "src/lib.rs (left) and the table of docs/architecture.md (right) name the same rooms");
}

/// The rooms that a line names: `crate::id::RunId`, `crate::{id, time::Timestamp}`.
fn imports_of<'l>(line: &'l str, rest: &[(usize, &'l str)]) -> Vec<&'l str> {
    let name = |text: &'l str| {
        let end = text.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(text.len());
        &text[..end]
    };
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let after = &line[at + "crate::".len()..];
        let Some(inside) = after.strip_prefix('{') else {
            found.push(name(after));
            continue;
        };
        // In braces the rooms are the names at depth 0, over as many lines as it takes.
        let mut depth = 0;
        let mut at_start = true;
        'lines: for text in std::iter::once(inside).chain(rest.iter().map(|(_, line)| *line)) {
            for (at, character) in text.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break 'lines,
                    '}' => depth -= 1,
                    ',' if depth == 0 => at_start = true,
                    character if character.is_alphabetic() && at_start => {
                        found.push(name(&text[at..]));
                        at_start = false;
                    }
                    _ => {}
                }
            }
        }
    }
    found
}

#[test]
fn imports_run_one_way() {
    let (_, rooms) = rooms();
    let mut findings = Vec::new();
    for source in sources() {
        let Some(room) = rooms.get(&source.room) else { continue };
        let code = source.code();
        for (index, (number, line)) in code.iter().enumerate() {
            for import in imports_of(line, &code[index + 1..]) {
                if rooms.contains_key(import) && import != source.room && !room.may_import.contains(import) {
                    findings.push(format!("{}:{number}: `{}` may not import `{import}`", source.name(), source.room));
                }
            }
        }
    }
    check_none(&findings, "the table of rooms in docs/architecture.md says who may import whom");
}

#[test]
fn pure_rooms_stay_pure() {
    let (_, rooms) = rooms();
    let mut findings = Vec::new();
    for source in sources().iter().filter(|source| rooms.get(&source.room).is_some_and(|room| room.is_pure)) {
        findings.extend(words_in(source, &BANNED_IN_PURE_ROOMS));
    }
    check_none(&findings, "pure rooms decide; they do nothing");
}

#[test]
fn nothing_banned_is_used() {
    let findings: Vec<String> = sources().iter().flat_map(|source| words_in(source, &BANNED_EVERYWHERE)).collect();
    check_none(&findings, "banned everywhere");
}

fn words_in(source: &Source, banned: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in source.code() {
        for (word, reason) in banned {
            if has_word(&without_texts(line), word) {
                findings.push(format!("{}:{number}: `{word}`: {reason}", source.name()));
            }
        }
    }
    findings
}

/// The line without what stands in quotes: a message may speak of what code may not use.
fn without_texts(line: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if inside => drop(characters.next()),
            '"' => inside = !inside,
            _ if inside => {}
            _ => out.push(character),
        }
    }
    out
}

#[test]
fn every_file_says_what_it_owns() {
    let findings: Vec<String> =
        sources().iter().filter(|source| !source.text.starts_with("//! ")).map(Source::name).collect();
    check_none(&findings, "every file opens with `//!`: what it owns and what it leaves out");
}

#[test]
fn mod_files_hold_no_code() {
    let mut full = BTreeSet::new();
    for source in sources().iter().filter(|source| source.path.ends_with("mod.rs")) {
        let mut inside_use = false;
        for (_, line) in source.code() {
            let line = line.trim();
            let bare =
                line.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").trim_start_matches("pub ");
            let is_use = inside_use || bare.starts_with("use ");
            if !(line.is_empty()
                || line.starts_with("#[")
                || is_use
                || (bare.starts_with("mod ") && bare.ends_with(';')))
            {
                full.insert(source.name());
                break;
            }
            inside_use = is_use && !line.ends_with(';');
        }
    }
    let excepted: BTreeSet<String> = FULL_MOD_FILES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(full, excepted, "mod.rs holds docs, `mod` and `use` lines (left: what is; right: the exceptions)");
}

/// Compares what is too long with the exceptions: each is at most as long as it was, and still too long.
fn check_lengths(what: &str, max: usize, found: BTreeMap<String, usize>, exceptions: &[(&str, usize)]) {
    let mut findings = Vec::new();
    for (name, lines) in &found {
        let allowed = exceptions.iter().find(|(other, _)| other == name).map_or(max, |(_, allowed)| *allowed);
        if *lines > allowed {
            findings.push(format!("{name}: {lines} lines, more than {allowed}"));
        }
    }
    for (name, _) in exceptions.iter().filter(|(name, _)| found.get(*name).is_none_or(|lines| *lines <= max)) {
        findings.push(format!("{name} is short enough: take it off the exceptions"));
    }
    check_none(&findings, &format!("{what} have at most {max} lines"));
}

#[test]
fn files_are_short() {
    let lengths = sources().iter().map(|source| (source.name(), source.text.lines().count())).collect();
    check_lengths("files", FILE_LINES_MAX, lengths, &LONG_FILES);
}

#[test]
fn functions_are_short() {
    let mut lengths = BTreeMap::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else { continue };
            let closing = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let end = lines[start..].iter().position(|line| *line == closing || line.ends_with("{}"));
            let length = end.map_or(1, |end| end + 1);
            let is_single_line = line.ends_with('}') || line.ends_with(';');
            let entry: &mut usize = lengths.entry(format!("{} {name}", source.name())).or_default();
            *entry = (*entry).max(if is_single_line { 1 } else { length });
        }
    }
    check_lengths("functions", FUNCTION_LINES_MAX, lengths, &LONG_FUNCTIONS);
}

/// The name of the function that begins on this line.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for word in ["pub ", "pub(crate) ", "pub(super) ", "const ", "async "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

#[test]
fn imports_are_found() {
    assert_eq!(imports_of("use crate::id::RunId;", &[]), ["id"]);
    assert_eq!(imports_of("let x = crate::a_b::c(crate::d::E);", &[]), ["a_b", "d"]);
    assert_eq!(
        imports_of("use crate::{", &[(2, "    id::{A, B},"), (3, "    time,"), (4, "};"), (5, "x")]),
        ["id", "time"]
    );
}
