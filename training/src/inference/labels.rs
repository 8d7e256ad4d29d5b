//! From the classes of a data set to the outputs of a network.

use std::collections::BTreeMap;

use dbb_datasets::{ImageDataset, imagenet};

use crate::error::{Error, Result};

/// The classes of a network, in the order of its outputs: those named in its file, or ImageNet's
/// synsets if the file names none and the network has as many outputs; otherwise none.
pub fn classes(named: &[String], outputs: usize) -> Vec<String> {
    if named.is_empty() && outputs == imagenet::CLASSES {
        return imagenet::synsets().map(str::to_owned).collect();
    }
    named.to_vec()
}

/// The readable name of a class: English names for ImageNet's synsets, other classes as they are.
pub fn label(class: &str) -> &str {
    imagenet::name(class).unwrap_or(class)
}

/// The data set called `data` with the classes of a network of `outputs` outputs, matched by name.
/// If the network names no classes (`named` is empty), its outputs are taken to be ImageNet's, if
/// there are as many and the data set has only classes of ImageNet, and otherwise the data set's
/// own in their order.
///
/// # Errors
/// [`Error::Classes`] if the network does not know a class.
pub fn align(
    dataset: ImageDataset,
    data: &str,
    named: &[String],
    outputs: usize,
) -> Result<ImageDataset> {
    let known = classes(named, outputs);
    if dataset.classes() == known {
        return Ok(dataset);
    }
    let position: BTreeMap<_, _> = known.iter().zip(0..).collect();
    let labels: Option<Vec<usize>> =
        dataset.classes().iter().map(|class| position.get(class).copied()).collect();
    match labels {
        Some(labels) => Ok(dataset.relabel(known, &labels)?),
        None if named.is_empty() && dataset.classes().len() == outputs => Ok(dataset),
        None => Err(Error::Classes(mismatch(dataset.classes(), data, named, outputs))),
    }
}

fn mismatch(found: &[String], data: &str, named: &[String], outputs: usize) -> String {
    let counts = format!("the network has {outputs} classes, {data} has {}", found.len());
    let unknown: Vec<_> = found.iter().filter(|class| !named.contains(class)).collect();
    match &unknown[..] {
        [first] if !named.is_empty() => format!("{counts}, of which it does not know \"{first}\""),
        [first, more @ ..] if !named.is_empty() => {
            format!("{counts}, of which it does not know \"{first}\" and {} more", more.len())
        }
        _ => counts,
    }
}
