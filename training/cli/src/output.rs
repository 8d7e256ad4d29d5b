//! What `dbb reparam` and `dbb export` write.

use std::path::Path;

use dbb_datasets::{DataRef, Preprocess};
use dbb_models::onnx::{self, Description, write_onnx, write_onnx_int8};
use dbb_models::summary::{learnable_params, macs};
use dbb_models::weights::{Dialect, Metadata, write_atomically, write_burnpack, write_safetensors};
use dbb_models::{Classifier, Form};

use crate::format::Format;
use crate::int8::{Int8Args, Int8Report};
use crate::options::{DataOptions, TargetOptions};
use crate::written::Written;
use dbb_training::deploy::fold::{FoldReport, fold};
use dbb_training::deploy::int8::Int8Classifier;
use dbb_training::deploy::model_card::{Accuracy, ModelCard, UNKNOWN_LICENSE};
use dbb_training::deploy::rounding::{Precision, Rounding};
use dbb_training::deploy::timm_folder;
use dbb_training::deploy::weights::ExportedWeights;
use dbb_training::inference::loaded_model::LoadedModel;
use dbb_training::inference::probe::Probe;

/// What is written of a network, and where.
pub struct Output<'a> {
    pub path: &'a Path,
    pub format: Format,
    pub form: Form,
    pub keys: Option<Dialect>,
    pub dtype: Precision,
    pub with_preprocess: bool,
    pub license: Option<&'a str>,
    pub labels: Option<&'a Path>,
    /// In 8 bits, and the data to calibrate on.
    pub int8: Option<(&'a Int8Args, &'a DataRef)>,
}

