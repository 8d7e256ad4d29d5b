//! `dbb completions`.

use clap_complete::Shell;

/// Print the completions of a shell.
///
/// Example: dbb completions bash > ~/.local/share/bash-completion/completions/dbb
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shell.
    shell: Shell,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command(), "dbb", &mut text);
    crate::print_text(&String::from_utf8(text)?)
}
