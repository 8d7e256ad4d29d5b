//! How much a network changes when its weights are stored in 16 bits.

use burn::tensor::{DType, Tensor};
use dbb_models::Classifier;
use serde::Serialize;

use crate::deploy::fold::LogitDifference;
use crate::device;
use crate::error::{Error, Result};
use crate::inference::probe::Probe;
use crate::run::metrics::Totals;

/// Number type of stored weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with 11 bits of precision, up to 65504.
    F16,
    /// 16 bits with 8 bits of precision and the range of `f32`.
    Bf16,
}

impl Precision {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// The name in flags and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Bf16 => Self::BF16,
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A network with rounded weights compared with the same network with exact ones; both compute in
/// `f32`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rounding {
    /// Type of the rounded weights.
    pub dtype: Precision,
    /// Largest difference of logits, relative to the largest.
    pub dtype_max_rel_diff: f64,
    /// Percent of images with the same label.
    pub dtype_top1_agreement: f64,
    /// Top-1 with exact weights, percent, where the classes of the images are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1: Option<f64>,
    /// Top-1 with rounded weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_dtype: Option<f64>,
}

impl Rounding {
    /// Compares both networks.
    ///
    /// # Errors
    /// If an image cannot be read, or a logit is not finite.
    pub fn measure(
        exact: &Classifier,
        rounded: &Classifier,
        dtype: Precision,
        probe: &Probe,
    ) -> Result<Self> {
        let device = device::of(exact);
        let mut comparison = LogitDifference::default();
        let mut totals = [Totals::default(); 2];
        for batch in probe.batches() {
            let batch = batch?;
            let images: Tensor<4> = Tensor::from_data(batch.images, &device);
            let logits = [exact, rounded].map(|network| network.forward(images.clone()));
            for (totals, logits) in totals.iter_mut().zip(&logits) {
                totals.add(logits.clone(), &batch.labels, 0.0);
            }
            let [exact, rounded] = logits;
            comparison.add(exact, rounded);
        }
        if !comparison.max_rel_diff().is_finite() {
            let text =
                format!("logits with weights in {dtype}, or with exact ones, are not finite");
            return Err(Error::NonFiniteOutput(text));
        }
        let percent = |totals: Totals| (totals.images() > 0).then(|| totals.top1());
        let [top1, top1_dtype] = totals.map(percent);
        Ok(Self {
            dtype,
            dtype_max_rel_diff: comparison.max_rel_diff(),
            dtype_top1_agreement: comparison.top1_agreement(),
            top1,
            top1_dtype,
        })
    }
}
