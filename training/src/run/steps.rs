//! Loss, learning rate and gradient norm by step.

use serde::{Deserialize, Serialize};

/// Points are merged in pairs when there are twice as many.
const POINTS: usize = 200;

/// What is measured of a step of the optimizer, or the mean over several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepPoint {
    /// The step, counted from 1 over the whole run; of several the last.
    pub step: usize,
    /// Mean training loss.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Euclidean norm of the gradient, before clipping.
    pub grad_norm: f64,
}

impl StepPoint {
    /// The mean of two points of equally many steps, the later one second.
    fn mean(self, later: Self) -> Self {
        let mean = |a, b| (a + b) / 2.0;
        Self {
            step: later.step,
            loss: mean(self.loss, later.loss),
            lr: mean(self.lr, later.lr),
            grad_norm: mean(self.grad_norm, later.grad_norm),
        }
    }
}

/// The steps of a run in a bounded number of points: each the mean of the same number of steps,
/// which doubles whenever the points run out. They are saved with the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    points: Vec<StepPoint>,
    per_point: usize,
    /// Sums over the steps since the last point, and how many they are.
    sum: StepPoint,
    count: usize,
}

impl Default for Steps {
    /// No step yet.
    fn default() -> Self {
        Self { points: Vec::new(), per_point: 1, sum: StepPoint::default(), count: 0 }
    }
}

impl Steps {
    /// Adds a step.
    pub fn add(&mut self, step: StepPoint) {
        let sum = &mut self.sum;
        sum.step = step.step;
        sum.loss += step.loss;
        sum.lr += step.lr;
        sum.grad_norm += step.grad_norm;
        self.count += 1;
        if self.count == self.per_point {
            let n = self.count as f64;
            let StepPoint { step, loss, lr, grad_norm } = std::mem::take(sum);
            let mean = StepPoint { step, loss: loss / n, lr: lr / n, grad_norm: grad_norm / n };
            self.points.push(mean);
            self.count = 0;
        }
        if self.points.len() == 2 * POINTS {
            self.points = self.points.chunks_exact(2).map(|p| p[0].mean(p[1])).collect();
            self.per_point *= 2;
        }
    }

    /// The points, in order.
    pub fn points(&self) -> &[StepPoint] {
        &self.points
    }

    /// Steps per point.
    pub fn per_point(&self) -> usize {
        self.per_point
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss that is the step itself: the mean of steps a to b is (a + b) / 2.
    #[test]
    fn points_are_means_of_equally_many_steps() {
        let mut steps = Steps::default();
        for step in 1..=10_000 {
            let value = step as f64;
            steps.add(StepPoint { step, loss: value, lr: 2.0 * value, grad_norm: -value });
            assert!(steps.points().len() < 2 * POINTS);
        }
        let per_point = steps.per_point();
        assert_eq!((per_point, steps.points().len()), (32, 312));
        for (i, point) in steps.points().iter().enumerate() {
            let mean = point.step as f64 - (per_point as f64 - 1.0) / 2.0;
            assert_eq!(point.step, (i + 1) * per_point);
            assert_eq!((point.loss, point.lr, point.grad_norm), (mean, 2.0 * mean, -mean));
        }
    }

    #[test]
    fn a_resumed_curve_is_the_uninterrupted_one() {
        let point = |step: usize| {
            let value = 1.0 / step as f64;
            StepPoint { step, loss: value, lr: value.sqrt(), grad_norm: value.sin() }
        };
        let mut whole = Steps::default();
        (1..=1000).for_each(|step| whole.add(point(step)));
        let mut resumed = Steps::default();
        for step in 1..=1000 {
            resumed.add(point(step));
            if step % 37 == 0 {
                let text = serde_json::to_string(&resumed).unwrap();
                resumed = serde_json::from_str(&text).unwrap();
            }
        }
        assert_eq!(resumed, whole);
    }
}
