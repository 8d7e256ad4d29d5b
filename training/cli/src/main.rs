//! The program `dbb`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dbb_cli::main()
}
