//! One map of a sum of branches, and its gradients.

use std::borrow::Cow;

use super::maps::Source;
use super::window::Window;
use super::{Branch, BranchGrad, BranchMap, BranchSum, SumStatistics};
use crate::buffer::{self, Buffer};
use crate::members::Batch;
use crate::norm::{self, Statistics};
use crate::{ConvShape, conv, pool};

impl BranchSum<'_> {
    /// Computes a map, and its statistics where a norm needs them.
    pub(super) fn source(
        &self,
        x: &[f32],
        branches: Vec<usize>,
        statistics: &mut SumStatistics,
        whole: Batch<'_>,
    ) -> (Source, Option<Statistics>) {
        let shape = &self.shape;
        let first = &self.branches[branches[0]];
        let needs = branches.iter().any(|&index| !self.branches[index].is_fixed());
        let mut opened = None;
        let opening_statistics = &mut statistics.branches[branches[0]].opening;
        let (map, found) = match &first.map {
            BranchMap::Identity => {
                let found = needs.then(|| norm::statistics(x, shape.output_dims()));
                (None, found)
            }
            BranchMap::Conv { kernel, .. } => {
                let window = Window::new(shape, *kernel, branches.len());
                let cropped = window.crop(x);
                let weight = self.stacked_weight(&branches);
                let x = cropped.as_deref().unwrap_or(x);
                let (map, found) = convolve(&window.shape, x, &weight, needs);
                (Some(map), found)
            }
            BranchMap::Average => {
                let (map, found) = average(shape, x, needs);
                (Some(map), found)
            }
            BranchMap::PaddedConv { opening, weight } => {
                let mut parts = self.open(x, opening, opening_statistics, whole);
                let internal = opening.gamma.len();
                let inner = ConvShape { in_channels: internal, ..*shape };
                let (map, found) = convolve(&inner, &parts.centred, weight, needs);
                parts.constant = self.response(weight, internal / shape.groups, &parts.border);
                opened = Some(parts);
                (Some(map), found)
            }
            BranchMap::PaddedAverage { opening } => {
                let mut parts = self.open(x, opening, opening_statistics, whole);
                let inner = ConvShape { in_channels: shape.out_channels, ..*shape };
                let (map, found) = average(&inner, &parts.centred, needs);
                drop(std::mem::take(&mut parts.centred));
                parts.constant = parts.border.clone();
                opened = Some(parts);
                (Some(map), found)
            }
        };
        (Source { branches, map, opened }, found)
    }

    /// The weights of convolutions over the same windows.
    fn stacked_weight(&self, branches: &[usize]) -> Cow<'_, [f32]> {
        let weight = |&index: &usize| match self.branches[index] {
            Branch { map: BranchMap::Conv { weight, .. }, .. } => weight,
            _ => &[],
        };
        match branches {
            [index] => Cow::Borrowed(weight(index)),
            all => Cow::Owned(all.iter().map(weight).collect::<Vec<_>>().concat()),
        }
    }

    /// Computes the gradients of the parameters of one map, and of the input through it.
    pub(super) fn backward_source(
        &self,
        x: &[f32],
        source: &Source,
        map_grad: Buffer,
        grads: &mut MapGrads<'_>,
    ) {
        let shape = &self.shape;
        let first = source.branches[0];
        match (&self.branches[first].map, &source.opened) {
            (BranchMap::Identity, _) => grads.input.add_map(map_grad),
            (BranchMap::Conv { kernel, .. }, _) => {
                let window = Window::new(shape, *kernel, source.branches.len());
                self.backward_conv(x, &source.branches, &window, &map_grad, grads);
            }
            (BranchMap::Average, _) => grads.input.add(|input, accumulate| {
                pool::average_backward(&pool_shape(shape), &map_grad, input, accumulate);
            }),
            (BranchMap::PaddedConv { opening, weight }, Some(opened)) => {
                let inner = ConvShape { in_channels: opening.gamma.len(), ..*shape };
                if grads.parameters {
                    let mut grad = conv::weight_grad(&inner, &opened.centred, &map_grad);
                    let response = std::mem::take(&mut grads.branches[first].weight);
                    grad.iter_mut().zip(response).for_each(|(grad, response)| *grad += response);
                    grads.branches[first].weight = grad;
                }
                let mut centred = buffer::take(opened.map.len());
                conv::backward_input(&inner, &map_grad, weight, &mut centred, false);
                let found = self.backward_opening(x, opening, opened, centred, grads);
                grads.branches[first].opening = Some(found);
            }
            (BranchMap::PaddedAverage { opening }, Some(opened)) => {
                let inner = ConvShape { in_channels: shape.out_channels, ..*shape };
                let mut centred = buffer::take(opened.map.len());
                pool::average_backward(&pool_shape(&inner), &map_grad, &mut centred, false);
                let found = self.backward_opening(x, opening, opened, centred, grads);
                grads.branches[first].opening = Some(found);
            }
            _ => unreachable!("the forward pass has opened the branch"),
        }
    }

    /// [`Self::backward_source`] of convolutions over the same windows.
    fn backward_conv(
        &self,
        x: &[f32],
        branches: &[usize],
        window: &Window,
        map_grad: &[f32],
        grads: &mut MapGrads<'_>,
    ) {
        let shape = &window.shape;
        let cropped = window.crop(x);
        let weight = self.stacked_weight(branches);
        if grads.parameters {
            let weights = conv::weight_grad(shape, cropped.as_deref().unwrap_or(x), map_grad);
            match branches {
                &[index] => grads.branches[index].weight = weights,
                all => {
                    for (&index, part) in
                        all.iter().zip(weights.chunks_exact(weights.len() / all.len()))
                    {
                        grads.branches[index].weight = part.to_vec();
                    }
                }
            }
        }
        match cropped {
            Some(mut cropped) if grads.input.wanted => {
                conv::backward_input(shape, map_grad, &weight, &mut cropped, false);
                grads.input.add(|input, accumulate| {
                    window.add_cropped(&cropped, input, accumulate);
                });
            }
            Some(_) => {}
            None => grads.input.add(|input, accumulate| {
                conv::backward_input(shape, map_grad, &weight, input, accumulate);
            }),
        }
    }
}

