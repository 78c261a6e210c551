//! From a checked document to a scenario.

use super::{
    kinds::Tables,
    tree::{self, bytes},
};
use crate::{
    Budget, Fault, Needs, Period, Scenario, Step, checks,
    checks::Check,
    faults, steps,
    steps::Action,
    table::{arguments, schema_of},
};
use aksim_config::{
    check::{Problem, YAML, check},
    document::Tree,
};
use aksim_model::suggest::nearest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// How long a step's checks get when it does not say.
const WITHIN: Period = Period::seconds(30);

/// The file as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct File {
    /// What it is called.
    title: String,
    /// What it shows, or what is learnt.
    goal: String,
    /// What the environment must have.
    #[serde(default)]
    environment: Needs,
    /// Values that `--set NAME=VALUE` replaces; `${NAME}` in the file stands for one.
    #[serde(default)]
    #[allow(dead_code)] // Taken from the tree before the file is read.
    parameters: BTreeMap<String, Value>,
    /// Seed of every choice of the faults.
    #[serde(default)]
    seed: u64,
    /// In order.
    steps: Vec<RawStep>,
    /// By name; steps inject them.
    #[serde(default)]
    faults: BTreeMap<String, RawFault>,
    /// What it may cost.
    #[serde(default)]
    budgets: Vec<Budget>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct RawStep {
    /// Names the step in reports and budgets.
    id: String,
    /// What happens, or what is to be done.
    text: String,
    /// Done by the scenario.
    #[serde(default)]
    #[schemars(schema_with = "actions")]
    action: Vec<Value>,
    /// Done by who takes the lab; by the scenario with `--auto`.
    #[serde(default)]
    #[schemars(schema_with = "actions")]
    solution: Vec<Value>,
    /// What must hold in the end.
    #[serde(default)]
    #[schemars(schema_with = "kinds_of_checks")]
    checks: Vec<Value>,
    /// How long it may take until the checks hold.
    within: Option<Period>,
    /// From a nudge to nearly the solution.
    #[serde(default)]
    hints: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawFault {
    #[serde(default)]
    after: Period,
    #[serde(default)]
    jitter: Period,
    #[serde(flatten)]
    kind: BTreeMap<String, Value>,
}

impl JsonSchema for RawFault {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Fault".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let period = generator.subschema_for::<Period>();
        json_schema!({"x-kinds": "faults", "properties": {"after": period, "jitter": period}})
    }
}

fn actions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"x-kinds": "steps"}})
}

fn kinds_of_checks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"x-kinds": "checks"}})
}

/// Reads a scenario; `set` replaces values of its parameters.
///
/// # Errors
/// Every problem of the text.
pub fn parse(name: &str, text: &str, set: &BTreeMap<String, String>) -> Result<Scenario, Vec<Problem>> {
    let mut tree = tree::read(text).map_err(|error| {
        let span = error.location().map_or(0..0, bytes);
        let message = error.to_string().lines().next().unwrap_or("is no YAML").to_owned();
        vec![Problem { span, message, hint: None }]
    })?;
    let problems = substitute(&mut tree, set);
    if !problems.is_empty() {
        return Err(problems);
    }
    let problems = check(&tree, &schema_of::<File>(), YAML, &Tables);
    if !problems.is_empty() {
        return Err(problems);
    }
    let file: File =
        arguments(tree.value()).map_err(|message| vec![Problem { span: tree.span.clone(), message, hint: None }])?;
    let mut reader = Reader { tree: &tree, problems: Vec::new() };
    let scenario = reader.scenario(name, file);
    match reader.problems.is_empty() {
        true => Ok(scenario),
        false => Err(reader.problems),
    }
}

