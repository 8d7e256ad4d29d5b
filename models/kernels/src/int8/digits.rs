//! Weights of 8 bits as digits so small that sums of products in `f32` are exact.

/// Integers up to this magnitude are exact in `f32`.
const EXACT: usize = 1 << 24;

/// The largest magnitude of an input without its zero point.
const LARGEST_INPUT: usize = 255;

/// Digits of weights, `weight = sum_i digits[i] * 2^(bits * i)`.
pub(super) struct Digits {
    pub bits: u32,
    /// The lowest first.
    pub digits: Vec<Vec<f32>>,
}

impl Digits {
    /// The fewest digits for which the sums of `products` products each are exact: one of 8 bits, two of 4
    /// or four of 2.
    pub fn new(weight: &[i8], products: usize) -> Self {
        let of = |bits| Self { bits, digits: split(weight, bits) };
        let is_exact = |digits: &Self| {
            let rows = digits.digits.iter().flat_map(|digit| digit.chunks_exact(products));
            let largest = rows.map(|row| row.iter().map(|d| d.abs() as usize).sum::<usize>()).max();
            largest.unwrap_or(0) * LARGEST_INPUT <= EXACT
        };
        // Digits of 2 bits are at most 2, and there are at most `LARGEST_SUM` products.
        [8, 4].into_iter().map(of).find(is_exact).unwrap_or_else(|| of(2))
    }
}

/// Digits of so many bits, the lowest first; those below the highest lie symmetrically around zero.
fn split(weight: &[i8], bits: u32) -> Vec<Vec<f32>> {
    let mut rest: Vec<i32> = weight.iter().map(|&w| w.into()).collect();
    let count = 8 / bits;
    let digit = |index| {
        let mut digit = |rest: &mut i32| {
            if index + 1 == count {
                return *rest as f32;
            }
            let half = 1 << (bits - 1);
            let low = (*rest + half).rem_euclid(1 << bits) - half;
            *rest = (*rest - low) >> bits;
            low as f32
        };
        rest.iter_mut().map(&mut digit).collect()
    };
    (0..count).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_small_and_add_up() {
        let weight: Vec<i8> = (-128..=127).collect();
        for (bits, largest) in [(8, 128.0), (4, 8.0), (2, 2.0)] {
            let digits = split(&weight, bits);
            assert!(digits.iter().flatten().all(|digit| digit.abs() <= largest), "{bits} bits");
            for (index, &weight) in weight.iter().enumerate() {
                let value =
                    |(i, digit): (i32, &Vec<f32>)| digit[index] * 2f32.powi(bits as i32 * i);
                let sum: f32 = (0..).zip(&digits).map(value).sum();
                assert_eq!(sum, f32::from(weight), "{bits} bits");
            }
        }
    }

    #[test]
    fn there_are_as_many_as_the_sums_need() {
        let count =
            |weight: i8, products| Digits::new(&vec![weight; products], products).digits.len();
        // 514 * 255 * 128 is below 2^24, 515 times is not.
        assert_eq!([count(-128, 514), count(-128, 515), count(1, 10_000)], [1, 2, 1]);
        assert_eq!([count(-128, 8_224), count(-128, 8_225)], [2, 4]);
    }
}
