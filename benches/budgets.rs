//! `cargo bench`: the budgets of the design, measured on this machine, as one table.
//!
//! `cargo bench -- WORD…` measures only what has one of the words in its name. Peers' figures
//! are the ones the design states; nothing of a peer runs here. Needs root or user namespaces,
//! busybox (static), and a MySQL-compatible server for the row with a database.
#![expect(clippy::disallowed_methods, reason = "a benchmark waits for the machine to settle")]

mod api_server;
mod environment;
mod redeploy;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/it/support/mod.rs"]
mod support;
mod table;

use table::{Budget, Report};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let mut report = Report::new(words);
    aksim::runtime::pki::install_crypto_provider();
    api_server::measure(&mut report);
    environment::measure(&mut report);
    report.not_available(
        "1,000 nodes and 20,000 pods simulated",
        Budget::Text("< 60 s, < 1 GB"),
        "KWOK: 20 pods/s",
        "nodes cannot be simulated yet",
    );
    print!("{report}");
}
