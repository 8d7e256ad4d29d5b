//! Batch norm in training (Ioffe and Szegedy, 2015) of one map or of several that are summed:
//! `y = act(sum_i norm_i(o_i) + residual)`, with `act` the identity or ReLU.
//!
//! Maps are `[batch, channels, positions]`. The maps `o_i` of a sum are called branches; a buffer
//! may hold several branches, one after the other among its channels, so that one convolution can
//! compute them: a buffer `[batch, 2 channels, positions]` is two branches. Values per branch and
//! channel, `[branches, channels]`, follow the order of the buffers and of the branches in them.
//!
//! Forward takes two passes over memory: [`statistics`] of each buffer and [`apply`]. Backward
//! takes two: [`reduce`] and [`backward_input`], with `f64` algebra per channel between them
//! ([`Gradients::new`]).

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::planes::{self, SharedMap};
use crate::simd::{Lanes, sweep};

/// Values added in `f32` before they are flushed to `f64`.
const BLOCK: usize = 1024;

/// Most branches of a sum.
pub const MAX_BRANCHES: usize = 4;

/// Batch, channels and positions of a plane.
type Dims = [usize; 3];

/// Mean and biased variance of each channel over batch and positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// `[channels]`.
    pub mean: Vec<f64>,
    /// `[channels]`.
    pub var: Vec<f64>,
}

/// Mean and biased variance of each channel of a map; one pass.
///
/// Sums are taken about a shift near the mean, in `f32` for at most 1024 values and in `f64` from
/// there: a mean far from zero costs no accuracy.
///
/// # Panics
/// If the map's length is not that of `dims`, or a channel has no values.
pub fn statistics(map: &[f32], dims: [usize; 3]) -> Statistics {
    let [batch, channels, positions] = dims;
    assert_eq!(map.len(), batch * channels * positions, "length of the map");
    assert!(batch * positions > 0, "a channel has no values");
    let shift = shifts(map, dims);
    let sums = planes::reduce(batch * channels, positions, 2 * channels, |range, sums| {
        Arch::new().dispatch(Spread { map, shift: &shift, range, positions, sums });
    });
    let count = (batch * positions) as f64;
    let (mean, var) = sums
        .chunks_exact(2)
        .zip(&shift)
        .map(|(sums, &shift)| {
            let offset = sums[0] / count;
            (f64::from(shift) + offset, (sums[1] / count - offset * offset).max(0.0))
        })
        .unzip();
    Statistics { mean, var }
}

/// Rough means of the channels, from a few values of a few images.
fn shifts(map: &[f32], [batch, channels, positions]: Dims) -> Vec<f32> {
    const IMAGES: usize = 8;
    const VALUES: usize = 16;
    let (images, values) = (batch.min(IMAGES), positions.min(VALUES));
    let mut sums = vec![0.0f64; channels];
    for image in 0..images {
        let image = &map[image * batch / images * channels * positions..];
        for (sum, plane) in sums.iter_mut().zip(image.chunks(positions)) {
            let start = (positions - values) / 2;
            *sum += plane[start..start + values].iter().map(|&value| f64::from(value)).sum::<f64>();
        }
    }
    sums.into_iter().map(|sum| (sum / (images * values) as f64) as f32).collect()
}

/// Adds sum and squares about a shift of each plane.
struct Spread<'a> {
    map: &'a [f32],
    shift: &'a [f32],
    range: Range<usize>,
    positions: usize,
    /// `[channels, 2]`.
    sums: &'a mut [f64],
}

impl WithSimd for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { map, shift, range, positions, sums } = self;
        let mut channel = range.start % shift.len();
        let planes = map[range.start * positions..range.end * positions].chunks_exact(positions);
        for plane in planes {
            let about = simd.splat_f32s(shift[channel]);
            for block in plane.chunks(BLOCK) {
                let mut sum = [simd.splat_f32s(0.0); 2];
                let mut squares = sum;
                sweep!(S, block.len(), |at, lanes, TURN| {
                    // SAFETY: `sweep` stays within the block.
                    let value = unsafe { lanes.load_or(simd, block.as_ptr().add(at), about) };
                    let value = simd.sub_f32s(value, about);
                    sum[TURN] = simd.add_f32s(sum[TURN], value);
                    squares[TURN] = simd.mul_add_e_f32s(value, value, squares[TURN]);
                });
                sums[2 * channel] += total(simd, sum);
                sums[2 * channel + 1] += total(simd, squares);
            }
            channel = if channel + 1 == shift.len() { 0 } else { channel + 1 };
        }
    }
}

