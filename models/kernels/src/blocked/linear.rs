//! Linear layers behind the last map.

use std::ops::Range;

use super::BLOCK;
use crate::gemm::{self, Isa, Kernel};
use crate::profile::{self, Work};
use crate::shape::map_len;
use crate::shared::Shared;
use crate::team;

/// Rows of the weight that are added at once.
const DEPTH: usize = 4;

/// `input` `[batch, inputs]` times `weight` `[inputs, outputs]`, plus `bias` `[outputs]`. The weight is read where
/// it lies, once for the whole batch, so that this is for few images, whose products take no longer than reading it.
///
/// # Panics
/// If there are no outputs, or the input or the weight has another length.
#[track_caller]
pub fn linear(input: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let outputs = bias.len();
    let inputs = weight.len().checked_div(outputs).expect("a linear layer has outputs");
    assert_eq!(weight.len(), inputs * outputs, "length of the weight");
    let batch = input.len() / inputs.max(1);
    assert_eq!(input.len(), batch * inputs, "length of the input");
    let _span = profile::work(Work::Products);
    let mut output = vec![0.0; map_len([batch, outputs, 1])];
    gemm::dispatch(Linear { input, weight, bias, output: Shared::new(&mut output) });
    output
}

struct Linear<'a> {
    input: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    output: Shared<'a>,
}

impl Kernel for Linear<'_> {
    unsafe fn run<I: Isa>(self) {
        let threads = rayon::current_num_threads();
        team::for_each(threads, |index| {
            let columns = gemm::part(0..self.bias.len(), BLOCK, index, threads);
            let width = columns.len().next_multiple_of(I::LANES);
            let images = self.input.chunks_exact(self.weight.len() / self.bias.len());
            gemm::with_scratch(images.len() * width, |sums| {
                sums.fill(0.0);
                // SAFETY: the processor has `I`, as the caller promises.
                unsafe {
                    I::enter(
                        #[inline(always)]
                        || self.add_rows::<I>(columns.clone(), width, sums),
                    );
                }
                for (image, sums) in sums.chunks_exact(width.max(1)).enumerate() {
                    let start = image * self.bias.len();
                    // SAFETY: this task alone has these columns.
                    let output = unsafe {
                        self.output.slice_mut(start + columns.start..start + columns.end)
                    };
                    let sums = sums.iter().zip(&self.bias[columns.clone()]);
                    output.iter_mut().zip(sums).for_each(|(to, (sum, bias))| *to = sum + bias);
                }
            });
        });
    }
}

impl Linear<'_> {
    /// Adds the products of all rows at these columns to `sums`, `[images, width]`.
    ///
    /// # Safety
    /// Inside `enter`.
    #[inline(always)]
    unsafe fn add_rows<I: Isa>(&self, columns: Range<usize>, width: usize, sums: &mut [f32]) {
        let inputs = self.weight.len() / self.bias.len();
        let mut first = 0;
        while first < inputs {
            // SAFETY: as the caller promises.
            unsafe {
                if first + DEPTH <= inputs {
                    self.add::<I, DEPTH>(first, columns.clone(), width, sums);
                    first += DEPTH;
                } else {
                    self.add::<I, 1>(first, columns.clone(), width, sums);
                    first += 1;
                }
            }
        }
    }

    /// Adds the products of `ROWS` rows of the weight.
    ///
    /// # Safety
    /// Inside `enter`.
    #[inline(always)]
    unsafe fn add<I: Isa, const ROWS: usize>(
        &self,
        first: usize,
        columns: Range<usize>,
        width: usize,
        sums: &mut [f32],
    ) {
        let outputs = self.bias.len();
        let inputs = self.weight.len() / outputs;
        let rows: [_; ROWS] = std::array::from_fn(|row| {
            self.weight[(first + row) * outputs..][columns.clone()].as_ptr()
        });
        for (image, sums) in sums.chunks_exact_mut(width.max(1)).enumerate() {
            let values: &[f32] = &self.input[image * inputs + first..][..ROWS];
            // SAFETY: as the caller promises; the columns lie in the rows, and masks leave out the rest.
            unsafe {
                let factors: [_; ROWS] = std::array::from_fn(
                    #[inline(always)]
                    |row| I::splat(values[row]),
                );
                for (vector, sums) in sums.chunks_exact_mut(I::LANES).enumerate() {
                    let start = vector * I::LANES;
                    let mut sum = I::load(sums.as_ptr());
                    let lanes = columns.len() - start;
                    if lanes >= I::LANES {
                        for (row, &factor) in rows.iter().zip(&factors) {
                            sum = I::mul_add(factor, I::load(row.add(start)), sum);
                        }
                    } else {
                        let mask = I::mask(0, lanes);
                        for (row, &factor) in rows.iter().zip(&factors) {
                            sum = I::mul_add(factor, I::load_masked(row.add(start), mask), sum);
                        }
                    }
                    I::store(sums.as_mut_ptr(), sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{for_each_set, random};

    #[test]
    fn layers_are_their_definition() {
        for_each_set(|| {
            for [batch, inputs, outputs] in [[1, 1, 1], [1, 37, 100], [3, 64, 10], [5, 130, 200]] {
                let [input, weight, bias] =
                    [(1, batch * inputs), (2, inputs * outputs), (3, outputs)]
                        .map(|(seed, len)| random(seed, len));
                let found = linear(&input, &weight, &bias);
                assert_eq!(found.len(), batch * outputs);
                for (index, found) in found.iter().enumerate() {
                    let (image, output) = (index / outputs, index % outputs);
                    let products = (0..inputs).map(|row| {
                        let x = f64::from(input[image * inputs + row]);
                        x * f64::from(weight[row * outputs + output])
                    });
                    let expected = products.sum::<f64>() + f64::from(bias[output]);
                    let bound = 1e-6 * (inputs as f64).sqrt();
                    assert!((f64::from(*found) - expected).abs() < bound, "{found} {expected}");
                }
            }
        });
    }

    #[test]
    #[should_panic(expected = "length of the weight")]
    fn other_weights_are_refused() {
        linear(&[1.0; 2], &[1.0; 5], &[0.0; 2]);
    }
}
