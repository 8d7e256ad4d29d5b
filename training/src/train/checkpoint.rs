//! A run as it is saved and resumed: tensors, and its [`Progress`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::store::burn_pack;
use burn::store::{ApplyError, BurnpackStore, ModuleSnapshot};
use burn::tensor::DType;
use dbb_models::Classifier;
use dbb_models::weights::{Metadata, write_burnpack};

use crate::error::{Error, Result};
use crate::run::directory::{CheckpointId, RunDir};
use crate::run::progress::{Progress, read_progress};
use crate::train::average::Ema;
use crate::train::optimizer::Optimizer;

/// A run at one moment.
pub struct RunState {
    /// The network in training form, on the autodiff device.
    pub network: Classifier,
    /// Its average, if the configuration has one.
    pub ema: Option<Ema>,
    /// The optimizer with its momenta.
    pub optimizer: Optimizer,
    /// Everything else.
    pub progress: Progress,
}

/// Saves the state of a run, whole or not at all. The last `keep_last` checkpoints and the best
/// are kept.
///
/// # Errors
/// What the file system reports; earlier checkpoints are left as they were.
pub fn save(
    run: &RunDir,
    state: &mut RunState,
    metadata: &Metadata,
    keep_last: usize,
) -> Result<()> {
    let RunState { network, ema, optimizer, progress } = state;
    let record = optimizer.inner.to_record();
    progress.optimizer_states = record.len();
    let mut keep: Vec<CheckpointId> =
        run.checkpoint_ids()?.into_iter().rev().filter(|mark| *mark < progress.mark).collect();
    keep.truncate(keep_last - 1);
    keep.push(CheckpointId { epoch: progress.best_epoch, batch: 0 });
    run.save_checkpoint(progress.mark, &keep, |folder| {
        write_burnpack(&RunDir::network(folder), &network.valid(), metadata)?;
        if let Some(ema) = ema {
            write_burnpack(&RunDir::ema(folder), &ema.network, metadata)?;
        }
        let bytes = record.into_bytes().map_err(|e| e.to_string()).and_then(in_order);
        let bytes = bytes.map_err(Error::Unusable)?;
        fs::write(RunDir::optimizer(folder), &*bytes)?;
        // Plain data always serialises.
        let json = serde_json::to_string_pretty(progress).expect("progress is plain data");
        fs::write(RunDir::state(folder), json)?;
        Ok(())
    })
}

/// The bytes of an optimizer's record with its tensors in the order of their names. Burn writes
/// them in the order of a hash table, which would make unequal files of equal states.
fn in_order(bytes: burn_pack::Bytes) -> std::result::Result<burn_pack::Bytes, String> {
    let reader = burn_pack::Reader::from_bytes(bytes).map_err(|e| e.to_string())?;
    let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
    let mut tensors = reader.into_tensors().map_err(|e| e.to_string())?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut writer = burn_pack::Writer::new(tensors);
    for (key, value) in &scalars {
        writer = writer.with_scalar(key, *value);
    }
    for (key, value) in &metadata {
        writer = writer.with_metadata(key, value);
    }
    writer.into_bytes().map_err(|e| e.to_string())
}

/// Restores what [`save`] saved: weights with the identities of their parameters, so that every
/// momentum finds its parameter again. `fresh` is the run before its beginning, `optimizer` makes a
/// fresh one for the restored network: its rules refer to these identities, too.
///
/// # Errors
/// A checkpoint that is incomplete, damaged, or of another network.
pub fn restore(
    checkpoint: &Path,
    fresh: RunState,
    optimizer: impl FnOnce(&Classifier) -> Optimizer,
) -> Result<RunState> {
    let fail = |reason: String| Error::Checkpoint { path: checkpoint.into(), reason };
    let progress = read_progress(checkpoint)?;
    let load = |mut network: Classifier, path: &Path| {
        // What does not fit is listed tensor by tensor.
        let mut store = BurnpackStore::from_file(path).validate(false).allow_partial(true);
        let loaded = network.load_from(&mut store).map_err(|e| fail(e.to_string()))?;
        let other = |tensor: String| {
            let text = "its network is another one than the configuration's";
            Err(fail(format!("{text}: the first tensor that does not fit is {tensor}")))
        };
        match (loaded.errors.first(), loaded.missing.first()) {
            (Some(ApplyError::ShapeMismatch { path, expected, found }), _) => {
                let [found, expected] = [found, expected].map(|shape| shape.to_vec());
                other(format!("{path}, {found:?} in the checkpoint and {expected:?} here"))
            }
            (Some(error), _) => Err(fail(error.to_string())),
            (None, Some((path, _))) => other(format!("{path}, which the checkpoint lacks")),
            (None, None) => Ok(network),
        }
    };
    let network = load(fresh.network, &RunDir::network(checkpoint))?;
    let ema = match fresh.ema {
        // Forced into a run that had none, the average begins here.
        Some(ema) if !RunDir::ema(checkpoint).exists() => {
            Some(Ema { network: network.valid(), ..ema })
        }
        Some(ema) => {
            let network = load(ema.network.clone(), &RunDir::ema(checkpoint))?;
            Some(Ema { network, ..ema })
        }
        None => None,
    };
    let path = RunDir::optimizer(checkpoint);
    check_optimizer(&path, &network).map_err(fail)?;
    let mut optimizer = optimizer(&network);
    optimizer.inner = optimizer.inner.load(path).map_err(|e| fail(e.to_string()))?;
    // Burn passes over states it cannot read.
    if optimizer.inner.to_record().len() != progress.optimizer_states {
        return Err(fail("its optimizer state is incomplete or of another optimizer".into()));
    }
    Ok(RunState { network, ema, optimizer, progress })
}

/// Checks that the states of an optimizer are those of parameters of the network: Burn panics at
/// others, when it reads them or in the next step.
fn check_optimizer(path: &Path, network: &Classifier) -> std::result::Result<(), String> {
    let pack = burn_pack::Reader::from_file(path).map_err(|e| e.to_string())?;
    let parameters: BTreeMap<_, _> = network
        .collect(None, None, true)
        .into_iter()
        .filter_map(|tensor| Some((tensor.param_id?.to_string(), tensor.shape)))
        .collect();
    let of = |name: &str| parameters.get(name.split('.').next()?);
    let ranks = pack.scalars().iter().filter(|(name, _)| name.ends_with(".__rank"));
    for (name, rank) in ranks {
        let rank = usize::try_from(*rank).ok();
        if rank.is_none() || rank != of(name).map(|shape| shape.len()) {
            return Err(format!("its optimizer state {name} is of no parameter"));
        }
    }
    for tensor in pack.into_tensors().map_err(|e| e.to_string())? {
        let id = tensor.param_id.map(|id| id.to_string());
        let same = id.as_deref() == tensor.name.split('.').next();
        if !same || of(&tensor.name) != Some(&tensor.shape) || tensor.dtype != DType::F32 {
            return Err(format!("its optimizer state {} is of no parameter", tensor.name));
        }
    }
    Ok(())
}
