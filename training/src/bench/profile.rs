//! What the time of a measured step was spent on.

use std::collections::BTreeMap;
use std::time::Duration;

use dbb_models::profile::{Profile, Work};
use serde::Serialize;

/// The mean time of the measured steps by kind of work and by layer. Both lists add up to the whole,
/// with what belongs to none as a line of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepProfile {
    /// Mean time of a step, milliseconds.
    pub total_ms: f64,
    /// By kind of work, the longest first.
    pub work: Vec<WorkTime>,
    /// By layer, in order of computation.
    pub layers: Vec<LayerTime>,
    /// What belongs to no layer but to a kind of work, such as the optimizer, milliseconds.
    pub outside_ms: f64,
    /// What belongs to no layer and no kind of work, milliseconds: operations of the backend outside of
    /// layers, and their gradients.
    pub unattributed_ms: f64,
}

/// The time of one kind of work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkTime {
    /// Its name.
    pub work: &'static str,
    /// Milliseconds.
    pub ms: f64,
    /// Percent of the step.
    pub percent: f64,
}

/// The time of a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerTime {
    /// Its name.
    pub layer: String,
    /// Milliseconds of the forward pass.
    pub forward_ms: f64,
    /// Milliseconds of the backward pass.
    pub backward_ms: f64,
    /// Percent of the step.
    pub percent: f64,
    /// Milliseconds by kind of work.
    pub work: BTreeMap<&'static str, f64>,
}

/// Work inside of layers that has no kind.
const IN_LAYERS: &str = "other work of layers";
/// Work outside of layers that has no kind.
const UNATTRIBUTED: &str = "not attributed";

impl StepProfile {
    /// The mean over so many steps.
    pub(super) fn new(profile: &Profile, steps: usize) -> Self {
        let ms = |time: Duration| 1000.0 * time.as_secs_f64() / steps as f64;
        let total_ms = ms(profile.total());
        let percent = |ms: f64| if total_ms > 0.0 { 100.0 * ms / total_ms } else { 0.0 };
        let mut work = BTreeMap::<&'static str, f64>::new();
        let layer = |layer: &String| LayerTime {
            layer: layer.clone(),
            forward_ms: 0.0,
            backward_ms: 0.0,
            percent: 0.0,
            work: BTreeMap::new(),
        };
        let mut layers: Vec<LayerTime> = profile.layers().iter().map(layer).collect();
        let (mut outside_ms, mut unattributed_ms) = (0.0, 0.0);
        for entry in profile.entries() {
            let time = ms(entry.time);
            let name = match (entry.work, entry.layer) {
                (Work::Other, Some(_)) => IN_LAYERS,
                (Work::Other, None) => UNATTRIBUTED,
                (work, _) => work.name(),
            };
            *work.entry(name).or_default() += time;
            let layer = entry.layer.and_then(|name| layers.iter_mut().find(|l| l.layer == name));
            match (layer, entry.work) {
                (Some(layer), _) => {
                    *layer.work.entry(name).or_default() += time;
                    match entry.is_backward {
                        true => layer.backward_ms += time,
                        false => layer.forward_ms += time,
                    }
                }
                (None, Work::Other) => unattributed_ms += time,
                (None, _) => outside_ms += time,
            }
        }
        for layer in &mut layers {
            layer.percent = percent(layer.forward_ms + layer.backward_ms);
        }
        let time = |(work, ms)| WorkTime { work, ms, percent: percent(ms) };
        let mut work: Vec<WorkTime> = work.into_iter().map(time).collect();
        work.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        Self { total_ms, work, layers, outside_ms, unattributed_ms }
    }
}

#[cfg(test)]
mod tests {
    use dbb_models::profile;

    use super::*;

    #[test]
    fn both_lists_add_up_to_the_step() {
        let wait = |milliseconds| std::thread::sleep(Duration::from_millis(milliseconds));
        let (_, recorded) = Profile::during(|| {
            for name in ["a", "b"] {
                let _layer = profile::layer(|| name.into());
                wait(1);
                let _span = profile::work(Work::Norms);
                wait(3);
            }
            wait(1);
            let _span = profile::work(Work::Optimizer);
            wait(2);
        });
        let found = StepProfile::new(&recorded, 2);
        let whole = 500.0 * recorded.total().as_secs_f64();
        assert!((found.total_ms - whole).abs() < 1e-9);
        let of_work: f64 = found.work.iter().map(|work| work.ms).sum();
        let of_layers = found.layers.iter().map(|layer| layer.forward_ms + layer.backward_ms);
        let of_layers = of_layers.sum::<f64>() + found.outside_ms + found.unattributed_ms;
        assert!((of_work - whole).abs() < 1e-9 && (of_layers - whole).abs() < 1e-9);
        let ms = |name: &str| found.work.iter().find(|work| work.work == name).map(|work| work.ms);
        assert!(ms("norms") >= Some(3.0) && ms(IN_LAYERS) >= Some(1.0), "{found:?}");
        assert!(ms("optimizer") >= Some(1.0) && ms(UNATTRIBUTED) >= Some(0.5), "{found:?}");
        assert_eq!(found.layers.iter().map(|layer| &*layer.layer).collect::<Vec<_>>(), ["a", "b"]);
        assert!(found.layers[0].work["norms"] >= 1.5 && found.layers[0].backward_ms == 0.0);
        let percent: f64 = found.work.iter().map(|work| work.percent).sum();
        assert!((percent - 100.0).abs() < 1e-9);
    }
}
