//! `dbb export --int8`: a network in 8 bits, what that costs, and which layers cost it.

use clap::Args;
use dbb_datasets::{DataRef, Split};
use dbb_models::Classifier;
use dbb_models::quantize::WeightRange;
use serde::Serialize;

use crate::options::{Calibrated, CalibrationOptions, DataOptions};
use crate::progress::Batches;
use dbb_training::deploy::int8::{
    Int8Accuracy, Int8Classifier, LayerSensitivity, accuracy, sensitivity,
};
use dbb_training::deploy::model_card::Int8Card;
use dbb_training::inference::loaded_model::LoadedModel;
use dbb_training::inference::probe::Probe;
use dbb_training::text::plural;

/// Images that layers are compared on unless --sensitivity says otherwise.
const SENSITIVITY_IMAGES: u32 = 64;

/// Layers that are printed; JSON has all.
const SHOWN: usize = 10;

/// A network in 8 bits, and what is measured of it.
#[derive(Debug, Args)]
pub struct Int8Args {
    #[command(flatten)]
    calibration: CalibrationOptions,
    /// With --int8: compare with each layer alone in f32 on N images, 0 for none [default: 64].
    #[arg(long, value_name = "N")]
    sensitivity: Option<u32>,
}

/// What 8 bits cost.
#[derive(Serialize)]
pub struct Int8Report {
    calibrated_on: String,
    calibration_images: usize,
    weight_range: WeightRange,
    float_layers: Vec<String>,
    int8: Int8Accuracy,
    #[serde(skip_serializing_if = "Option::is_none")]
    sensitivity: Option<Sensitivity>,
}

/// Which layers cost it.
#[derive(Serialize)]
struct Sensitivity {
    all_int8: Int8Accuracy,
    layers: Vec<LayerSensitivity>,
}

impl Int8Args {
    /// The data to calibrate on, if the network is written in 8 bits.
    pub fn data(&self) -> anyhow::Result<Option<&DataRef>> {
        let data = self.calibration.data()?;
        anyhow::ensure!(data.is_some() || self.sensitivity.is_none(), "--sensitivity needs --int8");
        Ok(data)
    }

    /// Brings a folded network to 8 bits and measures what that costs on a probe.
    pub fn run<'n>(
        &self,
        network: &'n Classifier,
        target: &LoadedModel,
        data: &DataRef,
        probe: &Probe,
    ) -> anyhow::Result<(Int8Classifier<'n>, Int8Report)> {
        let calibrated = self.calibration.calibrate(network, target, data)?;
        let Calibrated { network: int8, data, images, weights } = calibrated;
        let mut progress = Batches::new(probe.batches_per_pass());
        let cost = accuracy(&int8, network, probe, |images| progress.add(images))?;
        drop(progress);
        let images_for_layers = self.sensitivity.unwrap_or(SENSITIVITY_IMAGES) as usize;
        let sensitivity = (images_for_layers > 0).then(|| {
            let (all_int8, layers) = sensitivity(&int8, network, probe, images_for_layers)?;
            Ok::<_, dbb_training::Error>(Sensitivity { all_int8, layers })
        });
        let report = Int8Report {
            calibrated_on: data,
            calibration_images: images,
            weight_range: weights,
            float_layers: int8.float_layers().iter().cloned().collect(),
            int8: cost,
            sensitivity: sensitivity.transpose()?,
        };
        Ok((int8, report))
    }
}

/// The data that forms of a network are compared on: where neither the target nor the user names any, that
/// of the calibration, if it has validation images of the network's classes.
pub fn compared_on(data: &DataOptions, target: &LoadedModel, calibrate: &DataRef) -> DataOptions {
    let mut data = data.clone();
    if data.data.is_none() && target.config.is_none() {
        match target.dataset(Some(calibrate), Split::Val) {
            Ok(_) => data.data = Some(calibrate.clone()),
            Err(error) => crate::say(&format!(
                "note: the network is compared on random input, since the data of the calibration has no \
                 validation images for it: {error}"
            )),
        }
    }
    data
}

impl Int8Report {
    /// What a model card says of it.
    pub fn card(&self) -> Int8Card<'_> {
        Int8Card {
            calibrated_on: &self.calibrated_on,
            images: self.calibration_images,
            float_layers: &self.float_layers,
            top1: self.int8.top1_int8,
        }
    }

    pub fn text(&self) -> String {
        let Int8Accuracy { images, top1_agreement, error, .. } = self.int8;
        let mut text = format!(
            "8 bits, ranges from {} of {}: {}, labels agree on {top1_agreement:.2}% of {}, logits \
             differ by {:.2}%\n",
            plural(self.calibration_images, "image"),
            self.calibrated_on,
            top1(&self.int8),
            plural(images, "image"),
            100.0 * error
        );
        if !self.float_layers.is_empty() {
            text += &format!("in f32: {}\n", self.float_layers.join(", "));
        }
        text + &self.sensitivity.as_ref().map(Sensitivity::text).unwrap_or_default()
    }
}

impl Sensitivity {
    fn text(&self) -> String {
        let mut layers: Vec<_> = self.layers.iter().collect();
        layers.sort_by(|a, b| a.accuracy.error.total_cmp(&b.accuracy.error));
        let widest = layers.iter().map(|layer| layer.layer.len()).max().unwrap_or(0);
        let row = |name: &str, accuracy: &Int8Accuracy| {
            let top1 = accuracy.top1_int8.map(|top1| format!("  top-1 {top1:.2}%"));
            let top1 = top1.unwrap_or_default();
            format!("  {name:<widest$}  {:6.2}%{top1}\n", 100.0 * accuracy.error)
        };
        let mut text = format!(
            "difference of logits with one layer in f32, on {}:\n",
            plural(self.all_int8.images, "image")
        );
        text += &row("none", &self.all_int8);
        text += &layers.iter().take(SHOWN).map(|l| row(&l.layer, &l.accuracy)).collect::<String>();
        text
    }
}

fn top1(accuracy: &Int8Accuracy) -> String {
    match (accuracy.top1, accuracy.top1_int8) {
        (Some(exact), Some(rounded)) => {
            format!("top-1 {rounded:.2}%, {exact:.2}% in f32")
        }
        _ => "no classes to compare".into(),
    }
}
