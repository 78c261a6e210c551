//! Hidden subcommands: what the program becomes when it starts itself.

use std::ffi::OsString;

/// Runs a hidden subcommand and gives its exit code; `None` when `args` (without the program's
/// name) are not one. Call before any thread exists.
pub fn reexec(args: &[OsString]) -> Option<i32> {
    let (first, rest) = args.split_first()?;
    match first.to_str()? {
        "__node-agent" => Some(super::agent::main(rest)),
        "__container-run" => Some(super::run::main(rest)),
        "__container-put" => Some(super::put::main(rest)),
        _ => None,
    }
}
