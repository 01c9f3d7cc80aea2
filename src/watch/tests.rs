//! The served set over a real folder and the system's own notices: everything that editors, deployments and accidents do
//! to files.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Change, Options, Served};

/// Far more than a reload takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a change needs to be noticed.
const QUIET: Duration = Duration::from_millis(600);

fn pipeline(name: &str, word: &str) -> String {
    format!("apiVersion: tol/v1\nname: {name}\nsteps:\n  - id: a\n    run: echo {word}\n")
}

struct Place {
    _folder: tempfile::TempDir,
    top: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap().join("project");
        std::fs::create_dir(&top).unwrap();
        Self { _folder: folder, top }
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.top.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.top.join(path)
    }

    fn serve(&self) -> Watched {
        Watched::new(&self.top, Options::default())
    }
}

/// A served folder, with everything that it told.
struct Watched {
    served: Served,
    changes: Arc<Mutex<Vec<Change>>>,
}

impl Watched {
    fn new(folder: &Path, options: Options) -> Self {
        let changes: Arc<Mutex<Vec<Change>>> = Arc::default();
        let told = changes.clone();
        let served = Served::start(folder, options, move |change| told.lock().unwrap().push(change)).unwrap();
        Self { served, changes }
    }

    /// The script of a pipeline's first step, as the set that is live has it.
    fn word(&self, name: &str) -> Option<String> {
        let set = self.served.set()?;
        let program = set.find(name)?;
        let text = program.sources.0.get(&*program.root.pipeline.path)?;
        text.lines().find_map(|line| line.trim().strip_prefix("run: echo ").map(str::to_owned))
    }

    fn problems(&self) -> String {
        self.served.problems().map(|problems| problems.text(false)).unwrap_or_default()
    }

    /// How many sets were live, and how often one was refused.
    fn counts(&self) -> (usize, usize) {
        let changes = self.changes.lock().unwrap();
        let count = |is: fn(&Change) -> bool| changes.iter().filter(|change| is(change)).count();
        (count(|change| matches!(change, Change::Live(_))), count(|change| matches!(change, Change::Refused(_))))
    }

    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> Duration {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < PATIENCE, "waited in vain until {what}; problems: {}", self.problems());
            std::thread::sleep(Duration::from_millis(5));
        }
        started.elapsed()
    }

    #[track_caller]
    fn until_word(&self, name: &str, word: Option<&str>) -> Duration {
        self.until(&format!("`{name}` says {word:?}"), |watched| watched.word(name).as_deref() == word)
    }

    #[track_caller]
    fn stays_quiet(&self) {
        let before = self.counts();
        std::thread::sleep(QUIET);
        assert_eq!(self.counts(), before, "nothing was to be read again");
    }
}

#[test]
fn serves_what_is_there_and_finds_it() {
    let place = Place::new();
    place.write("one.yaml", &pipeline("first", "1"));
    place.write("deep/two.yml", &pipeline("second", "2"));
    place.write("agents.yaml", "agents: {}\n");
    place.write("one.test.yaml", "this is no test\n");
    place.write("other.yaml", "kind: Deployment\n");
    let watched = place.serve();
    let set = watched.served.set().unwrap();
    assert_eq!((set.len(), set.number, set.root.as_path()), (2, 1, place.top.as_path()));
    for name in ["second", "deep/two.yml", "./deep/two.yml"] {
        assert_eq!(set.find(name).map(|program| &*program.root.pipeline.path), Some("deep/two.yml"), "{name}");
    }
    assert!(set.find("third").is_none());
    assert_eq!(set.nearest("frist"), Some("first"));
    assert_eq!(set.nearest("deep/two.yaml"), Some("deep/two.yml"));
    watched.served.reload();
    watched
        .until("a reload is answered", |watched| matches!(watched.changes.lock().unwrap().last(), Some(Change::Same)));
    assert_eq!(watched.counts(), (1, 0));
}

#[test]
fn a_save_is_live_however_an_editor_makes_it() {
    let place = Place::new();
    place.write("a.yaml", &pipeline("a", "0"));
    let watched = place.serve();
    // In place.
    place.write("a.yaml", &pipeline("a", "1"));
    watched.until_word("a", Some("1"));
    // To another file that takes the name, as vim and most others do; with a backup beside it.
    place.write("4913", "");
    std::fs::remove_file(place.path("4913")).unwrap();
    std::fs::rename(place.path("a.yaml"), place.path("a.yaml~")).unwrap();
    place.write("a.yaml", &pipeline("a", "2"));
    std::fs::remove_file(place.path("a.yaml~")).unwrap();
    watched.until_word("a", Some("2"));
    place.write(".a.yaml.tmp", &pipeline("a", "3"));
    std::fs::rename(place.path(".a.yaml.tmp"), place.path("a.yaml")).unwrap();
    watched.until_word("a", Some("3"));
    // Deleted, and written again some time later.
    std::fs::remove_file(place.path("a.yaml")).unwrap();
    watched.until_word("a", None);
    place.write("a.yaml", &pipeline("a", "4"));
    watched.until_word("a", Some("4"));
    // The same text again is no change.
    place.write("a.yaml", &pipeline("a", "4"));
    watched.stays_quiet();
    assert_eq!(watched.counts().1, 0, "no editor's way of saving is an error");
}