#[inline(always)]
fn total<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> f64 {
    f64::from(simd.reduce_sum_f32s(simd.add_f32s(a, b)))
}

/// A branch in its buffer.
#[derive(Clone, Copy)]
struct Branch<'a> {
    map: SharedMap<'a>,
    /// Channels of the buffer.
    channels: usize,
    /// First channel of the branch.
    first: usize,
}

impl<'a> Branch<'a> {
    /// The branches of a sum.
    ///
    /// # Panics
    /// If a buffer does not hold whole branches, or there are too few or too many.
    fn all(buffers: impl Iterator<Item = SharedMap<'a>>, dims: Dims) -> Vec<Self> {
        let [_, channels, _] = dims;
        let len = dims.iter().product::<usize>();
        assert!(len > 0, "a map without values");
        let branches: Vec<_> = buffers
            .flat_map(|map| {
                assert!(map.len() > 0 && map.len() % len == 0, "length of a map");
                let count = map.len() / len;
                (0..count).map(move |branch| Self {
                    map,
                    channels: count * channels,
                    first: branch * channels,
                })
            })
            .collect();
        assert!((1..=MAX_BRANCHES).contains(&branches.len()), "one to four branches");
        branches
    }

    /// The first value of a plane.
    #[inline(always)]
    fn plane(&self, image: usize, channel: usize, positions: usize) -> *mut f32 {
        self.map.start(image * self.channels + self.first + channel, positions)
    }
}

/// Calls `$body` with the branches as an array.
macro_rules! for_branches {
    ($branches:expr, |$array:ident| $body:expr) => {
        match $branches.as_slice() {
            [a] => {
                let $array = [*a];
                $body
            }
            [a, b] => {
                let $array = [*a, *b];
                $body
            }
            [a, b, c] => {
                let $array = [*a, *b, *c];
                $body
            }
            [a, b, c, d] => {
                let $array = [*a, *b, *c, *d];
                $body
            }
            _ => unreachable!("one to four branches"),
        }
    };
}

/// `y = act(sum_i scale_i * o_i + shift + residual)`; one pass.
///
/// `scale` is `[branches, channels]`, `shift` `[channels]`, `residual` a map.
///
/// # Panics
/// If a length does not fit `dims` or there are not one to four branches.
pub fn apply(
    maps: &[&[f32]],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    dims: [usize; 3],
    y: &mut [f32],
) {
    let branches = Branch::all(maps.iter().map(|map| SharedMap::reading(map)), dims);
    apply_to(&branches, scale, shift, residual, relu, dims, SharedMap::new(y));
}

/// `y` may be the buffer of the only branch.
fn apply_to(
    branches: &[Branch],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    dims: Dims,
    y: SharedMap,
) {
    let [batch, channels, positions] = dims;
    let len = batch * channels * positions;
    assert_eq!(y.len(), len, "length of the output");
    assert!(residual.is_none_or(|map| map.len() == len), "length of the residual");
    assert_eq!(scale.len(), branches.len() * channels, "one scale per branch and channel");
    assert_eq!(shift.len(), channels, "one shift per channel");
    for_branches!(branches.to_vec(), |branches| {
        planes::for_each(batch * channels, positions, |range| {
            let op = Apply { branches, scale, shift, residual, relu, range, positions, y };
            Arch::new().dispatch(op);
        })
    });
}

struct Apply<'a, const B: usize> {
    branches: [Branch<'a>; B],
    scale: &'a [f32],
    shift: &'a [f32],
    residual: Option<&'a [f32]>,
    relu: bool,
    range: Range<usize>,
    positions: usize,
    y: SharedMap<'a>,
}

impl<const B: usize> WithSimd for Apply<'_, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.residual, self.relu) {
            (None, false) => self.run::<S, false, false>(simd),
            (None, true) => self.run::<S, false, true>(simd),
            (Some(_), false) => self.run::<S, true, false>(simd),
            (Some(_), true) => self.run::<S, true, true>(simd),
        }
    }
}

