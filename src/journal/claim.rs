//! Which runs this process owns: taking them over, giving them up.

use crate::id::RunId;
use crate::journal::error::JournalError;
use crate::journal::owner::{self, OwnerLock};
use crate::journal::rows;
use crate::journal::transaction::Writer;
use crate::journal::types::Claim;

impl Writer {
    /// The name that this process's runs have in their rows.
    pub(crate) fn own_name(&mut self) -> Result<String, JournalError> {
        if let Some(owner) = &self.owner {
            return Ok(owner.name.clone());
        }
        let owner = OwnerLock::take(&self.folder.owners())?;
        let name = owner.name.clone();
        self.owner = Some(owner);
        Ok(name)
    }

    /// Makes this process a run's owner, unless another living one is.
    pub(crate) fn claim(&mut self, run: &RunId) -> Result<Claim, JournalError> {
        let own = self.own_name()?;
        let owners = self.folder.owners();
        let file = self.file.clone();
        let claim = self.change(|connection| {
            let Some(mut stored) = rows::find(connection, &file, run)? else {
                return Err(JournalError::NoSuchRun { run: run.clone(), file: file.clone() });
            };
            match &stored.owner {
                Some(owner) if *owner == own => return Ok(Claim::Taken),
                Some(owner) => {
                    if let Some(holder) = owner::living_holder(&owners, owner, true)? {
                        return Ok(Claim::Held { holder });
                    }
                }
                None => {}
            }
            stored.owner = Some(own);
            stored.update(connection).map_err(|error| JournalError::sqlite(&file, &error))?;
            Ok(Claim::Taken)
        })?;
        if claim == Claim::Taken {
            // The former owner may have written since this process last looked, or this one was fenced before.
            self.runs.remove(run);
        }
        Ok(claim)
    }

    /// Gives a run up if this process owns it.
    pub(crate) fn release(&mut self, run: &RunId) -> Result<(), JournalError> {
        let own = self.owner.as_ref().map(|owner| owner.name.clone());
        let file = self.file.clone();
        self.runs.remove(run);
        self.change(|connection| {
            let Some(mut stored) = rows::find(connection, &file, run)? else { return Ok(()) };
            if stored.owner.is_none() || stored.owner != own {
                return Ok(());
            }
            stored.owner = None;
            stored.update(connection).map_err(|error| JournalError::sqlite(&file, &error))
        })
    }
}
