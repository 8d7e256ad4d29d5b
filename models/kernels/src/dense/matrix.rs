//! Products of small matrices, as 1x1 convolutions.

use crate::{ConvShape, Epilogue, conv};

/// `[m, k]` times `[k, n]`.
pub(crate) fn multiply(a: &[f32], b: &[f32], [m, k, n]: [usize; 3]) -> Vec<f32> {
    let mut product = vec![0.0; m * n];
    let shape = ConvShape::pointwise(1, [k, m], n);
    conv::forward(&shape, b, a, &mut product, Epilogue::default());
    product
}

/// The transpose of `[k, m]` times `[k, n]`.
pub(crate) fn multiply_transposed(a: &[f32], b: &[f32], [k, m, n]: [usize; 3]) -> Vec<f32> {
    let mut product = vec![0.0; m * n];
    let shape = ConvShape::pointwise(1, [m, k], n);
    conv::backward_input(&shape, b, a, &mut product, false);
    product
}
