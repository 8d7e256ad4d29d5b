//! Convolutions of one group as sums over taps and channels.

use std::ops::Range;

use super::convolution::{Epilogue, Source};
use super::map::Map;
use super::tile::Product;
use super::weight::{panel, panel_vectors, panels};
use super::windows::Windows;
use super::{BLOCK, TASK};
use crate::gemm::{self, Isa, Kernel};
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::{Activation, ConvShape, team};

/// A convolution whose inputs lie where taps find them, and its output.
pub(super) struct Layer<'a> {
    pub taps: Vec<usize>,
    /// Inputs behind each other at a tap.
    pub run: usize,
    pub weight: &'a [f32],
    pub bias: Vec<f32>,
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
    pub output: Shared<'a>,
    pub channels: usize,
    /// Values of a block and of an image of the output.
    pub block_len: usize,
    pub image_len: usize,
}

/// Outputs side by side.
pub(super) struct Strip {
    /// The place of the inputs of the first one.
    pub x: *const f32,
    /// The first one's position in the plane.
    pub start: usize,
    pub positions: usize,
}

impl<'a> Layer<'a> {
    pub fn new(
        taps: Vec<usize>,
        run: usize,
        weight: &'a [f32],
        epilogue: Epilogue<'a>,
        output: &'a mut Map,
    ) -> Self {
        let (channels, block_len, image_len) =
            (output.channels(), output.block_len(), output.image_len());
        Self {
            taps,
            run,
            weight,
            bias: epilogue.padded_bias(channels),
            residual: epilogue.residual.map(Map::values),
            activation: epilogue.activation,
            output: Shared::new(output.values_mut()),
            channels,
            block_len,
            image_len,
        }
    }

    /// Computes panels of output channels of an image.
    ///
    /// # Safety
    /// The processor has `I`; inputs lie at the taps of every position of the strips, `STEP` values
    /// behind each other, and nothing else uses these outputs.
    pub unsafe fn run<I: Isa, const STEP: usize>(
        &self,
        image: usize,
        panels: Range<usize>,
        strips: &[Strip],
    ) {
        let depth = self.taps.len() * self.run;
        let start = image * self.image_len;
        let output = self.output.range(start..start + self.image_len);
        for index in panels {
            let channel = index * 2 * I::LANES;
            let vectors = panel_vectors::<I>(index, self.channels);
            for strip in strips {
                let place =
                    channel / BLOCK * self.block_len + channel % BLOCK + strip.start * BLOCK;
                let product = Product {
                    taps: &self.taps,
                    run: self.run,
                    x: strip.x,
                    weight: panel::<I>(self.weight, depth, index),
                    vectors,
                    bias: self.bias[channel..].as_ptr(),
                    residual: self.residual.map(|map| map[start + place..].as_ptr()),
                    activation: self.activation,
                    y: output.wrapping_add(place),
                    vector_stride: vector_stride::<I>(self.block_len),
                };
                // SAFETY: as the caller promises.
                unsafe { product.run::<I, STEP>(strip.positions) };
            }
        }
    }
}

/// From the first to the second vector of a panel.
pub(super) fn vector_stride<I: Isa>(block_len: usize) -> usize {
    if I::LANES == BLOCK { block_len } else { I::LANES }
}

/// How a layer is divided among threads.
pub(super) struct Tasks {
    images: usize,
    /// Rows, positions or tiles of an image.
    units: usize,
    parts: usize,
    panels: usize,
    panel_parts: usize,
}

/// A part of a layer.
pub(super) struct Task {
    pub image: usize,
    pub units: Range<usize>,
    pub panels: Range<usize>,
}

impl Tasks {
    /// Tasks of at most `most` units and, to have one for every thread, down to `least`; if that is not
    /// enough, the output channels are divided, too.
    pub fn new(images: usize, units: usize, [least, most]: [usize; 2], panels: usize) -> Self {
        let threads = rayon::current_num_threads();
        let even = |parts: usize| (images * parts).is_multiple_of(threads);
        let smallest = units.div_ceil(most.max(1));
        let parts = (smallest..=(units / least).max(smallest)).find(|&parts| even(parts));
        let panel_parts = if parts.is_some() { 1 } else { threads.min(panels) };
        Self { images, units, parts: parts.unwrap_or(smallest), panels, panel_parts }
    }

