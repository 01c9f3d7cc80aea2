//! Waits until one of the files that somebody has read changes, or one that was looked for appears.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::folders::Folders;
use super::interest::Interest;
use super::look::listen_to;
use super::served::Options;
use super::snapshot::Snapshot;
use super::wake::{Call, Wake};

/// The files of one project, as far as somebody asks for them.
pub struct Files {
    root: PathBuf,
    options: Options,
    wake: Arc<Wake>,
    folders: Mutex<Folders>,
}

impl Files {
    /// The files below a project's root.
    pub fn new(root: &Path) -> Self {
        let options = Options::default();
        let wake = Arc::new(Wake::default());
        let folders = Mutex::new(Folders::new(wake.clone(), options.most_folders));
        Self { root: root.to_owned(), options, wake, folders }
    }

    /// Texts to read from: each as it was when it was first asked for.
    pub fn look(&self) -> Snapshot {
        Snapshot::new(&self.root)
    }

    /// Waits until something of what a look was asked for is not as it was then, or somebody ends the waiting. Says why
    /// the system did not tell of changes, if it did not.
    pub fn wait(&self, looked: &Snapshot) -> Option<String> {
        let mut interest = Interest::default();
        for path in looked.asked() {
            listen_to(looked.root(), &looked.root().join(path), &mut interest);
        }
        let folders = interest.folders.clone();
        let told = self.folders.lock().unwrap_or_else(PoisonError::into_inner).cover(&folders, interest);
        let polling = told.err();
        let every = if polling.is_some() { self.options.poll } else { self.options.look };
        while Snapshot::new(&self.root).equals(looked) {
            if self.wake.wait(self.options.patience(), every) == Call::Stop {
                break;
            }
        }
        polling
    }

    /// Ends the waiting.
    pub fn stop(&self) {
        self.wake.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::Files;
    use crate::compile::Sources;

    #[test]
    fn waits_for_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        std::fs::write(top.join("a.yaml"), "1").unwrap();
        let files = Arc::new(Files::new(&top));
        let after = |change: &dyn Fn()| {
            let looked = files.look();
            assert!(looked.read("a.yaml").is_ok() && !looked.exists("sub/none.json"));
            let (waits, (sender, told)) = (files.clone(), std::sync::mpsc::channel());
            let waiter = std::thread::spawn(move || sender.send(waits.wait(&looked)));
            std::thread::sleep(Duration::from_millis(50));
            std::fs::write(top.join("other.txt"), "x").unwrap();
            assert!(told.recv_timeout(Duration::from_millis(400)).is_err(), "that is no change");
            change();
            assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(None));
            waiter.join().unwrap().unwrap();
        };
        after(&|| std::fs::write(top.join("a.yaml"), "2").unwrap());
        after(&|| {
            std::fs::create_dir(top.join("sub")).unwrap();
            std::fs::write(top.join("sub/none.json"), "{}").unwrap();
        });
        std::fs::remove_dir_all(top.join("sub")).unwrap();
        after(&|| files.stop());
    }
}
