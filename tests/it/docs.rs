//! What the documentation shows is true: its pipelines are valid, its commands run, its findings are found.
//!
//! The rules, for README.md and every page below docs/:
//!
//! - A block whose first line is `# file: NAME` is a file. A ```` ```yaml ```` block that begins with `apiVersion` is the
//!   file `pipeline.yaml`. The files of one `##` section lie in one folder, and `tol validate` finds no error in them.
//! - A ```` ```sh ```` block runs in that folder, `sh -eu`, with `tol` in its PATH, and must exit with 0.
//! - ```` ```yaml fragment ````, ```` ```sh build ```` and ```` ```text ```` are only shown.
//! - On a page of docs/errors, a ```` ```yaml error ```` block yields exactly the code of the page, and the first
//!   ```` ```text ```` block after it is what `tol validate` prints. Set TOL_UPDATE_DOCS=1 to write what it prints there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::source::sources;
use crate::support::{Project, check_none, files_below, read, root};

/// A fenced block of a page.
#[derive(Debug)]
struct Block {
    /// The line of its fence, from 1.
    line: usize,
    /// What stands after the opening fence: `yaml error`.
    info: String,
    text: String,
}

impl Block {
    /// The name and text of the file that it is, if it is one.
    fn file(&self) -> Option<(String, &str)> {
        if self.info.ends_with("fragment") || self.info == "text" {
            return None;
        }
        let (first, _) = self.text.split_once('\n').unwrap_or((&self.text, ""));
        if let Some(name) = first.strip_prefix("# file: ") {
            return Some((name.trim().to_owned(), &self.text));
        }
        let is_pipeline =
            self.text.lines().find(|line| !line.starts_with('#')).is_some_and(|line| line.starts_with("apiVersion"));
        (self.info.starts_with("yaml") && is_pipeline).then(|| ("pipeline.yaml".to_owned(), &*self.text))
    }
}

