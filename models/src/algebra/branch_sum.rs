//! Transform II: parallel convolutions whose outputs are added are one convolution.

use super::ConvParams;

/// Transform II (paper, equation 6): kernels and biases of equal shape add up.
///
/// # Panics
/// If there is no branch or the shapes differ (bring kernels to one size with
/// [`embed_kernel`](super::embed_kernel) first).
pub fn sum_branches(branches: &[ConvParams]) -> ConvParams {
    let (first, rest) = branches.split_first().expect("at least one branch to add");
    let mut sum = first.clone();
    for branch in rest {
        assert_eq!(branch.kernel.shape(), sum.kernel.shape(), "shapes of added kernels");
        assert_eq!(branch.kernel.groups, sum.kernel.groups, "groups of added kernels");
        sum.kernel.data.iter_mut().zip(&branch.kernel.data).for_each(|(a, b)| *a += b);
        sum.bias.iter_mut().zip(&branch.bias).for_each(|(a, b)| *a += b);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equals_the_sum_of_the_outputs(
            shape in any_kernel_shape(), count in 1usize..4, stride in 1usize..3, seed in 0u64..1000,
        ) {
            let mut random = Random::new(seed);
            let branches: Vec<_> = (0..count).map(|_| random.conv(shape)).collect();
            let input = random.map(shape.in_channels(), [7, 6]);
            let run = |conv: &ConvParams| convolve(&input, conv, [stride; 2], [1, 0]);

            let mut expected = run(&branches[0]);
            branches[1..].iter().for_each(|branch| expected.add(&run(branch)));
            assert_close(&run(&sum_branches(&branches)), &expected);
        }
    }
}
