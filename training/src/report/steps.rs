//! The training loss by step.

/// Points are merged in pairs when there are twice as many.
const POINTS: usize = 200;

/// The training loss by step in a bounded number of points: each the mean of the same number of
/// steps, which doubles whenever the points run out.
#[derive(Clone, Debug)]
pub struct Steps {
    points: Vec<[f64; 2]>,
    per_point: usize,
    /// Losses of the steps since the last point, and how many.
    sum: f64,
    count: usize,
    last: usize,
    planned: usize,
}

impl Steps {
    /// The curve of a run of `planned` steps, the first `done` of which are not on it.
    pub fn new(done: usize, planned: usize) -> Self {
        Self { points: Vec::new(), per_point: 1, sum: 0.0, count: 0, last: done, planned }
    }

    /// Adds the loss of a step, counted from 1 over the whole run.
    pub fn add(&mut self, step: usize, loss: f64) {
        self.last = step;
        self.sum += loss;
        self.count += 1;
        if self.count == self.per_point {
            self.points.push([step as f64, self.sum / self.count as f64]);
            (self.sum, self.count) = (0.0, 0);
        }
        if self.points.len() == 2 * POINTS {
            let pair = |pair: &[[f64; 2]]| [pair[1][0], (pair[0][1] + pair[1][1]) / 2.0];
            self.points = self.points.chunks_exact(2).map(pair).collect();
            self.per_point *= 2;
        }
    }

    /// Step and loss of every point, the step being the last of its mean.
    pub fn points(&self) -> &[[f64; 2]] {
        &self.points
    }

    /// Steps per point.
    pub fn per_point(&self) -> usize {
        self.per_point
    }

    /// Steps done, and steps of the whole run.
    pub fn done(&self) -> (usize, usize) {
        (self.last, self.planned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss that is the step itself: the mean of steps a to b is (a + b) / 2.
    #[test]
    fn points_are_means_of_equally_many_steps() {
        let mut steps = Steps::new(0, 10_000);
        for step in 1..=10_000 {
            steps.add(step, step as f64);
            assert!(steps.points().len() < 2 * POINTS);
        }
        let per_point = steps.per_point() as f64;
        assert_eq!((per_point, steps.points().len()), (32.0, 312));
        for (i, &[step, loss]) in steps.points().iter().enumerate() {
            assert_eq!(step, (i + 1) as f64 * per_point);
            assert_eq!(loss, step - (per_point - 1.0) / 2.0);
        }
        assert_eq!(steps.done(), (10_000, 10_000));
    }
}