/// The gradients that the backward passes of the maps fill in.
pub(super) struct MapGrads<'a> {
    pub branches: Vec<BranchGrad>,
    pub input: InputGrad,
    /// Whether the gradients of the parameters are wanted.
    pub parameters: bool,
    /// The batch of the statistics.
    pub whole: Batch<'a>,
}

/// A convolution, and the statistics of its output where they are needed.
pub(super) fn convolve(
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    needs: bool,
) -> (Buffer, Option<Statistics>) {
    if needs && !shape.is_depthwise() {
        let mut map = buffer::take(shape.output_len());
        let found = conv::forward_with_stats(shape, x, weight, &mut map);
        return (map, Some(found));
    }
    let map = conv::convolve(shape, x, weight);
    let found = needs.then(|| norm::statistics(&map, shape.output_dims()));
    (map, found)
}

/// The window of an average over every channel.
fn pool_shape(shape: &ConvShape) -> ConvShape {
    ConvShape { groups: shape.in_channels, ..*shape }
}

/// The means over the windows, and their statistics where they are needed.
fn average(shape: &ConvShape, x: &[f32], needs: bool) -> (Buffer, Option<Statistics>) {
    let mut map = buffer::take(shape.output_len());
    pool::average(&pool_shape(shape), x, &mut map);
    let found = needs.then(|| norm::statistics(&map, shape.output_dims()));
    (map, found)
}

/// The gradient of the input, to which the branches add in turn.
pub(super) struct InputGrad {
    wanted: bool,
    grad: Option<Buffer>,
    len: usize,
}

impl InputGrad {
    /// Of an input of `len` values.
    pub fn new(wanted: bool, len: usize) -> Self {
        Self { wanted, grad: None, len }
    }

    /// Calls `write` to add to the gradient or, the first time, to overwrite it.
    pub fn add(&mut self, write: impl FnOnce(&mut [f32], bool)) {
        if self.wanted {
            let accumulate = self.grad.is_some();
            let len = self.len;
            write(self.grad.get_or_insert_with(|| buffer::take(len)), accumulate);
        }
    }

    /// Adds a whole map.
    pub fn add_map(&mut self, map: Buffer) {
        match &mut self.grad {
            Some(grad) => {
                grad.iter_mut().zip(map.iter()).for_each(|(grad, value)| *grad += value);
            }
            None if self.wanted => self.grad = Some(map),
            None => {}
        }
    }

    pub fn finish(self) -> Option<Vec<f32>> {
        self.grad.map(Buffer::into_vec)
    }
}
