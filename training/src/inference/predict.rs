//! Predicted classes of single images.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, Tensor, TensorData};
use dbb_datasets::{
    DataError, Image, ImageDataset, Loader, LoaderConfig, Pipeline, Preprocess, Source, presets,
};
use dbb_models::weights::WeightsFile;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::run::metrics::host;

/// A class and its probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Output of the network.
    pub index: usize,
    /// Its softmax, 0 to 1.
    pub probability: f32,
    /// Its logit.
    pub logit: f32,
}

/// The classes predicted for an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The most probable classes, the best first; equal ones in their order.
    pub top: Vec<Choice>,
    /// Whether all logits are finite. The classes mean nothing if they are not.
    pub is_finite: bool,
}

/// The `top` most probable classes for each of the logits `[batch, classes]`.
pub fn answers(logits: Tensor<2>, top: usize) -> Vec<Answer> {
    let [_, classes] = logits.dims();
    let probabilities = host(softmax(logits.clone(), 1).into_data());
    let logits = host(logits.into_data());
    let of_image = |(logits, probabilities): (&[f32], &[f32])| {
        let outputs = logits.iter().zip(probabilities).enumerate();
        let choice = |(index, (&logit, &probability))| Choice { index, probability, logit };
        let mut choices: Vec<Choice> = outputs.map(choice).collect();
        // Probabilities that round to 0 are equal, their logits are not.
        choices.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        choices.truncate(top);
        Answer { top: choices, is_finite: logits.iter().all(|logit| logit.is_finite()) }
    };
    logits.chunks(classes).zip(probabilities.chunks(classes)).map(of_image).collect()
}

/// Image files in the order given, and within a folder and those below it by name.
///
/// # Errors
/// If a folder cannot be read or holds no image.
pub fn image_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let files = dbb_datasets::image_files_below(path)?;
    if files.is_empty() {
        return Err(Error::Unusable(format!("{} holds no image", path.display())));
    }
    Ok(files)
}

/// A loader over image files, in their order; those that cannot be read are left out and named.
///
/// # Errors
/// If there is no file, or the preprocessing is out of range.
pub fn loader(files: Vec<PathBuf>, preprocess: Preprocess, batch_size: usize) -> Result<Loader> {
    let config =
        LoaderConfig { batch_size, workers: 2, skip_unreadable: true, ..LoaderConfig::default() };
    let source = Arc::new(Files(files));
    let dataset = ImageDataset::new("images", vec!["unknown".into()], presets::IMAGENET, source)?;
    Ok(Loader::new(Arc::new(dataset), config, Pipeline::eval(preprocess)?)?)
}

/// Images without a class.
struct Files(Vec<PathBuf>);

impl Source for Files {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn label(&self, _index: usize) -> usize {
        0
    }

    fn image(&self, index: usize) -> std::result::Result<Image, DataError> {
        Image::open(&self.0[index])
    }

    fn file(&self, index: usize) -> Option<PathBuf> {
        Some(self.0[index].clone())
    }

    fn identity(&self, index: usize) -> Cow<'_, [u8]> {
        self.0[index].as_os_str().as_encoded_bytes().into()
    }
}

/// Names of a network's input in a file of several tensors.
const INPUT_NAMES: [&str; 2] = ["input", "images"];

/// A network's input `[n, channels, height, width]` from a file of tensors: its only one, or the one
/// named `input` or `images`; `[channels, height, width]` is a single image. It is taken as it is,
/// without preprocessing.
///
/// # Errors
/// If there is no such tensor, or it has another shape or number of channels.
pub fn tensor_input(path: &Path, channels: usize) -> Result<TensorData> {
    let fault = |text: String| Err(Error::Unusable(format!("{}: {text}", path.display())));
    let mut tensors = WeightsFile::read(path)?.tensors;
    let named = INPUT_NAMES.iter().find_map(|name| tensors.remove(*name));
    let count = tensors.len();
    let only = tensors.into_values().next().filter(|_| count == 1);
    let Some(input) = named.or(only) else {
        return fault(format!("{count} tensors, none of them named input or images"));
    };
    let mut shape = input.shape().to_vec();
    if shape.len() == 3 {
        shape.insert(0, 1);
    }
    if shape.len() != 4 || shape[1] != channels || shape.contains(&0) {
        return fault(format!(
            "its tensor has shape {:?}; the network expects [n, {channels}, height, width]",
            input.shape().to_vec()
        ));
    }
    Ok(TensorData::new(host(input.convert_dtype(DType::F32)), shape))
}

/// The answers to a network's input as [`tensor_input`] reads it, `batch` images at a time.
pub fn answers_to_tensor(
    forward: &impl Fn(Tensor<4>) -> Tensor<2>,
    device: &Device,
    input: TensorData,
    batch: usize,
    top: usize,
) -> Vec<Answer> {
    let images: Tensor<4> = Tensor::from_data(input, device);
    let parts = images.split(batch, 0).into_iter();
    parts.flat_map(|part| answers(forward(part), top)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_sorted_and_cut() {
        let logits = [[0.0, 2f32.ln(), 5f32.ln()], [1.0, 1.0, 0.0]];
        let answers = answers(Tensor::from_floats(logits, &Device::default()), 2);
        let order = |row: &Answer| row.top.iter().map(|choice| choice.index).collect::<Vec<_>>();
        assert_eq!((order(&answers[0]), order(&answers[1])), (vec![2, 1], vec![0, 1]));
        for (choice, expected) in answers[0].top.iter().zip([5.0 / 8.0, 2.0 / 8.0]) {
            assert!((choice.probability - expected).abs() < 1e-6, "{choice:?}");
        }
    }

    /// A logit that is cut off counts as well.
    #[test]
    fn answers_that_mean_nothing_say_so() {
        let logits = [[0.0, 1.0, -2.0], [0.0, 1.0, f32::NEG_INFINITY], [f32::NAN, 1.0, 0.0]];
        let answers = answers(Tensor::from_floats(logits, &Device::default()), 1);
        let finite: Vec<bool> = answers.iter().map(|answer| answer.is_finite).collect();
        assert_eq!(finite, [true, false, false]);
    }
}
