//! Golden pairs of pipelines: `fixtures/pipelines/NAME.yml` → `NAME.plan.yaml`, and
//! `fixtures/pipelines/errors/NAME.yml` → `NAME.txt`. `AKSIM_UPDATE_FIXTURES=1` writes them anew.
//!
//! A pipeline may begin with comments `# parameters: {…}` and `# variables: {…}` (JSON): the values of its run.

use aksim::pipelines::{
    PipelineError, Plan, RepositoryRef, SourceError, Standing, TemplateSource, fidelity, final_yaml, load, outline,
    tasks,
};
use indexmap::IndexMap;
use serde_json::Value as Json;
use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pipelines")
}

/// Templates of the folder; another repository is the folder `repositories/ALIAS`.
struct Folder(PathBuf);

impl TemplateSource for Folder {
    fn read(&self, repository: RepositoryRef<'_>, path: &str) -> Result<String, SourceError> {
        let root = match repository.alias {
            "self" => self.0.clone(),
            alias => self.0.join("repositories").join(alias),
        };
        std::fs::read_to_string(root.join(path))
            .map_err(|_| SourceError::NotFound { repository: repository.alias.to_owned(), path: path.to_owned() })
    }
}

fn header<T: serde::de::DeserializeOwned + Default>(text: &str, name: &str) -> T {
    let line = text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(": "));
    line.map(|json| serde_json::from_str(json).unwrap()).unwrap_or_default()
}

fn plan_of(text: &str, name: &str, files: &Path) -> Result<Plan, Vec<PipelineError>> {
    let parameters: IndexMap<String, Json> = header(text, "parameters");
    let mut variables = IndexMap::from([("Build.SourceBranch".to_owned(), "refs/heads/main".to_owned())]);
    variables.extend(header::<IndexMap<String, String>>(text, "variables"));
    load(text, name, &Folder(files.to_owned()), &parameters, &variables)
}

/// The pipelines of a folder, by name.
fn pipelines(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yml"))
        .collect();
    files.sort();
    files
}

