//! Diverse Branch Blocks by their definition, forward and backward, every map rounded to `f32` or
//! to `f64`.
//!
//! Sums over positions are taken in `f64` in both: what is lost in `f32` is what the maps lose.

use std::ops::{Add, Mul, Sub};

use crate::ConvShape;

pub(super) const EPSILON: f64 = 1e-5;
pub(super) const MOMENTUM: f64 = 0.1;

/// What maps are stored and computed in.
pub(super) trait Real:
    Copy + Default + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self>
{
    fn round(value: f64) -> Self;
    fn wide(self) -> f64;
}

impl Real for f32 {
    fn round(value: f64) -> Self {
        value as f32
    }

    fn wide(self) -> f64 {
        self.into()
    }
}

impl Real for f64 {
    fn round(value: f64) -> Self {
        value
    }

    fn wide(self) -> f64 {
        self
    }
}

/// Scale and shift of a batch norm.
#[derive(Clone)]
pub(super) struct Norm {
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

/// A 1x1 convolution and its norm, whose output is padded with the norm's image of zero.
#[derive(Clone)]
pub(super) struct Opening {
    pub shape: ConvShape,
    pub weight: Vec<f32>,
    pub norm: Norm,
    pub running_mean: Vec<f32>,
    pub running_var: Vec<f32>,
}

/// A branch: opening, convolution and closing norm.
#[derive(Clone)]
pub(super) struct Branch {
    pub name: &'static str,
    pub opening: Option<Opening>,
    pub shape: ConvShape,
    pub weight: Vec<f32>,
    /// Not so the kernel of an average pool.
    pub trained: bool,
    pub norm: Norm,
}

/// A result of a block.
pub(super) struct Found {
    pub name: String,
    pub values: Vec<f64>,
    /// By which an error is divided unless the value is larger.
    pub scale: Vec<f64>,
}

impl Found {
    fn new(name: String, values: Vec<f64>, scale: Vec<f64>) -> Self {
        assert_eq!(values.len(), scale.len());
        Self { name, values, scale }
    }
}

/// Output, statistics and gradients of the sum of all branches, for the gradient `grad` of the
/// output.
pub(super) fn block<T: Real>(branches: &[Branch], x: &[f32], grad: &[f32]) -> Vec<Found> {
    let x: Vec<T> = x.iter().map(|&value| T::round(value.into())).collect();
    let grad: Vec<T> = grad.iter().map(|&value| T::round(value.into())).collect();
    let mut y = vec![T::default(); grad.len()];
    let mut dx = vec![T::default(); x.len()];
    let mut found = Vec::new();
    for branch in branches {
        branch.run(&x, &grad, &mut y, &mut dx, &mut found);
    }
    let y: Vec<f64> = y.into_iter().map(T::wide).collect();
    let dx: Vec<f64> = dx.into_iter().map(T::wide).collect();
    let ones = vec![1.0; y.len()];
    let typical = (dx.iter().map(|v| v * v).sum::<f64>() / dx.len() as f64).sqrt();
    let typical = vec![typical; dx.len()];
    found.insert(0, Found::new("output".into(), y, ones));
    found.insert(1, Found::new("input gradient".into(), dx, typical));
    found
}

impl Branch {
    fn run<T: Real>(&self, x: &[T], grad: &[T], y: &mut [T], dx: &mut [T], found: &mut Vec<Found>) {
        let name = self.name;
        let mut push = |what: &str, values: Vec<f64>, scale: Vec<f64>| {
            found.push(Found::new(format!("{name} {what}"), values, scale));
        };
        // Forward.
        let opened = self.opening.as_ref().map(|opening| {
            let map = conv(&opening.shape, x, &opening.weight, None);
            let positions = opening.shape.output_positions();
            let normed = Normed::new(&map, &opening.norm, positions);
            let count = (opening.shape.batch * positions) as f64;
            let border: Vec<f64> = (0..normed.mean.len())
                .map(|c| {
                    let kept =
                        |old: f32, new: f64| (1.0 - MOMENTUM) * f64::from(old) + MOMENTUM * new;
                    let mean = kept(opening.running_mean[c], normed.mean[c]);
                    let var = kept(opening.running_var[c], normed.var[c] * count / (count - 1.0));
                    let scale = f64::from(opening.norm.gamma[c]) / (var + EPSILON).sqrt();
                    f64::from(opening.norm.beta[c]) - mean * scale
                })
                .collect();
            normed.push("opening", &mut push);
            (opening, map, normed, border)
        });
        let (source, border) = match &opened {
            Some((_, _, normed, border)) => (&normed.output[..], Some(&border[..])),
            None => (x, None),
        };
        let map = conv(&self.shape, source, &self.weight, border);
        let normed = Normed::new(&map, &self.norm, self.shape.output_positions());
        normed.push("closing", &mut push);
        y.iter_mut().zip(&normed.output).for_each(|(y, &value)| *y = *y + value);

        // Backward.
        let back = normed.backward(&map, &self.norm, grad, "closing", &mut push);
        if self.trained {
            let (values, scale) = conv_weight(&self.shape, source, &back, border);
            push("weight gradient", values, scale);
        }
        match &opened {
            None => conv_input(&self.shape, &back, &self.weight, dx),
            Some((opening, map, normed, _)) => {
                let mut inner = vec![T::default(); map.len()];
                conv_input(&self.shape, &back, &self.weight, &mut inner);
                let back = normed.backward(map, &opening.norm, &inner, "opening", &mut push);
                let (values, _) = conv_weight(&opening.shape, x, &back, None);
                // The gradient of a norm's input is orthogonal to that input: what it leaves is
                // small against the terms.
                let shape = &opening.shape;
                let inputs = shape.in_channels / shape.groups;
                let terms = conv_weight(shape, x, &inner, None).1;
                let scale = terms.iter().enumerate().map(|(index, term)| {
                    let c = index / inputs;
                    term * f64::from(opening.norm.gamma[c]).abs() / (normed.var[c] + EPSILON).sqrt()
                });
                push("opening weight gradient", values, scale.collect());
                conv_input(shape, &back, &opening.weight, dx);
            }
        }
    }
}

struct Normed<T> {
    output: Vec<T>,
    mean: Vec<f64>,
    var: Vec<f64>,
    positions: usize,
}

impl<T: Real> Normed<T> {
    fn new(map: &[T], norm: &Norm, positions: usize) -> Self {
        let channels = norm.gamma.len();
        let count = (map.len() / channels) as f64;
        let channel = |plane: usize| plane % channels;
        let (mut mean, mut var) = (vec![0.0; channels], vec![0.0; channels]);
        for (plane, values) in map.chunks_exact(positions).enumerate() {
            mean[channel(plane)] += values.iter().map(|v| v.wide()).sum::<f64>() / count;
        }
        for (plane, values) in map.chunks_exact(positions).enumerate() {
            let mean = mean[channel(plane)];
            let squares: f64 = values.iter().map(|v| (v.wide() - mean).powi(2)).sum();
            var[channel(plane)] += squares / count;
        }
        let mut output = Vec::with_capacity(map.len());
        for (plane, values) in map.chunks_exact(positions).enumerate() {
            let c = channel(plane);
            let scale = T::round(f64::from(norm.gamma[c]) / (var[c] + EPSILON).sqrt());
            let (mean, beta) = (T::round(mean[c]), T::round(norm.beta[c].into()));
            output.extend(values.iter().map(|&v| (v - mean) * scale + beta));
        }
        Self { output, mean, var, positions }
    }

