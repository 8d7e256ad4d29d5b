//! Student's t distribution, for any positive number of degrees of freedom.

use std::f64::consts::PI;

/// The probability of a value of at least |t| on either side: the p-value of a two-sided test. NaN
/// where an argument is.
pub fn two_sided(t: f64, degrees_of_freedom: f64) -> f64 {
    if t.is_infinite() {
        return 0.0;
    }
    // Both tails are an incomplete beta function (Abramowitz and Stegun, 26.7.1); the middle, of a
    // small t, is the exact one of the two.
    let square = t * t;
    let all = degrees_of_freedom + square;
    match square < degrees_of_freedom {
        true => 1.0 - incomplete_beta(square / all, 0.5, degrees_of_freedom / 2.0),
        false => incomplete_beta(degrees_of_freedom / all, degrees_of_freedom / 2.0, 0.5),
    }
}

/// The value below which a share of at least one half of the distribution lies, `0.5 <= p < 1`.
/// NaN where an argument is.
pub fn quantile(p: f64, degrees_of_freedom: f64) -> f64 {
    let tails = 2.0 * (1.0 - p);
    if !(tails > 0.0 && degrees_of_freedom > 0.0) {
        return f64::NAN;
    }
    let mut high = 1.0;
    while two_sided(high, degrees_of_freedom) > tails && high < 1e150 {
        high *= 2.0;
    }
    let mut low = 0.0;
    // Until the ends are neighbours, or as good as that.
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        match two_sided(middle, degrees_of_freedom) > tails {
            true => low = middle,
            false => high = middle,
        }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function `I_x(a, b)` (DLMF 8.17.2) by its continued fraction
/// (DLMF 8.17.22), evaluated by Lentz's method.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x.is_nan() || a.is_nan() || b.is_nan() {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast on this side; the other one follows by symmetry (DLMF 8.17.4).
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    const SMALLEST: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < SMALLEST { SMALLEST } else { value };
    let ln_beta = ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    let front = (a * x.ln() + b * (-x).ln_1p() - ln_beta).exp() / a;
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut last = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            last = c * d;
            fraction *= last;
        }
        if (last - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// The logarithm of the gamma function of a positive number, by Lanczos' approximation (1964) with
/// g = 7 and nine terms; its relative error is below 1e-14.
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        // Euler's reflection formula (DLMF 5.5.3).
        return (PI / (PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let first = 0.999_999_999_999_809_9;
    let sum = TERMS.iter().zip(1..).fold(first, |sum, (term, i)| sum + term / (x + f64::from(i)));
    let base = x + 7.5;
    0.5 * (2.0 * PI).ln() + (x + 0.5) * base.ln() - base + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.7.2: the critical values of
    /// Student's t distribution, which it gives to three decimals.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, [t90, t95, t975, t995]) in [
            (1.0, [3.078, 6.314, 12.706, 63.657]),
            (2.0, [1.886, 2.920, 4.303, 9.925]),
            (3.0, [1.638, 2.353, 3.182, 5.841]),
            (7.0, [1.415, 1.895, 2.365, 3.499]),
            (11.0, [1.363, 1.796, 2.201, 3.106]),
            (23.0, [1.319, 1.714, 2.069, 2.807]),
            (30.0, [1.310, 1.697, 2.042, 2.750]),
            (40.0, [1.303, 1.684, 2.021, 2.704]),
            (100.0, [1.290, 1.660, 1.984, 2.626]),
        ] {
            for (p, t) in [(0.9, t90), (0.95, t95), (0.975, t975), (0.995, t995)] {
                let found = quantile(p, freedom);
                assert!((found - t).abs() <= 5.1e-4, "{p}, {freedom}: {found} for {t}");
            }
        }
        // The limit is the normal distribution.
        assert!((quantile(0.975, 1e6) - 1.959_964).abs() < 1e-5);
    }

    /// By numerical integration of the density.
    #[test]
    fn degrees_of_freedom_need_not_be_whole() {
        for (freedom, t) in [
            (1.25, 8.0280),
            (1.742, 4.9749),
            (2.5, 3.5747),
            (3.79, 2.8382),
            (10.5, 2.2138),
            (29.5, 2.0437),
        ] {
            let found = quantile(0.975, freedom);
            assert!((found / t - 1.0).abs() < 3e-5, "{freedom}: {found} for {t}");
        }
    }

    /// The distribution has closed forms for one and two degrees of freedom.
    #[test]
    fn tails_are_those_of_the_closed_forms() {
        for t in [0.0, 1e-9, 0.3, 1.0, 4.303, 12.706, 1e3, 1e8] {
            let cauchy = 1.0 - 2.0 * f64::atan(t) / PI;
            let of_two = 1.0 - t / (2.0 + t * t).sqrt();
            for (freedom, expected) in [(1.0, cauchy), (2.0, of_two)] {
                let found = two_sided(t, freedom);
                assert!((found - expected).abs() < 1e-13, "{t}, {freedom}: {found}, {expected}");
                assert_eq!(found, two_sided(-t, freedom));
            }
        }
        assert_eq!((two_sided(f64::INFINITY, 5.0), two_sided(0.0, 5.0)), (0.0, 1.0));
    }

    #[test]
    fn no_number_gives_no_number() {
        assert!(two_sided(f64::NAN, 3.0).is_nan() && two_sided(1.0, f64::NAN).is_nan());
        assert!(quantile(0.975, f64::NAN).is_nan() && quantile(1.0, 3.0).is_nan());
    }
}