/// Compares with what is kept, or keeps it.
fn golden(path: &Path, actual: &str, differences: &mut Vec<String>) {
    if std::env::var_os("AKSIM_UPDATE_FIXTURES").is_some() {
        std::fs::write(path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected != actual {
        let line = expected.lines().zip(actual.lines()).position(|(a, b)| a != b).unwrap_or(0);
        let shown = |text: &str| text.lines().skip(line).take(4).collect::<Vec<_>>().join("\n    ");
        differences.push(format!(
            "{} from line {}:\n  kept\n    {}\n  now\n    {}",
            path.display(),
            line + 1,
            shown(&expected),
            shown(actual)
        ));
    }
}

fn shown(errors: &[PipelineError]) -> String {
    let line = |error: &PipelineError| match &error.hint {
        Some(hint) => format!("{error}\n  hint: {hint}\n"),
        None => format!("{error}\n"),
    };
    errors.iter().map(line).collect()
}

#[test]
fn pipelines_expand_to_their_plans() {
    let mut differences = Vec::new();
    let files = pipelines(&folder());
    assert!(files.len() >= 20, "only {} pipelines", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        match plan_of(&text, &name, &folder()) {
            Ok(plan) => {
                let yaml = serde_saphyr::to_string(&plan).unwrap();
                golden(&file.with_extension("plan.yaml"), &yaml, &mut differences);
            }
            Err(errors) => differences.push(format!("{name} does not load:\n{}", shown(&errors))),
        }
    }
    assert!(differences.is_empty(), "{}\nAKSIM_UPDATE_FIXTURES=1 keeps what is now", differences.join("\n"));
}

#[test]
fn mistakes_are_located_and_worded() {
    let mut differences = Vec::new();
    let errors_folder = folder().join("errors");
    let files = pipelines(&errors_folder);
    assert!(files.len() >= 10, "only {} pipelines", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        match plan_of(&text, &name, &errors_folder) {
            Ok(_) => differences.push(format!("{name} loads, although it must not")),
            Err(errors) => golden(&file.with_extension("txt"), &shown(&errors), &mut differences),
        }
    }
    assert!(differences.is_empty(), "{}\nAKSIM_UPDATE_FIXTURES=1 keeps what is now", differences.join("\n"));
}

/// A plan without what a second reading cannot know.
fn comparable(plan: &Plan) -> Json {
    fn strip(value: &mut Json) {
        match value {
            Json::Object(map) => {
                for key in ["location", "gaps", "parameters"] {
                    map.remove(key);
                }
                map.values_mut().for_each(strip);
            }
            Json::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut json = serde_json::to_value(plan).unwrap();
    strip(&mut json);
    json
}

#[test]
fn the_final_yaml_is_a_pipeline_with_the_same_plan() {
    for file in pipelines(&folder()) {
        let text = std::fs::read_to_string(&file).unwrap();
        let plan = plan_of(&text, "a.yml", &folder()).unwrap_or_else(|e| panic!("{}: {}", file.display(), shown(&e)));
        let yaml = final_yaml(&plan).unwrap();
        let again =
            plan_of(&yaml, "b.yml", &folder()).unwrap_or_else(|e| panic!("{}: {}\n{yaml}", file.display(), shown(&e)));
        assert_eq!(comparable(&plan), comparable(&again), "{}\n{yaml}", file.display());
        assert!(outline(&plan).lines().count() > 1);
        // What is kept on disk for a run is read back whole.
        let kept: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!(kept, plan, "{}", file.display());
    }
}

#[test]
fn the_pipelines_use_every_task_and_construct_that_is_not_as_in_azure() {
    let mut used = BTreeSet::new();
    let mut tasks_used = BTreeSet::new();
    for file in pipelines(&folder()) {
        let text = std::fs::read_to_string(&file).unwrap();
        let plan = plan_of(&text, "a.yml", &folder()).unwrap_or_else(|e| panic!("{}: {}", file.display(), shown(&e)));
        used.extend(plan.gaps.iter().map(|gap| gap.what.clone()));
        let text = outline(&plan);
        tasks_used.extend(text.split_whitespace().filter(|word| word.contains('@')).map(str::to_owned));
    }
    let missing: Vec<_> = fidelity::constructs()
        .iter()
        // `pr` cannot be seen by its use: it is on unless a file says otherwise.
        .filter(|construct| construct.standing != Standing::Works && construct.name != "pr")
        .filter(|construct| !used.contains(&construct.name))
        .map(|construct| construct.name.clone())
        .chain(
            tasks::all()
                .iter()
                .map(|task| task.name.clone())
                .filter(|name| !tasks_used.iter().any(|used| used.split('@').next() == Some(name))),
        )
        .collect();
    assert!(missing.is_empty(), "no pipeline uses {missing:?}");
    assert!(used.contains("AzureCLI@2") && used.iter().any(|gap| gap.starts_with("replacetokens@")));
}

#[test]
fn the_shop_deploys_only_what_is_tested() {
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/shop");
    let text = std::fs::read_to_string(shop.join("azure-pipelines.yml")).unwrap();
    let plan = plan_of(&text, "azure-pipelines.yml", &shop).unwrap_or_else(|e| panic!("{}", shown(&e)));
    assert!(plan.gaps.iter().all(|gap| gap.standing != Standing::Gap), "{:#?}", plan.gaps);
    let mut needs: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for stage in &plan.stages {
        let mut all: BTreeSet<&str> = stage.depends_on.iter().map(String::as_str).collect();
        for name in all.clone() {
            all.extend(needs[name].iter().copied());
        }
        assert_eq!(stage.condition.as_deref().unwrap_or("succeeded()").matches("always").count(), 0);
        needs.insert(&stage.name, all);
    }
    let (deploy, needed) = needs.iter().find(|(name, _)| name.to_lowercase().contains("deploy")).unwrap();
    assert!(needed.iter().any(|name| name.to_lowercase().contains("test")), "{deploy} needs {needed:?}");
}

/// No files.
struct Nothing;

impl TemplateSource for Nothing {
    fn read(&self, repository: RepositoryRef<'_>, path: &str) -> Result<String, SourceError> {
        Err(SourceError::NotFound { repository: repository.alias.to_owned(), path: path.to_owned() })
    }
}

#[test]
fn bombs_end_in_an_error() {
    let loops: String = (0..9)
        .map(|n| format!("{}- ${{{{ each x{n} in split('a,b,c,d,e,f,g,h,i,j', ',') }}}}:\n", "  ".repeat(n)))
        .collect();
    let text = format!("steps:\n{loops}{}- script: x\n", "  ".repeat(9));
    let errors = load(&text, "a.yml", &Nothing, &IndexMap::new(), &IndexMap::new()).unwrap_err();
    assert!(errors.iter().any(|e| e.message == "Maximum object size exceeded"), "{errors:?}");

    // Texts that are made and thrown away cost as well.
    let big = "x".repeat(900_000);
    let text = format!(
        "parameters:\n- name: big\n  default: {big}\nsteps:\n- ${{{{ each n in split('{}', ',') }}}}:\n  \
         - ${{{{ if contains(upper(parameters.big), 'y') }}}}:\n    - script: y\n",
        ",".repeat(900)
    );
    let errors = load(&text, "a.yml", &Nothing, &IndexMap::new(), &IndexMap::new()).unwrap_err();
    assert!(errors.iter().any(|e| e.message == "Maximum object size exceeded"), "{errors:?}");

    // Many variables are a long list, not a long wait.
    let variables: String = (0..4_000).map(|n| format!("  v{n}: ${{{{ variables.v{} }}}}x\n", n / 2)).collect();
    let text = format!("variables:\n{variables}steps:\n- script: echo\n");
    let plan = load(&text, "a.yml", &Nothing, &IndexMap::new(), &IndexMap::new()).unwrap();
    assert_eq!(plan.variables.len(), 4_000);

    // As deep as YAML may be, through a template.
    let deep = format!("{}1{}", "[".repeat(90), "]".repeat(90));
    let text = format!(
        "parameters:\n- name: deep\n  type: object\n  default: {deep}\nsteps:\n- script: x\n  env:\n    \
         D: ${{{{ convertToJson(parameters.deep) }}}}\n    E: ${{{{ length(parameters.deep) }}}}\n"
    );
    load(&text, "a.yml", &Nothing, &IndexMap::new(), &IndexMap::new()).unwrap();
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(96))]
    #[test]
    fn no_input_panics(text in "\\PC{0,200}", pieces in proptest::collection::vec(proptest::sample::select(vec![
        "steps:\n", "- script: x\n", "- ${{ if eq(1, 1) }}:\n", "  - bash: y\n", "jobs:\n", "- job: a\n", "  ", "\n",
        "- ${{ else }}:\n", "${{ insert }}: {}\n", "parameters:\n", "- name: p\n", "  type: object\n", "  default: {}\n",
        "- ${{ each x in parameters.p }}:\n", "trigger: none\n", "variables:\n", "  a: $[ b ]\n", "- task: Docker@2\n",
        "extends:\n", "  template: a.yml\n", "stages:\n", "- stage: s\n", "  dependsOn: s\n", "strategy: ", "{matrix: ",
        "}", "\t", "&a ", "*a", "[", "]", "- deployment: d\n", "'", "\"", "|\n", "pool: server\n", "- template: /../x\n",
    ]), 0..24)) {
        for text in [text, pieces.concat()] {
            let _ = load(&text, "a.yml", &Nothing, &IndexMap::new(), &IndexMap::new());
        }
    }
}
