//! Transform VI: a small kernel is a larger one with zeros around it.

use super::Kernel;

/// Transform VI (paper, section 3.2; also ACNet's 1xK and Kx1): the kernel in the centre of a
/// `size` window of zeros. Height and width are independent. The larger convolution needs
/// `(size - kernel.size) / 2` more padding on each side to read the same input.
///
/// # Panics
/// If the window is smaller than the kernel or the difference is odd, so that no centre exists.
pub fn embed_kernel(kernel: &Kernel, size: [usize; 2]) -> Kernel {
    let [h, w] = kernel.size;
    for (small, large) in kernel.size.into_iter().zip(size) {
        assert!(small <= large && (large - small) % 2 == 0, "a {small} kernel centred in {large}");
    }
    let [top, left] = [(size[0] - h) / 2, (size[1] - w) / 2];
    let mut data = vec![0.0; kernel.out_channels * kernel.in_per_group * size[0] * size[1]];
    for (large, small) in data.chunks_mut(size[0] * size[1]).zip(kernel.data.chunks(h * w)) {
        for (y, row) in small.chunks(w).enumerate() {
            large[(top + y) * size[1] + left..][..w].copy_from_slice(row);
        }
    }
    let shape = [kernel.out_channels, kernel.in_per_group, size[0], size[1]];
    Kernel::new(shape, kernel.groups, data)
}

#[cfg(test)]
mod tests {
    use super::super::{ConvParams, testing::*};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equals_the_small_kernel_with_less_padding(
            shape in any_kernel_shape(), grow_h in 0usize..3, grow_w in 0usize..3,
            pad in 0usize..2, stride in 1usize..4, seed in 0u64..1000,
        ) {
            let mut random = Random::new(seed);
            let conv = random.conv(shape);
            let [kh, kw] = shape.size;
            let large = ConvParams {
                kernel: embed_kernel(&conv.kernel, [kh + 2 * grow_h, kw + 2 * grow_w]),
                bias: conv.bias.clone(),
            };
            let input = random.map(shape.in_channels(), [6, 7]);
            assert_close(
                &convolve(&input, &large, [stride; 2], [pad + grow_h, pad + grow_w]),
                &convolve(&input, &conv, [stride; 2], [pad; 2]),
            );
        }
    }
}
