//! `variables:` at every level.

use super::Reader;
use crate::{
    expression::{Slot, Value, property, runtime_text, same_text},
    plan::Variable,
    template::{Entry, Lazy, Variables, continues_chain},
    yaml::{Kind, Mark, Node},
};
use std::{rc::Rc, sync::Arc};

impl Reader<'_> {
    /// Reads variables; each is known to those after it. `known` has them all afterwards.
    pub(super) fn variables(&mut self, value: &Lazy, known: &mut Variables, slot: Slot) -> Vec<Variable> {
        let mut variables = Vec::new();
        let Some(value) = self.loader.resolved(&value.with(known)) else { return variables };
        // What is known grows below; whoever else held it would make every addition a copy.
        let value = value.with(&Variables::default());
        match &value.node.kind {
            Kind::Mapping(entries) => {
                for group in groups(entries, |(key, _)| continues_chain(key)) {
                    let node = Rc::new(Node { kind: Kind::Mapping(group), mark: value.node.mark.clone() });
                    let Some(mut map) = self.loader.map(&value.at(node).with(known)) else { continue };
                    for entry in map.rest() {
                        self.named_variable(entry, known, slot, &mut variables);
                    }
                }
            }
            Kind::Sequence(items) => {
                let continues = |item: &Rc<Node>| match &item.kind {
                    Kind::Mapping(entries) => entries.first().is_some_and(|(key, _)| continues_chain(key)),
                    _ => false,
                };
                for group in groups(items, continues) {
                    let node = Rc::new(Node { kind: Kind::Sequence(group), mark: value.node.mark.clone() });
                    let items = self.loader.items(&value.at(node).with(known));
                    for item in items {
                        self.variable(item, known, slot, &mut variables);
                    }
                }
            }
            Kind::Scalar(text, _) if text.is_empty() => {}
            Kind::Scalar(text, _) => self.unexpected(&value, &text.clone()),
        }
        variables
    }

    /// `name: value`.
    fn named_variable(&mut self, entry: Entry, known: &mut Variables, slot: Slot, out: &mut Vec<Variable>) {
        let Some(text) = self.loader.text(&entry.value) else { return };
        let same = |v: &Variable| matches!(v, Variable::Value { name, .. } if same_text(name, &entry.key));
        if out.iter().any(same) {
            self.loader.error(&entry.mark, format!("'{}' is already defined", entry.key));
        }
        self.check_runtime(&text, slot, &entry.value);
        let Entry { key, mark, value } = entry;
        drop(value);
        if self.learn(known, &key, &text, &mark) {
            out.push(Variable::Value { name: key, value: text, readonly: false, location: mark.location() });
        }
    }

    /// An item of a list of variables.
    fn variable(&mut self, item: Lazy, known: &mut Variables, slot: Slot, out: &mut Vec<Variable>) {
        let Some(mut map) = self.loader.map(&item.with(known)) else { return };
        let (location, mark) = (item.location(), item.node.mark.clone());
        drop(item);
        if let Some(reference) = map.take("template") {
            let arguments = map.take("parameters");
            self.loader.finish(map);
            let Some(mut inner) = self.loader.open(&reference, arguments) else { return };
            match inner.take("variables") {
                Some(value) => out.extend(self.variables(&value, known, slot)),
                None => self.loader.error(&inner.mark.clone(), "Expected 'variables' in a template of variables"),
            }
            self.loader.finish(inner);
            self.loader.close();
            return;
        }
        if let Some(group) = map.take("group") {
            if let Some(group) = self.loader.text(&group) {
                self.note("variable groups", &mark);
                out.push(Variable::Group { group, location });
            }
            self.loader.finish(map);
            return;
        }
        let Some(name) = map.take("name") else {
            self.loader.error_hint(
                &mark,
                "A variable is a 'name' with a 'value', a 'group' or a 'template'",
                "a list cannot hold `name: value` pairs; use a mapping for those",
            );
            return;
        };
        let name = self.spent(name);
        let readonly = self.flag(&mut map, "readonly").unwrap_or(false);
        let value = map.take("value");
        let text = value.as_ref().and_then(|value| self.loader.text(value)).unwrap_or_default();
        if let Some(value) = &value {
            self.check_runtime(&text, slot, value);
        }
        self.loader.finish(map);
        drop(value);
        if self.learn(known, &name, &text, &mark) {
            out.push(Variable::Value { name, value: text, readonly, location });
        }
    }

    /// The text of a node that nobody needs any more, and that therefore holds no variables either.
    fn spent(&mut self, lazy: Lazy) -> String {
        self.loader.text(&lazy).unwrap_or_default()
    }

    /// Makes a variable known to what follows; false when the pipeline has grown too large.
    fn learn(&mut self, known: &mut Variables, name: &str, value: &str, mark: &Mark) -> bool {
        if !self.loader.spend(1 + known.len() / 256, mark) {
            return false;
        }
        let map = Arc::make_mut(known);
        // The first spelling of a name stays; names are compared without case.
        let spelled = match property(map, name) {
            Some(_) => map.keys().find(|key| same_text(key, name)).cloned(),
            None => None,
        };
        map.insert(spelled.unwrap_or_else(|| name.to_owned()), Value::from(value));
        true
    }

    fn check_runtime(&mut self, text: &str, slot: Slot, at: &Lazy) {
        if let Some(inner) = runtime_text(text) {
            self.checked(inner, slot, at);
        }
    }
}

/// Splits entries into runs that have to be expanded together: an `if` and its `elseif` and `else`.
fn groups<T: Clone>(entries: &[T], continues: impl Fn(&T) -> bool) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    for entry in entries {
        match groups.last_mut() {
            Some(group) if continues(entry) => group.push(entry.clone()),
            _ => groups.push(vec![entry.clone()]),
        }
    }
    groups
}