/// The blocks of a page, cut at its `##` headings.
fn sections(text: &str) -> Vec<Vec<Block>> {
    let mut sections = vec![Vec::new()];
    let mut open: Option<(String, Block)> = None;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        match &mut open {
            Some((fence, _)) if trimmed.trim_end() == fence => {
                let (_, block) = open.take().expect("a block is open");
                sections.last_mut().expect("there is a section").push(block);
            }
            Some((_, block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            None if trimmed.starts_with("```") => {
                let info = trimmed.trim_start_matches('`');
                let fence = trimmed[..trimmed.len() - info.len()].to_owned();
                open = Some((fence, Block { line: index + 1, info: info.trim().to_owned(), text: String::new() }));
            }
            None if line.starts_with("## ") => sections.push(Vec::new()),
            None => {}
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    sections
}

fn pages() -> Vec<PathBuf> {
    let mut pages = files_below("docs", "md");
    pages.push(PathBuf::from("README.md"));
    pages
}

fn is_error_page(page: &Path) -> bool {
    code_of(page).is_some()
}

/// The code that a page of docs/errors is named for.
fn code_of(page: &Path) -> Option<String> {
    let name = page.file_stem()?.to_str()?;
    (page.starts_with("docs/errors") && name.starts_with("TOL")).then(|| name.to_owned())
}

#[test]
fn what_the_pages_show_works() {
    let mut findings = Vec::new();
    let mut checked = 0;
    for page in pages().iter().filter(|page| !is_error_page(page)) {
        for section in sections(&read(page)) {
            checked += check_section(page, &section, &mut findings);
        }
    }
    check_none(&findings, "what the pages show must work");
    assert!(checked > 0, "nothing was checked");
}

/// Checks the blocks of a section and gives how many there were to check.
fn check_section(page: &Path, section: &[Block], findings: &mut Vec<String>) -> usize {
    let files: Vec<(String, &str)> = section.iter().filter_map(Block::file).collect();
    let scripts: Vec<&Block> = section.iter().filter(|block| block.info == "sh" && block.file().is_none()).collect();
    if files.is_empty() && scripts.is_empty() {
        return 0;
    }
    let project = Project::new(&files.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>());
    let place = |block: &Block| format!("{}:{}", page.display(), block.line);
    let first = section.iter().find(|block| block.file().is_some());
    if let Some(first) = first.filter(|_| files.iter().any(|(name, _)| name.ends_with(".yaml"))) {
        let ran = project.tol(&["validate", "."]);
        if ran.code != Some(0) {
            findings.push(format!("{}: the files of this section are not valid: {}", place(first), ran.said()));
        }
    }
    for block in &scripts {
        let ran = project.sh(&block.text);
        if ran.code != Some(0) {
            findings.push(format!("{}: {}", place(block), ran.said()));
        }
    }
    files.len() + scripts.len()
}

#[test]
fn error_pages_show_their_error() {
    let mut findings = Vec::new();
    for page in files_below("docs/errors", "md") {
        if let Some(code) = code_of(&page) {
            check_error_page(&page, &code, &mut findings);
        }
    }
    check_none(&findings, "a page of docs/errors shows a file with its error, and what is printed");
}

fn check_error_page(page: &Path, code: &str, findings: &mut Vec<String>) {
    let text = read(page);
    if !text.starts_with(&format!("# {code}: ")) {
        findings.push(format!("{}: its title is not `# {code}: …`", page.display()));
    }
    let blocks: Vec<Block> = sections(&text).into_iter().flatten().collect();
    let Some(at) = blocks.iter().position(|block| block.info == "yaml error") else {
        // Some errors cannot be shown as text (a file of another encoding, or of 64 MB): what is printed must do.
        if !blocks.iter().any(|block| block.info == "text" && block.text.contains(&format!("[{code}]"))) {
            findings.push(format!("{}: no ```yaml error block, and no ```text block with [{code}]", page.display()));
        }
        return;
    };
    let wrong = &blocks[at];
    let name = wrong.file().map_or_else(|| "pipeline.yaml".to_owned(), |(name, _)| name);
    let others = blocks.iter().filter(|block| block.info != "yaml error").filter_map(Block::file);
    let others: Vec<(String, &str)> = others.filter(|(other, _)| *other != name).collect();
    let project = Project::new(&others.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>());
    project.write(&name, &wrong.text);
    let ran = project.tol(&["validate", &name, "--format", "json"]);
    let codes: Option<BTreeSet<String>> = serde_json::from_str::<Value>(&ran.stdout).ok().and_then(|said| {
        let found = said["diagnostics"].as_array()?;
        Some(found.iter().filter_map(|one| Some(one["code"].as_str()?.to_owned())).collect())
    });
    if codes != Some(BTreeSet::from([code.to_owned()])) {
        findings.push(format!("{}:{}: it yields {codes:?}: {}", page.display(), wrong.line, ran.said()));
        return;
    }
    let printed = project.tol(&["validate", &name]).stdout;
    let Some(shown) = blocks[at..].iter().find(|block| block.info == "text") else { return };
    if tidy(&printed).contains(&tidy(&shown.text)) {
        return;
    }
    if std::env::var_os("TOL_UPDATE_DOCS").is_some() {
        let first = format!("{}\n", tidy(&printed).split("\n\n").next().unwrap_or_default());
        std::fs::write(root().join(page), text.replace(&shown.text, &first)).expect("the page can be written");
        return;
    }
    findings.push(format!("{}:{}: what is printed is\n{printed}", page.display(), shown.line));
}

/// Without blanks at the ends of lines.
fn tidy(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[test]
fn every_code_has_a_page() {
    let mut used = BTreeSet::new();
    for source in sources() {
        for (_, line) in source.code() {
            for (at, _) in line.match_indices("\"TOL") {
                let code = line[at + 1..].split('"').next().unwrap_or_default();
                if code.len() == 7 && code[3..].bytes().all(|byte| byte.is_ascii_digit()) {
                    used.insert(code.to_owned());
                }
            }
        }
    }
    let pages: BTreeSet<String> = files_below("docs/errors", "md").iter().filter_map(|page| code_of(page)).collect();
    let list = |codes: Vec<&String>| codes.into_iter().cloned().collect::<Vec<_>>().join(" ");
    let missing = list(used.difference(&pages).collect());
    let idle = list(pages.difference(&used).collect());
    assert!(missing.is_empty() && idle.is_empty(), "codes without a page: {missing}\npages without a code: {idle}");
}

#[test]
fn links_lead_somewhere() {
    let mut findings = Vec::new();
    for page in pages() {
        let text = read(&page);
        let mut in_block = false;
        for (index, line) in text.lines().enumerate() {
            in_block ^= line.trim_start().starts_with("```");
            for (at, _) in line.match_indices("](").filter(|_| !in_block) {
                let target = line[at + 2..].split([')', ' ', '#']).next().unwrap_or_default();
                if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                if !root().join(page.parent().unwrap_or(Path::new(""))).join(target).exists() {
                    findings.push(format!("{}:{}: there is no {target}", page.display(), index + 1));
                }
            }
        }
    }
    check_none(&findings, "links lead to files of this repository");
}

#[test]
fn blocks_are_found() {
    let text = "a\n```yaml\napiVersion: tol/v1\n```\n## b\n```sh\n# file: x.sh\ntrue\n```\n```sh\ntrue\n```\n";
    let found = sections(text);
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(found[0][0].file().expect("a file").0, "pipeline.yaml");
    assert_eq!(found[1][0].file().expect("a file").0, "x.sh");
    assert!(found[1][1].file().is_none());
}
