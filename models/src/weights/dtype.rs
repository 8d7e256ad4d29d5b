//! Number types of stored tensors.

use burn::tensor::{BoolStore, DType, TensorData};
use safetensors::Dtype;

use super::error::WeightsError;
use crate::state_dict::StateDict;

/// The types that both Burn and safetensors have.
const TYPES: [(DType, Dtype); 13] = [
    (DType::F64, Dtype::F64),
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U64, Dtype::U64),
    (DType::U32, Dtype::U32),
    (DType::U16, Dtype::U16),
    (DType::U8, Dtype::U8),
    (DType::Bool(BoolStore::U8), Dtype::BOOL),
];

/// Burn's type of a stored tensor.
pub(super) fn from_safetensors(dtype: Dtype) -> Option<DType> {
    TYPES.iter().find(|(_, stored)| *stored == dtype).map(|(own, _)| *own)
}

/// The stored type of a tensor; every tensor of a state dict has one.
pub(super) fn to_safetensors(dtype: DType) -> Option<Dtype> {
    TYPES.iter().find(|(own, _)| *own == dtype).map(|(_, stored)| *stored)
}

/// A tensor as state dicts hold it: of a type that files have, truth values in a byte each.
///
/// # Errors
/// A sentence, for any other type and for bytes that are no truth values.
pub(super) fn stored(name: &str, data: TensorData) -> Result<TensorData, String> {
    let dtype = data.dtype();
    let data = match dtype {
        DType::Bool(_) => data.try_cast(DType::Bool(BoolStore::U8)),
        _ => Ok(data),
    };
    match data {
        Ok(data) if to_safetensors(data.dtype()).is_some() => Ok(data),
        Ok(_) => Err(format!("tensor {name} has type {dtype:?}, which is not read")),
        Err(error) => Err(format!("tensor {name}: {error}")),
    }
}

/// Whether a type holds fractions.
pub(super) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
}

/// The tensors with all that hold fractions in another float type, each value rounded once to the
/// nearest.
///
/// # Errors
/// [`WeightsError::Overflow`] if a finite value is beyond the range of the type.
pub fn with_dtype(tensors: StateDict, dtype: DType) -> Result<StateDict, WeightsError> {
    let convert = |(name, data): (String, TensorData)| {
        let data = if is_float(data.dtype()) { narrowed(&name, data, dtype)? } else { data };
        Ok((name, data))
    };
    tensors.into_iter().map(convert).collect()
}

/// The tensor in another float type, each value rounded once to the nearest.
///
/// # Errors
/// [`WeightsError::Overflow`] if a finite value is beyond the range of the type.
pub(super) fn narrowed(
    name: &str,
    data: TensorData,
    dtype: DType,
) -> Result<TensorData, WeightsError> {
    let narrow = data.clone().convert_dtype(dtype);
    let lost = data
        .iter::<f64>()
        .zip(narrow.iter::<f64>())
        .find(|(before, after)| before.is_finite() && !after.is_finite());
    match lost {
        None => Ok(narrow),
        Some((value, _)) => {
            Err(WeightsError::Overflow { name: name.to_string(), value, dtype: dtype.name() })
        }
    }
}