    pub fn for_each(&self, work: impl Fn(Task) + Sync) {
        let Self { images, units, parts, panels, panel_parts } = *self;
        team::for_each(images * parts * panel_parts, |index| {
            let (part, panel_part) = (index / panel_parts, index % panel_parts);
            work(Task {
                image: part / parts,
                units: gemm::part(0..units, 1, part % parts, parts),
                panels: gemm::part(0..panels, 1, panel_part, panel_parts),
            });
        });
    }
}

pub(super) fn convolve(
    shape: &Geometry,
    input: Source,
    weight: &[f32],
    epilogue: Epilogue,
    output: &mut Map,
) {
    gemm::dispatch(Dense { shape, input, weight, epilogue, output });
}

struct Dense<'a> {
    shape: &'a Geometry,
    input: Source<'a>,
    weight: &'a [f32],
    epilogue: Epilogue<'a>,
    output: &'a mut Map,
}

impl Kernel for Dense<'_> {
    unsafe fn run<I: Isa>(self) {
        let Self { shape, input, weight, epilogue, output } = self;
        let plain = ConvShape { kernel: [1, 1], stride: [1, 1], padding: [0, 0], ..**shape };
        // SAFETY: the processor has `I`, as the caller promises.
        unsafe {
            match input {
                Source::Blocked(map) if **shape == plain => {
                    pointwise::<I>(map, weight, epilogue, output);
                }
                Source::Blocked(map) => {
                    let windows = Windows::new(shape, map.blocks(), BLOCK);
                    windowed::<I, BLOCK>(&windows, map.values(), weight, epilogue, output);
                }
                Source::Planes(planes) => {
                    let windows = Windows::new(shape, shape.in_channels, 1);
                    windowed::<I, 1>(&windows, planes, weight, epilogue, output);
                }
            }
        }
    }
}

/// The taps of a 1x1 convolution.
pub(super) fn block_starts(blocks: usize, block_len: usize) -> Vec<usize> {
    (0..blocks).map(|block| block * block_len).collect()
}

/// # Safety
/// The processor has `I`.
unsafe fn pointwise<I: Isa>(map: &Map, weight: &[f32], epilogue: Epilogue, output: &mut Map) {
    let panels = panels::<I>(output.channels());
    let most = (TASK / (map.blocks() * BLOCK)).next_multiple_of(I::ROWS);
    let tasks = Tasks::new(map.dims()[0], map.positions(), [2 * I::ROWS, most], panels);
    let taps = block_starts(map.blocks(), map.block_len());
    let layer = Layer::new(taps, BLOCK, weight, epilogue, output);
    tasks.for_each(|Task { image, units, panels }| {
        let x = map.values()[image * map.image_len()..][units.start * BLOCK..].as_ptr();
        let strip = Strip { x, start: units.start, positions: units.len() };
        // SAFETY: as the caller promises; the task alone has these outputs.
        unsafe { layer.run::<I, BLOCK>(image, panels, &[strip]) };
    });
}

/// # Safety
/// The processor has `I`.
unsafe fn windowed<I: Isa, const RUN: usize>(
    windows: &Windows,
    input: &[f32],
    weight: &[f32],
    epilogue: Epilogue,
    output: &mut Map,
) {
    let [images, channels, height, width] = output.dims();
    let tasks = Tasks::new(images, height, [1, windows.rows], panels::<I>(channels));
    let layer = Layer::new(windows.taps(), RUN, weight, epilogue, output);
    let image_len = input.len() / images;
    tasks.for_each(|Task { image, units, panels }| {
        gemm::with_scratch(windows.len(), |copy| {
            windows.copy::<RUN>(&input[image * image_len..][..image_len], units.clone(), copy);
            let strips: Vec<_> = units
                .clone()
                .map(|row| Strip {
                    x: copy[windows.row_start(row - units.start)..].as_ptr(),
                    start: row * width,
                    positions: width,
                })
                .collect();
            // SAFETY: as the caller promises; the copy holds the taps of every window of these rows, and
            // the task alone has these outputs.
            unsafe { layer.run::<I, RUN>(image, panels, &strips) };
        });
    });
}
