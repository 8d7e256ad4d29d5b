//! Intervals and p-values of differences of means, their correction for several comparisons, and
//! how many runs a difference takes to be resolved.

use super::student_t::{quantile, two_sided};
use super::{mean, standard_deviation};

/// Level of the tests; the intervals are those of one minus this.
pub const LEVEL: f64 = 0.05;

/// The probability with which a difference is to be resolved.
pub const POWER: f64 = 0.8;

/// A difference of two means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The difference.
    pub delta: f64,
    /// Half the width of its 95 % confidence interval.
    pub half: f64,
    /// The p-value of the two-sided t test that there is none.
    pub p: f64,
}

impl Estimate {
    /// `None` where the values spread by no more than rounding: that few runs happen to agree is no certainty.
    fn new(delta: f64, standard_error: f64, degrees_of_freedom: f64) -> Option<Self> {
        const ROUNDING: f64 = 1e-9;
        if standard_error <= ROUNDING * delta.abs().max(1.0) {
            return None;
        }
        let half = quantile(1.0 - LEVEL / 2.0, degrees_of_freedom) * standard_error;
        Some(Self { delta, half, p: two_sided(delta / standard_error, degrees_of_freedom) })
    }
}

/// The mean of paired differences (Student's t test); `None` for fewer than two, or equal ones.
pub fn paired(differences: &[f64]) -> Option<Estimate> {
    let n = differences.len() as f64;
    let sd = standard_deviation(differences)?;
    Estimate::new(mean(differences), sd / n.sqrt(), n - 1.0)
}

/// The difference of the means of independent values, whose variances may differ (Welch's t test
/// with the degrees of freedom of Welch and Satterthwaite); `None` unless both have two values, and
/// one of them different ones.
pub fn welch(own: &[f64], baseline: &[f64]) -> Option<Estimate> {
    let part = |values: &[f64]| {
        let (n, sd) = (values.len() as f64, standard_deviation(values)?);
        Some((sd * sd / n, n - 1.0))
    };
    let ((a, df_a), (b, df_b)) = (part(own)?, part(baseline)?);
    let variance = a + b;
    let freedom = variance * variance / (a * a / df_a + b * b / df_b);
    Estimate::new(mean(own) - mean(baseline), variance.sqrt(), freedom)
}

/// The p-values of several tests, corrected by Holm (1979, "A simple sequentially rejective multiple
/// test procedure"): the smallest is multiplied by their number, the next by one less, and so on, and
/// none falls below that of a smaller one. Rejecting those below a level keeps the probability of any
/// false rejection below it.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut corrected = vec![f64::NAN; p.len()];
    let mut floor = 0.0_f64;
    for (rank, &at) in order.iter().enumerate() {
        if !p[at].is_nan() {
            floor = floor.max(p[at] * (p.len() - rank) as f64).min(1.0);
            corrected[at] = floor;
        }
    }
    corrected
}

/// The pairs that a paired t test takes to resolve a difference with a probability of [`POWER`]:
/// the smallest `n` with `n >= (t(1 - LEVEL / 2) + t(POWER))^2 sd^2 / difference^2`, t with `n - 1`
/// degrees of freedom (Snedecor and Cochran, Statistical Methods, chapter 6). `sd` is the standard
/// deviation of the differences. `None` without two positive numbers.
pub fn pairs_to_resolve(difference: f64, sd: f64) -> Option<usize> {
    runs((sd / difference).powi(2), |n| n - 1.0)
}

/// The same for the runs of each of two arms that are compared unpaired, from their standard deviations.
pub fn runs_to_resolve(difference: f64, sds: [f64; 2]) -> Option<usize> {
    let [a, b] = sds;
    runs((a * a + b * b) / (difference * difference), |n| 2.0 * n - 2.0)
}

