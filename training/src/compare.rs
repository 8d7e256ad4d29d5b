//! Several blocks, one recipe, several seeds, one honest table.

use serde::Serialize;

use crate::config::Config;
use crate::engine::Trainer;
use crate::error::{Error, Result};
use crate::evaluate::evaluate;
use crate::fold::multi_branch_blocks;
use crate::observer::Observer;
use crate::report::{self, State};
use crate::run_dir::RunDir;
use crate::stop::Stop;
use burn::tensor::Device;
use dbb_models::Reparameterize;
use dbb_models::summary::learnable_params;
use std::path::{Path, PathBuf};

/// One run. Percent for accuracies.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Architecture.
    pub arch: String,
    /// Block.
    pub block: String,
    /// Seed.
    pub seed: u64,
    /// Validation top-1 of the training form after the last epoch.
    pub top1: f64,
    /// The same of the folded network.
    pub top1_deploy: f64,
    /// Learnable parameters in training.
    pub params_train: usize,
    /// Parameters after folding.
    pub params_deploy: usize,
    /// Seconds of training and validation.
    pub seconds: f64,
    /// Blocks of several branches that were folded.
    pub blocks_folded: usize,
    /// Largest difference of validation logits between both forms, relative to the largest logit.
    pub fold_max_rel_diff: f64,
    /// The run directory.
    pub run_dir: PathBuf,
}

/// One block over all seeds.
#[derive(Clone, Debug, Serialize)]
pub struct SummaryRow {
    /// Architecture.
    pub arch: String,
    /// Block.
    pub block: String,
    /// Seeds.
    pub n: usize,
    /// Mean top-1.
    pub top1_mean: f64,
    /// Standard deviation of top-1 over the seeds; null for one seed.
    pub top1_sd: Option<f64>,
    /// Mean difference to the architecture's first block, seed by seed; null for that block
    /// itself and for one seed, whose difference says nothing.
    pub delta: Option<f64>,
    /// Half the width of the 95 % confidence interval of `delta` (Student's t, paired).
    pub delta_ci95: Option<f64>,
}

/// The whole comparison.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// Every run.
    pub rows: Vec<Row>,
    /// Every block.
    pub summary: Vec<SummaryRow>,
}

/// Trains every configuration with `seeds` seeds each, from the configuration's own on, into
/// folders below `out`; a report in `out` is written anew after every run. `stop` ends it, with
/// the run under way saved.
///
/// # Errors
/// As training has them. Finished runs stay where they are.
pub fn compare(
    configs: &[Config],
    seeds: u64,
    out: &Path,
    device: &Device,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    let mut runs = Vec::new();
    let planned = configs.len() * seeds as usize;
    let folder = RunDir::new(out);
    let report = |comparison: &Comparison, runs: &[report::Run], state: &State| {
        let page = report::compare_page(comparison, runs, out, planned, state);
        folder.write(&folder.report(), &page)
    };
    // Seed by seed, so that an early stop leaves whole pairs.
    for seed in 0..seeds {
        for config in configs {
            let config = Config { seed: config.seed + seed, ..config.clone() };
            match run(config, out, device, stop, observer) {
                Ok((row, run)) => {
                    comparison.rows.push(row);
                    runs.push(run);
                }
                Err(error) => {
                    // A folder in which nothing was done keeps the report it may have.
                    if !runs.is_empty() {
                        report(&comparison, &runs, &State::Stopped(error.to_string())).ok();
                    }
                    return Err(error);
                }
            }
            comparison.summary = summarise(&comparison.rows);
            let state = if runs.len() < planned { State::Running } else { State::Finished };
            report(&comparison, &runs, &state)?;
        }
    }
    Ok(comparison)
}

fn run(
    config: Config,
    out: &Path,
    device: &Device,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<(Row, report::Run)> {
    let (arch, block, seed) = (config.model.arch, config.model.block, config.seed);
    let run = RunDir::new(out.join(format!("{arch}-{block}-seed{seed}")));
    let mut trainer = Trainer::new(config, run, device)?;
    trainer.stop_on(stop.clone());
    let result = trainer.fit(observer)?;
    let network = trainer.network();
    let deploy = network.reparameterize();
    let mut fold = crate::fold::Comparison::default();
    let device = crate::network_device(&network);
    let train_form = evaluate(&network, trainer.validation(), |batch, logits| {
        let images = batch.to_tensors(&device).0;
        fold.add(logits.clone(), deploy.forward(images));
    })?;
    let row = Row {
        arch: arch.to_string(),
        block: block.to_string(),
        seed,
        top1: train_form.totals.top1(),
        top1_deploy: result.top1,
        params_train: learnable_params(&network),
        params_deploy: learnable_params(&deploy),
        seconds: result.seconds,
        blocks_folded: multi_branch_blocks(&network),
        fold_max_rel_diff: fold.max_rel_diff(),
        run_dir: result.run_dir,
    };
    Ok((row, trainer.report()))
}

/// Mean, spread and paired difference of every block.
pub fn summarise(rows: &[Row]) -> Vec<SummaryRow> {
    let mut blocks: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        if !blocks.contains(&(&row.arch, &row.block)) {
            blocks.push((&row.arch, &row.block));
        }
    }
    let of = |arch: &str, block: &str| -> Vec<&Row> {
        rows.iter().filter(|row| row.arch == arch && row.block == block).collect()
    };
    let first = |arch: &str| blocks.iter().find(|(a, _)| *a == arch).map(|(_, block)| *block);
    let summarise = |&(arch, block): &(&str, &str)| {
        let own = of(arch, block);
        let top1: Vec<f64> = own.iter().map(|row| row.top1).collect();
        let baseline = first(arch).filter(|first| *first != block).map(|first| of(arch, first));
        let differences: Vec<f64> = baseline
            .iter()
            .flatten()
            .filter_map(|base| {
                let pair = own.iter().find(|row| row.seed == base.seed)?;
                Some(pair.top1 - base.top1)
            })
            .collect();
        let n = differences.len();
        let paired = standard_deviation(&differences);
        SummaryRow {
            arch: arch.to_string(),
            block: block.to_string(),
            n: top1.len(),
            top1_mean: mean(&top1),
            top1_sd: standard_deviation(&top1),
            delta: paired.map(|_| mean(&differences)),
            delta_ci95: paired.map(|sd| t_quantile(n - 1) * sd / (n as f64).sqrt()),
        }
    };
    blocks.iter().map(summarise).collect()
}

