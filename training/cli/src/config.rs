//! `dbb config`.

use std::path::PathBuf;

use clap::Subcommand;

use dbb_training::config::Config;

/// Check a configuration, show it with every default written out, or print its JSON schema.
///
/// Example: dbb config show configs/quick/resnet20-dbb.toml --set optim.lr=0.05
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check that a configuration is valid.
    Check(File),
    /// Print a configuration with every default written out, and keys that are not set as comments.
    Show(File),
    /// Print the JSON schema of configurations, for editors.
    Schema,
}

#[derive(Debug, clap::Args)]
struct File {
    /// Configuration (TOML).
    config: PathBuf,
    /// Override a key, for example --set optim.lr=0.05.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let (Action::Check(file) | Action::Show(file)) = &args.action else {
        let schema = Config::schema();
        return crate::print(false, &schema, || format!("{schema:#}"));
    };
    let config = Config::load(&file.config, &file.set)?;
    match &args.action {
        Action::Check(_) => {
            let path = file.config.display().to_string();
            let result = serde_json::json!({ "config": path, "valid": true });
            crate::print(file.json, &result, || format!("{path} is valid"))
        }
        _ => crate::print(file.json, &config, || config.to_commented_toml()),
    }
}
