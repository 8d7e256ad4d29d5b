//! `dbb compare`.

use std::path::PathBuf;

use dbb_models::BlockKind;

use crate::compare_run;
use crate::options::{DeviceOptions, block};
use crate::progress::Progress;
use crate::train::default_out;
use dbb_training::compare::{Plan, RESOLVE, Setup, compare};
use dbb_training::config::Config;
use dbb_training::run::directory::RunDir;
use dbb_training::train::observer::Observer;

/// Train several configurations with the same seeds, and compare their top-1.
///
/// A configuration is named after its file, or by the key `name`; --blocks puts the block into the
/// name. Its runs are in <name>-seed<seed>. Each is compared with the first of the same file, else of
/// the same architecture, else of all: in pairs of equal seeds where both train on the same images.
///
/// Started again with the same --out, it reads the runs that are finished and resumes those under way.
///
/// Example: dbb compare configs/quick/resnet20-base.toml --blocks base,dbb --seeds 3
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configurations (TOML).
    #[arg(required_unless_present = "study")]
    configs: Vec<PathBuf>,
    /// Study (TOML): arms, seeds and comparisons, fixed in advance.
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["configs", "blocks", "seeds", "set", "resolve"])]
    study: Option<PathBuf>,
    /// Train every configuration with each of these blocks instead of its own; the first is the
    /// baseline.
    #[arg(long, value_delimiter = ',', value_parser = block())]
    blocks: Vec<BlockKind>,
    /// Seeds per configuration, starting from its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    seeds: u16,
    /// Override a key in every configuration, for example --set train.epochs=3.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Say how many seeds resolve a difference of so many points of top-1.
    #[arg(long, value_name = "POINTS", default_value_t = RESOLVE, value_parser = points)]
    resolve: f64,
    /// Folder of the runs and tables; by default runs/compare-<date>-<time>, in UTC. It may hold earlier
    /// runs of the same comparison.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Runs side by side, each with its share of the threads. Results are those of runs one after the
    /// other with as many threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Write the prediction for every validation image into the run directories (predictions.csv).
    #[arg(long)]
    predictions: bool,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// A difference that can be resolved.
fn points(text: &str) -> Result<f64, String> {
    let points = text.parse().ok().filter(|points: &f64| *points > 0.0 && points.is_finite());
    points.ok_or_else(|| "expected a number above 0".into())
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let plan = args.plan()?;
    let threads = args.device.share_threads(args.jobs.into())?;
    let device = args.device.open_with(threads)?;
    let default = args.study.as_deref().unwrap_or("compare".as_ref());
    let out = args.out.clone().unwrap_or_else(|| default_out(default));
    let program = std::env::current_exe()?;
    let stop = crate::signals::stop()?;
    let setup = Setup {
        out: &out,
        jobs: args.jobs.into(),
        predictions: args.predictions,
        device: &device,
        command: &|run| compare_run::command(&program, run, &args.device.device, threads),
        observe: &|name, seed| -> Box<dyn Observer> {
            match args.jobs {
                1 => Box::new(Progress::new()),
                _ => Box::new(Progress::labelled(format!("{name}, seed {seed}"))),
            }
        },
        given: given(std::env::args_os().map(|word| word.to_string_lossy().into_owned())),
        commit: compare_run::COMMIT,
        stop: &stop,
    };
    let comparison = compare(&plan, &setup, &mut Progress::new())?;
    crate::print(args.json, &comparison, || {
        format!(
            "{}\ntables: {} (.json, .csv, .md)\nfolded weights: {}\nreport: {}",
            comparison.markdown(),
            out.join("compare").display(),
            out.join("*").join("export").join("deploy.safetensors").display(),
            RunDir::new(&out).report().display()
        )
    })
}

/// A command as a shell reads it, without what decides where its results go.
fn given(mut words: impl Iterator<Item = String>) -> String {
    // The program, wherever it lies.
    words.next();
    let mut given = vec!["dbb".to_string()];
    while let Some(word) = words.next() {
        match word.as_str() {
            "--out" => drop(words.next()),
            "--json" => {}
            out if out.starts_with("--out=") => {}
            plain if plain.chars().all(|c| c.is_alphanumeric() || "-_.+=,/:".contains(c)) => {
                given.push(word);
            }
            other => given.push(format!("'{}'", other.replace('\'', "'\\''"))),
        }
    }
    given.join(" ")
}

impl Args {
    fn plan(&self) -> anyhow::Result<Plan> {
        if let Some(study) = &self.study {
            return Ok(Plan::study(study)?);
        }
        let recipes = self.configs.iter().map(|path| {
            let config = Config::load(path, &self.set)?;
            Ok((path.clone(), config))
        });
        let recipes = recipes.collect::<dbb_training::Result<Vec<_>>>()?;
        let plan = Plan::of(&recipes, &self.blocks, self.seeds.into())?;
        Ok(Plan { resolve: self.resolve, ..plan })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_that_of_a_shell() {
        let words = [
            "/usr/bin/dbb",
            "compare",
            "my config.toml",
            "--out",
            "runs/x",
            "--set",
            "a.b=[1]",
            "--out=runs/y",
            "--json",
            "--seeds",
            "3",
            "it's",
        ];
        let text = given(words.into_iter().map(String::from));
        assert_eq!(text, r"dbb compare 'my config.toml' --set 'a.b=[1]' --seeds 3 'it'\''s'");
    }
}
