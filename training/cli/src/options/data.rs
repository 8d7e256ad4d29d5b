//! Which images, and what is assumed about them.

use clap::Args;
use dbb_datasets::{DataRef, Layout, Loader, LoaderConfig, Preprocess, Split};

use dbb_training::Error;
use dbb_training::inference::loaded_model::LoadedModel;
use dbb_training::inference::probe::Probe;
use dbb_training::run::directory::RunDir;

/// Which images.
#[derive(Clone, Debug, Args)]
pub struct DataOptions {
    /// Data; by default the run's own.
    #[arg(long, help = data_kinds("Data", "; by default the run's own"))]
    pub data: Option<DataRef>,
    /// Images in a batch.
    #[arg(long, visible_alias = "batch", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
}

/// The help of an option that names data.
pub fn data_kinds(what: &str, default: &str) -> String {
    format!("{what}: sample, a folder, or KIND:PATH with KIND one of {}{default}", Layout::names())
}

impl DataOptions {
    /// What forms of a target are compared on.
    pub fn probe(&self, target: &LoadedModel) -> dbb_training::Result<Probe> {
        let probe = target.probe(self.data.as_ref(), self.batch_size as usize)?;
        match &probe {
            Probe::Data(loader) => announce_data(target, loader)?,
            Probe::Random(_) => announce_size(target, &target.preprocess(None)?)?,
        }
        Ok(probe)
    }

    /// A loader over a split for a target, or over `limit` images of it, in the data set's order.
    pub fn loader(
        &self,
        target: &LoadedModel,
        split: Split,
        limit: Option<u32>,
    ) -> dbb_training::Result<Loader> {
        if let Some(DataRef::Folder { path, .. }) = &self.data
            && RunDir::new(path).exists()
        {
            let path = path.display();
            let text = format!("--data {path} is a run directory; name the folder of its images");
            return Err(Error::Unusable(text));
        }
        let dataset = target.dataset(self.data.as_ref(), split)?;
        let dataset = dataset.limit(limit.map_or(dataset.len(), |limit| limit as usize));
        let config = LoaderConfig { batch_size: self.batch_size as usize, ..Default::default() };
        let loader = target.loader_over(dataset, config)?;
        announce_data(target, &loader)?;
        Ok(loader)
    }
}

/// Notes on standard error what is assumed about the images of a loader.
fn announce_data(target: &LoadedModel, loader: &Loader) -> dbb_training::Result<()> {
    announce_size(target, loader.pipeline().preprocess())?;
    let dataset = loader.dataset();
    if let (true, Some(first)) = (target.is_matched_by_order(dataset), dataset.classes().first()) {
        crate::say(&format!(
            "note: {} does not name its classes; they are taken to be those of {} in their order, \
             output 0 for \"{first}\" (--class-map FILE assigns outputs to classes)",
            target.path.display(),
            dataset.describe()
        ));
    }
    Ok(())
}

/// Notes on standard error that images have another size than the network was made for.
pub fn announce_size(target: &LoadedModel, preprocess: &Preprocess) -> dbb_training::Result<()> {
    let Some(note) = target.size_note(preprocess.size.into())? else { return Ok(()) };
    let file = target.path.display();
    let ([height, width], [own_height, own_width]) = (note.size, note.usual);
    crate::say(&match note.is_known {
        true => format!(
            "note: the input of {file} is {own_height}x{own_width}; it gets {height}x{width} instead"
        ),
        false => format!(
            "note: {file} does not say the size of its input; it gets {height}x{width}, where its \
             paper has {own_height}x{own_width}{}",
            if target.input.size.is_some() { "" } else { " (--size PIXELS sets it)" }
        ),
    });
    Ok(())
}
