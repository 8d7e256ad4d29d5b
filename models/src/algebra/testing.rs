//! What the transforms are tested with: a convolution by its definition, and random operands.

use super::{ConvParams, Kernel, NormStats};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

/// A feature map of one image, shape `[channels, height, width]`.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    channels: usize,
    pub size: [usize; 2],
    pub data: Vec<f64>,
}

impl Map {
    pub fn at(&self, c: usize, y: usize, x: usize) -> f64 {
        self.data[(c * self.size[0] + y) * self.size[1] + x]
    }

    pub fn add(&mut self, other: &Map) {
        assert_eq!(self.size, other.size);
        self.data.iter_mut().zip(&other.data).for_each(|(a, b)| *a += b);
    }

    pub fn for_each_channel(&mut self, f: impl Fn(usize, f64) -> f64) {
        let plane = self.size[0] * self.size[1];
        for (i, v) in self.data.iter_mut().enumerate() {
            *v = f(i / plane, *v);
        }
    }

    /// The map with a border that holds one value per channel.
    pub fn padded(&self, pad: [usize; 2], values: &[f64]) -> Map {
        let size = [self.size[0] + 2 * pad[0], self.size[1] + 2 * pad[1]];
        let mut data = Vec::new();
        for (c, &border) in values.iter().enumerate() {
            for y in 0..size[0] {
                for x in 0..size[1] {
                    let inside = (pad[0]..pad[0] + self.size[0]).contains(&y)
                        && (pad[1]..pad[1] + self.size[1]).contains(&x);
                    data.push(if inside { self.at(c, y - pad[0], x - pad[1]) } else { border });
                }
            }
        }
        Map { channels: self.channels, size, data }
    }
}

/// The definition of a grouped, strided, zero-padded convolution, one value at a time.
pub(crate) fn convolve(
    input: &Map,
    conv: &ConvParams,
    stride: [usize; 2],
    padding: [usize; 2],
) -> Map {
    let k = &conv.kernel;
    assert_eq!(input.channels, k.in_per_group * k.groups);
    let padded = input.padded(padding, &vec![0.0; input.channels]);
    let size = [0, 1].map(|a| (padded.size[a] - k.size[a]) / stride[a] + 1);
    let mut data = Vec::new();
    for o in 0..k.out_channels {
        let group = o / (k.out_channels / k.groups);
        for y in 0..size[0] {
            for x in 0..size[1] {
                let mut sum = conv.bias[o];
                for i in 0..k.in_per_group {
                    for dy in 0..k.size[0] {
                        for dx in 0..k.size[1] {
                            let w = k.data
                                [((o * k.in_per_group + i) * k.size[0] + dy) * k.size[1] + dx];
                            let c = group * k.in_per_group + i;
                            sum += w * padded.at(c, y * stride[0] + dy, x * stride[1] + dx);
                        }
                    }
                }
                data.push(sum);
            }
        }
    }
    Map { channels: k.out_channels, size, data }
}

pub(crate) fn assert_close(actual: &Map, expected: &Map) {
    assert_eq!(actual.size, expected.size);
    let scale = expected.data.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (a, e)) in actual.data.iter().zip(&expected.data).enumerate() {
        assert!((a - e).abs() <= 1e-12 * scale, "value {i}: {a} against {e}");
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelShape {
    pub out_per_group: usize,
    pub in_per_group: usize,
    pub size: [usize; 2],
    pub groups: usize,
}

impl KernelShape {
    pub fn in_channels(&self) -> usize {
        self.in_per_group * self.groups
    }
}

/// Windows of any height and width up to 5, groups, and depth multipliers (`in_per_group` 1
/// with several outputs).
pub(crate) fn any_kernel_shape() -> impl Strategy<Value = KernelShape> {
    (1usize..4, 1usize..4, 1usize..6, 1usize..6, 1usize..4).prop_map(
        |(out_per_group, in_per_group, kh, kw, groups)| KernelShape {
            out_per_group,
            in_per_group,
            size: [kh, kw],
            groups,
        },
    )
}

pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn values(&mut self, n: usize, low: f64, high: f64) -> Vec<f64> {
        (0..n).map(|_| self.0.random_range(low..high)).collect()
    }

    pub fn conv(&mut self, shape: KernelShape) -> ConvParams {
        let out_channels = shape.out_per_group * shape.groups;
        let [kh, kw] = shape.size;
        let data = self.values(out_channels * shape.in_per_group * kh * kw, -1.0, 1.0);
        let kernel = Kernel::new([out_channels, shape.in_per_group, kh, kw], shape.groups, data);
        ConvParams { kernel, bias: self.values(out_channels, -1.0, 1.0) }
    }

    pub fn norm(&mut self, channels: usize) -> NormStats {
        NormStats {
            gamma: self.values(channels, -2.0, 2.0),
            beta: self.values(channels, -1.0, 1.0),
            mean: self.values(channels, -1.0, 1.0),
            var: self.values(channels, 0.1, 3.0),
            epsilon: 1e-5,
        }
    }

    pub fn map(&mut self, channels: usize, size: [usize; 2]) -> Map {
        Map { channels, size, data: self.values(channels * size[0] * size[1], -1.0, 1.0) }
    }
}
