//! Threads that wait for the next part of a piece of work without going to sleep.
//!
//! Rayon's threads sleep soon after they have run out of work, and waking them takes as long as a small
//! layer. While [`lead`] runs a network, the other threads of the pool spin between its layers.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::profile;

/// Rounds of spinning after which a thread lets others run.
const SPINS: usize = 1 << 12;

/// A loop whose turns threads take one by one.
struct Loop<'a> {
    turn: &'a (dyn Fn(usize) + Sync),
    count: usize,
    next: AtomicUsize,
}

impl Loop<'_> {
    fn run(&self) {
        loop {
            let index = self.next.fetch_add(1, SeqCst);
            if index >= self.count {
                return;
            }
            (self.turn)(index);
        }
    }
}

#[derive(Default)]
struct Team {
    /// The loop under way, which outlives its place here: it is taken away before the leader waits until
    /// nobody is `inside`, and a member looks for it only after having entered.
    current: AtomicPtr<Loop<'static>>,
    /// Loops that have begun.
    begun: AtomicUsize,
    /// Members that may be using the loop.
    inside: AtomicUsize,
    dismissed: AtomicBool,
}

thread_local! {
    /// The team that this thread leads.
    static TEAM: Cell<*const Team> = const { Cell::new(std::ptr::null()) };
}

/// Counts down when it is dropped, also by a panic.
struct Inside<'a>(&'a AtomicUsize);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn spin_while(condition: impl Fn() -> bool) {
    let mut rounds = 0;
    while condition() {
        rounds += 1;
        match rounds % SPINS {
            0 => std::thread::yield_now(),
            _ => std::hint::spin_loop(),
        }
    }
}

impl Team {
    fn follow(&self) {
        let mut seen = 0;
        loop {
            spin_while(|| self.begun.load(SeqCst) == seen && !self.dismissed.load(SeqCst));
            if self.dismissed.load(SeqCst) {
                return;
            }
            seen = self.begun.load(SeqCst);
            self.inside.fetch_add(1, SeqCst);
            let _inside = Inside(&self.inside);
            let current = self.current.load(SeqCst);
            // SAFETY: the leader has not taken the loop away, and will wait for this thread to leave before
            // the loop ends.
            if let Some(current) = unsafe { current.as_ref() } {
                current.run();
            }
        }
    }

    fn run(&self, turns: &Loop) {
        /// Takes the loop away and waits until it is not used, also by a panic.
        struct End<'a>(&'a Team);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.current.store(std::ptr::null_mut(), SeqCst);
                spin_while(|| self.0.inside.load(SeqCst) > 0);
            }
        }
        let end = End(self);
        self.current.store(std::ptr::from_ref(turns).cast_mut().cast(), SeqCst);
        self.begun.fetch_add(1, SeqCst);
        turns.run();
        drop(end);
    }
}

/// Runs `work` on a thread of Rayon's current pool, whose other threads do nothing but the turns of the
/// loops that [`for_each`] divides among them.
pub(crate) fn lead<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if rayon::current_thread_index().is_some() {
        return work();
    }
    /// Leaves no recording behind, also by a panic.
    struct Stop;
    impl Drop for Stop {
        fn drop(&mut self) {
            profile::take();
        }
    }
    let recording = profile::take();
    let work = || {
        let _stop = Stop;
        profile::resume(recording);
        (work(), profile::take())
    };
    let team = Team::default();
    let work = Mutex::new(Some(work));
    let results = rayon::broadcast(|_| {
        // Whoever comes first leads. No thread panics while it holds the lock.
        let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        match work {
            Some(work) => Some(led(&team, work)),
            None => {
                team.follow();
                None
            }
        }
    });
    let (result, recording) = results.into_iter().flatten().next().expect("one thread has led");
    profile::resume(recording);
    result
}

/// Runs `work` as the leader of a team, and ends the team.
fn led<T>(team: &Team, work: impl FnOnce() -> T) -> T {
    /// Also by a panic.
    struct Dismiss<'a>(&'a Team);
    impl Drop for Dismiss<'_> {
        fn drop(&mut self) {
            TEAM.set(std::ptr::null());
            self.0.dismissed.store(true, SeqCst);
        }
    }
    let _dismiss = Dismiss(team);
    TEAM.set(team);
    work()
}

/// Calls `turn` with every index below `count`, on the threads of the team that this thread leads, or else of
/// Rayon's pool.
pub(crate) fn for_each(count: usize, turn: impl Fn(usize) + Sync) {
    // SAFETY: `lead` clears the pointer before the team ends.
    match unsafe { TEAM.get().as_ref() } {
        Some(team) if count > 1 => {
            team.run(&Loop { turn: &turn, count, next: AtomicUsize::new(0) });
        }
        Some(_) => (0..count).for_each(turn),
        None => (0..count).into_par_iter().for_each(|index| turn(index)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn in_pool_of(threads: usize, work: impl FnOnce() + Send) {
        // `lead` is called from outside a pool: a thread whose current pool is another than the global one
        // cannot be had.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let team = Team::default();
        pool.in_place_scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| team.follow());
            }
            led(&team, work);
        });
    }

    #[test]
    fn every_turn_is_taken_once_and_before_the_loop_ends() {
        let rounds = if cfg!(miri) { 5 } else { 2000 };
        in_pool_of(3, || {
            for round in 0..rounds {
                let taken: Vec<_> = (0..round % 7).map(|_| AtomicUsize::new(0)).collect();
                for_each(taken.len(), |index| {
                    taken[index].fetch_add(1, SeqCst);
                });
                assert!(taken.iter().all(|taken| taken.load(SeqCst) == 1), "round {round}");
            }
        });
    }

    #[test]
    #[should_panic(expected = "this turn")]
    fn a_panic_of_the_leader_ends_the_team() {
        in_pool_of(2, || for_each(8, |_| panic!("this turn")));
    }

    #[test]
    fn a_profile_goes_along() {
        let ((), profile) = Profile::during(|| {
            lead(|| drop(profile::layer(|| "there".into())));
            drop(profile::layer(|| "here".into()));
        });
        assert_eq!(profile.layers(), ["there", "here"]);
    }

    #[test]
    fn work_is_led_from_outside_and_from_inside_the_pool() {
        assert_eq!(lead(|| 5), 5);
        assert_eq!(lead(|| lead(|| 6)), 6);
        assert!(TEAM.get().is_null());
    }
}
