//! Holds what the binary is built from to `deny.toml`: licences, banned crates and sources.
//!
//! It reads the same file as cargo-deny, offline, and the part of it that is about what is here already; advisories
//! need cargo-deny itself and a network.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::{check_none, read, root};

/// The texts of a list in deny.toml: `key = ["a", "b"]` in a section, over as many lines as it takes.
fn list(section: &str, key: &str) -> BTreeSet<String> {
    let text = read("deny.toml");
    let body = text.split_once(&format!("[{section}]\n")).unwrap_or_else(|| panic!("deny.toml has no [{section}]")).1;
    let body = body.split("\n[").next().unwrap_or_default();
    let start = body.find(&format!("{key} = [")).unwrap_or_else(|| panic!("[{section}] has no {key}"));
    let items = body[start..].split_once('[').expect("a list opens").1.split_once(']').expect("a list closes").0;
    let lines = items.lines().map(|line| line.split('#').next().unwrap_or_default());
    let texts: Vec<String> =
        lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect();
    texts.into_iter().collect()
}

/// The packages that a build for this machine is made of, `name v1.2.3`, each with its licence expression.
fn packages() -> BTreeSet<(String, String)> {
    let arguments = ["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}\t{l}"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo starts");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo speaks UTF-8");
    let rows = text.lines().filter_map(|line| line.split_once('\t'));
    rows.map(|(name, licence)| {
        let name: Vec<&str> = name.split(' ').take(2).collect();
        (name.join(" "), licence.trim_end_matches("(*)").trim().to_owned())
    })
    .collect()
}

/// True if a licence expression can be met with allowed licences alone.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words: Vec<&str> = spaced.split_whitespace().collect();
    words.reverse();
    let verdict = either(&mut words, allowed);
    verdict && words.is_empty()
}

fn either(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let mut verdict = both(words, allowed);
    while words.last() == Some(&"OR") {
        words.pop();
        verdict |= both(words, allowed);
    }
    verdict
}

fn both(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let mut verdict = one(words, allowed);
    while words.last() == Some(&"AND") {
        words.pop();
        verdict &= one(words, allowed);
    }
    verdict
}

fn one(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    match words.pop() {
        Some("(") => {
            let verdict = either(words, allowed);
            words.pop() == Some(")") && verdict
        }
        Some(licence) if words.last() == Some(&"WITH") => {
            words.pop();
            let exception = words.pop().unwrap_or_default();
            allowed.contains(licence) || allowed.contains(&format!("{licence} WITH {exception}"))
        }
        Some(licence) => allowed.contains(licence),
        None => false,
    }
}

#[test]
fn everything_may_be_used() {
    let allowed = list("licenses", "allow");
    let banned = list("bans", "deny");
    let mut findings = Vec::new();
    let packages = packages();
    assert!(packages.len() > 50, "cargo tree names {} packages only", packages.len());
    for (package, licence) in &packages {
        if !is_allowed(licence, &allowed) {
            findings.push(format!("{package}: its licence `{licence}` is not on the list"));
        }
        if package.split(' ').next().is_some_and(|name| banned.contains(name)) {
            findings.push(format!("{package}: it is banned"));
        }
    }
    check_none(&findings, "deny.toml says what may be built in");
}

#[test]
fn everything_comes_from_a_known_place() {
    let known = list("sources", "allow-registry");
    let lock = read("Cargo.lock");
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = \"")?.strip_suffix('"'));
    let findings: BTreeSet<String> = sources
        .filter(|source| !source.strip_prefix("registry+").is_some_and(|registry| known.contains(registry)))
        .map(str::to_owned)
        .collect();
    check_none(&findings.into_iter().collect::<Vec<_>>(), "deny.toml says where packages may come from");
}

#[test]
fn expressions_are_read() {
    let allowed: BTreeSet<String> = ["MIT", "ISC", "BSD-3-Clause"].map(str::to_owned).into();
    for (expression, expect) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND (GPL-3.0 OR BSD-3-Clause)", true),
        ("(ISC AND GPL-3.0) OR (MIT AND ISC)", true),
        ("MIT WITH some-exception", true),
        ("MIT ISC", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expect, "{expression}");
    }
}
