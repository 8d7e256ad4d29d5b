//! A network in 8 bits.

use std::str::FromStr;

use clap::Args;
use dbb_datasets::{DataRef, LoaderConfig, Split};
use dbb_models::Classifier;
use dbb_models::quantize::{RangeMethod, WeightRange};

use super::data::data_kinds;
use super::input::given;
use crate::progress::Batches;
use dbb_training::deploy::int8::{Int8Classifier, Int8Options, calibrate};
use dbb_training::inference::loaded_model::LoadedModel;

/// Images that a calibration reads unless --images says otherwise.
const IMAGES: u32 = 512;

/// Images of a calibration that go through the network at once.
const BATCH: usize = 16;

/// A network in 8 bits.
#[derive(Debug, Args)]
pub struct CalibrationOptions {
    /// Fold the network and bring it to 8 bits: weights and maps become integers, whose ranges come from the
    /// images of --calibrate.
    #[arg(long)]
    pub int8: bool,
    /// Data whose training images determine the ranges of 8-bit maps.
    #[arg(long, value_name = "DATA", help = data_kinds(
        "With --int8: data whose training images determine the ranges of all maps", ""
    ))]
    calibrate: Option<DataRef>,
    /// With --int8: calibrate on N images, balanced over the classes [default: 512].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    images: Option<u32>,
    /// With --int8: how ranges follow from the values.
    #[arg(long, value_name = "METHOD", value_parser = method)]
    ranges: Option<RangeMethod>,
    /// With --int8: weights from -64 to 64, for processors without instructions for products of 8 bits
    /// (x86 without VNNI), where sums of two products overflow.
    #[arg(long)]
    reduce_range: bool,
    /// With --int8: keep a layer in f32; * stands for any text. May be given several times.
    #[arg(long, value_name = "LAYER")]
    keep_float: Vec<String>,
}

/// How a network was brought to 8 bits.
pub struct Calibrated<'n> {
    pub network: Int8Classifier<'n>,
    /// The images.
    pub data: String,
    pub images: usize,
    pub weights: WeightRange,
}

impl CalibrationOptions {
    /// The data to calibrate on, if 8 bits were asked for.
    ///
    /// # Errors
    /// If they were not and an option needs them, or there is no data.
    pub fn data(&self) -> anyhow::Result<Option<&DataRef>> {
        if !self.int8 {
            let flags = given([
                ("--calibrate", self.calibrate.is_some()),
                ("--images", self.images.is_some()),
                ("--ranges", self.ranges.is_some()),
                ("--reduce-range", self.reduce_range),
                ("--keep-float", !self.keep_float.is_empty()),
            ]);
            anyhow::ensure!(flags.is_empty(), "{} needs --int8", flags.join(", "));
            return Ok(None);
        }
        let data = self.calibrate.as_ref();
        Ok(Some(data.ok_or_else(|| {
            anyhow::anyhow!(
                "--int8 needs images for the ranges of the maps; name data with --calibrate, such as the \
                 data that the network was trained on"
            )
        })?))
    }

    /// A folded network in 8 bits.
    pub fn calibrate<'n>(
        &self,
        network: &'n Classifier,
        target: &LoadedModel,
        data: &DataRef,
    ) -> anyhow::Result<Calibrated<'n>> {
        let dataset = target.dataset(Some(data), Split::Train)?;
        let dataset = dataset.limit(self.images.unwrap_or(IMAGES) as usize);
        let config = LoaderConfig { batch_size: BATCH, ..LoaderConfig::default() };
        let loader = target.loader_over(dataset, config)?;
        let options = Int8Options {
            method: self.ranges.unwrap_or_default(),
            weights: if self.reduce_range { WeightRange::Reduced } else { WeightRange::Full },
            float_layers: self.keep_float.clone(),
        };
        let mut progress = Batches::new(options.method.passes() * loader.batches_per_epoch());
        let (network, images) =
            calibrate(network, &loader, &options, |images| progress.add(images))?;
        let data = loader.dataset().describe();
        Ok(Calibrated { network, data, images, weights: options.weights })
    }
}

fn method(text: &str) -> Result<RangeMethod, String> {
    Ok(match text.split_once(':') {
        None if text == "min-max" => RangeMethod::MinMax,
        None if text == "entropy" => RangeMethod::Entropy,
        None if text == "squared-error" => RangeMethod::SquaredError,
        Some(("percentile", number)) => {
            RangeMethod::Percentile(f64::from_str(number).map_err(|e| e.to_string())?)
        }
        _ => return Err("expected min-max, percentile:0.01, entropy or squared-error".into()),
    })
}