impl<const B: usize> Apply<'_, B> {
    #[inline(always)]
    fn run<S: Simd, const RESIDUAL: bool, const RELU: bool>(self, simd: S) {
        let Self { branches, positions, y, .. } = self;
        let channels = self.shift.len();
        let zero = simd.splat_f32s(0.0);
        for plane in self.range {
            let (image, channel) = (plane / channels, plane % channels);
            let from = branches.map(|branch| branch.plane(image, channel, positions));
            let scale = splat_branches(simd, self.scale, channel, channels);
            let shift = simd.splat_f32s(self.shift[channel]);
            let residual = match self.residual {
                Some(map) => map[plane * positions..][..positions].as_ptr(),
                None => std::ptr::null(),
            };
            let to = y.start(plane, positions);
            sweep!(S, positions, |at, lanes, _TURN| {
                // SAFETY: `sweep` stays within planes of `positions` values. This task alone has
                // the plane of `y`; where that is also the branch's, it is read first.
                unsafe {
                    let maps = load_branches(simd, lanes, at, &from);
                    let mut value = affine(simd, &scale, shift, &maps);
                    if RESIDUAL {
                        value = simd.add_f32s(value, lanes.load(simd, residual.add(at)));
                    }
                    if RELU {
                        // Not `max`, which may make a number of what is none.
                        let negative = simd.less_than_f32s(value, zero);
                        value = simd.select_f32s(negative, zero, value);
                    }
                    lanes.store(simd, to.add(at), value);
                }
            });
        }
    }
}

/// What the gradients of a norm need of its maps.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// Sum of `g`, the gradient behind the activation, `[channels]`.
    pub gradient: Vec<f64>,
    /// Sum of `g (o_i - mean_i)`, `[branches, channels]`.
    pub products: Vec<f64>,
}

/// Where a gradient passes the activation.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a> {
    /// Everywhere: there is no activation.
    Open,
    /// Where this output of [`apply`] with ReLU is positive.
    Output(&'a [f32]),
    /// Where [`apply`] with ReLU, these values and no residual is positive. Its output need
    /// neither be kept nor read: it is found again, bit for bit, from the maps.
    Affine {
        /// `[branches, channels]`.
        scale: &'a [f32],
        /// `[channels]`.
        shift: &'a [f32],
    },
}

/// The cases of [`Gate`], for the compiler.
const OPEN: u8 = 0;
const OUTPUT: u8 = 1;
const AFFINE: u8 = 2;

impl Gate<'_> {
    fn check(&self, branches: usize, [batch, channels, positions]: Dims) {
        match self {
            Self::Open => {}
            Self::Output(y) => {
                assert_eq!(y.len(), batch * channels * positions, "length of the output");
            }
            Self::Affine { scale, shift } => {
                assert_eq!(scale.len(), branches * channels, "one scale per branch and channel");
                assert_eq!(shift.len(), channels, "one shift per channel");
            }
        }
    }

    #[inline(always)]
    fn of_plane<S: Simd, const B: usize>(
        &self,
        simd: S,
        plane: usize,
        channel: usize,
        [_, channels, positions]: Dims,
    ) -> PlaneGate<S, B> {
        let zero = simd.splat_f32s(0.0);
        let mut gate = PlaneGate { y: std::ptr::null(), scale: [zero; B], shift: zero };
        match self {
            Self::Open => {}
            Self::Output(y) => gate.y = y[plane * positions..][..positions].as_ptr(),
            Self::Affine { scale, shift } => {
                gate.scale = splat_branches(simd, scale, channel, channels);
                gate.shift = simd.splat_f32s(shift[channel]);
            }
        }
        gate
    }
}

/// A gate as one plane needs it.
struct PlaneGate<S: Simd, const B: usize> {
    y: *const f32,
    scale: [S::f32s; B],
    shift: S::f32s,
}

