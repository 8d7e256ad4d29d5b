//! How an image becomes the network's input, where that differs from what the file says.

use std::path::PathBuf;

use clap::{ArgAction, Args, value_parser};
use dbb_datasets::Preprocess;

use dbb_training::inference::input::InputOverrides;

/// How an image becomes the network's input, where that differs from what the file says.
#[derive(Clone, Debug, Args)]
pub struct InputOptions {
    /// Height and width of the network's input.
    #[arg(long, visible_alias = "res", value_name = "PIXELS")]
    #[arg(value_parser = value_parser!(u16).range(1..=Preprocess::MAX_SIDE as i64))]
    size: Option<u16>,
    /// Short side that an image is resized to before the centre crop; at least --size.
    #[arg(long, value_name = "PIXELS")]
    #[arg(value_parser = value_parser!(u16).range(1..=Preprocess::MAX_SIDE as i64))]
    resize: Option<u16>,
    /// Mean of each channel on the scale 0 to 1, for example 0.485,0.456,0.406.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', action = ArgAction::Set)]
    mean: Option<Vec<f32>>,
    /// Standard deviation of each channel on the scale 0 to 1.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', action = ArgAction::Set)]
    std: Option<Vec<f32>>,
    /// Output of the network for each class of the data; predict names the outputs by it: TOML, or
    /// lines of class, tab, index.
    #[arg(long, value_name = "FILE")]
    pub class_map: Option<PathBuf>,
}

impl InputOptions {
    pub fn overrides(&self) -> InputOverrides {
        let Self { size, resize, mean, std, class_map } = self.clone();
        let [size, resize] = [size, resize].map(|pixels| pixels.map(usize::from));
        InputOverrides { size, resize, mean, std, class_map }
    }

    /// The flags that are given, of those that say how images become the network's input.
    pub fn of_images(&self) -> Vec<&'static str> {
        let Self { size, resize, mean, std, class_map: _ } = self;
        given([
            ("--size", size.is_some()),
            ("--resize", resize.is_some()),
            ("--mean", mean.is_some()),
            ("--std", std.is_some()),
        ])
    }
}

/// The names of the flags that are given.
pub fn given<const N: usize>(flags: [(&'static str, bool); N]) -> Vec<&'static str> {
    flags.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag).collect()
}
