//! `parameters:` of a file: declarations, and the values a caller gives.

use super::{Entry, Env, FileRef, Lazy, Loader, Map, Variables};
use crate::{
    expression::{Object, Value, same_text},
    yaml::{Kind, Mark, Node},
};
use serde_json::Value as Json;
use std::{rc::Rc, sync::Arc};

/// Types a template's parameter may have.
const TYPES: [&str; 16] = [
    "boolean",
    "container",
    "containerList",
    "deployment",
    "deploymentList",
    "job",
    "jobList",
    "legacyObject",
    "number",
    "object",
    "stage",
    "stageList",
    "step",
    "stepList",
    "string",
    "stringList",
];
/// Types only a pipeline's own parameter may have: they choose from what the service has.
const ROOT_TYPES: [&str; 5] = ["environment", "filePath", "pool", "secureFile", "serviceConnection"];

/// A declared parameter.
struct Declared {
    name: String,
    kind: String,
    default: Option<Value>,
    values: Option<Vec<Value>>,
    mark: Mark,
}

/// A value on its way to a parameter.
struct Given {
    name: String,
    node: Rc<Node>,
    mark: Mark,
}

impl Loader<'_> {
    /// Opens a template: binds its parameters and gives the mapping of the file, ready to be read. `arguments` is
    /// the caller's `parameters:`. After `Some`, [`Loader::close`] ends the nesting.
    pub fn open(&mut self, reference: &Lazy, arguments: Option<Lazy>) -> Option<Map> {
        let name = self.text(reference)?;
        let (file, node) = self.include(&name, reference)?;
        let given = match arguments {
            Some(arguments) => self.arguments(&arguments)?,
            None => Vec::new(),
        };
        if !self.enter(&reference.node.mark) {
            return None;
        }
        let map = self.opened(file, node, given, reference);
        if map.is_none() {
            self.close();
        }
        map
    }

    fn opened(&mut self, file: FileRef, node: Rc<Node>, given: Vec<Given>, reference: &Lazy) -> Option<Map> {
        let empty = Env { file: file.clone(), parameters: Object::new().into(), locals: Vec::new() };
        let bare = Lazy { node, env: Rc::new(empty), variables: Arc::clone(&reference.variables) };
        let parameters = self.bind(&bare, given, &reference.node.mark, false)?;
        let env = Env { file, parameters, locals: Vec::new() };
        let map = self.map(&Lazy { env: Rc::new(env), ..bare })?;
        Some(without_parameters(map))
    }

    /// Opens the pipeline's own file; `values` are those of the run.
    pub fn root(
        &mut self,
        node: &Rc<Node>,
        file: FileRef,
        values: &indexmap::IndexMap<String, Json>,
        variables: Variables,
    ) -> Option<(Map, Value)> {
        let mark = Mark::file(&file.path);
        let empty = Env { file: file.clone(), parameters: Object::new().into(), locals: Vec::new() };
        let bare = Lazy { node: Rc::clone(node), env: Rc::new(empty), variables };
        let given = values.iter().map(|(name, value)| Given {
            name: name.clone(),
            node: Rc::new(self.placed(Value::from_json(value), &mark)),
            mark: mark.clone(),
        });
        let parameters = self.bind(&bare, given.collect(), &mark, true)?;
        let env = Rc::new(Env { file, parameters: parameters.clone(), locals: Vec::new() });
        let map = self.map(&Lazy { env, ..bare })?;
        Some((without_parameters(map), parameters))
    }

    fn arguments(&mut self, arguments: &Lazy) -> Option<Vec<Given>> {
        let resolved = self.resolved(arguments)?;
        if resolved.node.is_empty() {
            return Some(Vec::new());
        }
        let mut map = self.map(&resolved)?;
        let mut given = Vec::new();
        for Entry { key, mark, value } in map.rest() {
            given.push(Given { name: key, node: self.deep(&value)?, mark });
        }
        Some(given)
    }

    fn bind(&mut self, file: &Lazy, mut given: Vec<Given>, caller: &Mark, root: bool) -> Option<Value> {
        let before = self.errors.len();
        let section = file.node.get("parameters").map(|node| file.at(Rc::clone(node)));
        let declared = match &section {
            Some(section) => self.declarations(section, root),
            None => Vec::new(),
        };
        let mut bound = Object::new();
        for parameter in declared {
            let at = given.iter().position(|g| same_text(&g.name, &parameter.name));
            let value = match at.map(|at| given.remove(at)) {
                Some(given) => {
                    let mark = if root { parameter.mark.clone() } else { given.node.mark.clone() };
                    self.accept(&parameter, &given.node, &mark, root)
                }
                None if parameter.default.is_some() => parameter.default.clone(),
                None => {
                    let at = if root { &parameter.mark } else { caller };
                    self.error(at, format!("A value for the '{}' parameter must be provided.", parameter.name));
                    None
                }
            };
            bound.insert(parameter.name, value.unwrap_or(Value::Null));
        }
        // A file that declares nothing takes anything.
        if section.is_some() || root {
            for extra in given {
                self.error(&extra.mark, format!("Unexpected parameter '{}'", extra.name));
            }
        }
        (self.errors.len() == before).then(|| bound.into())
    }

    fn declarations(&mut self, section: &Lazy, root: bool) -> Vec<Declared> {
        let mut declared: Vec<Declared> = Vec::new();
        if let Kind::Mapping(entries) = &section.node.kind {
            // The short form `name: default` takes any type.
            for (key, value) in entries {
                let default = Some(self.remembered(value));
                let (name, mark) = (key.scalar().unwrap_or_default().to_owned(), key.mark.clone());
                declared.push(Declared { name, kind: "object".to_owned(), default, values: None, mark });
            }
            return declared;
        }
        let Kind::Sequence(items) = &section.node.kind else {
            if !section.node.is_empty() {
                self.error(&section.node.mark, "Expected a sequence");
            }
            return declared;
        };
        for item in items {
            let Some(parameter) = self.declaration(&section.at(Rc::clone(item)), root) else { continue };
            if declared.iter().any(|d| same_text(&d.name, &parameter.name)) {
                let name = &parameter.name;
                let message = format!("The '{name}' parameter is declared more than once in the parameter list.");
                self.error(&item.mark, message);
                continue;
            }
            declared.push(parameter);
        }
        declared
    }

    fn declaration(&mut self, item: &Lazy, root: bool) -> Option<Declared> {
        if let Some(mark) = expression_in(&item.node) {
            self.error_hint(&mark, "A template expression is not allowed in this context", "defaults are literals");
            return None;
        }
        let mut map = self.map(item)?;
        let first = map.entries.first().map(|entry| (entry.key.clone(), entry.mark.clone()));
        let Some(name) = map.take("name") else {
            let (key, mark) = first.unwrap_or_else(|| (String::new(), item.node.mark.clone()));
            self.error_hint(&mark, format!("Unexpected value '{key}'"), "a parameter begins with its `name`");
            return None;
        };
        let name = self.text(&name)?;
        map.take("displayName");
        let kind = match map.take("type") {
            Some(kind) => {
                let text = self.text(&kind)?;
                let of_templates = TYPES.contains(&text.as_str()) && !(root && text == "legacyObject");
                let known = of_templates || (root && ROOT_TYPES.contains(&text.as_str()));
                if !known {
                    let hint = format!("types are {}", TYPES.join(", "));
                    self.error_hint(&kind.node.mark, format!("Unexpected value '{text}'"), hint);
                    return None;
                }
                text
            }
            None => "string".to_owned(),
        };
        let mut parameter = Declared { name, kind, default: None, values: None, mark: item.node.mark.clone() };
        if let Some(values) = map.take("values") {
            let items = self.items(&values);
            let plain = Declared { values: None, default: None, ..parameter.clone_shape() };
            let values = items.iter().filter_map(|v| self.accept(&plain, &v.node, &v.node.mark, root)).collect();
            // Structures cannot be listed; Azure ignores the list.
            parameter.values = Some(values).filter(|_| is_scalar(&parameter.kind));
        }
        if let Some(default) = map.take("default") {
            parameter.default = self.accept(&parameter, &default.node, &default.node.mark.clone(), root);
            if parameter.default.is_none() {
                // Reported; the value does not matter any more.
                parameter.default = Some(Value::Null);
            }
        }
        self.finish(map);
        Some(parameter)
    }

    /// Converts a value to a parameter's type and checks it against the allowed ones.
    fn accept(&mut self, parameter: &Declared, node: &Node, mark: &Mark, root: bool) -> Option<Value> {
        let Declared { name, kind, .. } = parameter;
        let spelled = format!("{}{}", kind[..1].to_uppercase(), &kind[1..]);
        let wrong_shape = format!("The '{name}' parameter is not a valid {spelled}.");
        let wrong = |text: &str| format!("The '{name}' parameter value '{text}' is not a valid {spelled}.");
        let text = node.scalar();
        let value = match (kind.as_str(), &node.kind, text) {
            ("number", _, Some(text)) => match Value::from(text).number().filter(|_| !text.trim().is_empty()) {
                Some(number) => Value::Number(number),
                None => return self.refuse(mark, wrong(text)),
            },
            ("boolean", _, Some(text)) if text.eq_ignore_ascii_case("true") => Value::Boolean(true),
            ("boolean", _, Some(text)) if text.eq_ignore_ascii_case("false") => Value::Boolean(false),
            ("boolean", _, Some(text)) => return self.refuse(mark, wrong(text)),
            ("object" | "legacyObject", _, Some(text)) if root && text.trim_start().starts_with(['{', '[']) => {
                match serde_json::from_str::<Json>(text) {
                    Ok(json) => Value::from_json(&json),
                    Err(_) => self.remembered(node),
                }
            }
            ("object" | "legacyObject", ..) => self.remembered(node),
            ("stringList", Kind::Sequence(items), _) => {
                items.iter().map(|item| Value::from(item.scalar().unwrap_or_default())).collect()
            }
            ("stringList", _, Some(text)) => return self.refuse(mark, wrong(text)),
            (list, Kind::Sequence(_), _) if list.ends_with("List") => self.remembered(node),
            ("step" | "job" | "deployment" | "stage" | "container", Kind::Mapping(_), _) => self.remembered(node),
            (list, Kind::Scalar(text, _), _) if list.ends_with("List") && text.is_empty() => {
                std::iter::empty::<Value>().collect()
            }
            (other, _, Some(text)) if is_scalar(other) => Value::from(text),
            _ => return self.refuse(mark, wrong_shape),
        };
        let allowed = parameter.values.as_ref().is_none_or(|values| values.contains(&value));
        if allowed {
            return Some(value);
        }
        self.refuse(mark, format!("The '{name}' parameter value '{}' is not a valid value.", value.text()))
    }

    fn refuse(&mut self, mark: &Mark, message: String) -> Option<Value> {
        self.error(mark, message);
        None
    }
}

impl Declared {
    fn clone_shape(&self) -> Self {
        Self { name: self.name.clone(), kind: self.kind.clone(), default: None, values: None, mark: self.mark.clone() }
    }
}

fn is_scalar(kind: &str) -> bool {
    matches!(kind, "string" | "number" | "boolean") || ROOT_TYPES.contains(&kind)
}

fn without_parameters(mut map: Map) -> Map {
    map.take("parameters");
    map
}

/// Where an expression stands below a node.
fn expression_in(node: &Node) -> Option<Mark> {
    match &node.kind {
        Kind::Scalar(text, _) => text.contains("${{").then(|| node.mark.clone()),
        Kind::Sequence(items) => items.iter().find_map(|item| expression_in(item)),
        Kind::Mapping(entries) => entries.iter().find_map(|(k, v)| expression_in(k).or_else(|| expression_in(v))),
    }
}
