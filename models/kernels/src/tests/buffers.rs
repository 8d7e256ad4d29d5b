//! Every buffer that a pass takes comes back.

use super::parameters::{Parameters, SHAPE};
use crate::branches::{BranchSum, Wanted};
use crate::buffer::{give, tests::kept_by};
use crate::testing::random;
use crate::{Activation, ConvShape};

/// Every combination of three choices.
fn choices() -> impl Iterator<Item = [bool; 3]> {
    // Under Miri all of them and none.
    (0..8)
        .step_by(if cfg!(miri) { 7 } else { 1 })
        .map(|bits| [0, 1, 2].map(|bit| bits >> bit & 1 == 1))
}

/// Of large and of small kernels in comparison with the map, so that blocks take both of their ways.
fn shapes(groups: usize) -> [ConvShape; 2] {
    let large = if cfg!(miri) { [5, 4] } else { [9, 8] };
    [[3, 5], large].map(|input| ConvShape { input, groups, ..SHAPE })
}

/// With a residual and an activation whose input is kept, one, some and all branches.
#[test]
fn sums_of_branches_keep_none() {
    for shape in [shapes(1), shapes(2), shapes(4)].into_iter().flatten() {
        let parameters = Parameters::new(&shape);
        let (x, dy) = (random(1, shape.input_len()), random(2, shape.output_len()));
        for ([residual, input, copied], count) in choices().flat_map(|c| [(c, 1), (c, 3)]) {
            let kept = kept_by(|| {
                let mut y = vec![0.0; dy.len()];
                let branches = &parameters.branches()[..count];
                let outer = copied.then(|| parameters.norm());
                let block = BranchSum { shape, branches, outer };
                let residual = residual.then_some(&*dy);
                let (_, saved) = block.forward(&x, residual, Activation::HardSwish, &mut y);
                let saved = if copied { saved.clone() } else { saved };
                let wanted = Wanted { input, residual: residual.is_some(), parameters: true };
                let grad = block.backward(&x, &y, &saved, &dy, wanted);
                [grad.input, grad.residual].into_iter().flatten().for_each(give);
            });
            assert_eq!(kept, 0, "{shape:?} {count} branches, residual {residual} input {input}");
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
                let (_, saved) = block.forward(&x, residual, Activation::Relu, &mut y);
                let saved = if copied { saved.clone() } else { saved };
                let residual = residual.is_some();
                let wanted = Wanted { input: wants_input, residual, parameters: true };
                let grad = block.backward(&x, &y, &saved, &dy, wanted);
                [grad.input, grad.residual].into_iter().flatten().for_each(give);
            });
            assert_eq!(kept, 0, "{shape:?} residual {residual} input {wants_input}");
        }
    }
}
