//! Hints for errors of the library, which knows no flags.

use dbb_datasets::DataError;
use dbb_models::weights::{Lookalike, WeightsError};
use dbb_training::Error;
use dbb_training::Property;
use dbb_training::config::{ConfigFileError, Place};
use dbb_training::device::DeviceError;

/// An error as a sentence, with the flags that help.
pub fn sentence(error: &anyhow::Error) -> String {
    let of_library = error.downcast_ref::<Error>();
    let of_config = match of_library {
        Some(Error::ConfigFile(error)) => Some(error),
        _ => error.downcast_ref::<ConfigFileError>(),
    };
    match of_config {
        Some(ConfigFileError::Fault { place: Place::Override(key), text }) => {
            return format!("--set {key}: {text}");
        }
        Some(ConfigFileError::Override { text, detail }) => {
            return format!(
                "--set {text}: {detail}; expected KEY=VALUE, for example --set optim.lr=0.05"
            );
        }
        _ => {}
    }
    if let Some(Error::Data(DataError::Setting { name, value, expected })) = of_library
        && let Some(flag) = name.strip_prefix("preprocess.")
    {
        return format!("--{flag} is {value}, expected {expected}");
    }
    match of_library.and_then(hint) {
        Some(hint) => format!("{error}; hint: {hint}"),
        None => error.to_string(),
    }
}

fn hint(error: &Error) -> Option<String> {
    Some(match error {
        Error::Undescribed { missing, .. } => {
            format!("give --arch, --block, --width and --classes ({} is missing)", flag(*missing))
        }
        Error::Contradiction { property, .. } => format!("leave {} out", flag(*property)),
        Error::NoCheckpoints(_) => "leave --checkpoint out".into(),
        Error::NoBlocks(_) => {
            "to fold the batch norms of a network of the zoo, say which it is with --arch".into()
        }
        Error::NoData(_) => "name data with --data".into(),
        Error::Classes(_) => "--class-map FILE assigns outputs to classes".into(),
        Error::RunExists(run) => format!(
            "give another --out, or continue the run with `dbb train {} --resume`",
            run.display()
        ),
        Error::OtherComparison { .. } => "give another --out".into(),
        Error::OtherPlan { .. } => "undo the change, or give another --out".into(),
        Error::Stopped { folder, .. } => {
            format!("the same command with --out {} resumes it", folder.display())
        }
        Error::NoRun(_) => "name the run directory, or give it with --out".into(),
        Error::NoCheckpoint { .. } => "--out names another directory".into(),
        Error::OtherConfig { run, .. } => format!(
            "leave the file out (`dbb train {} --resume`), or change the run with --force --set \
             KEY=VALUE",
            run.display()
        ),
        Error::Changed { .. } => "--force accepts the change".into(),
        Error::Interrupted { run, .. } => {
            format!("`dbb train {} --resume` resumes it", run.display())
        }
        Error::Device(DeviceError::TooManyThreads { .. } | DeviceError::Threads { .. }) => {
            "--threads N sets how many".into()
        }
        Error::Device(DeviceError::Alone(_)) => {
            "name several as --devices cuda:0,cuda:1, or one with --device".into()
        }
        Error::Weights(WeightsError::NonFinite { .. }) => {
            "a diverged training or a damaged file leaves such weights; eval, predict, recalibrate, reparam, \
             export and inspect accept them with --allow-nonfinite"
                .into()
        }
        Error::Weights(WeightsError::Keys { lookalike: Some(found), .. }) => {
            let Lookalike { arch, block, num_classes, .. } = **found;
            format!(
                "give --arch {arch} --block {block} --classes {num_classes}, or in a configuration \
                 model.arch and model.block"
            )
        }
        Error::Weights(WeightsError::Keys { classes: Some(classes), .. }) => format!(
            "give --classes {}, or train on your own classes with model.init_from, which \
             replaces the classifier",
            classes[0]
        ),
        Error::Weights(WeightsError::Unfolded { .. }) => "leave --form train out".into(),
        Error::Stale(_) => "`dbb results` without --check writes them again".into(),
        Error::NonFiniteOutput(_) => {
            "the values overflow, or the weights or the input are not finite".into()
        }
        Error::Arm { error, .. } => return hint(error),
        _ => return None,
    })
}

fn flag(property: Property) -> &'static str {
    match property {
        Property::Arch => "--arch",
        Property::Block => "--block",
        Property::Width => "--width",
        Property::Classes => "--classes",
        Property::Channels => "--channels",
    }
}