/// The smallest number of at least 2 with the power that is wanted, from the ratio of variance to
/// squared difference.
fn runs(ratio: f64, degrees_of_freedom: impl Fn(f64) -> f64) -> Option<usize> {
    /// Beyond this the normal distribution, whose quantiles these are, decides the same.
    const MANY: f64 = 1e4;
    let of_normal = (1.959_964 + 0.841_621_f64).powi(2) * ratio;
    if !(ratio > 0.0 && of_normal.is_finite()) {
        return None;
    }
    if of_normal > MANY {
        return Some(of_normal.ceil() as usize);
    }
    let is_enough = |n: &usize| {
        let n = *n as f64;
        let t = |p: f64| quantile(p, degrees_of_freedom(n));
        n >= (t(1.0 - LEVEL / 2.0) + t(POWER)).powi(2) * ratio
    };
    // t is larger than the normal quantile: fewer never suffice.
    ((of_normal as usize).max(2)..).find(is_enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} for {b}");
    }

    /// Student's own data (1908, "The probable error of a mean"): hours of sleep gained with two
    /// drugs by ten patients. R's `t.test(extra ~ group, sleep)` prints t = -4.0621, df = 9,
    /// p = 0.002833, interval -2.4598858 to -0.7001142 with pairs, and t = -1.8608, df = 17.776,
    /// p = 0.07939, interval -3.3654832 to 0.2054832 without.
    #[test]
    fn students_sleep_data() {
        let first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
        let pairs = paired(&differences).unwrap();
        close(pairs.delta, -1.58, 1e-12);
        close(pairs.delta - pairs.half, -2.459_885_8, 1e-7);
        close(pairs.delta + pairs.half, -0.700_114_2, 1e-7);
        close(pairs.p, 0.002_833, 5e-7);
        let apart = welch(&first, &second).unwrap();
        close(apart.delta - apart.half, -3.365_483_2, 1e-7);
        close(apart.delta + apart.half, 0.205_483_2, 1e-7);
        close(apart.p, 0.079_39, 5e-6);
    }

    #[test]
    fn values_without_spread() {
        assert_eq!(paired(&[1.0]), None);
        assert_eq!(welch(&[1.0], &[2.0, 3.0]), None);
        for equal in [[1.0, 1.0], [0.0, 0.0], [87.4 - 86.4, 88.1 - 87.1]] {
            assert_eq!(paired(&equal), None, "{equal:?}");
        }
        assert_eq!(welch(&[5.0, 5.0], &[4.0, 4.0]), None);
        assert!(welch(&[5.0, 5.0], &[4.0, 4.1]).is_some());
        assert!(paired(&[f64::NAN, 1.0]).unwrap().p.is_nan());
    }

    /// R's `p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")` is 0.05 0.08 0.09 0.09 0.09; the second
    /// example is worked out by hand: 4 x 0.005, 3 x 0.011, 2 x 0.02, 1 x 0.04.
    #[test]
    fn holms_correction() {
        for (p, expected) in [
            (&[0.01, 0.02, 0.03, 0.04, 0.05][..], &[0.05, 0.08, 0.09, 0.09, 0.09][..]),
            (&[0.02, 0.005, 0.04, 0.011], &[0.04, 0.02, 0.04, 0.033]),
            (&[0.6, 0.7], &[1.0, 1.0]),
            (&[0.03], &[0.03]),
            (&[], &[]),
        ] {
            let corrected = holm(p);
            assert_eq!(corrected.len(), expected.len());
            corrected.iter().zip(expected).for_each(|(a, b)| close(*a, *b, 1e-12));
        }
        let corrected = holm(&[f64::NAN, 0.02]);
        assert!(corrected[0].is_nan() && corrected[1] == 0.04);
    }

    /// G*Power 3.1 and R's `pwr.t.test`, from the exact power, two-sided, level 0.05, power 0.8: 199, 34,
    /// 15 and 10 pairs for effects of 0.2, 0.5, 0.8 and 1.0 standard deviations; 394, 64 and 26 in each
    /// of two groups for 0.2, 0.5 and 0.8.
    #[test]
    fn how_many_runs_resolve_a_difference() {
        for (effect, pairs) in [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)] {
            assert_eq!(pairs_to_resolve(effect, 1.0), Some(pairs), "{effect}");
            assert_eq!(pairs_to_resolve(-2.0 * effect, 2.0), Some(pairs), "{effect}");
        }
        for (effect, runs) in [(0.2, 394), (0.5, 64), (0.8, 26)] {
            assert_eq!(runs_to_resolve(effect, [1.0, 1.0]), Some(runs), "{effect}");
        }
        // By the normal quantiles: (1.959964 + 0.841621)^2 / 0.01^2 = 78488.8.
        assert_eq!(pairs_to_resolve(0.01, 1.0), Some(78_489));
        for (difference, sd) in [(0.0, 1.0), (1.0, 0.0), (f64::NAN, 1.0), (1.0, f64::NAN)] {
            assert_eq!(pairs_to_resolve(difference, sd), None);
        }
    }
}
