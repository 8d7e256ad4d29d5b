//! Weights in the order in which the kernels read them.

use rayon::prelude::*;

use super::map::{SPARE, aligned};
use super::{BLOCK, winograd};
use crate::gemm::{self, Isa, Kernel};
use crate::shape::Geometry;
use crate::{ConvShape, InstructionSet};

/// What a convolution is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Channel by channel.
    Depthwise,
    /// The sum over blocks of channels and taps.
    Direct,
    /// The sum over the channels of few planes that are not blocked, such as those of images.
    Planes,
    /// Winograd's F(2x2, 3x3).
    Winograd,
}

/// Most channels of a convolution that reads planes.
const FEW_CHANNELS: usize = 4;

impl Algorithm {
    /// The algorithm for a convolution, if there is one.
    pub fn of(shape: &ConvShape) -> Option<Self> {
        match shape {
            _ if shape.is_depthwise() => Some(Self::Depthwise),
            ConvShape { groups: 2.., .. } => None,
            _ if shape.in_channels <= FEW_CHANNELS => Some(Self::Planes),
            _ if winograd::serves(shape) => Some(Self::Winograd),
            _ => Some(Self::Direct),
        }
    }
}

/// The weight of a convolution, `[out, in / groups, kh, kw]`, prepared for [`convolve`](super::convolve).
#[derive(Debug)]
pub struct Weight {
    values: Vec<f32>,
    algorithm: Algorithm,
    channels: [usize; 2],
    kernel: [usize; 2],
    set: InstructionSet,
}

impl Weight {
    /// Prepares a weight; `None` if convolutions of this shape are not served, which are those of more than
    /// one group that are not depthwise.
    ///
    /// # Panics
    /// If there is no such convolution or the weight has another length.
    #[track_caller]
    pub fn new(shape: &ConvShape, weight: &[f32]) -> Option<Self> {
        let geometry = Geometry::new(shape, shape.input_len(), shape.output_len());
        let geometry = geometry.with_weight(weight.len());
        let algorithm = Algorithm::of(shape)?;
        let [inputs, outputs] = [shape.in_channels, shape.out_channels];
        let [padded_inputs, padded_outputs] =
            [inputs, outputs].map(|channels| channels.next_multiple_of(BLOCK));
        let len = match algorithm {
            Algorithm::Depthwise => geometry.window() * padded_outputs,
            Algorithm::Direct => geometry.window() * padded_inputs * padded_outputs,
            Algorithm::Planes => geometry.window() * inputs * padded_outputs,
            Algorithm::Winograd => winograd::ELEMENTS * padded_inputs * padded_outputs,
        };
        let mut values = vec![0.0; len + SPARE];
        let skip = values.as_ptr().align_offset(4 * BLOCK);
        let to = &mut values[skip..][..len];
        match algorithm {
            Algorithm::Depthwise => pack_depthwise(&geometry, weight, to),
            Algorithm::Winograd => {
                gemm::dispatch(winograd::Transform { shape: &geometry, weight, to })
            }
            _ => gemm::dispatch(Pack { shape: &geometry, algorithm, weight, to }),
        }
        let set = InstructionSet::current();
        Some(Self { values, algorithm, channels: [inputs, outputs], kernel: shape.kernel, set })
    }

    /// Whether convolutions of this shape are computed with it.
    pub fn serves(&self, shape: &ConvShape) -> bool {
        let channels = [shape.in_channels, shape.out_channels];
        Algorithm::of(shape) == Some(self.algorithm)
            && (self.channels, self.kernel) == (channels, shape.kernel)
    }

    /// Whether the convolution reads planes, as [`Source::Planes`](super::Source::Planes).
    pub fn reads_planes(&self) -> bool {
        self.algorithm == Algorithm::Planes
    }

    /// # Panics
    /// If it was prepared for other convolutions or with another instruction set.
    #[track_caller]
    pub(super) fn check(&self, shape: &ConvShape) {
        assert!(self.serves(shape), "shape of the prepared weight");
        assert_eq!(self.set, InstructionSet::current(), "instruction set of the prepared weight");
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn values(&self) -> &[f32] {
        aligned(&self.values, self.values.len() - SPARE)
    }
}

/// `[channels / 16, kh, kw, 16]`.
fn pack_depthwise(shape: &Geometry, weight: &[f32], to: &mut [f32]) {
    let taps = shape.window();
    for (channel, weight) in weight.chunks_exact(taps).enumerate() {
        let to = &mut to[channel / BLOCK * taps * BLOCK..][channel % BLOCK..];
        to.iter_mut().step_by(BLOCK).zip(weight).for_each(|(to, &value)| *to = value);
    }
}

/// Vectors of the output channels, those of whole blocks.
pub(super) fn vectors<I: Isa>(channels: usize) -> usize {
    channels.next_multiple_of(BLOCK) / I::LANES
}

/// Panels of two vectors of output channels. The last one may have one.
pub(super) fn panels<I: Isa>(channels: usize) -> usize {
    vectors::<I>(channels).div_ceil(2)
}

/// The vectors of a panel.
pub(super) fn panel_vectors<I: Isa>(panel: usize, channels: usize) -> usize {
    (vectors::<I>(channels) - 2 * panel).min(2)
}

/// Packs panels `[in / run, kh, kw, run, vectors * LANES]`, with runs of the channels of a block or of one.
struct Pack<'a> {
    shape: &'a Geometry,
    algorithm: Algorithm,
    weight: &'a [f32],
    to: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    unsafe fn run<I: Isa>(self) {
        let Self { shape, algorithm, weight, to } = self;
        let [inputs, outputs] = [shape.in_channels, shape.out_channels];
        let run = if algorithm == Algorithm::Planes { 1 } else { BLOCK };
        let taps = shape.window();
        to.par_chunks_mut(taps * inputs.next_multiple_of(run) * 2 * I::LANES).enumerate().for_each(
            |(panel, to)| {
                let width = panel_vectors::<I>(panel, outputs) * I::LANES;
                for (depth, to) in to.chunks_exact_mut(width).enumerate() {
                    let (tap, input) = (depth / run % taps, depth / run / taps * run + depth % run);
                    for (lane, to) in to.iter_mut().enumerate() {
                        let output = panel * 2 * I::LANES + lane;
                        if input < inputs && output < outputs {
                            *to = weight[(output * inputs + input) * taps + tap];
                        }
                    }
                }
            },
        );
    }
}

/// The part of a packed weight that is the panel.
pub(super) fn panel<I: Isa>(weight: &[f32], depth: usize, panel: usize) -> *const f32 {
    weight[panel * 2 * I::LANES * depth..].as_ptr()
}
