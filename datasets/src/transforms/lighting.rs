//! Lighting of photographs: colours shifted along the principal components of ImageNet.
//!
//! Krizhevsky et al., "ImageNet classification with deep convolutional neural networks" (2012),
//! section 4.1; components as published with fb.resnet.torch and used since.

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

/// Standard deviations of ImageNet's pixels along its components, on the 0 to 1 scale.
const DEVIATIONS: [f32; 3] = [0.2175, 0.0188, 0.0045];

/// The components, one per column: rows are R, G, B.
const COMPONENTS: [[f32; 3]; 3] =
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]];

/// What to add to R, G and B, on the 0 to 1 scale, with weights drawn from a normal distribution
/// of deviation `strength` (at least 0; 0.1 is usual).
pub fn lighting(strength: f32, rng: &mut impl Rng) -> [f32; 3] {
    shift([(); 3].map(|()| strength * rng.sample::<f32, _>(StandardNormal)))
}

fn shift(weights: [f32; 3]) -> [f32; 3] {
    COMPONENTS.map(|row| (0..3).map(|i| row[i] * weights[i] * DEVIATIONS[i]).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn components_are_orthonormal() {
        for a in 0..3 {
            for b in 0..3 {
                let product: f32 = COMPONENTS.iter().map(|row| row[a] * row[b]).sum();
                let expected = f32::from(u8::from(a == b));
                assert!((product - expected).abs() < 1e-3, "{a} {b}: {product}");
            }
        }
    }

    #[test]
    fn a_shift_is_the_sum_of_weighted_components() {
        // Worked by hand: -0.5675 * 0.2175 + 0.7192 * 2 * 0.0188 - 0.4009 * 0.0045, and so on.
        let expected = [-0.098193, -0.122830, -0.154949];
        for (value, expected) in shift([1.0, 2.0, -1.0]).iter().zip(expected) {
            assert!((value - expected).abs() < 1e-5, "{value}, {expected}");
        }
    }

    #[test]
    fn the_spread_is_that_of_the_first_component() {
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let reds: Vec<f32> = (0..4000).map(|_| lighting(0.1, &mut rng)[0]).collect();
        let mean = reds.iter().sum::<f32>() / 4000.0;
        let deviation = (reds.iter().map(|red| (red - mean).powi(2)).sum::<f32>() / 4000.0).sqrt();
        // 0.1 * sqrt((0.5675 * 0.2175)^2 + (0.7192 * 0.0188)^2 + (0.4009 * 0.0045)^2).
        assert!((deviation - 0.012418).abs() < 5e-4, "{deviation}");
        assert!(mean.abs() < 1e-3, "{mean}");
    }
}
