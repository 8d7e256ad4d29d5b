//! `dbb reparam` on a file that does not describe its network.

use std::path::Path;

use dbb_models::weights::{
    BlockFold, FoldedBlock, LoadOptions, StateDict, WeightsFile, unmarked_blocks, write_foreign,
};
use serde::Serialize;

use crate::written::Written;
use dbb_training::Error;
use dbb_training::deploy::fold::{fold_blocks, learnable_values};
use dbb_training::text::plural;

/// What the shapes of a block do not determine.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files of other networks")]
pub struct BlockOptions {
    /// Groups of the blocks that match the pattern, where their shapes leave them open. The folded
    /// kernel is the same with any; the list and the check use them.
    #[arg(long, value_name = "PATTERN=N", value_parser = number)]
    groups: Vec<(String, usize)>,
    /// Stride of the blocks that match the pattern [default: 1]. It matters to a QARepVGG block alone,
    /// whose identity leaves no tensor: with stride 1 and as many outputs as inputs it has one.
    #[arg(long, value_name = "PATTERN=N", value_parser = number)]
    strides: Vec<(String, usize)>,
    /// Fold the RepConv blocks of YOLOv9 and Ultralytics' YOLO whose names match the pattern: their
    /// submodules are called conv1 and conv2, as in many other modules, so they cannot be recognised by
    /// name.
    #[arg(long, value_name = "PATTERN")]
    repconv: Vec<String>,
    /// Epsilon of the batch norms [default: 1e-5].
    #[arg(long, value_name = "EPSILON", value_parser = epsilon)]
    bn_eps: Option<f64>,
}

fn number(text: &str) -> Result<(String, usize), String> {
    let (pattern, number) = text.rsplit_once('=').unwrap_or_default();
    match number.parse() {
        Ok(number) if number > 0 && !pattern.is_empty() => Ok((pattern.to_string(), number)),
        _ => Err("expected a pattern and a number above 0, such as 'neck.*=2'".into()),
    }
}

fn epsilon(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(epsilon) if (0.0..=1.0).contains(&epsilon) => Ok(epsilon),
        _ => Err("expected a number from 0 to 1, such as 1e-3".into()),
    }
}

impl BlockOptions {
    /// What the flags say of the blocks.
    pub fn rules(&self) -> BlockFold {
        let default = BlockFold::default();
        BlockFold {
            epsilon: self.bn_eps.unwrap_or(default.epsilon),
            groups: self.groups.clone(),
            strides: self.strides.clone(),
            unmarked: self.repconv.clone(),
        }
    }

    /// A network of the zoo knows its groups, strides and norms.
    pub fn refuse_for_networks(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.groups.is_empty()
                && self.strides.is_empty()
                && self.repconv.is_empty()
                && self.bn_eps.is_none(),
            "--groups, --strides, --repconv and --bn-eps are for files of unknown networks; leave them out for a network \
             that is known"
        );
        Ok(())
    }
}

#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    written: Written,
    bn_eps: f64,
    folded: Vec<Block>,
    /// What may be a block and was left as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<String>,
}

#[derive(Serialize)]
struct Block {
    name: String,
    block: String,
    kernel: [usize; 4],
    groups: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assumed_identity: Option<bool>,
    max_rel_diff: f64,
}

impl From<&FoldedBlock> for Block {
    fn from(folded: &FoldedBlock) -> Self {
        Self {
            name: folded.name.clone(),
            block: folded.kind.to_string(),
            kernel: folded.kernel,
            groups: folded.groups,
            assumed_identity: folded.assumed_identity,
            max_rel_diff: folded.max_rel_diff,
        }
    }
}

/// Folds the blocks of a file one by one.
pub fn run(
    file: WeightsFile,
    options: &BlockOptions,
    weights: LoadOptions,
    out: &Path,
    json: bool,
) -> anyhow::Result<()> {
    let fold = options.rules();
    let params_train = learnable_values(&file.tensors);
    let unmarked = name_unmarked(&file.tensors);
    let (tensors, blocks) = fold_blocks(file, &fold, weights).map_err(unmarked)?;
    write_foreign(out, &tensors).map_err(dbb_training::Error::from)?;
    let worst = |of: fn(&FoldedBlock) -> f64| blocks.iter().map(of).reduce(f64::max);
    let written = Written {
        blocks_folded: blocks.len(),
        params_train,
        params_deploy: learnable_values(&tensors),
        max_abs_diff: worst(|block| block.max_abs_diff),
        max_rel_diff: worst(|block| block.max_rel_diff),
        // Blocks have no labels.
        top1_agreement: None,
        compared_on: (!blocks.is_empty()).then(|| "a random map for each block".into()),
        rounding: None,
        int8: None,
        labels: None,
        out: out.into(),
    };
    let summary = Summary {
        written,
        bn_eps: fold.epsilon,
        folded: blocks.iter().map(Block::from).collect(),
        left: unmarked_blocks(&tensors),
    };
    crate::print(json, &summary, || text(&summary))
}

/// Explains that a file holds no block, if it has modules that may be some.
pub fn name_unmarked(tensors: &StateDict) -> impl FnOnce(Error) -> anyhow::Error + use<> {
    let unmarked = unmarked_blocks(tensors);
    move |error| match error {
        Error::NoBlocks(_) if !unmarked.is_empty() => {
            anyhow::anyhow!("{error}; {}", hint(&unmarked))
        }
        error => error.into(),
    }
}

/// Names listed of what may be blocks.
const LISTED: usize = 4;

fn hint(names: &[String]) -> String {
    let more = if names.len() > LISTED { ", ..." } else { "" };
    let listed: Vec<_> = names.iter().take(LISTED).map(String::as_str).collect();
    format!(
        "{} modules may be RepConv blocks of YOLOv9 or Ultralytics' YOLO ({}{more}); pass --repconv \
         PATTERN to fold those that are",
        names.len(),
        listed.join(", ")
    )
}

fn text(summary: &Summary) -> String {
    let mut text = String::new();
    for block in &summary.folded {
        let [outputs, per_group, kh, kw] = block.kernel;
        let groups = match block.groups {
            Some(groups) => {
                let channels = per_group * groups;
                format!("{channels} to {outputs} channels, {}", plural(groups, "group"))
            }
            None => format!("{per_group} per group to {outputs} channels"),
        };
        text += &format!(
            "{}: {} {kh}x{kw}, {groups}, difference {:.1e}\n",
            block.name, block.block, block.max_rel_diff
        );
        if let Some(identity) = block.assumed_identity {
            let assumed = match identity {
                true => {
                    "assumed to have an identity branch, which leaves no tensor; if the block has a \
                     stride, give it with --strides"
                }
                false => {
                    "assumed to have no identity branch, which would leave no tensor; if the block has \
                     one, give its groups with --groups"
                }
            };
            text += &format!("{}: {assumed}\n", block.name);
        }
    }
    let Written { blocks_folded, params_train, params_deploy, .. } = &summary.written;
    text += &format!(
        "{} folded with batch norm epsilon {:e}: {params_train} values became {params_deploy}\n",
        plural(*blocks_folded, "block"),
        summary.bn_eps
    );
    if !summary.left.is_empty() {
        text += &format!("left as they are: {}\n", hint(&summary.left));
    }
    if let (Some(difference), Some(compared_on)) =
        (summary.written.max_rel_diff, &summary.written.compared_on)
    {
        text += &format!(
            "largest difference {difference:.2e} of a block's largest output, on {compared_on}\n"
        );
    }
    text + &format!("written to {}", summary.written.out.display())
}
