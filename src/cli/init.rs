//! `aksim init`: a project file from what the folder holds.

use super::{
    args::InitArgs,
    failure::{Code, Failure},
    output,
};
use aksim_config::project::{FILE_NAME, is_dns_label, parse};
use aksim_runtime::files::{PUBLIC, write_atomic};
use std::{fmt::Write as _, path::Path};

/// Writes `aksim.toml`.
pub fn run(args: &InitArgs) -> Result<(), Failure> {
    let folder = std::env::current_dir()?;
    let file = folder.join(FILE_NAME);
    if file.exists() && !args.force {
        return Err(Failure::new(Code::Usage, format!("{} exists", file.display())).hint("--force writes over it"));
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => label(&folder.file_name().unwrap_or_default().to_string_lossy()),
    };
    if !is_dns_label(&name) {
        return Err(Failure::new(Code::Usage, format!("{name:?} is not a name")).hint("give one with --name"));
    }
    let services = services(&folder)?;
    let text = render(&name, &services);
    if let Err(problems) = parse(&text, &folder) {
        let messages: Vec<String> = problems.into_iter().map(|p| p.message).collect();
        return Err(Failure::new(Code::Bug, format!("made an invalid file: {}", messages.join("; "))));
    }
    write_atomic(&file, text.as_bytes(), PUBLIC)?;
    output::text(&format!("{} written with {} service(s)\n", file.display(), services.len()))
}

fn label(name: &str) -> String {
    let mapped: String =
        name.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    mapped.trim_matches('-').to_owned()
}

/// Folders with a Dockerfile, relative to `folder`, at most three levels down.
fn services(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for entry in ignore::WalkBuilder::new(folder).max_depth(Some(4)).build() {
        let entry = entry.map_err(Failure::other)?;
        if entry.file_name() == "Dockerfile"
            && let Some(parent) = entry.path().parent()
            && let Ok(relative) = parent.strip_prefix(folder)
        {
            found.push(if relative.as_os_str().is_empty() { ".".into() } else { relative.display().to_string() });
        }
    }
    found.sort();
    Ok(found)
}

fn render(name: &str, services: &[String]) -> String {
    let mut text = format!("# aksim project: `aksim schema` prints every key.\nname = \"{name}\"\n");
    text.push_str("\n[identity]\ntenant = \"contoso\"\nusers = [{ name = \"ada\" }]\n");
    for path in services {
        let service = match path.as_str() {
            "." => name.to_owned(),
            path => label(path.rsplit('/').next().unwrap_or(path)),
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "\n[[service]]\nname = \"{service}\"\npath = \"{path}\"\n");
    }
    text
}
