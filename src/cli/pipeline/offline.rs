//! `aksim pipeline plan` and `validate`: a file, its templates, and nothing else.

use super::{FileArgs, pair, parameter};
use crate::{
    failure::{Code, Failure},
    output::{self, Format, Table},
};
use aksim_pipelines::{self, Plan, RepositoryRef, SourceError, Standing, TemplateSource};
use std::path::{Path, PathBuf};

/// Files of the folder that the pipeline is in; other repositories are folders beside it.
struct Folder {
    root: PathBuf,
}

impl TemplateSource for Folder {
    fn read(&self, repository: RepositoryRef<'_>, path: &str) -> Result<String, SourceError> {
        let root = if repository.alias == "self" {
            self.root.clone()
        } else {
            let name = repository.name.rsplit('/').next().unwrap_or_default();
            let sibling =
                self.root.parent().map(|p| p.join(name)).filter(|p| !name.is_empty() && name != ".." && p.is_dir());
            sibling.ok_or_else(|| SourceError::Unavailable {
                repository: repository.alias.to_owned(),
                reason: format!("there is no folder {name} beside {}", self.root.display()),
            })?
        };
        let alias = repository.alias.to_owned();
        std::fs::read_to_string(root.join(path)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => SourceError::NotFound { repository: alias, path: path.to_owned() },
            _ => SourceError::Read { path: path.to_owned(), source: error },
        })
    }
}

/// The folder with `.git` above a file, else the file's own.
fn root_of(file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let found = folder.ancestors().find(|f| f.join(".git").exists());
    found.unwrap_or(folder).to_owned()
}

fn load(args: &FileArgs) -> Result<Plan, Failure> {
    let missing = |error: std::io::Error| Failure::new(Code::Usage, format!("{}: {error}", args.file.display()));
    let file = args.file.canonicalize().map_err(missing)?;
    let text = std::fs::read_to_string(&file).map_err(missing)?;
    let root = root_of(&file);
    let relative = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
    let parameters = args.parameters.iter().map(|p| parameter(p)).collect::<Result<_, _>>()?;
    let variables = args.variables.iter().map(|v| pair(v)).collect::<Result<_, _>>()?;
    aksim_pipelines::load(&text, &relative, &Folder { root }, &parameters, &variables).map_err(|errors| {
        let lines: Vec<String> = errors
            .iter()
            .map(|e| e.hint.as_ref().map_or_else(|| e.to_string(), |hint| format!("{e}\n  hint: {hint}")))
            .collect();
        Failure::new(Code::Usage, format!("{} mistake(s)\n{}", errors.len(), lines.join("\n")))
    })
}

/// Prints the plan.
pub fn plan(args: &FileArgs) -> Result<(), Failure> {
    let plan = load(args)?;
    if args.fidelity {
        return gaps(args, &plan);
    }
    let format = if args.output.output == Format::Json { Format::Json } else { Format::Yaml };
    output::data(format, &plan, |_| Table::default(), Vec::new)
}

/// Says whether the file is right.
pub fn validate(args: &FileArgs) -> Result<(), Failure> {
    let plan = load(args)?;
    if args.fidelity {
        return gaps(args, &plan);
    }
    let jobs: usize = plan.stages.iter().map(|s| s.jobs.len()).sum();
    let refused = plan.gaps.iter().filter(|g| g.standing == Standing::Gap).count();
    let summary = serde_json::json!({"valid": true, "stages": plan.stages.len(), "jobs": jobs, "unsupported": refused});
    let table = |_| {
        let mut table = Table::new(&["FILE", "STAGES", "JOBS", "UNSUPPORTED"]);
        table.row([
            args.file.display().to_string(),
            plan.stages.len().to_string(),
            jobs.to_string(),
            refused.to_string(),
        ]);
        table
    };
    output::data(args.output.output, &summary, table, || vec!["valid".into()])
}

fn gaps(args: &FileArgs, plan: &Plan) -> Result<(), Failure> {
    let table = |_| {
        let mut table = Table::new(&["PLACE", "WHAT", "STANDING", "CONSEQUENCE"]);
        for gap in &plan.gaps {
            let standing = if gap.standing == Standing::Gap { "gap" } else { "differs" };
            table.row([gap.location.to_string(), gap.what.clone(), standing.to_owned(), gap.consequence.clone()]);
        }
        table
    };
    output::data(args.output.output, &plan.gaps, table, || plan.gaps.iter().map(|g| g.what.clone()).collect())
}
