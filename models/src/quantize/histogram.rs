//! The distribution of a value, and the range that follows from it.

use super::range::Range;

/// Bins between the extremes.
const BINS: usize = 2048;

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

    /// The range of all values but this percentage, half of it beyond each end; it holds zero.
    pub fn without(&self, percentage: f64) -> Range {
        let total: u64 = self.counts.iter().sum();
        if total == 0 || self.width() == 0.0 {
            return self.ends;
        }
        self.between(percentage / 200.0 * total as f64)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred thousand values spread evenly from 0 to 1, and ten of 8.
    #[test]
    fn a_percentage_is_cut_from_both_ends() {
        let mut outliers = Histogram::new(Range { low: 0.0, high: 8.0 });
        let even: Vec<f32> = (0..100_000).map(|i| i as f32 / 100_000.0).collect();
        outliers.add(&even);
        outliers.add(&[8.0; 10]);
        // Ten of 100,010 are 0.01 %, half of 0.02 %; then come the values up to 1.
        let Range { low, high } = outliers.without(0.021);
        assert!(low == 0.0 && (high - 1.0).abs() < 0.01, "{low} to {high}");
        assert_eq!(outliers.without(0.01).high, 8.0);

        let mut even = Histogram::new(Range { low: -1.0, high: 3.0 });
        let values: Vec<f32> = (0..=4000).map(|i| i as f32 / 1000.0 - 1.0).collect();
        even.add(&values);
        let Range { low, high } = even.without(10.0);
        assert!((low + 0.8).abs() < 0.01 && (high - 2.8).abs() < 0.01, "{low} to {high}");
        assert_eq!(even.without(0.0), Range { low: -1.0, high: 3.0 });
    }
}
