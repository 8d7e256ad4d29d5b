//! Transform V: average pooling is a convolution of each channel with itself.

use super::{ConvParams, Kernel};

/// Transform V (paper, equation 13): a kernel with `1 / (kh * kw)` at every tap of a channel's
/// own input and zero elsewhere, grouped like the block it is added to. Border positions divide
/// by the whole window, too (zeros of the padding count). Max pooling is not linear and has no
/// such kernel.
///
/// # Panics
/// If the groups do not divide the channels.
pub fn average_pool_kernel(channels: usize, size: [usize; 2], groups: usize) -> Kernel {
    assert!(
        groups > 0 && channels.is_multiple_of(groups),
        "{groups} groups of {channels} channels"
    );
    let in_per_group = channels / groups;
    let taps = size[0] * size[1];
    let mut data = vec![0.0; channels * in_per_group * taps];
    for (channel, filter) in data.chunks_mut(in_per_group * taps).enumerate() {
        let own = channel % in_per_group;
        filter[own * taps..][..taps].fill(1.0 / taps as f64);
    }
    Kernel::new([channels, in_per_group, size[0], size[1]], groups, data)
}

/// Transforms V and III at once: a 1x1 convolution followed by average pooling, with the border
/// padded as [`merge_1x1_kxk`](super::merge_1x1_kxk) says. That merge with [`average_pool_kernel`]
/// gives the same, from a kernel whose size is the square of a group's outputs and nearly all of
/// whose values are zero.
///
/// # Panics
/// If the kernel is not 1x1.
pub fn merge_1x1_average(first: &ConvParams, size: [usize; 2]) -> ConvParams {
    let kernel = &first.kernel;
    assert_eq!(kernel.size, [1, 1], "the kernel before the average is 1x1");
    let taps = size[0] * size[1];
    let share = 1.0 / taps as f64;
    let spread = |weight: &f64| std::iter::repeat_n(share * weight, taps);
    let data = kernel.data.iter().flat_map(spread).collect();
    let shape = [kernel.out_channels, kernel.in_per_group, size[0], size[1]];
    // The mean of a constant is the constant.
    ConvParams { kernel: Kernel::new(shape, kernel.groups, data), bias: first.bias.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::{merge_1x1_kxk, testing::*};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equals_the_mean_of_the_window(
            per_group in 1usize..4, groups in 1usize..4, kh in 1usize..5, kw in 1usize..5,
            stride in 1usize..4, seed in 0u64..1000,
        ) {
            let channels = per_group * groups;
            let input = Random::new(seed).map(channels, [7, 8]);
            let kernel = average_pool_kernel(channels, [kh, kw], groups);
            let actual = convolve(&input, &ConvParams::without_bias(kernel), [stride; 2], [0, 0]);
            for c in 0..channels {
                for y in 0..actual.size[0] {
                    for x in 0..actual.size[1] {
                        let mut sum = 0.0;
                        for dy in 0..kh {
                            for dx in 0..kw {
                                sum += input.at(c, y * stride + dy, x * stride + dx);
                            }
                        }
                        let mean = sum / (kh * kw) as f64;
                        prop_assert!((actual.at(c, y, x) - mean).abs() < 1e-12);
                    }
                }
            }
        }

        #[test]
        fn a_1x1_convolution_before_it_merges_as_with_its_kernel(
            shape in any_kernel_shape(), kh in 1usize..5, kw in 1usize..5, seed in 0u64..1000,
        ) {
            let first = Random::new(seed).conv(KernelShape { size: [1, 1], ..shape });
            let outputs = first.kernel.out_channels;
            let average = average_pool_kernel(outputs, [kh, kw], first.kernel.groups);
            let expected = merge_1x1_kxk(&first, &ConvParams::without_bias(average));
            let merged = merge_1x1_average(&first, [kh, kw]);
            prop_assert_eq!(&merged.kernel, &expected.kernel);
            for (own, other) in merged.bias.iter().zip(&expected.bias) {
                prop_assert!((own - other).abs() < 1e-12);
            }
        }
    }
}
