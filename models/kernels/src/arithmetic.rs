//! Operations on slices that the algebra of several kernels shares.

/// The dot product in `f64`.
pub(crate) fn dot<A, B>(a: &[A], b: &[B]) -> f64
where
    A: Copy + Into<f64>,
    B: Copy + Into<f64>,
{
    a.iter().zip(b).map(|(&a, &b)| a.into() * b.into()).sum()
}

/// `sum += factor * values`.
pub(crate) fn add_scaled(factor: f64, values: &[f64], sum: &mut [f64]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
}

pub(crate) fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

pub(crate) fn to_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}
