//! The store that all schedulers share: who owns which partition, and the journals. Every write is held against the
//! owner's epoch by the store's own clock.

use super::truth::Truth;

/// For how long a scheduler owns a partition without renewing it, in milliseconds.
pub const OWNED: u64 = 10_000;

/// What a scheduler asks of the store. `tag` comes back with the answer.
#[derive(Clone, Debug)]
pub enum Request {
    Claim { partition: usize, asked: u64 },
    Renew { partition: usize, epoch: u64, asked: u64 },
    Release { partition: usize, epoch: u64 },
    Load { partition: usize, epoch: u64 },
    Append { run: usize, epoch: u64, tag: u64, first: u64, lines: Vec<String> },
}

/// What the store says.
#[derive(Clone, Debug)]
pub enum Answer {
    Owned { partition: usize, epoch: u64, asked: u64 },
    NotOwned { partition: usize },
    Loaded { partition: usize, epoch: u64, logs: Vec<(usize, Vec<String>)> },
    Appended { run: usize, tag: u64, through: u64 },
    Refused { run: usize, tag: u64 },
}

struct Owner {
    epoch: u64,
    holder: Option<usize>,
    until: u64,
}

/// The shared store.
pub struct Store {
    owners: Vec<Owner>,
    pub truths: Vec<Truth>,
    /// Writes that were refused because another scheduler had taken over.
    pub fenced: u64,
    /// Partitions that went from one scheduler to another.
    pub takeovers: u64,
}

impl Store {
    pub fn new(partitions: usize, truths: Vec<Truth>) -> Self {
        let owners = (0..partitions).map(|_| Owner { epoch: 0, holder: None, until: 0 }).collect();
        Self { owners, truths, fenced: 0, takeovers: 0 }
    }

    pub fn partition_of(&self, run: usize) -> usize {
        run % self.owners.len()
    }

    /// When the ownership of a partition runs out.
    pub fn until(&self, partition: usize) -> u64 {
        self.owners[partition].until
    }

    /// Who owns a partition now.
    pub fn owner(&self, partition: usize, now: u64) -> Option<usize> {
        let owner = &self.owners[partition];
        owner.holder.filter(|_| now < owner.until)
    }

    pub fn serve(&mut self, node: usize, request: Request, now: u64) -> Answer {
        match request {
            Request::Claim { partition, asked } => {
                let owner = &mut self.owners[partition];
                if owner.holder.is_some() && now < owner.until {
                    return Answer::NotOwned { partition };
                }
                self.takeovers += u64::from(owner.epoch > 0 && owner.holder != Some(node));
                *owner = Owner { epoch: owner.epoch + 1, holder: Some(node), until: now + OWNED };
                Answer::Owned { partition, epoch: owner.epoch, asked }
            }
            Request::Renew { partition, epoch, asked } => {
                let owner = &mut self.owners[partition];
                if owner.epoch != epoch || now >= owner.until {
                    return Answer::NotOwned { partition };
                }
                owner.until = now + OWNED;
                Answer::Owned { partition, epoch, asked }
            }
            Request::Release { partition, epoch } => {
                let owner = &mut self.owners[partition];
                if owner.epoch == epoch {
                    owner.until = owner.until.min(now);
                }
                Answer::NotOwned { partition }
            }
            Request::Load { partition, epoch } => {
                if self.owners[partition].epoch != epoch {
                    return Answer::NotOwned { partition };
                }
                let count = self.owners.len();
                let logs = self.truths.iter().enumerate().filter(|(run, _)| run % count == partition);
                let logs = logs.map(|(run, truth)| (run, truth.lines.clone())).collect();
                Answer::Loaded { partition, epoch, logs }
            }
            Request::Append { run, epoch, tag, first, lines } => {
                let owner = &self.owners[self.partition_of(run)];
                let fenced = owner.epoch != epoch || now >= owner.until;
                let truth = &mut self.truths[run];
                if fenced || first != truth.lines.len() as u64 + 1 {
                    self.fenced += u64::from(fenced);
                    return Answer::Refused { run, tag };
                }
                let through = first + lines.len() as u64 - 1;
                for line in lines {
                    truth.append(epoch, line);
                }
                Answer::Appended { run, tag, through }
            }
        }
    }
}
