//! Where the time of a thread goes: by layer, by pass, and by kind of work.
//!
//! A [`Profile`] is recorded [`during`](Profile::during) some work of the calling thread. Within it, a
//! [`Span`] says what is done until it is dropped; spans nest, and time counts for the innermost alone,
//! so that all times together are the whole. Kernels share their work among Rayon's threads and return
//! when it is done: what counts is the time that the calling thread waits for them.
//!
//! Outside of a recording a span is one look at a thread-local flag.
//!
//! ```
//! use dbb_kernels::profile::{self, Profile, Work};
//!
//! let (_, profile) = Profile::during(|| {
//!     let _layer = profile::layer(|| "conv1".into());
//!     let _span = profile::work(Work::Products);
//!     std::thread::sleep(std::time::Duration::from_millis(2));
//! });
//! let sum: std::time::Duration = profile.entries().map(|entry| entry.time).sum();
//! assert_eq!(profile.total(), sum);
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Products of matrices: convolutions and their gradients, merged kernels.
    Products,
    /// Depthwise convolutions, with the norms of their branches.
    Depthwise,
    /// A depthwise convolution within the product of the 1x1 convolution that follows.
    Separable,
    /// Batch norms: statistics, sums of normalised maps, gradients.
    Norms,
    /// Sums and covariances of a block's input, from which its opening norms follow.
    Moments,
    /// Average and max pools.
    Pools,
    /// Kernels of OREPA from their branches.
    Orepa,
    /// The loss.
    Loss,
    /// The step of the optimizer.
    Optimizer,
    /// Anything else.
    Other,
}

impl Work {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Products => "products",
            Self::Depthwise => "depthwise",
            Self::Separable => "depthwise and 1x1 in one",
            Self::Norms => "norms",
            Self::Moments => "moments",
            Self::Pools => "pools",
            Self::Orepa => "kernels of OREPA",
            Self::Loss => "loss",
            Self::Optimizer => "optimizer",
            Self::Other => "other",
        }
    }
}

/// What a time was spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    layer: Option<LayerId>,
    is_backward: bool,
    work: Option<Work>,
}

/// A layer of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerId(usize);

/// The time of one kind of work in one layer and pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    /// The layer; `None` outside of all.
    pub layer: Option<&'a str>,
    /// Whether it is the backward pass.
    pub is_backward: bool,
    /// What was done.
    pub work: Work,
    /// For how long.
    pub time: Duration,
}

/// Times of a thread.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    layers: Vec<String>,
    times: BTreeMap<Place, Duration>,
}

/// A recording under way.
struct Recorder {
    profile: Profile,
    stack: Vec<Place>,
    /// When the innermost span began or went on.
    since: Instant,
}

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

impl Profile {
    /// Records what `work` does in this thread. A recording within another one is part of that, and
    /// empty itself.
    pub fn during<T>(work: impl FnOnce() -> T) -> (T, Self) {
        /// Ends the recording however the work ends.
        struct Stop;
        impl Drop for Stop {
            fn drop(&mut self) {
                IS_ON.set(false);
            }
        }
        if IS_ON.get() {
            return (work(), Self::default());
        }
        let (profile, stack) = (Self::default(), vec![Place::default()]);
        RECORDER.set(Some(Recorder { profile, stack, since: Instant::now() }));
        IS_ON.set(true);
        let stop = Stop;
        let result = work();
        drop(stop);
        let recorder = RECORDER.take().map(|mut recorder| {
            recorder.count();
            recorder.profile
        });
        (result, recorder.unwrap_or_default())
    }

    /// Adds the times of another recording, whose layers are matched by name.
    pub fn add(&mut self, other: &Self) {
        for (place, &time) in &other.times {
            let layer = place.layer.map(|LayerId(index)| self.layer(other.layers[index].clone()));
            *self.times.entry(Place { layer, ..*place }).or_default() += time;
        }
    }

    /// The names of the layers, in the order in which they were first entered.
    pub fn layers(&self) -> &[String] {
        &self.layers
    }

    /// Every time.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.times.iter().map(|(place, &time)| Entry {
            layer: place.layer.map(|LayerId(index)| &*self.layers[index]),
            is_backward: place.is_backward,
            work: place.work.unwrap_or(Work::Other),
            time,
        })
    }

    /// The whole time.
    pub fn total(&self) -> Duration {
        self.times.values().sum()
    }

    fn layer(&mut self, name: String) -> LayerId {
        let index = self.layers.iter().position(|layer| *layer == name);
        LayerId(index.unwrap_or_else(|| {
            self.layers.push(name);
            self.layers.len() - 1
        }))
    }
}

impl Recorder {
    /// Counts the time since the last change for the innermost span.
    fn count(&mut self) {
        let now = Instant::now();
        let place = self.stack.last().copied().unwrap_or_default();
        *self.profile.times.entry(place).or_default() += now - self.since;
        self.since = now;
    }
}

/// What is done until it is dropped.
#[must_use = "a span ends when it is dropped"]
pub struct Span {
    is_recorded: bool,
    /// It ends in the thread in which it began.
    _thread: PhantomData<*const ()>,
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.is_recorded {
            with(|recorder| {
                recorder.count();
                recorder.stack.pop();
            });
        }
    }
}

