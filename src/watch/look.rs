//! One look at the served folder: which files there are to check, and what has to be listened to so that no change of
//! them goes unnoticed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::interest::Interest;
use super::survey::Target;
use crate::project::{find_root, list_folder};

/// So many links are followed from the served folder.
const MOST_LINKS: usize = 40;

/// What is in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The project's root, absolute and without links.
    pub root: PathBuf,
    /// In the order of their paths.
    pub targets: Vec<Target>,
    /// Every folder that was looked into.
    pub folders: Vec<PathBuf>,
    /// What cannot even be listed, each with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Files of projects that lie within this one.
    pub foreign: Vec<PathBuf>,
}

/// Lists a folder's YAML files. Nothing below the ignored folders is looked at.
///
/// # Errors
/// If there is no such folder.
pub fn list(folder: &Path, ignored: &[PathBuf]) -> std::io::Result<Listing> {
    let base = folder.canonicalize()?;
    if !base.is_dir() {
        return Err(std::io::Error::other("it is not a folder"));
    }
    let root = find_root(&base, &base);
    let listed = list_folder(&base);
    let is_ignored = |path: &Path| ignored.iter().any(|top| path.starts_with(top));
    let mut listing = Listing {
        targets: Vec::new(),
        folders: listed.folders.into_iter().filter(|path| !is_ignored(path)).collect(),
        unreadable: listed.unreadable.into_iter().filter(|(path, _)| !is_ignored(path)).collect(),
        foreign: Vec::new(),
        root,
    };
    let mut roots: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for file in listed.files.into_iter().filter(|path| !is_ignored(path)) {
        let holder = file.parent().unwrap_or(&base).to_owned();
        let its_root = roots.entry(holder.clone()).or_insert_with(|| find_root(&holder, &listing.root));
        if *its_root != listing.root {
            listing.foreign.push(file);
            continue;
        }
        let within = file.strip_prefix(&listing.root).unwrap_or(&file);
        match within.iter().map(|part| part.to_str()).collect::<Option<Vec<&str>>>() {
            Some(parts) => {
                listing.targets.push(Target { root: listing.root.clone(), path: parts.join("/"), is_named: false });
            }
            None => listing.unreadable.push((file, "its name is not UTF-8".to_owned())),
        }
    }
    listing.targets.sort();
    Ok(listing)
}

/// What to listen to for a folder, as it was given, whose pipelines asked for these paths; and the folders to watch.
pub fn surroundings(
    given: &Path,
    listing: &Listing,
    asked: &[String],
    ignored: &[PathBuf],
) -> (BTreeSet<PathBuf>, Interest) {
    let mut interest = Interest { ignored: ignored.to_vec(), ..Interest::default() };
    interest.folders.extend(listing.folders.iter().cloned());
    for path in asked {
        listen_to(&listing.root, &listing.root.join(path), &mut interest);
    }
    let mut watched = interest.folders.clone();
    for place in ways(given) {
        if let Some(folder) = place.parent() {
            watched.insert(folder.to_owned());
            // Its own end is an event of the folder, too.
            interest.paths.insert(folder.to_owned());
        }
        interest.paths.insert(place);
    }
    (watched, interest)
}

/// Listens for a file that was asked for, whether it is there or not, and for what a link in its place leads to.
pub fn listen_to(root: &Path, file: &Path, interest: &mut Interest) {
    interest.paths.insert(file.to_owned());
    for folder in file.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        if folder.is_dir() {
            interest.folders.insert(folder.to_owned());
            break;
        }
        interest.paths.insert(folder.to_owned());
    }
    if let Ok(real) = file.canonicalize()
        && real != file
        && real.starts_with(root)
    {
        interest.folders.extend(real.parent().map(Path::to_owned));
        interest.paths.insert(real);
    }
}

/// The places at which a path can come to mean another folder: itself, and every link on the way to it.
fn ways(given: &Path) -> BTreeSet<PathBuf> {
    let mut places = BTreeSet::from([given.to_owned()]);
    places.extend(given.canonicalize());
    let mut waiting = vec![given.to_owned()];
    while let Some(path) = waiting.pop() {
        for place in path.ancestors() {
            let Ok(target) = place.read_link() else { continue };
            let target = place.parent().unwrap_or(Path::new("/")).join(target);
            if places.len() < MOST_LINKS && (places.insert(place.to_owned()) | places.insert(target.clone())) {
                waiting.push(target);
            }
        }
    }
    places
}
