//! A network in 8 bits.

use clap::Args;
use dbb_datasets::{DataRef, LoaderConfig, Split, open};
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
    /// With --int8: leave this percentage of the values out of each range, half of it at each end, such as
    /// 0.01 [default: 0].
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    clip: Option<f64>,
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
                ("--clip", self.clip.is_some()),
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
        // Whatever its classes are.
        let dataset = open(data, Split::Train).map_err(dbb_training::Error::from)?;
        let dataset = dataset.limit(self.images.unwrap_or(IMAGES) as usize);
        let config = LoaderConfig { batch_size: BATCH, ..LoaderConfig::default() };
        let loader = target.loader_over(dataset, config)?;
        let options = Int8Options {
            method: self.clip.map_or(RangeMethod::MinMax, RangeMethod::Percentile),
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

/// Percent from 0 to 50: half of it is cut from each end.
fn percentage(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok().filter(|number| (0.0..50.0).contains(number));
    number.ok_or_else(|| "expected a percentage from 0 to below 50, such as 0.01".into())
}
