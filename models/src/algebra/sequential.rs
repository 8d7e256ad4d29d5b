//! Transform III: a 1x1 convolution followed by a KxK one is one KxK convolution.

use rayon::prelude::*;

use super::{ConvParams, Kernel};

/// Transform III (paper, equations 7 to 11), per group:
/// `W[o, c, t] = sum_m W2[o, m, t] W1[m, c]` and
/// `b[o] = b2[o] + sum_{m, t} W2[o, m, t] b1[m]`.
///
/// The bias of the 1x1 convolution passes through every tap of the second one, also those that
/// lie over the border. The result is therefore exact only if the map between the two is padded
/// with the first bias `b1`, not with zeros; padding is applied to the input of the result.
///
/// # Panics
/// If the first kernel is not 1x1, the groups differ, or the second does not read what the
/// first writes.
pub fn merge_1x1_kxk(first: &ConvParams, second: &ConvParams) -> ConvParams {
    let (k1, k2) = (&first.kernel, &second.kernel);
    assert_eq!(k1.size, [1, 1], "the first kernel of a sequence is 1x1");
    assert_eq!(k1.groups, k2.groups, "groups of the two kernels");
    let middle = k2.in_per_group;
    assert_eq!(k1.out_channels, middle * k2.groups, "channels between the two kernels");

    let (inputs, taps) = (k1.in_per_group, k2.taps());
    let mut data = vec![0.0; k2.out_channels * inputs * taps];
    let mut bias = second.bias.clone();
    data.par_chunks_mut(inputs * taps).zip(&mut bias).enumerate().for_each(|(o, (out, bias))| {
        // One output channel with its taps outermost: each step is then a multiple of a whole
        // row of the first kernel, which the compiler vectorises.
        let mut filter = vec![0.0; taps * inputs];
        let first_middle = k2.group_of(o) * middle;
        for (m, weights) in k2.filter(o).chunks(taps).enumerate() {
            let row = k1.filter(first_middle + m);
            for (w, out) in weights.iter().zip(filter.chunks_mut(inputs)) {
                // A kernel that begins as an identity, as in OREPA, is mostly zero.
                if *w != 0.0 {
                    out.iter_mut().zip(row).for_each(|(out, v)| *out += w * v);
                }
            }
            *bias += weights.iter().sum::<f64>() * first.bias[first_middle + m];
        }
        for (c, out) in out.chunks_mut(taps).enumerate() {
            out.iter_mut().enumerate().for_each(|(t, out)| *out = filter[t * inputs + c]);
        }
    });
    let [kh, kw] = k2.size;
    let kernel = Kernel::new([k2.out_channels, inputs, kh, kw], k2.groups, data);
    ConvParams { kernel, bias }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// With the intermediate map padded by the first bias, the sequence and its merge agree
        /// everywhere, the border included.
        #[test]
        fn equals_the_sequence_padded_with_the_first_bias(
            shape in any_kernel_shape(), inputs in 1usize..4, stride in 1usize..4,
            pad_h in 0usize..3, pad_w in 0usize..3, seed in 0u64..1000,
        ) {
            let mut random = Random::new(seed);
            let middle = shape.in_channels();
            let first = random.conv(KernelShape {
                out_per_group: middle / shape.groups, in_per_group: inputs, size: [1, 1], groups: shape.groups,
            });
            let second = random.conv(shape);
            let input = random.map(inputs * shape.groups, [7, 6]);

            let between = convolve(&input, &first, [1, 1], [0, 0]).padded([pad_h, pad_w], &first.bias);
            let expected = convolve(&between, &second, [stride; 2], [0, 0]);
            let merged = merge_1x1_kxk(&first, &second);
            assert_close(&convolve(&input, &merged, [stride; 2], [pad_h, pad_w]), &expected);
        }
    }
}