impl Output<'_> {
    /// Folds, rounds and writes the network of a target, as requested.
    pub fn write(
        &self,
        target: &LoadedModel,
        options: &TargetOptions,
        data: &DataOptions,
    ) -> anyhow::Result<Written> {
        let compares = self.form == Form::Deploy || self.dtype != Precision::F32;
        self.refuse_unused(target, options, data, compares)?;
        let written = self.write_network(target, data, compares)?;
        if let Some(path) = self.labels {
            let lines: String = target.labels()?.iter().map(|label| format!("{label}\n")).collect();
            write_atomically(path, lines.as_bytes())
                .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?;
        }
        Ok(Written { labels: self.labels.map(|path| path.display().to_string()), ..written })
    }

    fn write_network(
        &self,
        target: &LoadedModel,
        data: &DataOptions,
        compares: bool,
    ) -> anyhow::Result<Written> {
        let probe = compares.then(|| data.probe(target)).transpose()?;
        if let (Form::Deploy, Some(probe)) = (self.form, &probe) {
            let (deploy, report) = fold(&target.network, probe)?;
            let int8 = self.int8.map(|(args, data)| args.run(&deploy, target, data, probe));
            let int8 = int8.transpose()?;
            let rounding =
                self.store(target, &deploy, Some(probe), Some(&report), int8.as_ref())?;
            let int8 = int8.map(|(_, report)| report);
            return Ok(Written { int8, ..Written::folded(report, rounding, self.path) });
        }
        anyhow::ensure!(
            target.metadata.form == Form::Train,
            "{} is folded already; the training form cannot be restored from it",
            target.path.display()
        );
        let rounding = self.store(target, &target.network, probe.as_ref(), None, None)?;
        Ok(Written::unfolded(&target.network, rounding, self.path))
    }

    /// Refuses flags without effect: where no image is read, those of images that the format does not
    /// store.
    fn refuse_unused(
        &self,
        target: &LoadedModel,
        options: &TargetOptions,
        data: &DataOptions,
        compares: bool,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(
            compares || data.data.is_none(),
            "nothing is folded or rounded, so there is nothing to compare on data; leave --data out"
        );
        let reads = data.data.is_some() || target.config.is_some() || self.int8.is_some();
        if compares && reads {
            return Ok(());
        }
        let stored: &[&str] = match self.format {
            Format::Timm => &["--size", "--resize", "--mean", "--std"],
            Format::Onnx if self.with_preprocess => &["--size", "--mean", "--std"],
            Format::Onnx => &["--size"],
            Format::Safetensors | Format::Burnpack => &[],
        };
        let mut unused = options.input.of_images();
        // Random images have a size as well.
        unused.retain(|flag| !(stored.contains(flag) || compares && *flag == "--size"));
        if options.input.class_map.is_some() && self.labels.is_none() {
            unused.push("--class-map");
        }
        let reason = if compares { "no image is read without --data" } else { "no image is read" };
        anyhow::ensure!(unused.is_empty(), "{reason}; leave {} out", unused.join(", "));
        Ok(())
    }

    /// Writes a network, with the measured difference of its fold if it is folded, and measures on
    /// `probe` what rounding changes. ONNX holds it in 8 bits if there is such a network; timm's card tells
    /// of it.
    fn store(
        &self,
        target: &LoadedModel,
        network: &Classifier,
        probe: Option<&Probe>,
        fold: Option<&FoldReport>,
        int8: Option<&(Int8Classifier<'_>, Int8Report)>,
    ) -> dbb_training::Result<Option<Rounding>> {
        let metadata = |keys| Metadata { form: self.form, keys, ..target.metadata.clone() };
        let weights = |keys| -> dbb_training::Result<_> {
            let mut weights = ExportedWeights::new(network, metadata(keys))?;
            let rounded = probe.filter(|_| self.dtype != Precision::F32);
            let rounding = rounded.map(|probe| weights.round(self.dtype, probe)).transpose()?;
            Ok((weights, rounding))
        };
        let native = Dialect::Native;
        // As the images were prepared that the network has been measured on.
        let preprocess = match probe {
            Some(Probe::Data(loader)) => loader.pipeline().preprocess().clone(),
            _ => target.preprocess(None)?,
        };
        match self.format {
            Format::Safetensors => {
                let (weights, rounding) = weights(self.keys.unwrap_or(native))?;
                write_safetensors(self.path, &weights.tensors, &weights.metadata)?;
                Ok(rounding)
            }
            Format::Timm => {
                let input = preprocess.shape();
                let config = timm_folder::Config::new(&target.metadata, &preprocess)?;
                let (weights, rounding) = weights(Dialect::Timm)?;
                let accuracy = probe.map(|probe| Accuracy::measure(network, probe)).transpose()?;
                let card = ModelCard {
                    metadata: &target.metadata,
                    architecture: config.architecture(),
                    fold: fold.filter(|_| target.metadata.form == Form::Train),
                    params: learnable_params(network),
                    macs: macs(network, [input[1], input[2]])?,
                    input,
                    accuracy: accuracy.flatten(),
                    int8: int8.map(|(_, report)| report.card()),
                    config: target.config.as_ref(),
                    license: self.license.unwrap_or(UNKNOWN_LICENSE),
                };
                if !config.write(self.path, &weights, &card.text())? {
                    crate::say(&format!(
                        "note: {} is kept; remove it to have a new model card",
                        self.path.join("README.md").display()
                    ));
                }
                Ok(rounding)
            }
            Format::Burnpack => {
                write_burnpack(self.path, network, &metadata(native))?;
                Ok(None)
            }
            Format::Onnx => {
                let Preprocess { size, mean, std, .. } = preprocess;
                let normalization =
                    self.with_preprocess.then_some(onnx::Normalization { mean, std });
                let input = onnx::Input { size: size.into(), normalization };
                match int8 {
                    None => write_onnx(self.path, network, &metadata(native), &input)?,
                    Some((int8, _)) => {
                        let description = Description::of(&metadata(native));
                        write_onnx_int8(self.path, int8, &description, &input)?;
                    }
                }
                Ok(None)
            }
        }
    }
}
