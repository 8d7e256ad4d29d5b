//! Weights that are NaN or infinite: whatever such a network computes means nothing.

use burn::tensor::{DType, TensorData};

use super::dtype::is_float;
use super::error::WeightsError;
use crate::state_dict::StateDict;

/// That every value of the float tensors is finite as the `f32` that a network holds.
///
/// # Errors
/// [`WeightsError::NonFinite`] for the first tensor with another value.
pub(super) fn check_finite(tensors: &StateDict) -> Result<(), WeightsError> {
    let mut faults = tensors.iter().filter_map(|(key, data)| Some((key, fault(data)?)));
    let Some((tensor, (value, count))) = faults.next() else { return Ok(()) };
    Err(WeightsError::NonFinite {
        path: None,
        tensor: tensor.clone(),
        value,
        count,
        values: tensors[tensor].num_elements(),
        other_tensors: faults.count(),
    })
}

/// The first value of a tensor that is not finite, and how many there are.
fn fault(data: &TensorData) -> Option<(f64, usize)> {
    if !is_float(data.dtype()) {
        return None;
    }
    if data.dtype() == DType::F32
        && data.as_slice::<f32>().is_ok_and(|values| values.iter().all(|value| value.is_finite()))
    {
        return None;
    }
    let mut faults = data.iter::<f64>().filter(|&value| !(value as f32).is_finite());
    Some((faults.next()?, 1 + faults.count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_type_is_checked_as_f32() {
        for (data, expected) in [
            (TensorData::new(vec![1.0f32, f32::NAN, f32::INFINITY], [3]), Some(2)),
            (TensorData::new(vec![f32::MAX, f32::MIN, -0.0], [3]), None),
            (TensorData::new(vec![1.0f64, 1e300], [2]), Some(1)),
            (TensorData::new(vec![65504.0f32, f32::NEG_INFINITY], [2]), Some(1)),
            (TensorData::new(vec![i64::MAX, 0], [2]), None),
        ] {
            assert_eq!(fault(&data).map(|(_, count)| count), expected, "{data:?}");
            for half in [DType::F16, DType::BF16] {
                if data.dtype() == DType::F32 && expected.is_some() {
                    let data = data.clone().convert_dtype(half);
                    assert_eq!(fault(&data).map(|(_, count)| count), expected, "{data:?}");
                }
            }
        }
    }
}
