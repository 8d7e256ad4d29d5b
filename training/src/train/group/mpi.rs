//! MPI between the processes that a launcher has started.
//!
//! Messages go from process to process without blocking, so that a rank that stays silent is noticed
//! and named. MPI's own collectives can neither be given up nor promise an order of sums.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source};
use mpi::request::{LocalScope, Request, scope};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::Equivalence;
use mpi::{Rank, Tag, Threading};

use super::launcher::Launched;
use super::{Exchange, Ranks};
use crate::error::{Error, Result};

/// Seconds in which a rank must answer the others; `DBB_MPI_TIMEOUT` sets another time.
const TIMEOUT: u64 = 600;

/// The environment variable with another [`TIMEOUT`].
const TIMEOUT_VARIABLE: &str = "DBB_MPI_TIMEOUT";

/// How long ranks wait for each other at their end.
const LEAVING: Duration = Duration::from_secs(10);

/// Time of polling without a pause; ranks are rarely further apart than this.
const BUSY: Duration = Duration::from_millis(20);

/// The pause between two polls afterwards.
const PAUSE: Duration = Duration::from_micros(200);

/// Messages of a run, and the last ones.
const RUN: Tag = 0;
const END: Tag = 1;

/// The membership of a process in its job; MPI ends when it is dropped.
pub struct Membership {
    ranks: Ranks,
    mpi: Arc<Mpi>,
    universe: Option<Universe>,
}

/// Joins the ranks of a launcher. `hung` is told of a rank that does not answer, before the job
/// ends.
///
/// # Errors
/// If MPI does not find the processes that the launcher has started, or `DBB_MPI_TIMEOUT` is not a
/// number of seconds.
pub fn join(launched: &Launched, hung: fn(&str)) -> Result<Membership> {
    let fail = |text: String| Error::Launcher(text);
    let seconds = match std::env::var(TIMEOUT_VARIABLE) {
        Err(_) => TIMEOUT,
        Ok(text) => text.parse().ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
            fail(format!(
                "{TIMEOUT_VARIABLE} is \"{text}\", expected a number of seconds, at least 1"
            ))
        })?,
    };
    // The backward pass may run in another thread than the forward pass.
    let (universe, provided) = mpi::initialize_with_threading(Threading::Serialized)
        .ok_or_else(|| fail("MPI has been initialised before".into()))?;
    if provided < Threading::Serialized {
        return Err(fail(format!(
            "this MPI allows threads as {provided:?} only, and dbb calls it from several, one at a \
             time: it must be built with MPI_THREAD_SERIALIZED"
        )));
    }
    let world = universe.world();
    if world.size() as usize != launched.processes {
        return Err(fail(format!(
            "{} started {} processes, but MPI finds {}; hint: the program must be built with the MPI \
             of the launcher, and srun needs that MPI's plugin, such as --mpi=pmix",
            launched.by,
            launched.processes,
            world.size()
        )));
    }
    let host = mpi::environment::processor_name().unwrap_or_else(|_| "an unnamed host".into());
    let unnamed = Mpi {
        rank: world.rank() as usize,
        hosts: vec![String::from("an unknown host"); world.size() as usize],
        timeout: Duration::from_secs(seconds),
        hung,
    };
    let hosts = Ranks::new(Arc::new(unnamed.clone())).gather(host)?;
    let mpi = Arc::new(Mpi { hosts, ..unnamed });
    let exchange: Arc<dyn Exchange> = mpi.clone();
    Ok(Membership { ranks: Ranks::new(exchange), mpi, universe: Some(universe) })
}

impl Membership {
    /// The ranks of the job.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Leaves the job, which must end on all ranks. Says whether the others are leaving, too: a rank
    /// that others still wait for must [abort](Self::abort).
    pub fn leave(&self) -> bool {
        let others = (0..self.mpi.size()).filter(|rank| *rank != self.mpi.rank);
        let world = SimpleCommunicator::world();
        let deadline = Instant::now() + LEAVING;
        for rank in others.clone() {
            // A message of a byte needs no receiver to be on its way.
            world.process_at_rank(rank as Rank).send_with_tag(&[0u8], END);
        }
        others.into_iter().all(|rank| {
            let process = world.process_at_rank(rank as Rank);
            loop {
                if process.immediate_probe_with_tag(END).is_some() {
                    let mut byte = [0u8];
                    process.receive_into_with_tag(&mut byte, END);
                    return true;
                }
                if Instant::now() > deadline {
                    return false;
                }
                std::thread::sleep(PAUSE);
            }
        })
    }

    /// Ends all processes of the job.
    pub fn abort(&self, code: i32) -> ! {
        SimpleCommunicator::world().abort(code)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The others would wait for this rank.
            self.abort(101);
        }
        drop(self.universe.take());
    }
}

#[derive(Clone)]
struct Mpi {
    rank: usize,
    hosts: Vec<String>,
    timeout: Duration,
    hung: fn(&str),
}

impl Mpi {
    fn swap<T: Equivalence>(&self, out: &[&[T]], into: &mut [&mut [T]]) {
        let world = SimpleCommunicator::world();
        let process = |rank: usize| world.process_at_rank(rank as Rank);
        scope(|scope| {
            let others = |rank: &usize| *rank != self.rank;
            let mut pending: Vec<(usize, Request<'_, [T], &LocalScope<'_>>)> = Vec::new();
            for (rank, buffer) in into.iter_mut().enumerate().filter(|(rank, _)| others(rank)) {
                let request =
                    process(rank).immediate_receive_into_with_tag(scope, &mut **buffer, RUN);
                pending.push((rank, request));
            }
            for (rank, buffer) in out.iter().enumerate().filter(|(rank, _)| others(rank)) {
                let request = process(rank).immediate_send_with_tag(scope, *buffer, RUN);
                pending.push((rank, request));
            }
            let started = Instant::now();
            loop {
                pending = pending
                    .into_iter()
                    .filter_map(|(rank, request)| Some((rank, request.test().err()?)))
                    .collect();
                let Some((rank, _)) = pending.first() else { return };
                match started.elapsed() {
                    waited if waited > self.timeout => {
                        let (host, seconds) = (&self.hosts[*rank], self.timeout.as_secs());
                        (self.hung)(&format!(
                            "rank {} on {}: rank {rank} on {host} has not answered for {seconds} \
                             seconds, so the job ends; hint: set {TIMEOUT_VARIABLE} to more seconds if it was \
                             only slow",
                            self.rank, self.hosts[self.rank]
                        ));
                        world.abort(1);
                    }
                    waited if waited > BUSY => std::thread::sleep(PAUSE),
                    _ => std::thread::yield_now(),
                }
            }
        });
    }
}

impl Exchange for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hosts.len()
    }

    fn host(&self, rank: usize) -> &str {
        &self.hosts[rank]
    }

    fn bytes(&self, out: &[&[u8]], into: &mut [&mut [u8]]) {
        self.swap(out, into);
    }

    fn floats(&self, out: &[&[f32]], into: &mut [&mut [f32]]) {
        self.swap(out, into);
    }

    fn doubles(&self, out: &[&[f64]], into: &mut [&mut [f64]]) {
        self.swap(out, into);
    }
}
