//! Linear layers.

use rayon::prelude::*;

use super::{LARGEST_SUM, dots, four_rows, pitch, widened};
use crate::instruction_set;

/// Sums of products `[batch, out]` of the rows of `x`, `[batch, in]`, with those of `weight`,
/// `[out, in]`; `zero_point` stands for zero in `x`. Threads share the outputs.
///
/// # Panics
/// If a slice is empty or does not consist of rows of `inputs` values, or there are more than
/// [`LARGEST_SUM`] of them.
pub fn linear(inputs: usize, x: &[u8], zero_point: u8, weight: &[i8]) -> Vec<i32> {
    assert!(inputs > 0 && inputs <= LARGEST_SUM, "{inputs} inputs, at most {LARGEST_SUM}");
    assert!(!x.is_empty() && x.len().is_multiple_of(inputs), "length of the input");
    assert!(!weight.is_empty() && weight.len().is_multiple_of(inputs), "length of the weight");
    let (batch, outputs) = (x.len() / inputs, weight.len() / inputs);
    let pitch = pitch(inputs);
    let mut rows = vec![0; batch * pitch];
    for (row, x) in rows.chunks_exact_mut(pitch).zip(x.chunks_exact(inputs)) {
        for (to, &from) in row.iter_mut().zip(x) {
            *to = i16::from(from) - i16::from(zero_point);
        }
    }
    let arch = instruction_set::arch();
    let blocks = weight.par_chunks(4 * inputs).map(|weight| {
        let weight = widened(weight, inputs);
        let mut sums = vec![[0; 4]; batch];
        arch.dispatch(
            #[inline(always)]
            || {
                let others = four_rows(&weight, pitch, 0);
                for (sums, row) in sums.iter_mut().zip(rows.chunks_exact(pitch)) {
                    *sums = dots(row, others);
                }
            },
        );
        sums
    });
    let blocks: Vec<_> = blocks.collect();
    let of_image = |image| (0..outputs).map(move |output| (image, output));
    let all = (0..batch).flat_map(of_image);
    all.map(|(image, output)| blocks[output / 4][image][output % 4]).collect()
}
