//! The ranges of the values of a network, from images.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde::Serialize;

use super::histogram::Histogram;
use super::range::{Range, RangeError, Ranges};
use crate::blocks::Activation;
use crate::operators::{Evaluator, Lowered, Map, Operator};
use crate::walk::{Walk, parts};

/// How a range follows from the values that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeMethod {
    /// From the smallest to the largest.
    #[default]
    MinMax,
    /// All but this percentage of the values, half of it at each end.
    Percentile(f64),
    /// With the least Kullback-Leibler divergence of the distribution of the rounded values from that of the
    /// values (Migacz, 8-bit inference with TensorRT, 2017).
    Entropy,
    /// With the least mean squared error of the rounded values.
    SquaredError,
}

impl RangeMethod {
    /// Whether it needs the distribution of the values.
    pub fn needs_distribution(self) -> bool {
        self != Self::MinMax
    }

    /// How often images are shown.
    pub fn passes(self) -> usize {
        if self.needs_distribution() { 2 } else { 1 }
    }
}

/// Finds the range of every value of a network: shows it images once, and, where the
/// [method needs it](RangeMethod::needs_distribution), the same images a second time after
/// [`Calibration::distribution`].
#[derive(Clone, Debug)]
pub struct Calibration {
    method: RangeMethod,
    seen: Seen,
}

#[derive(Clone, Debug)]
enum Seen {
    Extremes(BTreeMap<String, Range>),
    Values(BTreeMap<String, Histogram>),
}

impl Calibration {
    /// A calibration that has seen nothing.
    pub fn new(method: RangeMethod) -> Self {
        Self { method, seen: Seen::Extremes(BTreeMap::new()) }
    }

    /// Shows a network, folded and on the inference device, a batch of its input.
    pub fn observe(&mut self, network: &(impl Walk + ?Sized), images: Tensor<4>) {
        for part in parts(images) {
            Lowered::run(network, self, &|_| false, part);
        }
    }

    /// From the extremes to the distribution: what is observed from now on is counted between them.
    ///
    /// # Errors
    /// As [`Calibration::ranges`].
    pub fn distribution(self) -> Result<Self, RangeError> {
        let Seen::Extremes(extremes) = self.seen else { return Ok(self) };
        check(&extremes)?;
        let histogram = |(name, range): (String, Range)| (name, Histogram::new(range.with_zero()));
        let values = extremes.into_iter().map(histogram).collect();
        Ok(Self { method: self.method, seen: Seen::Values(values) })
    }

    /// The ranges.
    ///
    /// # Errors
    /// If no image was seen, or a value was not finite.
    pub fn ranges(&self) -> Result<Ranges, RangeError> {
        let ranges = match &self.seen {
            Seen::Extremes(extremes) => extremes.clone(),
            Seen::Values(values) => {
                let range = |(name, values): (&String, &Histogram)| {
                    (name.clone(), values.range(self.method))
                };
                values.iter().map(range).collect()
            }
        };
        check(&ranges)?;
        Ok(Ranges::new(ranges))
    }
}

fn check(ranges: &BTreeMap<String, Range>) -> Result<(), RangeError> {
    if ranges.is_empty() {
        return Err(RangeError::NoImages);
    }
    let is_finite = |range: &Range| range.low.is_finite() && range.high.is_finite();
    match ranges.iter().find(|(_, range)| !is_finite(range)) {
        Some((name, _)) => Err(RangeError::NonFinite { name: name.clone() }),
        None => Ok(()),
    }
}

/// Computes in `f32` and notes what would be rounded.
impl Evaluator for Calibration {
    type Real = Map;
    type Integers = Map;

    fn apply(&mut self, _: &str, operator: Operator<'_>, inputs: &[&Map]) -> Map {
        operator.compute(inputs)
    }

    fn size(&self, map: &Map) -> [usize; 2] {
        let [_, _, height, width] = map.dims();
        [height, width]
    }

    fn quantize(&mut self, value: &str, numbers: &Map) -> Map {
        let data = numbers.clone().into_data().convert::<f32>();
        // Converted to it.
        let values = data.as_slice::<f32>().expect("floats");
        match &mut self.seen {
            Seen::Extremes(extremes) => {
                let range = extremes.entry(value.to_string()).or_insert(Range::EMPTY);
                *range = range.with(values);
            }
            Seen::Values(histograms) => {
                if let Some(histogram) = histograms.get_mut(value) {
                    histogram.add(values);
                }
            }
        }
        numbers.clone()
    }

    fn dequantize(&mut self, integers: &Map) -> Map {
        integers.clone()
    }

    fn apply_to_integers(
        &mut self,
        name: &str,
        operator: Operator<'_>,
        inputs: &[&Map],
        clamp: Option<Activation>,
        to: &str,
    ) -> Map {
        let output = self.apply(name, operator, inputs);
        if operator.keeps_range() {
            return output;
        }
        let output = clamp.map_or(output.clone(), |clamp| clamp.forward(output));
        self.quantize(to, &output)
    }
}