impl<S: Simd, const B: usize> PlaneGate<S, B> {
    /// The gradient behind the activation.
    ///
    /// # Safety
    /// The lanes at `at` lie in the plane, and `KIND` is the case of the gate.
    #[inline(always)]
    unsafe fn pass<L: Lanes, const KIND: u8>(
        &self,
        simd: S,
        lanes: L,
        at: usize,
        dy: S::f32s,
        maps: &[S::f32s; B],
    ) -> S::f32s {
        let y = match KIND {
            OPEN => return dy,
            // SAFETY: as the caller promises.
            OUTPUT => unsafe { lanes.load(simd, self.y.add(at)) },
            _ => affine(simd, &self.scale, self.shift, maps),
        };
        let zero = simd.splat_f32s(0.0);
        simd.select_f32s(simd.greater_than_f32s(y, zero), dy, zero)
    }
}

/// `sum_i scale_i * o_i + shift`.
#[inline(always)]
fn affine<S: Simd, const B: usize>(
    simd: S,
    scale: &[S::f32s; B],
    shift: S::f32s,
    maps: &[S::f32s; B],
) -> S::f32s {
    let mut value = shift;
    for b in 0..B {
        value = simd.mul_add_e_f32s(scale[b], maps[b], value);
    }
    value
}

/// The values of a channel of all branches.
///
/// A loop, since closures given to arrays need not become part of a function for newer CPUs.
#[inline(always)]
fn splat_branches<S: Simd, const B: usize>(
    simd: S,
    values: &[f32],
    channel: usize,
    channels: usize,
) -> [S::f32s; B] {
    let mut vectors = [simd.splat_f32s(0.0); B];
    for (b, vector) in vectors.iter_mut().enumerate() {
        *vector = simd.splat_f32s(values[b * channels + channel]);
    }
    vectors
}

/// Loads the same lanes of all branches.
///
/// # Safety
/// The pointers are valid for reads of these lanes.
#[inline(always)]
unsafe fn load_branches<S: Simd, L: Lanes, const B: usize>(
    simd: S,
    lanes: L,
    at: usize,
    maps: &[*mut f32; B],
) -> [S::f32s; B] {
    let mut vectors = [simd.splat_f32s(0.0); B];
    for b in 0..B {
        // SAFETY: as the caller promises.
        vectors[b] = unsafe { lanes.load(simd, maps[b].add(at)) };
    }
    vectors
}

/// Sums over batch and positions of `g` and `g (o_i - mean_i)`; one pass.
///
/// `g` is `dy` where `gate` lets it pass, zero elsewhere. `mean` is `[branches, channels]`.
///
/// # Panics
/// If a length does not fit `dims` or there are not one to four branches.
pub fn reduce(maps: &[&[f32]], mean: &[f64], dy: &[f32], gate: Gate, dims: [usize; 3]) -> Sums {
    let [batch, channels, positions] = dims;
    let len = batch * channels * positions;
    let branches = Branch::all(maps.iter().map(|map| SharedMap::reading(map)), dims);
    let width = 1 + branches.len();
    assert_eq!(dy.len(), len, "length of the gradient");
    gate.check(branches.len(), dims);
    assert_eq!(mean.len(), branches.len() * channels, "one mean per branch and channel");
    let about: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
    let about = about.as_slice();
    let sums = for_branches!(branches, |branches| planes::reduce(
        batch * channels,
        positions,
        width * channels,
        |range, sums| {
            let op = Reduce { branches, about, dy, gate, range, dims, sums };
            Arch::new().dispatch(op);
        },
    ));
    let gradient: Vec<f64> = sums.iter().step_by(width).copied().collect();
    let products = (0..mean.len())
        .map(|index| {
            let (branch, channel) = (index / channels, index % channels);
            // The sums are about the rounded mean.
            let rounding = mean[index] - f64::from(about[index]);
            sums[channel * width + 1 + branch] - gradient[channel] * rounding
        })
        .collect();
    Sums { gradient, products }
}

struct Reduce<'a, const B: usize> {
    branches: [Branch<'a>; B],
    about: &'a [f32],
    dy: &'a [f32],
    gate: Gate<'a>,
    range: Range<usize>,
    dims: Dims,
    /// `[channels, 1 + B]`.
    sums: &'a mut [f64],
}

impl<const B: usize> WithSimd for Reduce<'_, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.gate {
            Gate::Open => self.run::<S, OPEN>(simd),
            Gate::Output(_) => self.run::<S, OUTPUT>(simd),
            Gate::Affine { .. } => self.run::<S, AFFINE>(simd),
        }
    }
}