#[test]
fn a_half_written_file_changes_nothing_until_it_is_whole() {
    let place = Place::new();
    place.write("a.yaml", &pipeline("a", "0"));
    place.write("b.yaml", &pipeline("b", "0"));
    let watched = place.serve();
    let whole = pipeline("a", "1");
    for (number, end) in [0, 5, 20, whole.find("run").unwrap() + 3].into_iter().enumerate() {
        place.write("a.yaml", &whole[..end]);
        watched.until("it is refused", |watched| watched.counts().1 == number + 1);
        assert!(watched.problems().contains("a.yaml:"), "{}", watched.problems());
        assert_eq!((watched.word("a").as_deref(), watched.word("b").as_deref()), (Some("0"), Some("0")));
    }
    // What is right elsewhere waits, too: the set is taken as a whole.
    place.write("b.yaml", &pipeline("b", "1"));
    watched.until("it is refused again", |watched| watched.counts().1 == 5);
    assert_eq!(watched.word("b").as_deref(), Some("0"));
    place.write("a.yaml", &whole);
    watched.until_word("a", Some("1"));
    assert_eq!(watched.word("b").as_deref(), Some("1"));
    assert!(watched.served.problems().is_none());
    // A writer that is slow, but has the file open, is waited for.
    let mut slow = std::fs::File::create(place.path("a.yaml")).unwrap();
    let text = pipeline("a", "2");
    for part in text.as_bytes().chunks(text.len() / 4) {
        std::io::Write::write_all(&mut slow, part).unwrap();
        std::thread::sleep(Duration::from_millis(150));
    }
    drop(slow);
    watched.until_word("a", Some("2"));
    assert_eq!(watched.counts().1, 5, "{}", watched.problems());
}

#[test]
fn a_swapped_config_map_is_followed() {
    let place = Place::new();
    let version = |number: u32, word: &str| {
        place.write(&format!("..2026_{number}/a.yaml"), &pipeline("a", word));
        place.write(&format!("..2026_{number}/agents.yaml"), "agents: {}\n");
        symlink(format!("..2026_{number}"), place.path("..data_tmp")).unwrap();
        std::fs::rename(place.path("..data_tmp"), place.path("..data")).unwrap();
    };
    version(1, "1");
    symlink("..data/a.yaml", place.path("a.yaml")).unwrap();
    symlink("..data/agents.yaml", place.path("agents.yaml")).unwrap();
    let watched = place.serve();
    assert_eq!(watched.word("a").as_deref(), Some("1"), "{}", watched.problems());
    assert_eq!(watched.served.set().unwrap().len(), 1);
    for number in 2..5 {
        version(number, &number.to_string());
        std::fs::remove_dir_all(place.path(&format!("..2026_{}", number - 1))).unwrap();
        watched.until_word("a", Some(&number.to_string()));
    }
    assert_eq!(watched.counts(), (4, 0));
}

#[test]
fn files_and_folders_come_and_go() {
    let place = Place::new();
    place.write("a.yaml", &pipeline("a", "0"));
    let watched = place.serve();
    place.write("b.yaml", &pipeline("b", "0"));
    watched.until_word("b", Some("0"));
    place.write("new/deep/er/c.yaml", &pipeline("c", "0"));
    watched.until_word("c", Some("0"));
    place.write("new/deep/er/c.yaml", &pipeline("c", "1"));
    watched.until_word("c", Some("1"));
    // A folder that is moved takes its watch along, and the new one of that name gets its own.
    std::fs::rename(place.path("new"), place.path("old")).unwrap();
    watched.until("the path has changed", |watched| watched.served.set().unwrap().has_path("old/deep/er/c.yaml"));
    place.write("old/deep/er/c.yaml", &pipeline("c", "2"));
    watched.until_word("c", Some("2"));
    place.write("new/deep/d.yaml", &pipeline("d", "0"));
    watched.until_word("d", Some("0"));
    place.write("new/deep/d.yaml", &pipeline("d", "1"));
    watched.until_word("d", Some("1"));
    for round in 0..3 {
        std::fs::remove_dir_all(place.path("new")).unwrap();
        if round == 1 {
            watched.until_word("d", None);
        }
        let word = format!("again{round}");
        place.write("new/deep/d.yaml", &pipeline("d", &word));
        watched.until_word("d", Some(&word));
        place.write("new/deep/d.yaml", &pipeline("d", "last"));
        watched.until_word("d", Some("last"));
    }
    std::fs::remove_dir_all(place.path("old")).unwrap();
    watched.until_word("c", None);
    assert_eq!(watched.counts().1, 0);
    assert_eq!(watched.word("a").as_deref(), Some("0"));
}

