//! A depthwise convolution, then a 1x1 convolution, without the map between them.

use super::convolution::{Epilogue, check_input};
use super::dense::{Layer, Strip, Task, Tasks, block_starts};
use super::depthwise::Filters;
use super::map::Map;
use super::weight::{Algorithm, Weight, panels};
use super::{BLOCK, Source, TASK, convolve};
use crate::gemm::{self, Isa, Kernel};
use crate::profile::{self, Work};
use crate::shape::Geometry;
use crate::{Activation, ConvShape};

/// A depthwise convolution with bias and activation.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise<'a> {
    /// Its geometry.
    pub shape: ConvShape,
    /// Its weight.
    pub weight: &'a Weight,
    /// Added per channel.
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

/// The fewest rows of outputs per thread with which tasks of whole rows keep all threads busy.
const ROWS_PER_THREAD: usize = 6;

/// A depthwise convolution, then a 1x1 convolution to `channels` channels with its epilogue.
///
/// # Panics
/// As [`convolve`], and if the first convolution is not depthwise.
#[track_caller]
pub fn convolve_separable(
    depthwise: &Depthwise,
    input: &Map,
    channels: usize,
    weight: &Weight,
    epilogue: Epilogue,
) -> Map {
    let &Depthwise { ref shape, weight: filters, bias, activation } = depthwise;
    let [batch, between, height, width] = shape.output_shape();
    let first = Epilogue { bias, activation, residual: None };
    let pointwise =
        ConvShape { input: [height, width], ..ConvShape::pointwise(batch, [between, channels], 1) };
    let threads = rayon::current_num_threads();
    if batch * height < ROWS_PER_THREAD * threads || weight.algorithm() != Algorithm::Direct {
        let map = convolve(shape, Source::Blocked(input), filters, first);
        return convolve(&pointwise, Source::Blocked(&map), weight, epilogue);
    }
    let geometry = &Geometry::new(shape, shape.input_len(), shape.output_len());
    filters.check(shape);
    weight.check(&pointwise);
    assert!(shape.is_depthwise(), "not a depthwise convolution: {shape:?}");
    check_input(input, shape);
    epilogue.check_residual(pointwise.output_shape());
    let _span = profile::work(Work::Separable);
    let mut output = Map::new(pointwise.output_shape());
    let bias = first.padded_bias(between);
    let filters = &Filters::new(geometry, filters.values(), &bias, activation);
    let output_map = &mut output;
    gemm::dispatch(Separable {
        filters,
        input,
        weight: weight.values(),
        epilogue,
        output: output_map,
    });
    output
}

struct Separable<'a> {
    filters: &'a Filters<'a>,
    input: &'a Map,
    weight: &'a [f32],
    epilogue: Epilogue<'a>,
    output: &'a mut Map,
}

impl Kernel for Separable<'_> {
    unsafe fn run<I: Isa>(self) {
        let Self { filters, input, weight, epilogue, output } = self;
        let ([batch, channels, height, width], blocks) = (output.dims(), input.blocks());
        let most = (TASK / (blocks * BLOCK * width)).clamp(1, height);
        let tasks = Tasks::new(batch, height, [1, most], panels::<I>(channels));
        let block_len = most * width * BLOCK;
        let taps = block_starts(blocks, block_len);
        let layer = Layer::new(taps, BLOCK, weight, epilogue, output);
        tasks.for_each(|Task { image, units, panels }| {
            gemm::with_scratch(blocks * block_len, |between| {
                // SAFETY: the processor has `I`, as the caller promises.
                unsafe {
                    I::enter(
                        #[inline(always)]
                        || {
                            for (block, to) in between.chunks_exact_mut(block_len).enumerate() {
                                let len = input.block_len();
                                let from = &input.values()[(image * blocks + block) * len..][..len];
                                let to = to.as_mut_ptr();
                                filters.run::<I>(block, from, units.clone(), None, to);
                            }
                        },
                    );
                }
                let positions = units.len() * width;
                let strip = Strip { x: between.as_ptr(), start: units.start * width, positions };
                // SAFETY: as above; the task alone has these outputs.
                unsafe { layer.run::<I, BLOCK>(image, panels, &[strip]) };
            });
        });
    }
}
