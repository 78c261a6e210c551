fn main() {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // Hidden subcommands change namespaces and fork: before any thread exists.
    if let Some(code) = aksim::node::container::reexec(&arguments) {
        std::process::exit(code);
    }
}
