//! Logging commands, obeyed: one line each in the table.

use super::{StepContext, issue};
use crate::{
    artifacts,
    logging::command::LoggingCommand,
    store::record::{Artifact, Issue, Outcome},
};
use std::path::PathBuf;

type Obey = fn(&StepContext<'_>, &LoggingCommand) -> Result<(), String>;

struct Row {
    name: &'static str,
    obey: Obey,
    /// Allowed to steps whose target is `commands: restricted`.
    restricted: bool,
}

const fn row(name: &'static str, obey: Obey, restricted: bool) -> Row {
    Row { name, obey, restricted }
}

/// <https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands>.
const TABLE: &[Row] = &[
    row("task.setvariable", set_variable, true),
    row("task.setsecret", set_secret, true),
    row("task.logissue", log_issue, true),
    row("task.complete", complete, true),
    row("task.setprogress", set_progress, true),
    row("task.logdetail", log_detail, true),
    row("task.debug", debug, true),
    row("task.prependpath", prepend_path, false),
    row("task.uploadsummary", later, false),
    row("task.addattachment", later, false),
    row("task.uploadfile", later, false),
    row("task.setendpoint", set_endpoint, false),
    row("artifact.upload", later, false),
    row("artifact.associate", associate, false),
    row("build.uploadlog", later, false),
    row("build.addbuildtag", add_tag, false),
    row("build.updatebuildnumber", update_number, false),
    row("release.updatereleasename", release, false),
    row("telemetry.publish", |_, _| Ok(()), true),
];

/// Obeys a command; `false` when there is none of that name.
pub(super) fn obey(step: &StepContext<'_>, command: &LoggingCommand) -> Result<bool, String> {
    let name = command.name();
    let Some(row) = TABLE.iter().find(|r| r.name == name) else {
        return Err("It is not a known command.".to_owned());
    };
    let restricted = step.step.target.as_ref().and_then(|t| t.commands.as_deref()) == Some("restricted");
    if restricted && !row.restricted {
        return Err("It is not allowed by the step's target (commands: restricted).".to_owned());
    }
    (row.obey)(step, command)?;
    Ok(true)
}

fn set_variable(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    let name = command.property("variable").filter(|n| !n.is_empty()).ok_or("Required field 'variable' is missing.")?;
    let settable = step.step.target.as_ref().and_then(|t| t.settable_variables.as_ref());
    if settable.is_some_and(|names| !names.iter().any(|n| n.eq_ignore_ascii_case(name))) {
        return Err(format!("Setting variable '{name}' is not allowed by the step's target (settableVariables)."));
    }
    let secret = command.flag("issecret");
    if secret && command.data.contains('\n') {
        // As the agent: a secret of several lines could not be masked where lines are joined.
        for line in command.data.lines() {
            step.log.masker().add(line);
        }
    }
    step.set_variable(name, &command.data, secret, command.flag("isoutput"), command.flag("isreadonly"))
}

fn set_secret(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    if command.data.is_empty() {
        return Err("The secret is empty.".to_owned());
    }
    step.log.masker().add(&command.data);
    Ok(())
}

fn log_issue(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    let kind = command.property("type").map(str::to_ascii_lowercase).unwrap_or_default();
    if !matches!(kind.as_str(), "error" | "warning") {
        return Err(format!("issue type '{kind}' is not 'error' or 'warning'."));
    }
    step.add_issue(Issue {
        source: command.property("sourcepath").map(str::to_owned),
        line: command.property("linenumber").and_then(|n| n.parse().ok()),
        ..issue(&kind, &command.data)
    });
    let place = command.property("sourcepath").map(|path| {
        let numbers = [command.property("linenumber"), command.property("columnnumber")];
        format!("{path}({}): ", numbers.into_iter().flatten().collect::<Vec<_>>().join(","))
    });
    step.log.write(&format!("##[{kind}]{}{}", place.unwrap_or_default(), command.data));
    Ok(())
}

fn complete(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    let result = match command.property("result").unwrap_or("Succeeded").to_ascii_lowercase().as_str() {
        "succeeded" => Outcome::Succeeded,
        "succeededwithissues" => Outcome::SucceededWithIssues,
        "failed" => Outcome::Failed,
        "canceled" | "cancelled" => Outcome::Canceled,
        "skipped" => Outcome::Skipped,
        other => return Err(format!("'{other}' is not a result.")),
    };
    let mut told = step.told.lock();
    // The worst counts when a task says it twice.
    told.result = Some(told.result.map_or(result, |before| before.and(result)));
    told.message.clone_from(&command.data);
    Ok(())
}

fn set_progress(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    let value = command.property("value").and_then(|v| v.trim().parse::<u8>().ok()).filter(|v| *v <= 100);
    let value = value.ok_or("value must be 0 to 100.")?;
    step.job.change_step(step.index, |record| record.percent = value);
    Ok(())
}

/// Details of a timeline make no record here: the line tells what there is to tell.
fn log_detail(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    if command.property("id").is_none_or(str::is_empty) {
        return Err("Required field 'id' is missing.".to_owned());
    }
    let name = command.property("name").unwrap_or_default();
    let state = command.property("state").unwrap_or_default();
    step.log.write(&format!("##[debug]{name} {state} {}", command.data));
    Ok(())
}

fn debug(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    if step.variable("System.Debug").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        step.log.write(&format!("##[debug]{}", command.data));
    }
    Ok(())
}

