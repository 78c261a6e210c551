//! Thin binary: parse, run, error → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    aksim::cli::run(std::env::args_os().collect())
}