impl<const B: usize> Reduce<'_, B> {
    #[inline(always)]
    fn run<S: Simd, const GATE: u8>(self, simd: S) {
        let [_, channels, positions] = self.dims;
        for plane in self.range {
            let (image, channel) = (plane / channels, plane % channels);
            let map = self.branches.map(|branch| branch.plane(image, channel, positions));
            let about: [_; B] = splat_branches(simd, self.about, channel, channels);
            let dy = self.dy[plane * positions..][..positions].as_ptr();
            let gate = self.gate.of_plane::<S, B>(simd, plane, channel, self.dims);
            let sums = &mut self.sums[channel * (1 + B)..][..1 + B];
            for start in (0..positions).step_by(BLOCK) {
                let mut gradient = [simd.splat_f32s(0.0); 2];
                let mut products = [gradient; B];
                sweep!(S, BLOCK.min(positions - start), |at, lanes, TURN| {
                    let at = start + at;
                    // SAFETY: `sweep` stays within planes of `positions` values.
                    unsafe {
                        let maps = load_branches(simd, lanes, at, &map);
                        let dy = lanes.load(simd, dy.add(at));
                        let g = gate.pass::<_, GATE>(simd, lanes, at, dy, &maps);
                        gradient[TURN] = simd.add_f32s(gradient[TURN], g);
                        for b in 0..B {
                            let value = simd.sub_f32s(maps[b], about[b]);
                            products[b][TURN] = simd.mul_add_e_f32s(g, value, products[b][TURN]);
                        }
                    }
                });
                sums[0] += total(simd, gradient);
                for b in 0..B {
                    sums[1 + b] += total(simd, products[b]);
                }
            }
        }
    }
}

/// Gradients of scale and shift of the norms, and how those of the maps are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// Of the scales, `[branches, channels]`.
    pub gamma: Vec<f32>,
    /// Of the shifts, `[channels]`: the same for all branches.
    pub beta: Vec<f32>,
    /// `do_i = coefficients[0] g + coefficients[1] (o_i - mean_i) + coefficients[2]`, with the
    /// rounded mean in the fourth place; `[branches, channels]`.
    coefficients: Vec<[f32; 4]>,
}

impl Gradients {
    /// From the sums of [`reduce`] over `count` values a channel (batch times positions).
    ///
    /// `gamma`, `mean` and `inv_std = 1 / sqrt(var + epsilon)` are `[branches, channels]`.
    ///
    /// # Panics
    /// If lengths differ.
    pub fn new(gamma: &[f32], mean: &[f64], inv_std: &[f64], sums: &Sums, count: usize) -> Self {
        let len = sums.products.len();
        assert!([gamma.len(), mean.len(), inv_std.len()] == [len; 3], "one value per channel");
        let (channels, count) = (sums.gradient.len(), count as f64);
        let coefficients = (0..len)
            .map(|index| {
                let inv_std = inv_std[index];
                let scale = f64::from(gamma[index]) * inv_std;
                let slope = -scale * inv_std * inv_std * sums.products[index] / count;
                let rounded = mean[index] as f32;
                let constant = -scale * sums.gradient[index % channels] / count
                    - slope * (mean[index] - f64::from(rounded));
                [scale as f32, slope as f32, constant as f32, rounded]
            })
            .collect();
        let gamma = sums
            .products
            .iter()
            .zip(inv_std)
            .map(|(sum, inv_std)| (sum * inv_std) as f32)
            .collect();
        let beta = sums.gradient.iter().map(|&sum| sum as f32).collect();
        Self { gamma, beta, coefficients }
    }
}