fn prepend_path(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    if command.data.is_empty() {
        return Err("The path is empty.".to_owned());
    }
    let path = PathBuf::from(&command.data);
    let mut state = step.job.state.lock();
    state.prepends.retain(|p| *p != path);
    state.prepends.insert(0, path);
    Ok(())
}

fn set_endpoint(_: &StepContext<'_>, _: &LoggingCommand) -> Result<(), String> {
    Err("Service connections are those of the environment and cannot be changed by a step.".to_owned())
}

fn associate(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    let name = command.property("artifactname").filter(|n| !n.is_empty()).ok_or("Artifact Name is required.")?;
    let kind = command.property("type").unwrap_or("container");
    let artifact =
        Artifact { name: name.to_owned(), kind: kind.to_owned(), data: step.log.masker().mask(&command.data) };
    step.job.run.change(|run| run.artifacts.push(artifact));
    Ok(())
}

fn add_tag(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    let tag = step.log.masker().mask(command.data.trim());
    if tag.is_empty() {
        return Err("Build tag is required.".to_owned());
    }
    step.job.run.change(|run| {
        if !run.tags.contains(&tag) {
            run.tags.push(tag);
        }
    });
    Ok(())
}

fn update_number(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    let name = step.log.masker().mask(command.data.trim());
    if name.is_empty() || name.len() > 255 || name.contains(|c| "\"/:<>\\|?@*".contains(c)) || name.ends_with('.') {
        return Err(format!("'{name}' is not a valid run number."));
    }
    step.job.state.lock().variables.put_readonly("Build.BuildNumber", &name);
    step.job.run.change(|run| run.name = name);
    step.job.run.tell();
    Ok(())
}

fn release(_: &StepContext<'_>, _: &LoggingCommand) -> Result<(), String> {
    Err("Classic releases are not emulated.".to_owned())
}

fn later(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    if command.data.trim().is_empty() {
        return Err("The path of the file is empty.".to_owned());
    }
    step.told.lock().uploads.push(command.clone());
    Ok(())
}

/// Copies the files that a command names: what the agent does when the step has ended.
pub(super) fn upload(step: &StepContext<'_>, command: &LoggingCommand) -> Result<(), String> {
    let path = step.path(command.data.trim());
    if !path.exists() {
        return Err(format!("Path does not exist: {}", path.display()));
    }
    let run = &step.job.run;
    let folder = run.engine.store.folder(run.id).join("attachments");
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match command.name().as_str() {
        "artifact.upload" => {
            let artifact =
                command.property("artifactname").filter(|n| !n.is_empty()).ok_or("Artifact Name is required.")?;
            run.publish(artifact, &path, "Container").map_err(|e| e.to_string())?;
            Ok(())
        }
        "task.uploadsummary" => artifacts::attach(&path, &folder.join("summary"), &name),
        "task.addattachment" => {
            let kind = command.property("type").filter(|t| !t.is_empty()).ok_or("Required field 'type' is missing.")?;
            let given =
                command.property("name").filter(|n| !n.is_empty()).ok_or("Required field 'name' is missing.")?;
            artifacts::attach(&path, &folder.join(artifacts::safe_name(kind)?), artifacts::safe_name(given)?)
        }
        _ => artifacts::attach(&path, &folder.join("files"), &name),
    }
}
