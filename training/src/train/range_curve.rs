//! The curve of a learning-rate range test: smoothed, and read for a learning rate.

use serde::Serialize;

use crate::report::format::Quantity::Number;

/// Weight of the past in the running mean that decides whether training diverges.
const MOMENTUM: f64 = 0.9;
/// Training has diverged when this mean is so many times its smallest.
const DIVERGED: f64 = 4.0;
/// Standard deviation of the smoothing, as a part of all steps.
const SMOOTHING: f64 = 0.03;
/// The suggestion is the rate with the lowest loss over this.
const MARGIN: f64 = 2.0;

/// A step of a range test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RangePoint {
    /// Learning rate of the step.
    pub lr: f64,
    /// Mean loss of its images, before the step.
    pub loss: f64,
    /// The loss smoothed over neighbouring steps.
    pub smoothed: f64,
    /// Euclidean norm of the gradient, before clipping.
    pub grad_norm: f64,
}

/// What a range test finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RangeCurve {
    /// The steps, up to the one at which training diverged.
    pub points: Vec<RangePoint>,
    /// Whether training diverged before the last step.
    pub diverged: bool,
    /// The rate with the lowest smoothed loss.
    pub minimum: f64,
    /// The suggested rate, to two digits; `None` where the curve does not show one.
    pub suggested: Option<f64>,
    /// Why, in a sentence.
    pub why: String,
}

/// Whether training diverges, told step by step.
#[derive(Debug, Default)]
pub(super) struct Divergence {
    mean: f64,
    steps: i32,
    lowest: Option<f64>,
}

impl Divergence {
    /// Adds the loss of a step; true if training has diverged.
    pub fn add(&mut self, loss: f64) -> bool {
        self.steps += 1;
        self.mean = MOMENTUM * self.mean + (1.0 - MOMENTUM) * loss;
        // Without the bias towards the first mean, 0 (Kingma & Ba, 2015, section 3).
        let mean = self.mean / (1.0 - MOMENTUM.powi(self.steps));
        let lowest = self.lowest.map_or(mean, |lowest| lowest.min(mean));
        self.lowest = Some(lowest);
        mean.is_nan() || mean > DIVERGED * lowest
    }
}

impl RangeCurve {
    /// Reads the steps of a test of `planned` steps: rate, loss and norm of the gradient of each.
    ///
    /// # Panics
    /// Without steps.
    pub(super) fn new(steps: &[[f64; 3]], planned: usize, diverged: bool) -> Self {
        let losses: Vec<f64> = steps.iter().map(|[_, loss, _]| *loss).collect();
        let smoothed = smooth(&losses, SMOOTHING * planned as f64);
        let points: Vec<RangePoint> = steps
            .iter()
            .zip(&smoothed)
            .map(|(&[lr, loss, grad_norm], &smoothed)| RangePoint { lr, loss, smoothed, grad_norm })
            .collect();
        // At least one step.
        let lowest = (1..points.len()).fold(0, |lowest, i| {
            if points[i].smoothed < points[lowest].smoothed { i } else { lowest }
        });
        let minimum = points[lowest].lr;
        let lr = Number.show(minimum);
        let rises = diverged || lowest + 1 < points.len();
        let (suggested, why) = match (lowest, rises) {
            (0, _) => (None, format!("the loss is lowest at the first rate, {lr}; begin lower")),
            (_, false) => {
                (None, format!("the loss still falls at the last rate, {lr}; end higher"))
            }
            _ => {
                let why = format!("half of {lr}, where the loss is lowest before it rises");
                (Some(two_digits(minimum / MARGIN)), why)
            }
        };
        Self { points, diverged, minimum, suggested, why }
    }
}

/// A positive number rounded to two significant digits.
fn two_digits(value: f64) -> f64 {
    let text = format!("{value:.1e}");
    // It has just been written.
    text.parse().unwrap_or(value)
}

/// Values averaged with their neighbours by Gaussian weights, which shift nothing.
fn smooth(values: &[f64], deviation: f64) -> Vec<f64> {
    let reach = (3.0 * deviation).ceil() as usize;
    let weight = |distance: usize| match distance {
        0 => 1.0,
        _ => (-0.5 * (distance as f64 / deviation).powi(2)).exp(),
    };
    let at = |i: usize| {
        let near = i.saturating_sub(reach)..(i + reach + 1).min(values.len());
        let sums = near.fold([0.0, 0.0], |[sum, weights], j| {
            let weight = weight(i.abs_diff(j));
            [sum + weight * values[j], weights + weight]
        });
        sums[0] / sums[1]
    };
    (0..values.len()).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parabola over the exponents of 101 rates from 1e-5 to 1, lowest at 10^-2.
    fn parabola(lowest: f64) -> Vec<[f64; 3]> {
        (0..=100)
            .map(|i| {
                let exponent = -5.0 + 0.05 * f64::from(i);
                [10f64.powf(exponent), 1.0 + (exponent - lowest).powi(2), 1.0]
            })
            .collect()
    }

    #[test]
    fn the_suggestion_is_half_of_the_lowest() {
        let curve = RangeCurve::new(&parabola(-2.0), 101, false);
        assert!((curve.minimum / 1e-2 - 1.0).abs() < 1e-9, "{}", curve.minimum);
        assert_eq!(curve.suggested, Some(0.005));
        assert!(curve.why.contains("half of 0.01,"), "{}", curve.why);
        // A smoothed parabola is shifted up and not aside: by the variance of the weights.
        let middle = curve.points[60];
        let shift = (3.03f64 * 0.05).powi(2);
        assert!((middle.smoothed - middle.loss - shift).abs() < 0.02 * shift, "{middle:?}");
    }

    #[test]
    fn a_curve_without_a_valley_suggests_nothing() {
        let falling = RangeCurve::new(&parabola(1.0), 101, false);
        assert_eq!(falling.suggested, None);
        assert!(falling.why.contains("still falls at the last rate"), "{}", falling.why);
        let rising = RangeCurve::new(&parabola(-6.0), 101, false);
        assert_eq!(rising.suggested, None);
        assert!(rising.why.contains("lowest at the first rate"), "{}", rising.why);
        // Divergence is a rise that is not on the curve.
        assert!(RangeCurve::new(&parabola(1.0), 101, true).suggested.is_some());
        assert_eq!(RangeCurve::new(&[[0.1, 2.0, 1.0]], 101, false).suggested, None);
    }

    #[test]
    fn divergence_is_four_times_the_lowest_mean() {
        let mut steady = Divergence::default();
        assert!((0..50).all(|i| !steady.add(1.0 + 0.5 * f64::from(i % 2))));
        // The mean moves by a tenth of the difference: 0.9 * 1.2... + 0.1 * 40 is above 4.
        assert!(steady.add(40.0));
        let mut broken = Divergence::default();
        assert!(!broken.add(1.0) && broken.add(f64::NAN));
    }
}
