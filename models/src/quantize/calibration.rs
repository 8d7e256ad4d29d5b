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
    /// The first value that was not finite.
    non_finite: Option<String>,
}

#[derive(Clone, Debug)]
enum Seen {
    Extremes(BTreeMap<String, Range>),
    Values(BTreeMap<String, Histogram>),
}

impl Calibration {
    /// A calibration that has seen nothing.
    pub fn new(method: RangeMethod) -> Self {
        Self { method, seen: Seen::Extremes(BTreeMap::new()), non_finite: None }
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
        self.check()?;
        let Seen::Extremes(extremes) = self.seen else { return Ok(self) };
        let histogram = |(name, range): (String, Range)| (name, Histogram::new(range.with_zero()));
        let values = extremes.into_iter().map(histogram).collect();
        Ok(Self { seen: Seen::Values(values), ..self })
    }

    /// The ranges.
    ///
    /// # Errors
    /// If no image was seen, or a value was not finite.
    pub fn ranges(&self) -> Result<Ranges, RangeError> {
        self.check()?;
        let ranges = match &self.seen {
            Seen::Extremes(extremes) => extremes.clone(),
            Seen::Values(values) => {
                let percentage = match self.method {
                    RangeMethod::MinMax => 0.0,
                    RangeMethod::Percentile(outside) => outside,
                };
                let range = |(name, values): (&String, &Histogram)| {
                    (name.clone(), values.without(percentage))
                };
                values.iter().map(range).collect()
            }
        };
        Ok(Ranges::new(ranges))
    }

    fn check(&self) -> Result<(), RangeError> {
        let is_empty = match &self.seen {
            Seen::Extremes(extremes) => extremes.is_empty(),
            Seen::Values(values) => values.is_empty(),
        };
        match &self.non_finite {
            Some(name) => Err(RangeError::NonFinite { name: name.clone() }),
            None if is_empty => Err(RangeError::NoImages),
            None => Ok(()),
        }
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
        if self.non_finite.is_none() && values.iter().any(|value| !value.is_finite()) {
            self.non_finite = Some(value.to_string());
        }
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
