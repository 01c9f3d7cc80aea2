//! Finds the values of secrets, and remembers them so that they can be taken out of all that leaves.
//!
//! `secrets.NAME` is the environment variable `TOL_SECRET_NAME`, else the file `NAME` in the folder that
//! `TOL_SECRETS_DIR` names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::handler::redact::Redactor;
use crate::task::{Failure, Part, Text};

/// What the name of a secret's environment variable begins with.
pub const VARIABLE_PREFIX: &str = "TOL_SECRET_";
/// Names the folder of secrets that are kept as files.
pub const FOLDER_VARIABLE: &str = "TOL_SECRETS_DIR";
/// A file larger than this is no secret but a mistake.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where secrets come from, and which were used so far.
pub struct Secrets {
    variables: BTreeMap<String, String>,
    folder: Option<PathBuf>,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    values: BTreeSet<String>,
    redactor: Arc<Redactor>,
}

impl Secrets {
    /// Secrets of the environment that `tol` was started with.
    pub fn from_env(caller_env: &BTreeMap<String, String>) -> Self {
        let variables = caller_env
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(VARIABLE_PREFIX)?.to_owned(), value.clone())))
            .collect();
        let folder = caller_env.get(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        Self { variables, folder, used: Mutex::new(Used::default()) }
    }

    /// Puts the secrets into a text. From here on their values are taken out of all that leaves.
    ///
    /// # Errors
    /// A permanent failure that names a secret that is not set or cannot be read.
    pub fn fill(&self, text: &Text) -> Result<String, Failure> {
        let mut filled = String::new();
        for part in &text.0 {
            match part {
                Part::Plain(words) => filled.push_str(words),
                Part::Secret(name) => {
                    let value = self.value_of(name)?;
                    self.remember(&value);
                    filled.push_str(&value);
                }
            }
        }
        Ok(filled)
    }

    /// Takes a value that reached a program by another way for a secret too.
    pub fn remember(&self, value: &str) {
        let mut used = self.used();
        if !used.values.contains(value) {
            used.values.insert(value.to_owned());
            used.redactor = Arc::new(Redactor::new(used.values.iter().map(String::as_str)));
        }
    }

    /// Takes the secrets that were used so far out of bytes.
    pub fn redactor(&self) -> Arc<Redactor> {
        self.used().redactor.clone()
    }

    fn value_of(&self, name: &str) -> Result<String, Failure> {
        if let Some(value) = self.variables.get(name) {
            return Ok(value.clone());
        }
        // A name with other characters could lead out of the folder.
        let plain =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        let missing = || {
            Failure::permanent(format!(
                "secret `{name}` is not set: set {VARIABLE_PREFIX}{name} or put it into a file `{name}` of the folder \
                 that {FOLDER_VARIABLE} names"
            ))
        };
        let Some(folder) = self.folder.as_ref().filter(|_| plain) else {
            return Err(missing());
        };
        let path = folder.join(name);
        let unreadable =
            |why: &str| Failure::permanent(format!("secret `{name}`: cannot read {}: {why}", path.display()));
        let length = match std::fs::metadata(&path) {
            Ok(about) if about.is_file() => about.len(),
            Ok(_) => return Err(unreadable("it is no file")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(unreadable(&error.to_string())),
        };
        if length > FILE_BYTES_MAX {
            return Err(unreadable("it is larger than 1 MiB"));
        }
        let value = std::fs::read_to_string(&path).map_err(|error| unreadable(&error.to_string()))?;
        let value = value.strip_suffix('\n').unwrap_or(&value);
        Ok(value.strip_suffix('\r').unwrap_or(value).to_owned())
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str) -> Text {
        Text(vec![Part::Plain("Bearer ".to_owned()), Part::Secret(name.to_owned())])
    }

    #[test]
    fn a_variable_goes_before_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("FILED"), "from a file\r\n").unwrap();
        std::fs::write(folder.path().join("BOTH"), "from a file\n").unwrap();
        let env = BTreeMap::from([
            ("TOL_SECRET_BOTH".to_owned(), "from the environment".to_owned()),
            (FOLDER_VARIABLE.to_owned(), folder.path().to_str().unwrap().to_owned()),
        ]);
        let secrets = Secrets::from_env(&env);
        assert_eq!(secrets.fill(&secret("BOTH")).unwrap(), "Bearer from the environment");
        assert_eq!(secrets.fill(&secret("FILED")).unwrap(), "Bearer from a file");
        assert_eq!(secrets.redactor().text("it is from a file!"), "it is ***!");
        for name in ["ABSENT", "../FILED", "a/b", ""] {
            let failure = secrets.fill(&secret(name)).unwrap_err();
            assert_eq!(failure.class, crate::task::ErrorClass::Permanent);
            assert!(
                failure.message.contains(&format!("secret `{name}` is not set: set TOL_SECRET_{name}")),
                "{}",
                failure.message
            );
        }
        assert!(secrets.fill(&secret("ABSENT")).is_err());
    }
}