/// Gradients of all maps of a norm, and of the residual where it is wanted; one pass.
///
/// `d_maps` are like the maps; `dy` and `gate` as in [`reduce`].
///
/// # Panics
/// If a length does not fit `dims` or there are not one to four branches.
pub fn backward_input(
    maps: &[&[f32]],
    gradients: &Gradients,
    dy: &[f32],
    gate: Gate,
    dims: [usize; 3],
    d_maps: &mut [&mut [f32]],
    d_residual: Option<&mut [f32]>,
) {
    let [batch, channels, positions] = dims;
    let len = batch * channels * positions;
    assert!(
        maps.iter().map(|map| map.len()).eq(d_maps.iter().map(|map| map.len())),
        "lengths of the maps' gradients"
    );
    let branches = Branch::all(maps.iter().map(|map| SharedMap::reading(map)), dims);
    let outputs = Branch::all(d_maps.iter_mut().map(|map| SharedMap::new(map)), dims);
    let both: Vec<_> = branches.into_iter().zip(outputs).collect();
    assert_eq!(dy.len(), len, "length of the gradient");
    gate.check(both.len(), dims);
    assert!(d_residual.as_ref().is_none_or(|map| map.len() == len), "length of the residual");
    let coefficients = gradients.coefficients.as_slice();
    assert_eq!(coefficients.len(), both.len() * channels, "gradients of other norms");
    let d_residual = d_residual.map(SharedMap::new);
    for_branches!(both, |branches| {
        planes::for_each(batch * channels, positions, |range| {
            let op = BackwardInput { branches, coefficients, dy, gate, range, dims, d_residual };
            Arch::new().dispatch(op);
        })
    });
}

struct BackwardInput<'a, const B: usize> {
    branches: [(Branch<'a>, Branch<'a>); B],
    coefficients: &'a [[f32; 4]],
    dy: &'a [f32],
    gate: Gate<'a>,
    range: Range<usize>,
    dims: Dims,
    d_residual: Option<SharedMap<'a>>,
}

impl<const B: usize> WithSimd for BackwardInput<'_, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.gate, self.d_residual) {
            (Gate::Open, None) => self.run::<S, OPEN, false>(simd),
            (Gate::Open, Some(_)) => self.run::<S, OPEN, true>(simd),
            (Gate::Output(_), None) => self.run::<S, OUTPUT, false>(simd),
            (Gate::Output(_), Some(_)) => self.run::<S, OUTPUT, true>(simd),
            (Gate::Affine { .. }, None) => self.run::<S, AFFINE, false>(simd),
            (Gate::Affine { .. }, Some(_)) => self.run::<S, AFFINE, true>(simd),
        }
    }
}

impl<const B: usize> BackwardInput<'_, B> {
    #[inline(always)]
    fn run<S: Simd, const GATE: u8, const RESIDUAL: bool>(self, simd: S) {
        let [_, channels, positions] = self.dims;
        for plane in self.range {
            let (image, channel) = (plane / channels, plane % channels);
            let from = self.branches.map(|(map, _)| map.plane(image, channel, positions));
            let to = self.branches.map(|(_, d_map)| d_map.plane(image, channel, positions));
            let mut coefficients = [[simd.splat_f32s(0.0); 4]; B];
            for (b, of_branch) in coefficients.iter_mut().enumerate() {
                let [scale, slope, constant, mean] = self.coefficients[b * channels + channel];
                *of_branch = [
                    simd.splat_f32s(scale),
                    simd.splat_f32s(slope),
                    simd.splat_f32s(constant),
                    simd.splat_f32s(mean),
                ];
            }
            let dy = self.dy[plane * positions..][..positions].as_ptr();
            let gate = self.gate.of_plane::<S, B>(simd, plane, channel, self.dims);
            let d_residual =
                self.d_residual.map_or(std::ptr::null_mut(), |map| map.start(plane, positions));
            sweep!(S, positions, |at, lanes, _TURN| {
                // SAFETY: `sweep` stays within planes of `positions` values, and this task alone
                // has those that are written.
                unsafe {
                    let maps = load_branches(simd, lanes, at, &from);
                    let dy = lanes.load(simd, dy.add(at));
                    let g = gate.pass::<_, GATE>(simd, lanes, at, dy, &maps);
                    for b in 0..B {
                        let [scale, slope, constant, mean] = coefficients[b];
                        let value = simd.sub_f32s(maps[b], mean);
                        let rest = simd.mul_add_e_f32s(slope, value, constant);
                        lanes.store(simd, to[b].add(at), simd.mul_add_e_f32s(scale, g, rest));
                    }
                    if RESIDUAL {
                        lanes.store(simd, d_residual.add(at), g);
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
