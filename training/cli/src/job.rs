//! Processes that a launcher of MPI has started together.

use dbb_training::Error;
use dbb_training::train::group::{Ranks, launcher};

/// This process as one of its job. A process that nothing has launched is a job of its own.
#[derive(Default)]
pub struct Job {
    #[cfg(feature = "mpi")]
    membership: Option<dbb_training::train::group::mpi::Membership>,
}

impl Job {
    /// Joins the other processes of a launcher, if there is one.
    pub fn join() -> Result<Self, Error> {
        let Some(launched) = launcher::launched() else { return Ok(Self::default()) };
        #[cfg(feature = "mpi")]
        {
            let hung = |text: &str| crate::say(&format!("error: {text}"));
            let membership = dbb_training::train::group::mpi::join(&launched, hung)?;
            Ok(Self { membership: Some(membership) })
        }
        #[cfg(not(feature = "mpi"))]
        Err(Error::Launcher(launched.without_mpi()))
    }

    /// This process, which must be the only one of its launcher: `command` does not share its work.
    pub fn alone(command: &str) -> Result<Self, Error> {
        match launcher::launched() {
            None => Ok(Self::default()),
            Some(launched) => Err(Error::Launcher(launched.must_be_alone(command))),
        }
    }

    /// The processes that share the work.
    pub fn ranks(&self) -> Ranks {
        #[cfg(feature = "mpi")]
        if let Some(membership) = &self.membership {
            return membership.ranks().clone();
        }
        Ranks::default()
    }

    /// Ends this process' part of the job. An error that all processes have is printed by the first
    /// alone; one that the others still wait behind ends them.
    pub fn end(self, error: Option<(String, u8)>) -> u8 {
        let (text, code) = error.unwrap_or_default();
        #[cfg(feature = "mpi")]
        if let Some(membership) = &self.membership {
            let ranks = membership.ranks();
            if ranks.is_first() && code > 0 {
                crate::say(&text);
            }
            let together = membership.leave();
            if !together && code > 0 {
                if !ranks.is_first() {
                    crate::say(&format!("{}: {text}", ranks.name(ranks.rank())));
                }
                membership.abort(code.into());
            }
            return code;
        }
        if code > 0 {
            crate::say(&text);
        }
        code
    }
}
