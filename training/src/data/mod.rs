//! The data that a configuration names: its splits, with class map and limits applied.

mod class_map;

pub use class_map::ClassMap;

use dbb_datasets::{DataError, ImageDataset, Split, open};

use crate::config::DataSection;
use crate::error::{Error, Result};

/// The training and the validation images; `seed` draws `val_from_train`.
///
/// # Errors
/// As [`dbb_datasets::open_pair`], [`ImageDataset::split`] and [`ClassMap::apply`].
pub fn open_pair(data: &DataSection, seed: u64) -> Result<(ImageDataset, ImageDataset)> {
    let (mut train, mut val) = match data.val_from_train {
        // The other split is not even looked for.
        Some(share) => {
            let train = open(&data.reference()?, Split::Train)?;
            train.split(share, seed).map_err(|error| match error {
                DataError::Setting { value, expected, .. } => {
                    DataError::Setting { name: "data.val_from_train", value, expected }
                }
                error => error,
            })?
        }
        None => open_both(data)?,
    };
    if let Some(path) = &data.class_map {
        let map = ClassMap::read(path)?;
        let apply = |dataset| map.apply(dataset, &data.source, None, &[]);
        (train, val) = (apply(&train)?, apply(&val)?);
    }
    let limit = |dataset: ImageDataset, most: Option<usize>| {
        most.map_or_else(|| dataset.clone(), |most| dataset.limit(most))
    };
    Ok((limit(train, data.limit_train), limit(val, data.limit_val)))
}

/// Both splits of a data set.
fn open_both(data: &DataSection) -> Result<(ImageDataset, ImageDataset)> {
    let reference = data.reference()?;
    dbb_datasets::open_pair(&reference).map_err(|error| match error {
        DataError::Layout { .. } if open(&reference, Split::Train).is_ok() => {
            Error::Unusable(format!(
                "{} has training images but no validation images; data.val_from_train = 0.1 \
                 validates on a tenth of the training images, which are then not trained on",
                data.source
            ))
        }
        error => error.into(),
    })
}
