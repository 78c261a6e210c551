//! `/metrics`: the few numbers that tools look for, in Prometheus' text format.

use http::StatusCode;
use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counters of the server.
#[derive(Default)]
pub struct Counters {
    by_class: [AtomicU64; 5],
}

impl Counters {
    /// Counts an answer.
    pub fn count(&self, code: StatusCode) {
        let class = usize::from(code.as_u16() / 100).clamp(1, 5) - 1;
        self.by_class[class].fetch_add(1, Ordering::Relaxed);
    }

    /// The text of `/metrics`; `objects` are the stored objects by resource.
    pub fn text(&self, objects: &[(String, usize)]) -> String {
        let mut out = String::from(
            "# HELP apiserver_request_total Counter of apiserver requests broken out for each HTTP response class.\n\
             # TYPE apiserver_request_total counter\n",
        );
        for (class, count) in (1..).zip(&self.by_class) {
            // Writing to a string does not fail.
            let _ = writeln!(out, "apiserver_request_total{{code=\"{class}xx\"}} {}", count.load(Ordering::Relaxed));
        }
        out.push_str("# HELP apiserver_storage_objects Number of stored objects by resource.\n");
        out.push_str("# TYPE apiserver_storage_objects gauge\n");
        for (resource, count) in objects {
            let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{resource}\"}} {count}");
        }
        out
    }
}