/// Puts the values of parameters where `${NAME}` stands.
fn substitute(tree: &mut Tree, set: &BTreeMap<String, String>) -> Vec<Problem> {
    let declared = tree.get("parameters").map(Tree::value);
    let mut values: BTreeMap<String, Value> = match declared {
        Some(Value::Object(map)) => map.into_iter().collect(),
        _ => BTreeMap::new(),
    };
    let names: Vec<String> = values.keys().cloned().collect();
    let mut problems = Vec::new();
    let missing = |span: Range<usize>, name: &str| {
        let hint = nearest(name, names.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        Problem { span, message: format!("there is no parameter `{name}`"), hint }
    };
    for (name, text) in set {
        match values.get_mut(name) {
            Some(value) => *value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
            None => problems.push(missing(0..0, name)),
        }
    }
    tree.for_each_scalar(&mut |value, span| {
        let Value::String(text) = &*value else { return };
        if let Some(name) = text.strip_prefix("${").and_then(|t| t.strip_suffix('}')).filter(|n| !n.contains('$')) {
            match values.get(name) {
                Some(found) => *value = found.clone(),
                None => problems.push(missing(span.clone(), name)),
            }
            return;
        }
        let (mut result, mut rest) = (String::new(), text.as_str());
        while let Some((before, after)) = rest.split_once("${")
            && let Some((name, after)) = after.split_once('}')
        {
            result.push_str(before);
            match values.get(name) {
                Some(Value::String(found)) => result.push_str(found),
                Some(found) => result.push_str(&found.to_string()),
                None => problems.push(missing(span.clone(), name)),
            }
            rest = after;
        }
        result.push_str(rest);
        *value = result.into();
    });
    problems
}

struct Reader<'t> {
    tree: &'t Tree,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, span: Range<usize>, message: String) {
        self.problems.push(Problem { span, message, hint: None });
    }

    fn scenario(&mut self, name: &str, file: File) -> Scenario {
        let root = self.tree;
        let trees = root.get("steps").map_or(&[][..], Tree::items);
        let steps: Vec<Step> = file.steps.into_iter().zip(trees).map(|(raw, tree)| self.step(raw, tree)).collect();
        let mut ids = BTreeSet::new();
        for (step, tree) in steps.iter().zip(trees) {
            if !ids.insert(step.id.as_str()) {
                self.problem(tree.span.clone(), format!("two steps have the id `{}`", step.id));
            }
        }
        if steps.is_empty() {
            self.problem(root.span.clone(), "there are no steps".into());
        }
        let faults = file.faults.into_iter().filter_map(|(name, raw)| {
            let span = root.get("faults").and_then(|f| f.get(&name)).map_or(0..0, |t| t.span.clone());
            Some((name, self.fault(raw, span)?))
        });
        let faults = faults.collect::<Vec<_>>().into_iter().collect();
        let budgets = root.get("budgets").map_or(&[][..], Tree::items);
        for (budget, tree) in file.budgets.iter().zip(budgets) {
            if !ids.contains(budget.of.as_str()) && budget.of != "scenario" {
                self.problem(
                    tree.span.clone(),
                    format!("a budget is of a step or of `scenario`, not of `{}`", budget.of),
                );
            }
        }
        Scenario {
            name: name.to_owned(),
            title: file.title,
            goal: file.goal,
            environment: file.environment,
            seed: file.seed,
            faults,
            budgets: file.budgets,
            steps,
        }
    }

    fn step(&mut self, raw: RawStep, tree: &Tree) -> Step {
        let places = |key: &str| -> Vec<Range<usize>> {
            tree.get(key).map_or(&[][..], Tree::items).iter().map(|t| t.span.clone()).collect()
        };
        let mut actions = |values: Vec<Value>, key: &str| -> Vec<Box<dyn Action>> {
            let read = values.into_iter().zip(places(key)).filter_map(|(value, span)| {
                let (name, value) = only(value)?;
                let row = steps::find(&name)?;
                self.read(span, &name, (row.read)(value))
            });
            read.collect()
        };
        let (action, solution) = (actions(raw.action, "action"), actions(raw.solution, "solution"));
        let mut checks: Vec<Box<dyn Check>> = Vec::new();
        for (value, span) in raw.checks.into_iter().zip(places("checks")) {
            if let Some((name, value)) = only(value)
                && let Some(row) = checks::find(&name)
            {
                checks.extend(self.read(span, &name, (row.read)(value)));
            }
        }
        let within = raw.within.unwrap_or(WITHIN).0;
        Step { id: raw.id, text: raw.text, action, solution, checks, within, hints: raw.hints }
    }

    fn fault(&mut self, raw: RawFault, span: Range<usize>) -> Option<Fault> {
        let (kind, value) = raw.kind.into_iter().next()?;
        let row = faults::find(&kind)?;
        let fault = self.read(span, &kind, (row.read)(value))?;
        Some(Fault { after: raw.after.0, jitter: raw.jitter.0, kind, fault })
    }

    fn read<T: ?Sized>(&mut self, span: Range<usize>, name: &str, read: Result<Box<T>, String>) -> Option<Box<T>> {
        read.map_err(|message| self.problem(span, format!("{name}: {message}"))).ok()
    }
}

