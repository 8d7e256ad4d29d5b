//! Kernels that are transformed once for many forward passes.

use super::super::forward_product;
use super::super::product::Product;
use super::Winograd;
use crate::gemm::{self, Isa, Kernel};
use crate::shape::Geometry;
use crate::{ConvShape, InstructionSet};

/// The weight of a convolution, prepared for [`forward_prepared`](crate::conv::forward_prepared).
#[derive(Debug)]
pub struct PreparedWeight {
    kernels: Vec<f32>,
    /// Input and output channels.
    channels: [usize; 2],
    set: InstructionSet,
}

impl PreparedWeight {
    /// Prepares a weight, `[out, in, kh, kw]`. `None` if a convolution of this shape does not gain from
    /// it. The prepared weight serves every shape with equal channels, kernel and stride. It has 16/9 times
    /// as many values as the weight.
    ///
    /// # Panics
    /// If there is no such convolution or the weight has another length.
    pub fn new(shape: &ConvShape, weight: &[f32]) -> Option<Self> {
        let geometry = Geometry::new(shape, shape.input_len(), shape.output_len());
        let geometry = &geometry.with_weight(weight.len());
        let (set, channels) = (InstructionSet::current(), [shape.in_channels, shape.out_channels]);
        let mut prepared = Self { kernels: Vec::new(), channels, set };
        if shape.groups > 1 {
            return None;
        }
        let product =
            Product { prepared: Some(&prepared), ..forward_product(geometry, 0, &[], weight) };
        let winograd = Winograd::of(&product)?;
        let mut kernels = vec![0.0; winograd.kernels_len()];
        gemm::dispatch(Transform { winograd: &winograd, kernels: &mut kernels });
        prepared.kernels = kernels;
        Some(prepared)
    }

    pub(super) fn kernels(&self) -> &[f32] {
        &self.kernels
    }

    /// Whether it was prepared for a convolution of these channels.
    pub fn serves(&self, shape: &ConvShape) -> bool {
        shape.groups == 1 && self.channels == [shape.in_channels, shape.out_channels]
    }

    /// # Panics
    /// If it was prepared for other channels or with another instruction set.
    #[track_caller]
    pub(in crate::conv) fn check(&self, shape: &Geometry) {
        assert!(self.serves(shape), "channels of the prepared weight");
        assert_eq!(self.set, InstructionSet::current(), "instruction set of the prepared weight");
    }
}

struct Transform<'a, 'b, 'c> {
    winograd: &'a Winograd<'b, 'c>,
    kernels: &'a mut [f32],
}

impl Kernel for Transform<'_, '_, '_> {
    unsafe fn run<I: Isa>(self) {
        // SAFETY: the processor has `I`, as the caller promises.
        unsafe { self.winograd.transform_kernels::<I>(self.kernels) };
    }
}
