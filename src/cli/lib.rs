//! Command line: arguments, output, a file per verb.

#[cfg(test)]
mod advice_tests;
mod args;
mod context;
mod demo;
mod doctor;
mod events;
mod exec;
mod explain;
mod failure;
mod fidelity;
mod git;
mod image;
mod init;
mod journey;
mod kubeconfig;
mod logs;
mod open;
mod output;
mod pipeline;
mod scenario;
mod status;
mod token;
mod up;

pub use failure::{Code, Failure};

use args::{Cli, CompletionArgs, Verb};
use clap::{CommandFactory, Parser};
use context::Context;
use std::{ffi::OsString, io::Write as _, process::ExitCode};

/// Runs aksim with the given arguments, program name first.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    // Subcommands of the container runtime fork: they run before any thread exists.
    if let Some(code) = aksim_node::container::reexec(arguments.get(1..).unwrap_or_default()) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    // git starts this program as a hook, by the hook's name.
    if let Some(code) = aksim_git::run_hook(&arguments) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors and go to stdout; clap knows.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Code::Usage as u8 } else { 0 });
        }
    };
    install_panic_message();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(cli));
            // Nothing that matters runs any more: components have been joined.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::new(Code::Environment, format!("cannot start threads: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Standard error may be a file on a full disk: the exit code still tells.
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    aksim_runtime::pki::install_crypto_provider();
    let context = Context::new(cli.project, cli.verbose);
    match cli.verb {
        Verb::Init(args) => init::run(&args),
        Verb::Up(args) => up::run(&context, args, false).await,
        Verb::Dev(args) => up::run(&context, args, true).await,
        Verb::Down(args) => up::down(&context, &args).await,
        Verb::Status(args) => status::run(&context, args).await,
        Verb::Logs(args) => logs::run(&context, args).await,
        Verb::Exec(args) => exec::run(&context, args).await,
        Verb::Open(args) => open::run(&context, args).await,
        Verb::Trigger(args) => status::trigger(&context, args).await,
        Verb::Explain(args) => explain::run(&context, &args),
        Verb::Journey(args) => journey::run(&context, args).await,
        Verb::Dashboard(args) => up::dashboard(&context, args).await,
        Verb::Token(args) => token::run(&context, args).await,
        Verb::Kubeconfig(args) => kubeconfig::run(&context, &args),
        Verb::Env => kubeconfig::env(&context).await,
        Verb::Git(args) => git::run(&context, args).await,
        Verb::GitCredential(args) => git::credential(&context, &args),
        Verb::Image(args) => image::run(&context, args).await,
        Verb::Pipeline(args) => pipeline::run(&context, args).await,
        Verb::Fidelity(args) => fidelity::run(&context, &args),
        Verb::Doctor(args) => doctor::run(&args).await,
        Verb::Scenario(args) => scenario::run(&context, args).await,
        Verb::Demo(args) => demo::run(args).await,
        Verb::Schema => {
            output::text(&(serde_json::to_string_pretty(&aksim_config::json_schema()).map_err(Failure::other)? + "\n"))
        }
        Verb::Version(args) => version(args),
        Verb::Completion(args) => completion(&args),
    }
}

fn version(args: args::OutputArgs) -> Result<(), Failure> {
    let version = serde_json::json!({
        "aksim": env!("CARGO_PKG_VERSION"),
        "kubernetes": "1.36",
    });
    let table = |_| {
        let mut table = output::Table::new(&["PART", "VERSION"]);
        table.row(["aksim".into(), env!("CARGO_PKG_VERSION").into()]);
        table.row(["kubernetes (emulated)".into(), "1.36".into()]);
        table
    };
    output::data(args.output, &version, table, || vec![format!("aksim/{}", env!("CARGO_PKG_VERSION"))])
}

fn completion(args: &CompletionArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    let mut buffer = Vec::new();
    if args.shell == "man" {
        clap_mangen::Man::new(command).render(&mut buffer)?;
    } else {
        let shell: clap_complete::Shell = args.shell.parse().map_err(|_| {
            Failure::new(Code::Usage, format!("no completions for {:?}", args.shell))
                .hint("one of bash, zsh, fish, elvish, powershell, man")
        })?;
        clap_complete::generate(shell, &mut command, "aksim", &mut buffer);
    }
    output::text(&String::from_utf8_lossy(&buffer))
}

/// A panic is a bug: say so, and where to tell it. Threads of tokio are told by their joiner.
fn install_panic_message() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        let _ = writeln!(std::io::stderr(), "this is a bug of aksim; please report it with the lines above");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_arguments_is_sound() {
        Cli::command().debug_assert();
    }
}