fn with<T>(of: impl FnOnce(&mut Recorder) -> T) -> Option<T> {
    RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map(of))
}

/// Begins a span whose place follows from that around it.
#[inline]
fn span(place: impl FnOnce(&mut Profile, Place) -> Place) -> Span {
    let is_recorded = IS_ON.get();
    if is_recorded {
        with(|recorder| {
            recorder.count();
            let around = recorder.stack.last().copied().unwrap_or_default();
            let place = place(&mut recorder.profile, around);
            recorder.stack.push(place);
        });
    }
    Span { is_recorded, _thread: PhantomData }
}

/// A kind of work, in the layer and the pass around it.
#[inline]
pub fn work(work: Work) -> Span {
    span(|_, around| Place { work: Some(work), ..around })
}

/// A layer. Its name is made only where a profile is recorded.
#[inline]
pub fn layer(name: impl FnOnce() -> String) -> Span {
    span(|profile, around| Place { layer: Some(profile.layer(name())), work: None, ..around })
}

/// A layer that was entered before, or none.
#[inline]
pub fn within(layer: Option<LayerId>) -> Span {
    span(|_, around| Place { layer, work: None, ..around })
}

/// The backward pass.
#[inline]
pub fn backward() -> Span {
    span(|_, around| Place { is_backward: true, ..around })
}

/// The layer around this place, if a profile is recorded.
pub fn current_layer() -> Option<LayerId> {
    if !IS_ON.get() {
        return None;
    }
    with(|recorder| recorder.stack.last().and_then(|place| place.layer)).flatten()
}

/// A recording on its way to another thread, if there is one.
pub(crate) struct Recording(Option<Recorder>);

/// Takes the recording of this thread away.
pub(crate) fn take() -> Recording {
    IS_ON.set(false);
    Recording(RECORDER.take())
}

/// Goes on with a recording in this thread.
pub(crate) fn resume(recording: Recording) {
    IS_ON.set(recording.0.is_some());
    RECORDER.set(recording.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }

    fn time(profile: &Profile, layer: Option<&str>, is_backward: bool, work: Work) -> f64 {
        let entries = profile.entries().filter(|entry| {
            (entry.layer, entry.is_backward, entry.work) == (layer, is_backward, work)
        });
        entries.map(|entry| 1000.0 * entry.time.as_secs_f64()).sum()
    }

    #[test]
    fn time_counts_for_the_innermost_span_and_adds_up() {
        let started = Instant::now();
        let (id, profile) = Profile::during(|| {
            let id = {
                let _layer = layer(|| "conv".into());
                wait(2);
                let _products = work(Work::Products);
                wait(4);
                {
                    let _norms = work(Work::Norms);
                    wait(8);
                }
                current_layer()
            };
            let _backward = backward();
            let _layer = within(id);
            let _products = work(Work::Products);
            wait(16);
            id
        });
        let whole = started.elapsed();
        assert!(id.is_some() && profile.total() <= whole);
        let sum: Duration = profile.entries().map(|entry| entry.time).sum();
        assert_eq!(profile.total(), sum);
        for (is_backward, work, least) in [
            (false, Work::Other, 2.0),
            (false, Work::Products, 4.0),
            (false, Work::Norms, 8.0),
            (true, Work::Products, 16.0),
        ] {
            let found = time(&profile, Some("conv"), is_backward, work);
            assert!(found >= least, "{work:?}: {found}");
        }
        // What was asleep in one span is in no other one.
        let total = 1000.0 * profile.total().as_secs_f64();
        assert!(time(&profile, Some("conv"), true, Work::Products) <= total - 14.0);
    }

    #[test]
    fn nothing_is_recorded_outside_and_in_other_threads() {
        let _span = work(Work::Norms);
        assert_eq!(current_layer(), None);
        let ((), profile) = Profile::during(|| {
            std::thread::spawn(|| {
                let _layer = layer(|| unreachable!("no profile in this thread"));
            })
            .join()
            .unwrap();
            let ((), inner) = Profile::during(|| ());
            assert_eq!(inner.total(), Duration::ZERO);
        });
        assert!(profile.layers().is_empty());
        let panicked = std::panic::catch_unwind(|| Profile::during(|| panic!("out")));
        assert!(panicked.is_err() && current_layer().is_none());
        let ((), after) = Profile::during(|| drop(work(Work::Loss)));
        assert_eq!(after.entries().filter(|entry| entry.work == Work::Loss).count(), 1);
    }

    #[test]
    fn recordings_add_up_by_the_names_of_layers() {
        let record = |names: [&'static str; 2]| {
            let layers = || names.map(|name| drop(layer(|| name.into())));
            Profile::during(layers).1
        };
        let (first, second) = (record(["a", "b"]), record(["b", "c"]));
        let mut sum = first.clone();
        sum.add(&second);
        assert_eq!(sum.layers(), ["a", "b", "c"]);
        assert_eq!(sum.total(), first.total() + second.total());
    }
}
