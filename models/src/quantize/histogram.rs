//! The distribution of a value, and the range that follows from it.

use super::calibration::RangeMethod;
use super::range::Range;

/// Bins between the extremes.
const BINS: usize = 2048;

/// Bins that a candidate for a range differs from the next.
const STEP: usize = 16;

/// Integers of 8 bits.
const LEVELS: usize = 256;

/// Counts of values between two ends.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    ends: Range,
    counts: Vec<u64>,
}

impl Histogram {
    pub fn new(ends: Range) -> Self {
        Self { ends, counts: vec![0; BINS] }
    }

    fn width(&self) -> f64 {
        (f64::from(self.ends.high) - f64::from(self.ends.low)) / BINS as f64
    }

    pub fn add(&mut self, values: &[f32]) {
        let (low, per_bin) = (self.ends.low, (1.0 / self.width()) as f32);
        for value in values {
            // Casts saturate.
            let bin = ((value - low) * per_bin) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
    }

    /// The range by a method.
    pub fn range(&self, method: RangeMethod) -> Range {
        let total: u64 = self.counts.iter().sum();
        if total == 0 || self.width() == 0.0 {
            return self.ends;
        }
        match method {
            RangeMethod::MinMax => self.ends,
            RangeMethod::Percentile(outside) => self.between(outside / 200.0 * total as f64),
            RangeMethod::Entropy => self.best(|first, last| self.divergence(first, last)),
            RangeMethod::SquaredError => self.best(|first, last| self.squared_error(first, last)),
        }
    }

    /// The range with at most so many values beyond each end.
    fn between(&self, beyond: f64) -> Range {
        let skipped = |counts: &mut dyn Iterator<Item = &u64>| {
            let mut sum = 0;
            counts
                .take_while(|&&count| {
                    sum += count;
                    sum as f64 <= beyond
                })
                .count()
        };
        let first = skipped(&mut self.counts.iter());
        let last = BINS - skipped(&mut self.counts.iter().rev());
        self.part(first, last)
    }

    /// The bins `first..last` as a range.
    fn part(&self, first: usize, last: usize) -> Range {
        let at = |bin: usize| (f64::from(self.ends.low) + bin as f64 * self.width()) as f32;
        let low = if first == 0 { self.ends.low } else { at(first) };
        let high = if last == BINS { self.ends.high } else { at(last) };
        Range { low, high }.with_zero()
    }

    /// The range of bins with the least cost among those that cut the same share from both sides of zero.
    fn best(&self, cost: impl Fn(usize, usize) -> f64) -> Range {
        let zero = (-f64::from(self.ends.low) / self.width()).round() as usize;
        let candidate = |kept: usize| {
            let first = zero - zero * kept / BINS;
            let last = zero + ((BINS - zero) * kept).div_ceil(BINS);
            (cost(first, last), first, last)
        };
        let candidates = (LEVELS / 2..=BINS).step_by(STEP).map(candidate);
        let best = candidates.min_by(|a, b| a.0.total_cmp(&b.0));
        best.map_or(self.ends, |(_, first, last)| self.part(first, last))
    }

    /// Mean squared error of values rounded to 256 levels of the bins `first..last`.
    fn squared_error(&self, first: usize, last: usize) -> f64 {
        let step = (last - first) as f64 / (LEVELS - 1) as f64;
        let error = |(bin, &count): (usize, &u64)| {
            let at = bin as f64 + 0.5 - first as f64;
            let rounded = (at / step).round().clamp(0.0, (LEVELS - 1) as f64) * step;
            count as f64 * (at - rounded).powi(2)
        };
        self.counts.iter().enumerate().map(error).sum()
    }

    /// Kullback-Leibler divergence of the values in 256 levels of the bins `first..last` from the values,
    /// those beyond at the ends.
    fn divergence(&self, first: usize, last: usize) -> f64 {
        let inside = &self.counts[first..last];
        let mut values: Vec<f64> = inside.iter().map(|&count| count as f64).collect();
        let sum = |counts: &[u64]| counts.iter().sum::<u64>() as f64;
        let bins = values.len();
        values[0] += sum(&self.counts[..first]);
        values[bins - 1] += sum(&self.counts[last..]);
        let level = |bin: usize| bin * LEVELS / bins;
        // What a level holds, spread over the bins of it that hold anything.
        let (mut held, mut used) = ([0.0; LEVELS], [0.0; LEVELS]);
        for (bin, &count) in inside.iter().enumerate().filter(|(_, count)| **count > 0) {
            held[level(bin)] += count as f64;
            used[level(bin)] += 1.0;
        }
        let (total, total_held) = (values.iter().sum::<f64>(), held.iter().sum::<f64>());
        let term = |(bin, &value): (usize, &f64)| {
            if value == 0.0 {
                return 0.0;
            }
            let p = value / total;
            let level = level(bin);
            // A bin that holds only what lies beyond has no value to be rounded to.
            let q = (held[level] / used[level] / total_held).max(1e-12);
            p * (p / if q.is_finite() { q } else { 1e-12 }).ln()
        };
        values.iter().enumerate().map(term).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred thousand values spread evenly from 0 to 1, and ten of 8.
    fn with_outliers() -> Histogram {
        let mut histogram = Histogram::new(Range { low: 0.0, high: 8.0 });
        let even: Vec<f32> = (0..100_000).map(|i| i as f32 / 100_000.0).collect();
        histogram.add(&even);
        histogram.add(&[8.0; 10]);
        histogram
    }

    #[test]
    fn a_percentile_cuts_both_ends() {
        let outliers = with_outliers();
        assert_eq!(outliers.range(RangeMethod::MinMax), Range { low: 0.0, high: 8.0 });
        // Ten of 100,010 are 0.01 %, half of 0.02 %; then come the values up to 1.
        let Range { low, high } = outliers.range(RangeMethod::Percentile(0.02));
        assert!(low == 0.0 && (high - 1.0).abs() < 0.01, "{low} to {high}");
        assert_eq!(outliers.range(RangeMethod::Percentile(0.01)).high, 8.0);

        let mut even = Histogram::new(Range { low: -1.0, high: 3.0 });
        let values: Vec<f32> = (0..=4000).map(|i| i as f32 / 1000.0 - 1.0).collect();
        even.add(&values);
        let Range { low, high } = even.range(RangeMethod::Percentile(10.0));
        assert!((low + 0.8).abs() < 0.01 && (high - 2.8).abs() < 0.01, "{low} to {high}");
    }

    /// Ten values that are off by 7 cost more than 100,000 that are off by less: with steps of
    /// `h / 255` the squared errors add up to `1e5 h^2 / 255^2 / 12 + 10 (8 - h)^2`, least at nearly 8.
    #[test]
    fn squared_errors_keep_what_is_worth_keeping() {
        let high = with_outliers().range(RangeMethod::SquaredError).high;
        let best = 8.0 * 10.0 / (10.0 + 1e5 / 255f64.powi(2) / 12.0);
        assert!((f64::from(high) - best).abs() < 0.1, "{high}, not {best}");
    }

    /// Most of a distribution with a long tail is near zero.
    #[test]
    fn the_divergence_leaves_outliers_out() {
        let mut histogram = with_outliers();
        let near_zero: Vec<f32> = (0..100_000).map(|i| (i as f32 / 100_000.0).powi(6)).collect();
        histogram.add(&near_zero);
        let high = histogram.range(RangeMethod::Entropy).high;
        assert!(high < 4.0, "{high}");
    }
}
