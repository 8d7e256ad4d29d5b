//! `dbb inspect`.

use std::path::PathBuf;

use burn::tensor::Device;
use serde::Serialize;

use crate::fold_blocks::{BlockOptions, name_unmarked};
use crate::options::{TargetOptions, given};
use crate::page::{check_page, displayed, write_page};
use dbb_training::device::start_threads;
use dbb_training::inspect::{Inspection, LayerBranches, Window};
use dbb_training::report::branches_page;
use dbb_training::text::plural;

/// Show what the branches of each block have learnt: their shares in the folded kernel, the scales of
/// their closing norms, kernel magnitudes by position, and how well the fold is conditioned.
///
/// A file that does not describe its network is inspected block by block, as reparam folds it, unless
/// --arch is given.
///
/// Example: dbb inspect runs/first --out branches.html
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    blocks: BlockOptions,
    /// Write a page with bars, curves and heat maps.
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Result<'a> {
    #[serde(flatten)]
    inspection: &'a Inspection,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "displayed")]
    out: Option<&'a PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    args.refuse_unused()?;
    args.out.as_deref().map_or(Ok(()), |out| check_page("--out", out))?;
    // The check of a fold computes; this refuses an instruction set that does not exist.
    start_threads(None)?;
    let inspection = match args.target.unknown_network()? {
        Some(file) => {
            let hint = name_unmarked(&file.tensors);
            let weights = args.target.weights();
            Inspection::of_blocks(file, &args.blocks.rules(), weights).map_err(hint)?
        }
        None => {
            args.blocks.refuse_for_networks()?;
            Inspection::of_network(&args.target.load(&Device::default())?)?
        }
    };
    if let Some(path) = &args.out {
        write_page(path, &branches_page(&inspection))?;
    }
    let result = Result { inspection: &inspection, out: args.out.as_ref() };
    crate::print(args.json, &result, || {
        let mut text = text(&inspection);
        if let Some(path) = &args.out {
            text += &format!("written to {}", path.display());
        }
        text
    })
}

impl Args {
    /// Refuses the flags of images, none of which is read.
    fn refuse_unused(&self) -> anyhow::Result<()> {
        let input = &self.target.input;
        let mut unused = input.of_images();
        unused.extend(given([("--class-map", input.class_map.is_some())]));
        anyhow::ensure!(unused.is_empty(), "no image is read; leave {} out", unused.join(", "));
        Ok(())
    }
}

fn text(inspection: &Inspection) -> String {
    let widest = inspection.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0).max(5);
    let mut text = format!(
        "{:<widest$} {:<9} {:>6} {:>13} {:>10}  share of each branch in the folded kernel\n",
        "layer", "block", "kernel", "amplification", "difference"
    );
    text += &inspection.layers.iter().map(|layer| row(layer, widest)).collect::<String>();
    let names = inspection.branch_names();
    if names.len() > 1 {
        let shares = names.iter().map(|name| percent(name, inspection.mean_share(name)));
        let shares: Vec<_> = shares.collect();
        text += &format!("mean over the layers that have a branch: {}\n", shares.join(", "));
    }
    text + &inspection.windows.iter().map(magnitudes).collect::<String>()
}

fn row(layer: &LayerBranches, widest: usize) -> String {
    let [.., height, width] = layer.kernel;
    let shares: Vec<_> =
        layer.branches.iter().map(|branch| percent(&branch.name, branch.share)).collect();
    format!(
        "{:<widest$} {:<9} {:>6} {:>13.2} {:>10.1e}  {}\n",
        layer.name,
        layer.block,
        format!("{height}x{width}"),
        layer.amplification.max,
        layer.fold_difference,
        shares.join(", ")
    )
}

fn percent(name: &str, share: f64) -> String {
    format!("{name} {:.1}%", 100.0 * share)
}

fn magnitudes(window: &Window) -> String {
    let [height, width] = window.kernel;
    let layers = plural(window.layers, "layer");
    let mut text = format!("folded {height}x{width} kernels by position, mean of {layers}:\n");
    for row in &window.magnitude {
        let row: Vec<_> = row.iter().map(|value| format!("{value:.2}")).collect();
        text += &format!("  {}\n", row.join(" "));
    }
    text
}
