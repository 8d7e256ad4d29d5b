//! What a launcher of MPI processes tells them in their environment.

/// A launcher's variable with the number of its processes.
///
/// `SLURM_NTASKS` is not among them: it is set in a batch script, too, which is one process.
const SIZES: [(&str, &str); 5] = [
    ("OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun"),
    ("PMI_SIZE", "a PMI launcher (such as MPICH's mpiexec)"),
    ("MV2_COMM_WORLD_SIZE", "MVAPICH's mpirun"),
    ("MPI_LOCALNRANKS", "Intel MPI's mpirun"),
    ("SLURM_STEP_NUM_TASKS", "Slurm's srun"),
];

/// Processes that a launcher has started together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The launcher.
    pub by: &'static str,
    /// The variable that tells.
    pub variable: &'static str,
    /// How many there are, at least 2.
    pub processes: usize,
}

/// Whether a launcher has started this process as one of several.
pub fn launched() -> Option<Launched> {
    found(|variable| std::env::var(variable).ok())
}

fn found(read: impl Fn(&str) -> Option<String>) -> Option<Launched> {
    SIZES.into_iter().find_map(|(variable, by)| {
        let processes: usize = read(variable)?.trim().parse().ok()?;
        (processes > 1).then_some(Launched { by, variable, processes })
    })
}

impl Launched {
    /// Why a program without MPI refuses to be one of several processes.
    pub fn without_mpi(&self) -> String {
        format!(
            "{} started {} processes ({} is {}), but this program was built without MPI; build it \
             with `cargo build --release --features mpi`, or start one process",
            self.by, self.processes, self.variable, self.processes
        )
    }

    /// Why a command that does not share its work refuses to be one of several processes.
    pub fn must_be_alone(&self, command: &str) -> String {
        format!(
            "{} started {} processes ({} is {}), and `{command}` is for one process: start it without \
             the launcher; only `dbb train` shares its work among processes",
            self.by, self.processes, self.variable, self.processes
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_known_by_their_variables() {
        let with = |variable: &'static str, value: &'static str| {
            found(move |name| (name == variable).then(|| value.to_string()))
        };
        assert_eq!(with("OMPI_COMM_WORLD_SIZE", "4").map(|found| found.processes), Some(4));
        assert_eq!(with("SLURM_STEP_NUM_TASKS", "8").map(|found| found.by), Some("Slurm's srun"));
        assert_eq!(with("OMPI_COMM_WORLD_SIZE", "1"), None);
        assert_eq!(with("SLURM_NTASKS", "8"), None);
        let text = with("PMI_SIZE", "3").unwrap().without_mpi();
        assert!(text.contains("3 processes (PMI_SIZE is 3)"), "{text}");
    }
}
