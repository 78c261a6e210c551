//! Events as plain log lines on stderr, for terminals without dashboard and for CI.

use super::status::{component_state, service_state};
use aksim_model::event::{Event, EventBody};

/// One event as lines, or nothing when it says nothing new to a reader of lines.
pub fn line(event: &Event) -> Option<String> {
    let time = event.at.strftime("%H:%M:%S%.3f");
    let text = match &event.body {
        EventBody::Component { component, state, message, endpoints } => {
            let urls: Vec<&str> = endpoints.iter().map(|e| e.url.as_str()).collect();
            join(&[component.as_str(), component_state(*state), &urls.join(" "), message])
        }
        EventBody::Service { service, state, version, message, endpoints } => {
            let urls: Vec<&str> = endpoints.iter().map(|e| e.url.as_str()).collect();
            join(&[
                service.as_str(),
                service_state(*state),
                version.as_deref().unwrap_or_default(),
                &urls.join(" "),
                message,
            ])
        }
        EventBody::Flow { row, ok, message } => {
            let mark = if *ok { "" } else { "failed: " };
            format!("row {}: {mark}{message}", row.number())
        }
        EventBody::PipelineRun { run } => {
            let result = run.result.as_deref().unwrap_or(&run.state);
            let stages: Vec<String> =
                run.stages.iter().map(|s| format!("{}: {}", s.name, s.result.as_deref().unwrap_or(&s.state))).collect();
            join(&["run", &run.id.to_string(), &run.pipeline, &run.branch, result, &stages.join(", ")])
        }
        EventBody::JourneyEnded { .. } | EventBody::JourneyStarted { .. } | EventBody::JourneyHop { .. } => {
            return None;
        }
        EventBody::Warning { subject, message, hint } => warning(subject, message, hint.as_deref()),
    };
    Some(format!("{time} {text}"))
}

/// A warning as one line.
pub fn warning(subject: &str, message: &str, hint: Option<&str>) -> String {
    let hint = hint.map(|h| format!(" (hint: {h})")).unwrap_or_default();
    format!("warning: {subject}: {message}{hint}")
}

fn join(parts: &[&str]) -> String {
    parts.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join(" ")
}
