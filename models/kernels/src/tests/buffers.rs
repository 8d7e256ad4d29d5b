//! Every buffer that a pass takes comes back.

use super::parameters::{Parameters, SHAPE};
use crate::buffer::{give, tests::kept_by};
use crate::testing::random;
use crate::{ConvShape, depthwise};

/// Every combination of three choices.
fn choices() -> impl Iterator<Item = [bool; 3]> {
    (0..8).map(|bits| [0, 1, 2].map(|bit| bits >> bit & 1 == 1))
}

/// Of large and of small kernels in comparison with the map, so that blocks take both of their ways.
fn shapes(groups: usize) -> [ConvShape; 2] {
    [[3, 5], [9, 8]].map(|input| ConvShape { input, groups, ..SHAPE })
}

#[test]
fn plain_blocks_keep_none() {
    for shape in [shapes(1), shapes(2), shapes(4)].into_iter().flatten() {
        let parameters = Parameters::new(&shape);
        let (x, dy) = (random(1, shape.input_len()), random(2, shape.output_len()));
        for [residual, wants_input, copied] in choices() {
            let kept = kept_by(|| {
                let mut y = vec![0.0; dy.len()];
                let block = parameters.conv_norm();
                let residual = residual.then_some(&*dy);
                let (_, saved) = block.forward(&shape, &x, residual, true, &mut y);
                let saved = if copied { saved.clone() } else { saved };
                let wants = [wants_input, residual.is_some()];
                let (input, residual, _) = block.backward(&shape, &x, &y, &saved, &dy, wants);
                [input, residual].into_iter().flatten().for_each(give);
            });
            assert_eq!(kept, 0, "{shape:?} residual {residual} input {wants_input}");
        }
    }
}

#[test]
fn dense_blocks_keep_none() {
    for shape in shapes(1) {
        let parameters = Parameters::new(&shape);
        let (x, dy) = (random(1, shape.input_len()), random(2, shape.output_len()));
        for [residual, wants_input, copied] in choices() {
            let kept = kept_by(|| {
                let mut y = vec![0.0; dy.len()];
                let block = parameters.dense();
                let residual = residual.then_some(&*dy);
                let (_, saved) = block.forward(&x, residual, true, &mut y);
                let saved = if copied { saved.clone() } else { saved };
                let wants = [wants_input, residual.is_some()];
                let grad = block.backward(&x, &y, &saved, &dy, wants);
                [grad.input, grad.residual].into_iter().flatten().for_each(give);
            });
            assert_eq!(kept, 0, "{shape:?} residual {residual} input {wants_input}");
        }
    }
}

#[test]
fn depthwise_blocks_keep_none() {
    for shape in shapes(4) {
        let parameters = Parameters::new(&shape);
        let (x, dy) = (random(1, shape.input_len()), random(2, shape.output_len()));
        let kept = kept_by(|| {
            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            let block = parameters.depthwise();
            let (_, saved) = depthwise::dbb_forward(&shape, &x, &block, true, &mut y);
            depthwise::dbb_backward(&shape, &x, Some(&y), &dy, &block, &saved, &mut dx);
        });
        assert_eq!(kept, 0, "{shape:?}");
    }
}