#[test]
fn what_pipelines_name_is_watched_wherever_it_is() {
    let place = Place::new();
    std::fs::create_dir(place.path(".git")).unwrap();
    let text = "apiVersion: tol/v1\nname: a\nsteps:\n  - id: p\n    plan: { file: ../data/plan.json, tools: [t] }\n  \
                - { id: e, execute: p }\ntools:\n  t: { description: t, input_schema: { type: object }, \
                effect: read, transform: { x: 1 } }\n";
    place.write("served/a.yaml", text);
    place.write("served/b.yaml", &pipeline("b", "0"));
    let watched = Watched::new(&place.path("served"), Options::default());
    assert!(watched.problems().contains("plan.json"), "{}", watched.problems());
    place.write("data/plan.json", r#"{"steps":[{"id":"x","tool":"t","input":{}}]}"#);
    watched.until("the plan is found", |watched| watched.served.set().is_some());
    place.write("data/plan.json", r#"{"steps":[{"id":"x","tool":"none","input":{}}]}"#);
    watched.until("the plan is wrong", |watched| watched.problems().contains("none"));
    place.write("data/plan.json", r#"{"steps":[{"id":"y","tool":"t","input":{}}]}"#);
    watched.until("the plan is right", |watched| watched.served.problems().is_none());
    // Settings and catalogues above the served folder belong to it.
    place.write("duo-agent.config.yaml", "engine: { workers: 99 }\n");
    watched.until("the settings are wrong", |watched| watched.problems().contains("duo-agent.config.yaml"));
    place.write("duo-agent.config.yaml", "engine: { workers: 9 }\n");
    watched.until("the settings are live", |watched| {
        watched.served.set().is_some_and(|set| set.settings.engine.workers == Some(9))
    });
}

#[test]
fn two_pipelines_of_one_name_are_refused_and_links_are_one() {
    let place = Place::new();
    place.write("a.yaml", &pipeline("same", "0"));
    symlink("a.yaml", place.path("b.yaml")).unwrap();
    let watched = place.serve();
    assert_eq!(watched.served.set().unwrap().len(), 2);
    place.write("c.yaml", &pipeline("same", "1"));
    watched.until("it is refused", |watched| watched.counts().1 == 1);
    let text = watched.problems();
    assert!(
        text.contains("c.yaml:2:7: error[TOL0701]: two pipelines are named `same`: `a.yaml` and `c.yaml`"),
        "{text}"
    );
    assert_eq!(watched.word("same").as_deref(), Some("0"));
}

#[test]
fn a_project_within_the_project_is_passed_by() {
    let place = Place::new();
    place.write("a.yaml", &pipeline("a", "0"));
    place.write("inner/duo-agent.config.yaml", "engine: { workers: 3 }\n");
    place.write("inner/b.yaml", &pipeline("b", "0"));
    let watched = place.serve();
    let set = watched.served.set().unwrap();
    assert_eq!((set.len(), set.settings.engine.workers), (1, None));
    let text = set.warnings.text(false);
    assert!(text.contains("inner/b.yaml:1:1: warning[TOL0702]: `inner/b.yaml` belongs to another project"), "{text}");
}

#[test]
fn the_folder_itself_may_be_replaced() {
    let place = Place::new();
    place.write("a.yaml", &pipeline("a", "0"));
    let watched = place.serve();
    let (new, old) = (place.top.with_file_name("new"), place.top.with_file_name("old"));
    for round in 1..4 {
        let word = round.to_string();
        std::fs::create_dir(&new).unwrap();
        std::fs::write(new.join("a.yaml"), pipeline("a", &word)).unwrap();
        std::fs::rename(&place.top, &old).unwrap();
        if round == 2 {
            watched.until("it is missed", |watched| watched.problems().contains("there is no such folder"));
            assert_eq!(watched.word("a").as_deref(), Some("edited"));
        }
        std::fs::rename(&new, &place.top).unwrap();
        watched.until_word("a", Some(&word));
        std::fs::remove_dir_all(&old).unwrap();
        place.write("a.yaml", &pipeline("a", "edited"));
        watched.until_word("a", Some("edited"));
    }
}

#[test]
fn a_link_to_the_folder_may_be_swapped() {
    let place = Place::new();
    place.write("releases/1/pipelines/a.yaml", &pipeline("a", "1"));
    place.write("releases/2/pipelines/a.yaml", &pipeline("a", "2"));
    symlink("releases/1", place.path("current")).unwrap();
    let watched = Watched::new(&place.path("current/pipelines"), Options::default());
    assert_eq!(watched.word("a").as_deref(), Some("1"));
    symlink("releases/2", place.path("next")).unwrap();
    std::fs::rename(place.path("next"), place.path("current")).unwrap();
    watched.until_word("a", Some("2"));
    place.write("releases/2/pipelines/a.yaml", &pipeline("a", "3"));
    watched.until_word("a", Some("3"));
    assert_eq!(watched.counts().1, 0);
}

#[test]
fn a_burst_of_saves_is_few_reloads() {
    let place = Place::new();
    place.write("a.yaml", &pipeline("a", "0"));
    let watched = place.serve();
    for number in 1..=200 {
        place.write("a.yaml", &pipeline("a", &number.to_string()));
        if number % 20 == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    watched.until_word("a", Some("200"));
    let (live, refused) = watched.counts();
    assert!(live <= 10 && refused == 0, "{live} sets were live, {refused} refused");
}

#[test]
fn the_journal_and_git_wake_nobody() {
    let place = Place::new();
    place.write("a.yaml", &pipeline("a", "0"));
    place.write(".tol/journal.db", "");
    place.write("state/runs/x.yaml", &pipeline("of_a_run", "0"));
    let options = Options { ignored: vec![place.path("state")], ..Options::default() };
    let watched = Watched::new(&place.top, options);
    assert_eq!(watched.served.set().unwrap().len(), 1);
    for path in [".tol/x.yaml", ".git/HEAD", ".git/x.yaml", "state/runs/y.yaml", "notes.txt"] {
        place.write(path, &pipeline("b", "0"));
    }
    watched.stays_quiet();
    assert_eq!(watched.counts(), (1, 0));
}

#[test]
fn without_notices_files_are_read_at_intervals() {
    let place = Place::new();
    place.write("sub/a.yaml", &pipeline("a", "0"));
    let options = Options { most_folders: 1, poll: Duration::from_millis(100), ..Options::default() };
    let watched = Watched::new(&place.top, options);
    let told = |watched: &Watched| {
        let changes = watched.changes.lock().unwrap();
        changes
            .iter()
            .filter(|change| matches!(change, Change::Polling(why) if why.contains("more than the 1")))
            .count()
    };
    assert_eq!(told(&watched), 1);
    place.write("sub/a.yaml", &pipeline("a", "1"));
    watched.until_word("a", Some("1"));
    place.write("sub/new/b.yaml", &pipeline("b", "1"));
    watched.until_word("b", Some("1"));
    assert_eq!(told(&watched), 1, "it is said once");
}

#[test]
fn what_changes_while_it_is_first_read_is_not_lost() {
    for round in 0..20 {
        let place = Place::new();
        place.write("a.yaml", &pipeline("a", "0"));
        let last = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 0..50 {
                    place.write("a.yaml", &pipeline("a", &number.to_string()));
                    place.write(&format!("sub{number}/b.yaml"), &pipeline(&format!("b{number}"), "0"));
                    std::thread::sleep(Duration::from_micros(100 * round));
                }
            });
            let watched = place.serve();
            writer.join().unwrap();
            watched
        });
        last.until_word("a", Some("49"));
        last.until("every folder is seen", |watched| watched.served.set().is_some_and(|set| set.len() == 51));
    }
}

#[test]
fn a_thousand_files_are_live_soon() {
    let place = Place::new();
    for number in 0..1000 {
        place.write(&format!("team{}/{number}.yaml", number % 20), &pipeline(&format!("p{number}"), "0"));
    }
    let watched = place.serve();
    let mut longest = Duration::ZERO;
    for round in 1..4 {
        let word = round.to_string();
        place.write("team3/503.yaml", &pipeline("p503", &word));
        longest = longest.max(watched.until_word("p503", Some(&word)));
    }
    let goal = if cfg!(debug_assertions) { Duration::from_secs(5) } else { Duration::from_millis(500) };
    assert!(longest < goal, "from save to live: {longest:?}");
    eprintln!("1,000 files, from save to live: {longest:?} at most");
}
