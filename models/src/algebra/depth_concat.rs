//! Transform IV: convolutions whose outputs are concatenated are one convolution.

use super::{ConvParams, Kernel};

/// Transform IV (paper, equation 12): kernels and biases concatenate along the output axis.
/// All convolutions read the same input with one group; this is also how several convolutions
/// over one input become one.
///
/// # Panics
/// If there is nothing to concatenate, windows or inputs differ, or a kernel has groups.
pub fn concat_outputs(parts: &[ConvParams]) -> ConvParams {
    let first = &parts.first().expect("at least one convolution to concatenate").kernel;
    let [_, inputs, kh, kw] = first.shape();
    for part in parts {
        assert_eq!(part.kernel.shape()[1..], [inputs, kh, kw], "shapes of concatenated kernels");
        assert_eq!(part.kernel.groups, 1, "concatenated kernels have one group");
    }
    let outputs = parts.iter().map(|part| part.kernel.out_channels).sum();
    let data = parts.iter().flat_map(|part| &part.kernel.data).copied().collect();
    ConvParams {
        kernel: Kernel::new([outputs, inputs, kh, kw], 1, data),
        bias: parts.iter().flat_map(|part| &part.bias).copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equals_the_concatenated_outputs(
            inputs in 1usize..4, outputs in prop::collection::vec(1usize..4, 1..4),
            kh in 1usize..4, kw in 1usize..4, seed in 0u64..1000,
        ) {
            let mut random = Random::new(seed);
            let parts: Vec<_> = outputs
                .iter()
                .map(|&out_per_group| random.conv(KernelShape {
                    out_per_group, in_per_group: inputs, size: [kh, kw], groups: 1,
                }))
                .collect();
            let input = random.map(inputs, [6, 5]);
            let run = |conv: &ConvParams| convolve(&input, conv, [1, 2], [1, 1]);

            let whole = run(&concat_outputs(&parts));
            let expected: Vec<f64> = parts.iter().flat_map(|part| run(part).data).collect();
            prop_assert_eq!(whole.data, expected);
        }
    }
}