/// The only entry of a mapping, which the check has made sure of.
fn only(value: Value) -> Option<(String, Value)> {
    match value {
        Value::Object(map) => map.into_iter().next(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "title: T\ngoal: G\nparameters:\n  rate: 20\n  who: catalog\nseed: 7\nsteps:\n- id: one\n  text: load ${who}\n  action:\n  - load: {name: l, to: {service: catalog, path: /x}, rate: '${rate}'}\n  - inject: {faults: [gone]}\n  checks:\n  - load: {name: l, failed-at-most: 0}\nfaults:\n  gone: {after: 2s, pod-kill: {pods: app=catalog}}\nbudgets:\n- {of: one, at-most: 1m}\n";

    fn problems(text: &str, set: &[(&str, &str)]) -> Vec<(String, String, Option<String>)> {
        let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = parse("t", text, &set).err().unwrap_or_default();
        found.into_iter().map(|p| (text.get(p.span).unwrap_or("").to_owned(), p.message, p.hint)).collect()
    }

    #[test]
    fn a_scenario_is_read_with_its_parameters() {
        let scenario = parse("t", GOOD, &BTreeMap::from([("who".into(), "orders".into())])).unwrap();
        assert_eq!((scenario.seed, scenario.steps.len(), scenario.budgets.len()), (7, 1, 1));
        assert_eq!(scenario.steps[0].text, "load orders");
        assert_eq!((scenario.steps[0].action.len(), scenario.steps[0].checks.len()), (2, 1));
        assert_eq!(scenario.faults["gone"].kind, "pod-kill");
        assert_eq!(scenario.faults["gone"].after, std::time::Duration::from_secs(2));
    }

    #[test]
    fn all_problems_come_at_once_with_places_and_suggestions() {
        let text = GOOD
            .replace("title: T", "titel: T")
            .replace("failed-at-most", "failed-at-mots")
            .replace("pod-kill", "pod-kil");
        let found = problems(&text, &[]);
        let messages: Vec<&str> = found.iter().map(|(_, m, _)| m.as_str()).collect();
        assert!(messages.iter().any(|m| m.contains("missing key `title`")), "{found:?}");
        let typo = found.iter().find(|(_, m, _)| m.contains("unknown key `titel`")).unwrap();
        assert_eq!((typo.0.as_str(), typo.2.as_deref()), ("titel", Some("did you mean `title`?")));
        let check = found.iter().find(|(_, m, _)| m.contains("failed-at-mots")).unwrap();
        assert_eq!((check.0.as_str(), check.2.as_deref()), ("failed-at-mots", Some("did you mean `failed-at-most`?")));
        let fault = found.iter().find(|(_, m, _)| m.contains("pod-kil")).unwrap();
        assert_eq!(fault.2.as_deref(), Some("did you mean `pod-kill`?"));
    }

    #[test]
    fn faults_that_are_not_there_yet_are_refused_by_name() {
        let found = problems(&GOOD.replace("pod-kill", "network-partition"), &[]);
        assert!(
            found.iter().any(|(place, m, _)| place == "network-partition" && m.contains("not there yet")),
            "{found:?}"
        );
    }

    #[test]
    fn parameters_that_do_not_exist_and_bad_yaml_are_refused() {
        let found = problems(GOOD, &[("rat", "1")]);
        assert_eq!(found[0].2.as_deref(), Some("did you mean `rate`?"));
        assert!(problems(&GOOD.replace("${rate}", "${rote}"), &[])[0].1.contains("no parameter `rote`"));
        assert_eq!(problems("title: [", &[]).len(), 1);
        assert!(problems("- a\n- b\n", &[])[0].1.contains("must be object"));
    }

    #[test]
    fn a_bad_span_of_time_is_told_at_its_place() {
        let found = problems(&GOOD.replace("rate: '${rate}'", "rate: 5, timeout: 3h"), &[]);
        assert!(found.iter().any(|(_, m, _)| m.contains("`3h`")), "{found:?}");
    }
}
