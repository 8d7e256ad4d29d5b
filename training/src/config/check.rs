//! The one check of a configuration, as far as it can be checked without its data.

use std::fmt::Display;

use dbb_datasets::{DataError, LoaderConfig, Pipeline, Preprocess};
use dbb_models::ConfigError;

use super::sections::Config;

/// A value that cannot be used.
pub(super) struct Fault {
    /// Its key.
    pub key: String,
    /// The value and what was expected.
    pub text: String,
}

/// Classes and channels of a network whose data is not looked at.
const ANY_CLASSES: usize = 1000;
const ANY_CHANNELS: usize = 3;

impl Config {
    /// That every value is in its range, that the network can be built, and that images can be made
    /// its input. What depends on the data is checked by the same functions when it is opened.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.check_recipe()?;
        self.check_model()?;
        self.check_data()
    }

    fn check_recipe(&self) -> Result<(), Fault> {
        if let Some(name) = &self.name {
            let expected = "letters, digits, \"-\", \"_\", \".\" and \"+\", a letter or digit first, \
                            100 characters at most";
            require(is_name(name), "name", &format!("{name:?}"), expected)?;
        }
        let (train, optim, schedule) = (&self.train, &self.optim, &self.schedule);
        require(train.epochs > 0, "train.epochs", &train.epochs, "at least 1")?;
        require(train.batch_size > 1, "train.batch_size", &train.batch_size, "at least 2")?;
        let smoothing = train.label_smoothing;
        require((0.0..1.0).contains(&smoothing), "train.label_smoothing", &smoothing, "0 up to 1")?;
        require(train.accumulate > 0, "train.accumulate", &0, "at least 1")?;
        require(train.keep_last > 0, "train.keep_last", &0, "at least 1")?;
        require(train.checkpoint_steps != Some(0), "train.checkpoint_steps", &0, "at least 1")?;
        if let Some(norm) = train.clip_norm {
            let positive = norm > 0.0 && norm.is_finite();
            require(positive, "train.clip_norm", &norm, "a number above 0")?;
        }
        if let Some(decay) = train.ema {
            let inside = decay > 0.0 && decay < 1.0;
            require(inside, "train.ema", &decay, "above 0 and below 1")?;
        }
        if let Some(minutes) = train.checkpoint_minutes {
            let positive = minutes > 0.0 && minutes.is_finite();
            require(positive, "train.checkpoint_minutes", &minutes, "a number above 0")?;
        }
        let factor = train.rollback_lr;
        require(factor > 0.0 && factor < 1.0, "train.rollback_lr", &factor, "between 0 and 1")?;
        require(optim.lr > 0.0 && optim.lr.is_finite(), "optim.lr", &optim.lr, "a number above 0")?;
        let unit = 0.0..1.0;
        require(unit.contains(&optim.momentum), "optim.momentum", &optim.momentum, "0 up to 1")?;
        let decay = optim.weight_decay;
        require((0.0..1.0).contains(&decay), "optim.weight_decay", &decay, "0 up to 1")?;
        let bias_lr = optim.bias_lr;
        require(
            bias_lr > 0.0 && bias_lr.is_finite(),
            "optim.bias_lr",
            &bias_lr,
            "a number above 0",
        )?;
        let warmup = schedule.warmup_epochs;
        let inside = (0.0..=train.epochs as f64).contains(&warmup);
        require(inside, "schedule.warmup_epochs", &warmup, "0 to train.epochs")?;
        let min = schedule.min_lr;
        require((0.0..=optim.lr).contains(&min), "schedule.min_lr", &min, "0 to optim.lr")?;
        let gamma = schedule.gamma;
        require(gamma > 0.0 && gamma.is_finite(), "schedule.gamma", &gamma, "a number above 0")
    }

    /// Builds the network, without its weights.
    fn check_model(&self) -> Result<(), Fault> {
        let model = &self.model;
        if let Some(channels) = model.in_channels {
            require(matches!(channels, 1 | 3), "model.in_channels", &channels, "1 or 3")?;
        }
        let width = model.width;
        require(width > 0.0 && width <= 16.0, "model.width", &width, "above 0 and up to 16")?;
        let fault =
            |key: &str, error: &dyn Display| Fault { key: key.into(), text: error.to_string() };
        model.dbb.check().map_err(|error| fault("model.dbb.branches", &error))?;
        let network = model.resolve(ANY_CLASSES, ANY_CHANNELS);
        network.validate(&self.train.freeze).map_err(|error| match &error {
            // Of the zoo's layers none lacks channels but for a small width.
            ConfigError::Geometry { .. } => {
                let text = format!("{width} leaves a layer of {} without channels", model.arch);
                Fault { key: "model.width".into(), text }
            }
            ConfigError::InternalChannels { .. } => fault("model.dbb.internal_channels", &error),
            ConfigError::NoBranch => fault("model.dbb.branches", &error),
            ConfigError::Pattern { pattern, .. } => {
                let of_blocks = model.blocks.0.iter().any(|(known, _)| known == pattern);
                match of_blocks {
                    true => fault(&format!("model.blocks.{pattern}"), &error),
                    false => fault("train.freeze", &error),
                }
            }
            ConfigError::NothingToTrain { .. } => fault("train.freeze", &error),
            ConfigError::Option { option, .. } => fault(&format!("model.{option}"), &error),
            _ => fault("model.block", &error),
        })
    }

    fn check_data(&self) -> Result<(), Fault> {
        let data = &self.data;
        if let Some(share) = data.val_from_train {
            let inside = share > 0.0 && share < 1.0;
            require(inside, "data.val_from_train", &share, "above 0 and below 1")?;
        }
        require(data.limit_train != Some(0), "data.limit_train", &0, "at least 1")?;
        require(data.limit_val != Some(0), "data.limit_val", &0, "at least 1")?;
        let most = LoaderConfig::MAX_WORKERS;
        require(data.workers <= most, "data.workers", &data.workers, &format!("0 to {most}"))?;
        let source = |e: DataError| Fault { key: "data.source".into(), text: e.to_string() };
        data.reference().map_err(source)?;

        // What is left to the data is taken as what fits.
        let given = [&data.mean, &data.std].into_iter().flatten().map(Vec::len);
        let of_data = given.into_iter().find(|length| matches!(length, 1 | 3));
        let channels = self.model.in_channels.or(of_data).unwrap_or(ANY_CHANNELS);
        let most = Preprocess::MAX_SIDE;
        let size = data.size.unwrap_or(most);
        require((1..=most).contains(&size), "data.size", &size, &format!("1 to {most} pixels"))?;
        let preprocess = Preprocess {
            size: (size, size),
            resize: data.resize,
            channels,
            mean: data.mean.clone().unwrap_or_else(|| vec![0.0; channels]),
            std: data.std.clone().unwrap_or_else(|| vec![1.0; channels]),
        };
        Pipeline::new(preprocess, self.augment.clone()).map_err(setting)?;
        match data.size {
            Some(size) => self.check_resize(size),
            None => Ok(()),
        }
    }

    /// That `data.resize` leaves enough for the crop of `size`.
    fn check_resize(&self, size: usize) -> Result<(), Fault> {
        let Some(resize) = self.data.resize else { return Ok(()) };
        let expected = format!("at least data.size, {size}: the crop would be padded with black");
        require(resize >= size, "data.resize", &resize, &expected)
    }
}

/// Whether a text can name a configuration: it is part of the names of folders and stands in tables.
fn is_name(text: &str) -> bool {
    text.starts_with(char::is_alphanumeric)
        && text.chars().all(|c| c.is_alphanumeric() || "-_.+".contains(c))
        && text.chars().count() <= 100
}

fn require(holds: bool, key: &str, value: &dyn Display, expected: &str) -> Result<(), Fault> {
    let fault = || Fault {
        key: key.to_string(),
        text: format!("{value} is out of range; expected {expected}"),
    };
    holds.then_some(()).ok_or_else(fault)
}

/// A fault of the preprocessing or the augmentation, by its key.
fn setting(error: DataError) -> Fault {
    match &error {
        DataError::Setting { name, value, expected } => Fault {
            key: name.replace("preprocess.", "data."),
            text: format!("{value} is out of range; expected {expected}"),
        },
        _ => Fault { key: "data".into(), text: error.to_string() },
    }
}
