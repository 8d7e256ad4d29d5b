//! The program `dbb`: one file per command. Only this crate prints, ends the process or speaks of
//! flags.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod bench;
mod compare;
mod compare_run;
mod completions;
mod config;
mod devices;
mod eval;
mod export;
mod fold_blocks;
mod format;
mod hints;
mod inspect;
mod int8;
mod job;
mod lr_find;
mod options;
mod output;
mod page;
mod plan;
mod predict;
mod progress;
mod recalibrate;
mod results;
mod signals;
mod summary;
mod train;
mod written;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use serde::Serialize;

use job::Job;

/// Train networks with Diverse Branch Blocks, fold them into plain convolutions, compare them.
#[derive(Debug, Parser)]
#[command(name = "dbb", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    LrFind(lr_find::Args),
    Eval(eval::Args),
    Predict(predict::Args),
    Recalibrate(recalibrate::Args),
    Reparam(export::ReparamArgs),
    Export(export::ExportArgs),
    Compare(compare::Args),
    Results(results::Args),
    Inspect(inspect::Args),
    #[command(hide = true)]
    CompareRun(compare_run::Args),
    Summary(summary::Args),
    Bench(bench::Args),
    Config(config::Args),
    Devices(devices::Args),
    Completions(completions::Args),
}

/// The command line, for documentation and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program: 0 for success, 1 for a user error, 2 for wrong usage, 3 for a failed check, 129, 130 and 143 for a run that was interrupted and saved.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let job = match command {
        Command::Train(_) => Job::join(),
        Command::LrFind(_) => Job::alone("dbb lr-find"),
        Command::Eval(_) => Job::alone("dbb eval"),
        Command::Predict(_) => Job::alone("dbb predict"),
        Command::Recalibrate(_) => Job::alone("dbb recalibrate"),
        Command::Reparam(_) => Job::alone("dbb reparam"),
        Command::Export(_) => Job::alone("dbb export"),
        Command::Compare(_) => Job::alone("dbb compare"),
        Command::Results(_) => Job::alone("dbb results"),
        Command::Inspect(_) => Job::alone("dbb inspect"),
        Command::Bench(_) => Job::alone("dbb bench"),
        // They write nothing. A run of a comparison is a process of `dbb compare`.
        Command::CompareRun(_)
        | Command::Summary(_)
        | Command::Config(_)
        | Command::Devices(_)
        | Command::Completions(_) => Ok(Job::default()),
    };
    let job = match job {
        Ok(job) => job,
        Err(error) => {
            say(&format!("error: {error}"));
            return ExitCode::from(1);
        }
    };
    let result = match command {
        Command::Train(args) => train::run(&args, &job.ranks()),
        Command::LrFind(args) => lr_find::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Recalibrate(args) => recalibrate::run(&args),
        Command::Reparam(args) => export::reparam(&args),
        Command::Export(args) => export::export(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Results(args) => results::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::CompareRun(args) => compare_run::run(&args),
        Command::Summary(args) => summary::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Completions(args) => completions::run(&args),
    };
    ExitCode::from(job.end(result.err().and_then(failure)))
}

/// What to print of an error, and the exit code.
fn failure(error: anyhow::Error) -> Option<(String, u8)> {
    if error.downcast_ref::<Unread>().is_some() {
        return None;
    }
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        return Some((usage.to_string().trim_end().to_string(), 2));
    }
    let code = match error.downcast_ref::<dbb_training::Error>() {
        Some(
            dbb_training::Error::Interrupted { signal, .. }
            | dbb_training::Error::Stopped { signal, .. }
            | dbb_training::Error::NotBegun { signal },
        ) => 128 + *signal as u8,
        Some(error) if error.is_failed_check() => 3,
        _ => 1,
    };
    Some((format!("error: {}", hints::sentence(&error)), code))
}

/// Writes a line to standard error; a closed standard error must not end the program.
fn say(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

/// Standard output, a pipe or a terminal, was closed. That is not a failure.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
struct Unread;

/// Prints a result: one JSON object, or text.
fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    print_text(&if json { serde_json::to_string(value)? } else { text() })
}

/// Prints text.
fn print_text(text: &str) -> anyhow::Result<()> {
    /// The error of a terminal that was closed (EIO).
    const CLOSED: i32 = 5;

    writeln!(io::stdout(), "{}", text.trim_end()).map_err(|error| {
        let unread = error.kind() == io::ErrorKind::BrokenPipe
            || cfg!(unix) && error.raw_os_error() == Some(CLOSED);
        if unread { Unread.into() } else { anyhow::Error::from(error) }
    })
}
