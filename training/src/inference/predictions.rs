//! The prediction for every image of a data set, as CSV.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use dbb_datasets::{Batch, ImageDataset};

use crate::classification::best;
use crate::run::metrics::host;

/// The prediction for every image: its index in the data set, label, predicted class and the
/// probability of that, and its path where the images are files.
pub struct Predictions<'a> {
    dataset: &'a ImageDataset,
    csv: String,
}

impl<'a> Predictions<'a> {
    /// None yet.
    pub fn new(dataset: &'a ImageDataset) -> Self {
        let mut csv = String::from("index,label,prediction,probability");
        csv += if dataset.file(0).is_some() { ",file\n" } else { "\n" };
        Self { dataset, csv }
    }

    /// Adds a batch with its logits `[batch, classes]`.
    pub fn add(&mut self, batch: &Batch, logits: &Tensor<2>) {
        let [_, classes] = logits.dims();
        let probabilities = host(softmax(logits.clone(), 1).into_data());
        for (i, row) in probabilities.chunks(classes).enumerate() {
            let best = best(row);
            let (index, label) = (batch.indices[i], batch.labels[i]);
            self.csv += &format!("{index},{label},{best},{:.6}", row[best]);
            if let Some(file) = self.dataset.file(index) {
                self.csv += &format!(",\"{}\"", file.to_string_lossy().replace('"', "\"\""));
            }
            self.csv.push('\n');
        }
    }

    /// One line per image, after a header.
    pub fn into_csv(self) -> String {
        self.csv
    }
}
