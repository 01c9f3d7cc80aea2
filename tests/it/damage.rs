//! Journals that were damaged on disk, through the real binary: the message names the file, nothing panics, and nothing
//! is silently less than it was.

use std::path::Path;

use crate::kill::{Project, statuses, summary};

const PIPELINE: &str = "apiVersion: tol/v1\nname: damaged\nsteps:\n  - { id: a, run: echo one }\n  - { id: b, depends: [a], run: echo two }\n  - { id: c, depends: [b], run: echo three }\n";

/// What is done to a state folder.
type Damage = Box<dyn Fn(&Path)>;

/// Copies a state folder without what only a living process holds.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Either it reads as it was, or it is refused in words that name a file of the journal.
fn check(project: &Project, run: &str, reference: &serde_json::Value, what: &str) {
    for arguments in [["runs", "show", run, "--format", "json"].as_slice(), &["resume", run, "--format", "json"]] {
        let output = project.tol(arguments, None);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!words.contains("panicked"), "{what}: {words}");
        match output.status.code() {
            Some(0) => {
                let now = summary(&output);
                let steps = statuses(&now);
                for (step, status) in statuses(reference).iter().filter(|(_, status)| *status == "succeeded") {
                    assert_eq!(
                        steps.get(step),
                        Some(status),
                        "{what}: {arguments:?} forgets that `{step}` had succeeded"
                    );
                }
            }
            Some(1) => {
                let named = ["journal.db", "high-water", "journal of run"].iter().any(|name| words.contains(name));
                assert!(named, "{what}: {arguments:?} does not say which file is damaged: {words}");
            }
            code => panic!("{what}: {arguments:?} ends with {code:?}: {words}"),
        }
    }
}

#[test]
fn damage_is_told_and_nothing_is_forgotten() {
    let project = Project::new(&[("main.yaml", PIPELINE)]);
    // Killed in the middle, so that there is a write-ahead log and something is left to do; and before a commit, so that
    // all that is in the journal was acknowledged.
    let killed = project.tol(&["run", "main.yaml"], Some("kill-before-commit:4"));
    assert!(killed.status.code().is_none());
    let state = project.path().join(".tol");
    let kept = project.path().join("kept");
    copy(&state, &kept);
    let run = project.run_id().unwrap();
    let reference = summary(&project.tol(&["runs", "show", &run, "--format", "json"], None));
    assert_eq!(statuses(&reference)["a"], "succeeded");
    let mut damages: Vec<(String, Damage)> = Vec::new();
    for name in ["journal.db", "journal.db-wal", "high-water"] {
        let length = std::fs::metadata(kept.join(name)).map_or(0, |file| file.len());
        damages
            .push((format!("{name} deleted"), Box::new(move |folder| drop(std::fs::remove_file(folder.join(name))))));
        for keep in [0, 1, length / 3, length / 2, length.saturating_sub(700), length.saturating_sub(1)] {
            let cut = move |folder: &Path| {
                let file = std::fs::OpenOptions::new().write(true).open(folder.join(name)).unwrap();
                file.set_len(keep).unwrap();
            };
            damages.push((format!("{name} cut to {keep} of {length} bytes"), Box::new(cut)));
        }
        for part in 0..12 {
            let offset = (length * part / 12 + 40).min(length.saturating_sub(1));
            let flip = move |folder: &Path| {
                let mut bytes = std::fs::read(folder.join(name)).unwrap();
                bytes[offset as usize] ^= 0x10;
                std::fs::write(folder.join(name), bytes).unwrap();
            };
            damages.push((format!("{name} with a bit changed at {offset}"), Box::new(flip)));
        }
    }
    for (what, damage) in damages {
        std::fs::remove_dir_all(&state).unwrap();
        copy(&kept, &state);
        damage(&state);
        check(&project, &run, &reference, &what);
    }
}

#[test]
fn a_state_folder_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new(&[("main.yaml", PIPELINE)]);
    let state = project.path().join(".tol");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(state.join("probe"), "").is_ok() {
        // The superuser writes anywhere: a file in the folder's place stands for it.
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::write(&state, "").unwrap();
    }
    let output = project.tol(&["run", "main.yaml", "--format", "json"], None);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains(".tol") && !words.contains("panicked"), "{words}");
    assert!(output.stdout.is_empty(), "a run is told of that was never accepted");
}

/// On a small disk of its own: four outputs of 60 kB do not fit.
const FULL_DISK: &str = r#"
mount -t tmpfs -o size=400k tmpfs state || exit 77
"$TOL" run main.yaml --state-dir state --format json > out 2> err && exit 2
grep -q 'journal.db' err && grep -q 'disk is full' err && grep -q 'not lost' err || { cat err; exit 3; }
mount -o remount,size=64m state
run=$("$TOL" runs list --state-dir state --format json | sed -n 's/.*"run_id":"\([^"]*\)".*/\1/p')
"$TOL" resume "$run" --state-dir state --format json | tail -n 1 > end
for step in a b c d; do [ "$(grep -c $step witness)" -le 2 ] || exit 4; done
grep -q '"status":"succeeded"' end
"#;

#[test]
fn a_full_disk_stops_the_process_and_loses_nothing() {
    let mut pipeline = "apiVersion: tol/v1\nname: full\ninherit_env: [WITNESS]\nsteps:\n".to_owned();
    for (number, step) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let before = ["", "    depends: [a]\n", "    depends: [b]\n", "    depends: [c]\n"][number];
        pipeline.push_str(&format!(
            "  - id: {step}\n{before}    run: |\n      echo {step} >> \"$WITNESS\"\n      head -c 6000{number} /dev/zero | tr '\\0' {step}\n"
        ));
    }
    let project = Project::new(&[("main.yaml", &pipeline)]);
    std::fs::create_dir(project.path().join("state")).unwrap();
    let output = std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", FULL_DISK])
        .env("TOL", env!("CARGO_BIN_EXE_tol"))
        .env("WITNESS", project.path().join("witness"))
        .current_dir(project.path())
        .output();
    match output.map(|output| (output.status.code(), output)) {
        Ok((Some(0), _)) => {}
        Ok((Some(2..=4), output)) => panic!("{output:?}"),
        refused => println!("SKIPPED: no small disk can be mounted here: {refused:?}"),
    }
}