/// The mean; NaN of none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of a sample (divided by n - 1); `None` for fewer than two values.
pub(crate) fn standard_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The 97.5 % quantile of Student's t distribution (NIST/SEMATECH e-Handbook of Statistical
/// Methods, table 1.3.6.7.2); beyond the table that of the normal distribution.
fn t_quantile(degrees_of_freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    TABLE.get(degrees_of_freedom.wrapping_sub(1)).copied().unwrap_or(1.960)
}

impl Comparison {
    /// Writes `compare.json`, `compare.csv` and `compare.md` into a folder.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn write(&self, folder: &Path) -> Result<()> {
        // Plain data always serialises.
        let json = serde_json::to_string_pretty(self).expect("a comparison is plain data");
        for (name, text) in
            [("compare.json", json), ("compare.csv", self.csv()), ("compare.md", self.markdown())]
        {
            let path = folder.join(name);
            RunDir::new(folder).write(&path, &text).map_err(Error::Io)?;
        }
        Ok(())
    }

    /// One line per run.
    pub fn csv(&self) -> String {
        let mut text =
            String::from("arch,block,seed,top1,top1_deploy,params_train,params_deploy,seconds\n");
        for row in &self.rows {
            text += &format!(
                "{},{},{},{:.4},{:.4},{},{},{:.1}\n",
                row.arch,
                row.block,
                row.seed,
                row.top1,
                row.top1_deploy,
                row.params_train,
                row.params_deploy,
                row.seconds
            );
        }
        text
    }

    /// One line per block, with what its runs cost on average.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| arch | block | seeds | top-1 % | delta to first block | parameters in training | \
             deployed | seconds per run | fold difference |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        for block in &self.summary {
            let rows: Vec<_> = self
                .rows
                .iter()
                .filter(|row| row.arch == block.arch && row.block == block.block)
                .collect();
            let seconds: Vec<f64> = rows.iter().map(|row| row.seconds).collect();
            let fold = rows.iter().fold(0.0f64, |worst, row| worst.max(row.fold_max_rel_diff));
            let (params_train, params_deploy) =
                rows.first().map_or((0, 0), |row| (row.params_train, row.params_deploy));
            let top1 = match block.top1_sd {
                Some(sd) => format!("{:.2} ± {sd:.2}", block.top1_mean),
                None => format!("{:.2}", block.top1_mean),
            };
            let delta = match (block.delta, block.delta_ci95) {
                (Some(delta), Some(ci)) => format!("{delta:+.2} ± {ci:.2}"),
                _ => "-".to_string(),
            };
            text += &format!(
                "| {} | {} | {} | {top1} | {delta} | {params_train} | {params_deploy} | {:.1} | {fold:.1e} |\n",
                block.arch,
                block.block,
                block.n,
                mean(&seconds),
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(block: &str, seed: u64, top1: f64) -> Row {
        Row {
            arch: "resnet20".into(),
            block: block.into(),
            seed,
            top1,
            top1_deploy: top1,
            params_train: 2,
            params_deploy: 1,
            seconds: 1.0,
            blocks_folded: 0,
            fold_max_rel_diff: 0.0,
            run_dir: PathBuf::new(),
        }
    }

    /// Against values worked out by hand: differences 1, 2, 3 have mean 2, deviation 1 and the
    /// half width 4.303 / sqrt(3).
    #[test]
    fn differences_are_paired_by_seed() {
        let rows = [
            row("base", 0, 80.0),
            row("dbb", 0, 81.0),
            row("base", 1, 70.0),
            row("dbb", 1, 72.0),
            row("base", 2, 90.0),
            row("dbb", 2, 93.0),
        ];
        let summary = summarise(&rows);
        assert_eq!((summary[0].n, summary[0].top1_mean, summary[0].top1_sd), (3, 80.0, Some(10.0)));
        assert_eq!((summary[0].delta, summary[0].delta_ci95), (None, None));
        assert_eq!(summary[1].delta, Some(2.0));
        assert!((summary[1].delta_ci95.unwrap() - 2.4843).abs() < 1e-3);
    }

    #[test]
    fn one_seed_has_no_spread_and_no_difference() {
        let summary = summarise(&[row("base", 0, 80.0), row("dbb", 0, 81.0)]);
        assert_eq!((summary[1].top1_sd, summary[1].delta), (None, None));
    }
}
