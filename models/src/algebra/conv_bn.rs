//! Transform I: a convolution followed by batch norm is a convolution with bias.

use super::ConvParams;

/// What batch norm does in inference: one value per channel in each field.
#[derive(Clone, Debug, PartialEq)]
pub struct NormStats {
    /// Scale.
    pub gamma: Vec<f64>,
    /// Shift.
    pub beta: Vec<f64>,
    /// Running mean.
    pub mean: Vec<f64>,
    /// Running variance.
    pub var: Vec<f64>,
    /// Added to the variance, inside the square root.
    pub epsilon: f64,
}

impl NormStats {
    /// `gamma / sqrt(var + epsilon)` of one channel.
    pub fn scale(&self, channel: usize) -> f64 {
        self.gamma[channel] / (self.var[channel] + self.epsilon).sqrt()
    }

    /// The affine map of one channel as `(scale, shift)`: `y = scale * x + shift`.
    pub fn affine(&self, channel: usize) -> (f64, f64) {
        let scale = self.scale(channel);
        (scale, self.beta[channel] - self.mean[channel] * scale)
    }
}

/// Transform I (paper, equation 4): `W' = (gamma / std) W`, `b' = beta + (b - mean) gamma / std`
/// with `std = sqrt(var + epsilon)`.
///
/// # Panics
/// If the statistics have another number of channels than the convolution has outputs.
pub fn fuse_conv_bn(conv: &ConvParams, norm: &NormStats) -> ConvParams {
    let mut fused = conv.clone();
    assert_eq!(norm.gamma.len(), conv.kernel.out_channels, "channels of the batch norm");
    let len = conv.kernel.in_per_group * conv.kernel.taps();
    for (channel, (filter, bias)) in
        fused.kernel.data.chunks_mut(len).zip(&mut fused.bias).enumerate()
    {
        let (scale, shift) = norm.affine(channel);
        filter.iter_mut().for_each(|w| *w *= scale);
        *bias = *bias * scale + shift;
    }
    fused
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// The fused convolution equals convolution, then normalisation, on every output value.
        #[test]
        fn equals_convolution_then_normalisation(
            shape in any_kernel_shape(), stride in 1usize..3, seed in 0u64..1000,
        ) {
            let mut random = Random::new(seed);
            let conv = random.conv(shape);
            let norm = random.norm(conv.kernel.out_channels);
            let input = random.map(shape.in_channels(), [6, 7]);
            let padding = [conv.kernel.size[0] / 2, conv.kernel.size[1] / 2];

            let mut expected = convolve(&input, &conv, [stride; 2], padding);
            expected.for_each_channel(|c, v| {
                norm.gamma[c] * (v - norm.mean[c]) / (norm.var[c] + norm.epsilon).sqrt() + norm.beta[c]
            });
            let actual = convolve(&input, &fuse_conv_bn(&conv, &norm), [stride; 2], padding);
            assert_close(&actual, &expected);
        }
    }
}