    fn push(&self, what: &str, push: &mut impl FnMut(&str, Vec<f64>, Vec<f64>)) {
        let std = self.var.iter().map(|v| v.sqrt()).collect();
        push(&format!("{what} mean"), self.mean.clone(), std);
        push(&format!("{what} variance"), self.var.clone(), vec![1e-6; self.var.len()]);
    }

    /// The gradient of the norm's input.
    fn backward(
        &self,
        map: &[T],
        norm: &Norm,
        grad: &[T],
        what: &str,
        push: &mut impl FnMut(&str, Vec<f64>, Vec<f64>),
    ) -> Vec<T> {
        let channels = norm.gamma.len();
        let count = (map.len() / channels) as f64;
        let mut sums = vec![[0.0; 4]; channels];
        let planes = || map.chunks_exact(self.positions).zip(grad.chunks_exact(self.positions));
        let inverse = |c: usize| 1.0 / (self.var[c] + EPSILON).sqrt();
        for (plane, (map, grad)) in planes().enumerate() {
            let c = plane % channels;
            let mean = T::round(self.mean[c]);
            for (&value, &g) in map.iter().zip(grad) {
                let product = ((value - mean) * g).wide() * inverse(c);
                let terms = [g.wide(), g.wide().powi(2), product, product.powi(2)];
                sums[c].iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
        }
        let mut back = Vec::with_capacity(map.len());
        for (plane, (map, grad)) in planes().enumerate() {
            let c = plane % channels;
            let [sum, _, product, _] = sums[c];
            let mean = T::round(self.mean[c]);
            let scale = T::round(f64::from(norm.gamma[c]) * inverse(c));
            let slope = T::round(inverse(c) * product / count);
            let constant = T::round(sum / count);
            let of = |(&value, &g): (&T, &T)| scale * (g - constant - (value - mean) * slope);
            back.extend(map.iter().zip(grad).map(of));
        }
        let of = |index: usize| sums.iter().map(|sums| sums[index]).collect::<Vec<_>>();
        let root = |index: usize| sums.iter().map(|sums| sums[index].sqrt()).collect::<Vec<_>>();
        push(&format!("{what} gamma gradient"), of(2), root(3));
        push(&format!("{what} beta gradient"), of(0), root(1));
        back
    }
}

/// Calls `visit` for every output row and tap that reads the input: output and input channel, index
/// of the weight, and the image's row or `None` where it lies outside.
fn for_each_row(shape: &ConvShape, mut visit: impl FnMut([usize; 6], Option<usize>)) {
    let [rows, _] = shape.output();
    let [kh, kw] = shape.kernel;
    let inputs = shape.in_channels / shape.groups;
    for image in 0..shape.batch {
        for output in 0..shape.out_channels {
            let group = output / (shape.out_channels / shape.groups);
            for index in 0..inputs {
                let input = group * inputs + index;
                for tap in 0..kh * kw {
                    let weight = (output * inputs + index) * kh * kw + tap;
                    for row in 0..rows {
                        let source =
                            (row * shape.stride[0] + tap / kw).wrapping_sub(shape.padding[0]);
                        let source = (source < shape.input[0]).then_some(source);
                        visit([image, output, input, weight, tap % kw, row], source);
                    }
                }
            }
        }
    }
}

/// Where the columns of an output row lie inside the image under a tap, and where the first of
/// them reads it.
fn columns(shape: &ConvShape, tap: usize) -> (std::ops::Range<usize>, usize) {
    let (stride, padding) = (shape.stride[1], shape.padding[1]);
    let columns = shape.output()[1];
    let first = padding.saturating_sub(tap).div_ceil(stride).min(columns);
    let end = (shape.input[1] + padding).saturating_sub(tap).div_ceil(stride).min(columns);
    (first..end.max(first), (first * stride + tap).saturating_sub(padding))
}

fn conv<T: Real>(shape: &ConvShape, x: &[T], weight: &[f32], border: Option<&[f64]>) -> Vec<T> {
    let ([rows, width], [height, length]) = (shape.output(), shape.input);
    let mut y = vec![T::default(); shape.output_len()];
    for_each_row(shape, |[image, output, input, weight_at, tap, row], source| {
        let weight = T::round(weight[weight_at].into());
        let border = border.map(|border| weight * T::round(border[input]));
        let to = &mut y[((image * shape.out_channels + output) * rows + row) * width..][..width];
        let (inside, start) = columns(shape, tap);
        let inside = if source.is_some() { inside } else { 0..0 };
        if let Some(border) = border {
            let outside = (0..inside.start).chain(inside.end..width);
            outside.for_each(|column| to[column] = to[column] + border);
        }
        let Some(source) = source else { return };
        let from = &x[((image * shape.in_channels + input) * height + source) * length..][..length];
        let from = from[start.min(length)..].iter().step_by(shape.stride[1]);
        to[inside].iter_mut().zip(from).for_each(|(y, &x)| *y = *y + weight * x);
    });
    y
}

/// Adds the gradient of the input to `dx`.
fn conv_input<T: Real>(shape: &ConvShape, grad: &[T], weight: &[f32], dx: &mut [T]) {
    let ([rows, width], [height, length]) = (shape.output(), shape.input);
    for_each_row(shape, |[image, output, input, weight_at, tap, row], source| {
        let Some(source) = source else { return };
        let weight = T::round(weight[weight_at].into());
        let from = &grad[((image * shape.out_channels + output) * rows + row) * width..][..width];
        let (inside, start) = columns(shape, tap);
        let to = &mut dx[((image * shape.in_channels + input) * height + source) * length..];
        let to = to[..length][start.min(length)..].iter_mut().step_by(shape.stride[1]);
        to.zip(&from[inside]).for_each(|(dx, &g)| *dx = *dx + weight * g);
    });
}

/// The gradient of the weight and, for each, the size of a sum of terms about the input's mean
/// whose signs are random.
fn conv_weight<T: Real>(
    shape: &ConvShape,
    x: &[T],
    grad: &[T],
    border: Option<&[f64]>,
) -> (Vec<f64>, Vec<f64>) {
    let ([rows, width], [height, length]) = (shape.output(), shape.input);
    let count = (shape.batch * height * length) as f64;
    let mut means = vec![0.0; shape.in_channels];
    for (plane, values) in x.chunks_exact(height * length).enumerate() {
        means[plane % shape.in_channels] += values.iter().map(|v| v.wide()).sum::<f64>() / count;
    }
    let mut sums = vec![0.0; shape.weight_len()];
    let mut squares = sums.clone();
    for_each_row(shape, |[image, output, input, weight_at, tap, row], source| {
        let grad = &grad[((image * shape.out_channels + output) * rows + row) * width..][..width];
        let mean = means[input];
        let border = border.map_or(0.0, |border| border[input]);
        let (inside, start) = columns(shape, tap);
        let inside = if source.is_some() { inside } else { 0..0 };
        for column in (0..inside.start).chain(inside.end..width) {
            let g = grad[column].wide();
            sums[weight_at] += (grad[column] * T::round(border)).wide();
            squares[weight_at] += (g * (border - mean)).powi(2);
        }
        let Some(source) = source else { return };
        let from = &x[((image * shape.in_channels + input) * height + source) * length..][..length];
        let from = from[start.min(length)..].iter().step_by(shape.stride[1]);
        for (&g, &x) in grad[inside].iter().zip(from) {
            sums[weight_at] += (g * x).wide();
            squares[weight_at] += (g.wide() * (x.wide() - mean)).powi(2);
        }
    });
    (sums, squares.into_iter().map(f64::sqrt).collect())
}
