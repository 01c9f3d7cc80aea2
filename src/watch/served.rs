//! Keeps the served set up to date: a thread that listens for changes, reads all files again, and swaps the set if there
//! is no error in them.
//!
//! It listens before it reads, and reads again if something changed meanwhile, so that no change is lost in between.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;

use super::folders::Folders;
use super::look::{Listing, list, surroundings};
use super::set::{Problems, Set, assemble};
use super::snapshot::Snapshot;
use super::survey::{Findings, Purpose, nowhere, survey};
use super::wake::{Call, Patience, Wake};
use crate::compile::settings;
use crate::diagnostic::Diagnostic;

/// A file of another project within the served one.
const FOREIGN: &str = "TOL0702";
/// So often a result is dropped because files changed while they were read, before one is taken all the same.
const MOST_POSTPONED: u32 = 4;
/// How often a folder that is gone is looked for.
const MISSING: Duration = Duration::from_millis(250);
/// After a look nobody asked for, so many times its own length passes before the next one.
const REST: u32 = 20;

/// How a folder is watched.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folders in which nothing is served: the state folder, if it lies in the served one under a name of its own.
    pub ignored: Vec<PathBuf>,
    /// How long it must be quiet after a change.
    pub quiet: Duration,
    /// After this time files are read although they still change.
    pub longest: Duration,
    /// After this time files are read although one is still being written.
    pub writing: Duration,
    /// How often all files are read where the system does not tell of changes.
    pub poll: Duration,
    /// How often all files are read where it does: some file systems, such as NFS, do not tell of every change.
    pub look: Duration,
    /// More folders than this are not watched but polled.
    pub most_folders: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ignored: Vec::new(),
            quiet: Duration::from_millis(100),
            longest: Duration::from_millis(300),
            writing: Duration::from_secs(2),
            poll: Duration::from_secs(1),
            look: Duration::from_secs(30),
            most_folders: 10_000,
        }
    }
}

impl Options {
    /// How long to wait for more changes.
    pub(super) fn patience(&self) -> Patience {
        Patience { quiet: self.quiet, longest: self.longest, writing: self.writing }
    }
}

/// What became of a change of the files.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new set is live.
    Live(Arc<Set>),
    /// There are errors; the set that was live stays.
    Refused(Arc<Problems>),
    /// A reload that was asked for found nothing changed.
    Same,
    /// The system does not tell of changes, so that the files are read at intervals; with the reason.
    Polling(String),
}

/// The set of a folder, kept up to date as long as this lives.
pub struct Served {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    set: ArcSwapOption<Set>,
    problems: ArcSwapOption<Problems>,
    wake: Arc<Wake>,
}

impl Served {
    /// Reads a folder and watches it from then on. When this returns, the first reading is done; whether it gave a set
    /// is for [`Self::set`] to say. `on_change` is called by the thread that reads, and must not wait for it.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        folder: &Path,
        options: Options,
        on_change: impl FnMut(Change) + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (first_sender, first) = mpsc::sync_channel(1);
        let keeper = Keeper {
            folder: std::path::absolute(folder)?,
            folders: Folders::new(shared.wake.clone(), options.most_folders),
            options,
            shared: shared.clone(),
            on_change: Box::new(on_change),
            last: None,
            polling: false,
            is_missing: false,
            postponed: 0,
            sets: 0,
            took: Duration::ZERO,
            first: Some(first_sender),
        };
        let thread = std::thread::Builder::new().name("definitions".to_owned()).spawn(move || keeper.keep())?;
        // A thread that ended without an answer has left what there is.
        let _ = first.recv();
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What is served now; none if there has been no set without an error yet.
    pub fn set(&self) -> Option<Arc<Set>> {
        self.shared.set.load_full()
    }

    /// The errors that keep the files, as they were last read, from being served.
    pub fn problems(&self) -> Option<Arc<Problems>> {
        self.shared.problems.load_full()
    }

