//! `dbb train`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::options::{DeviceName, DeviceOptions};
use crate::progress::Progress;
use dbb_training::calendar::Utc;
use dbb_training::config::{BatchSize, Config, ConfigFileError, ModelSection, TrainSection, shown};
use dbb_training::run::directory::RunDir;
use dbb_training::run::identity::is_free;
use dbb_training::text::plural;
use dbb_training::train::Trainer;
use dbb_training::train::group::{Place, Ranks, devices};
use dbb_training::train::observer::{Observer, Silent};

/// Train a network from a config file.
///
/// Example: dbb train configs/quick/resnet20-dbb.toml --set train.epochs=5 --out runs/first
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration (TOML). With --resume the run directory, or, beside --out, the run's configuration,
    /// which is compared with the run's own.
    config: PathBuf,
    /// Override a key, for example --set optim.lr=0.05.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Run directory; by default runs/<config name>-<date>-<time>, in UTC.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Tell what the run will take instead of training: steps, time, memory, disk. A few steps are measured
    /// and thrown away; nothing is written.
    #[arg(long, conflicts_with_all = ["out", "resume", "devices"])]
    plan: bool,
    /// Resume the run from its last checkpoint, with its own configuration. --set may change what does
    /// not change its results, such as data.workers, and anything with --force. Results are those of an uninterrupted run, bit for bit, with equal threads,
    /// instruction set and number of MPI ranks.
    #[arg(long)]
    resume: bool,
    /// With --resume: accept a changed configuration or changed data, and list the changes.
    #[arg(long, requires = "resume")]
    force: bool,
    #[command(flatten)]
    device: DeviceOptions,
    /// Train on several devices, each with its part of every batch, for example cuda:0,cuda:1.
    #[arg(long, value_name = "D,D", value_delimiter = ',', conflicts_with = "device")]
    #[arg(value_parser = DeviceName, hide_possible_values = true)]
    devices: Vec<String>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, ranks: &Ranks) -> anyhow::Result<()> {
    let key = |set: &String| set.split('=').next().unwrap_or_default().trim().to_string();
    let changing = args.set.iter().map(key).find(|key| !is_free(key));
    if args.resume
        && !args.force
        && let Some(key) = changing
    {
        let text = format!(
            "--resume uses the run's own configuration; add --force to change {key} with --set\n"
        );
        return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, text).into());
    }
    anyhow::ensure!(
        ranks.size() == 1 || args.devices.is_empty(),
        "--devices is for one process; a launcher started {}, each of which takes a device of its own",
        ranks.size()
    );
    if args.plan {
        anyhow::ensure!(
            ranks.size() == 1,
            "--plan measures one process, and a launcher started {}; start it without the launcher",
            ranks.size()
        );
        return crate::plan::run(&args.config, &args.set, &args.device.open()?, args.json);
    }
    let devices = match args.devices.is_empty() {
        true => Vec::new(),
        false => {
            args.device.start_threads()?;
            devices::open(&args.devices).map_err(dbb_training::Error::from)?
        }
    };
    let place = match devices.first() {
        Some(leader) => Place::from(leader),
        None => args.device.open_on(ranks)?,
    };
    let mut trainer = if args.resume {
        Trainer::resume(args.run_to_resume()?, place, args.force, &args.set)?
    } else {
        let config = Config::load(&args.config, &args.set).map_err(or_resume)?;
        let rate = crate::plan::Rate::of(&args.config, &args.set, &config);
        let out = args.out.clone().unwrap_or_else(|| default_out(&args.config));
        let trainer = Trainer::new(config, RunDir::new(out), place)?;
        if ranks.is_first() {
            rate.announce(trainer.batch_size());
        }
        trainer
    };
    trainer.train_on(&devices)?;
    trainer.stop_on(crate::signals::stop()?);
    let result = trainer.fit(&mut *observer(ranks))?;
    if !ranks.is_first() {
        return Ok(());
    }
    let run = RunDir::new(&result.run_dir);
    crate::print(args.json, &result, || {
        format!(
            "top-1 {:.2}% (best {:.2}%), top-5 {:.2}% of the folded network after {}\n\
             {:.1} s, {:.0} images/s\n\
             run directory: {}\nfolded weights: {}\nreport: {}",
            result.top1_deploy,
            result.best_top1_deploy,
            result.top5_deploy,
            plural(result.epochs, "epoch"),
            result.seconds,
            result.images_per_second,
            result.run_dir.display(),
            run.deploy_weights().display(),
            run.report().display()
        )
    })
}

/// The first of several ranks shows the progress of all.
pub fn observer(ranks: &Ranks) -> Box<dyn Observer> {
    match ranks.is_first() {
        true => Box::new(Progress::new()),
        false => Box::new(Silent),
    }
}

/// A folder in the place of a configuration may be a run to resume.
pub fn or_resume(error: ConfigFileError) -> anyhow::Error {
    match error {
        ConfigFileError::Folder(_) => {
            anyhow::anyhow!("{error}, or add --resume to resume the run in it")
        }
        error => error.into(),
    }
}

impl Args {
    /// The run that --resume means. A configuration beside --out must be the run's own.
    fn run_to_resume(&self) -> anyhow::Result<RunDir> {
        let Some(out) = &self.out else { return Ok(RunDir::new(&self.config)) };
        let run = RunDir::new(out);
        if self.config.is_dir() {
            let real = |path: &Path| fs::canonicalize(path).ok();
            anyhow::ensure!(
                real(&self.config) == real(out),
                "{} and --out {} are two folders; name the run to resume once",
                self.config.display(),
                out.display()
            );
            return Ok(run);
        }
        let given = Config::load_run(&self.config, &self.set)?;
        if run.exists() {
            let own = Config::load_run(&run.config(), &self.set)?;
            // Values that the file leaves to the data are written out in the run.
            let model = ModelSection {
                num_classes: given.model.num_classes.or(own.model.num_classes),
                in_channels: given.model.in_channels.or(own.model.in_channels),
                ..given.model.clone()
            };
            // A batch that was to be found has been.
            let batch_size = match given.train.batch_size {
                BatchSize::Auto => own.train.batch_size,
                given => given,
            };
            let train = TrainSection { batch_size, ..given.train.clone() };
            let differences: Vec<String> = own
                .differences(&Config { model, train, ..given })
                .into_iter()
                .filter(|(key, ..)| !is_free(key))
                .map(|(key, own, given)| {
                    format!("{key} is {} in the run, {} in the file", shown(&own), shown(&given))
                })
                .collect();
            if !differences.is_empty() {
                let (config, run) = (self.config.clone(), out.clone());
                return Err(dbb_training::Error::OtherConfig { config, run, differences }.into());
            }
        }
        Ok(run)
    }
}

/// `runs/<name>-<date>-<time>` in UTC, such as `runs/resnet20-dbb-2026-11-25-014205`: names that
/// sort by time. A number is appended to a name that is taken.
pub fn default_out(config: &Path) -> PathBuf {
    let name = config.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{name}-{}", Utc::now().compact());
    let path = Path::new("runs").join(&name);
    let others = (2u64..).map(|number| Path::new("runs").join(format!("{name}-{number}")));
    // Some number is unused.
    std::iter::once(path.clone()).chain(others).find(|path| !path.exists()).unwrap_or(path)
}