    /// Asks for all files to be read again; what became of it is told as a [`Change`].
    pub fn reload(&self) {
        self.shared.wake.reload();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shared.wake.stop();
        if let Some(thread) = self.thread.take() {
            // What it had to say, it has said.
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Keeper {
    /// As it was given, made absolute: where it leads may change.
    folder: PathBuf,
    options: Options,
    shared: Arc<Shared>,
    folders: Folders,
    on_change: Box<dyn FnMut(Change) + Send>,
    last: Option<Last>,
    polling: bool,
    is_missing: bool,
    postponed: u32,
    sets: u64,
    /// How long the last look took.
    took: Duration,
    first: Option<mpsc::SyncSender<()>>,
}

/// What was checked last.
struct Last {
    listing: Listing,
    snapshot: Snapshot,
}

impl Keeper {
    fn keep(mut self) {
        let patience = self.options.patience();
        let mut call = Call::Reload;
        loop {
            let started = Instant::now();
            match call {
                Call::Stop => return,
                Call::Reload => self.turn(true),
                Call::Changed | Call::Look => self.turn(false),
            }
            self.took = started.elapsed();
            call = self.shared.wake.wait(patience, self.until_look());
        }
    }

    fn until_look(&self) -> Duration {
        let every = if self.is_missing {
            MISSING
        } else if self.polling {
            self.options.poll
        } else {
            self.options.look
        };
        every.max(self.took * REST)
    }

    /// Reads all files, and checks them unless they are what they were.
    fn turn(&mut self, forced: bool) {
        if let Some(why) = self.shared.wake.take_trouble() {
            self.give_up_watching(why);
        }
        if forced {
            self.polling = false;
        }
        let ignored = self.ignored();
        let listing = match self.list_and_watch(&ignored) {
            Ok(listing) => listing,
            Err(error) => return self.missing(&error, forced),
        };
        self.is_missing = false;
        let read_at = SystemTime::now();
        let snapshot = Snapshot::new(&listing.root);
        let is_same = self.last.as_ref().is_some_and(|last| last.listing == listing && snapshot.equals(&last.snapshot));
        if is_same {
            if forced {
                let problems = self.shared.problems.load_full();
                self.tell(problems.map_or(Change::Same, Change::Refused));
            }
            return;
        }
        let checked = self.check(&listing, &snapshot, read_at);
        let is_wider = self.watch(&listing, &snapshot.asked(), &ignored);
        // Files that are watched only now may have changed since they were read.
        if is_wider && !Snapshot::new(&listing.root).equals(&snapshot) {
            self.shared.wake.ring();
        }
        if self.shared.wake.is_rung() && self.postponed < MOST_POSTPONED {
            self.postponed += 1;
            return;
        }
        self.postponed = 0;
        self.last = Some(Last { listing, snapshot });
        match checked {
            Ok(set) => self.go_live(set),
            Err(problems) => self.refuse(problems),
        }
    }

    fn ignored(&self) -> Vec<PathBuf> {
        self.options.ignored.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect()
    }

    /// Lists the folder, and watches what was found until a listing shows nothing that is not watched.
    fn list_and_watch(&mut self, ignored: &[PathBuf]) -> std::io::Result<Listing> {
        let asked = self.last.as_ref().map(|last| last.snapshot.asked()).unwrap_or_default();
        let mut listing = list(&self.folder, ignored)?;
        for _ in 0..MOST_POSTPONED {
            self.watch(&listing, &asked, ignored);
            let again = list(&self.folder, ignored)?;
            let is_covered = again.folders == listing.folders && again.root == listing.root;
            listing = again;
            if is_covered {
                break;
            }
        }
        Ok(listing)
    }

    /// True if something is watched that was not before.
    fn watch(&mut self, listing: &Listing, asked: &[String], ignored: &[PathBuf]) -> bool {
        if self.polling {
            return false;
        }
        let (folders, interest) = surroundings(&self.folder, listing, asked, ignored);
        match self.folders.cover(&folders, interest) {
            Ok(is_wider) => is_wider,
            Err(why) => {
                self.give_up_watching(why);
                false
            }
        }
    }

    fn give_up_watching(&mut self, why: String) {
        self.folders.end();
        if !std::mem::replace(&mut self.polling, true) {
            self.tell(Change::Polling(why));
        }
    }

    fn check(&self, listing: &Listing, snapshot: &Snapshot, read_at: SystemTime) -> Result<Set, Problems> {
        let root = &listing.root;
        let show = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
        let live = self.shared.set.load_full();
        let mut targets = listing.targets.clone();
        for target in &mut targets {
            // A file that was a pipeline and is there still is one, however badly it is written now.
            target.is_named = live.as_ref().is_some_and(|set| set.has_path(&target.path));
        }
        let projects = std::iter::once((root.clone(), snapshot)).collect();
        let mut findings = match survey(&targets, &projects, Purpose::Serve, &show) {
            Ok(findings) => findings,
            Err(error) => {
                let mut findings = Findings::default();
                findings.unreadable(&show(&self.folder), &error.to_string());
                findings
            }
        };
        for (path, reason) in &listing.unreadable {
            findings.unreadable(&show(path), reason);
        }
        for path in &listing.foreign {
            let shown = show(path);
            let place = nowhere(&mut findings.files, &shown);
            let message = format!("`{shown}` belongs to another project and is not served");
            let help = "serve its folder by a server of its own; a folder with `.git` or settings is a project";
            findings.diagnostics.push(Diagnostic::warning(FOREIGN, place, message).help(help));
        }
        assemble(findings, root, settings(snapshot), self.sets + 1, read_at, &show)
    }

    fn missing(&mut self, error: &std::io::Error, forced: bool) {
        let was_missing = std::mem::replace(&mut self.is_missing, true);
        self.last = None;
        if was_missing && !forced {
            return;
        }
        let mut findings = Findings::default();
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such folder".to_owned(),
            _ => error.to_string(),
        };
        findings.unreadable(&self.folder.to_string_lossy(), &reason);
        let Findings { files, diagnostics, .. } = findings;
        self.refuse(Problems { files, diagnostics, found_at: SystemTime::now() });
    }

    fn go_live(&mut self, set: Set) {
        self.sets = set.number;
        let set = Arc::new(set);
        self.shared.set.store(Some(set.clone()));
        self.shared.problems.store(None);
        self.tell(Change::Live(set));
        self.answer_start();
    }

    fn refuse(&mut self, problems: Problems) {
        let problems = Arc::new(problems);
        self.shared.problems.store(Some(problems.clone()));
        self.tell(Change::Refused(problems));
        self.answer_start();
    }

    fn tell(&mut self, change: Change) {
        (self.on_change)(change);
    }

    fn answer_start(&mut self) {
        if let Some(first) = self.first.take() {
            let _ = first.send(());
        }
    }
}
