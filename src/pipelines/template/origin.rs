//! Where values come from: a step that a pipeline hands to a template is still the pipeline's.

use super::Loader;
use crate::{
    expression::{Object, Value},
    yaml::{Kind, Mark, Node, Style},
};
use std::{collections::HashMap, rc::Rc, sync::Arc};

/// Places of objects that became values, by their identity; the object is kept, so that the identity stays its own.
#[derive(Debug, Default)]
pub(super) struct Origins(HashMap<*const Object, (Arc<Object>, Mark)>);

impl Loader<'_> {
    /// The value of a node; its objects are known by place afterwards.
    pub(super) fn remembered(&mut self, node: &Node) -> Value {
        match &node.kind {
            Kind::Scalar(..) => node.scalar_value(),
            Kind::Sequence(items) => items.iter().map(|item| self.remembered(item)).collect(),
            Kind::Mapping(entries) => {
                let pairs = entries.iter().filter_map(|(key, value)| {
                    let name = key.scalar()?.to_owned();
                    Some((name, self.remembered(value)))
                });
                let object = Arc::new(pairs.collect::<Object>());
                self.origins.0.insert(Arc::as_ptr(&object), (Arc::clone(&object), node.mark.clone()));
                Value::Object(object)
            }
        }
    }

    /// The node of a value that an expression gave at `mark`; objects stand where they were written.
    pub(super) fn placed(&self, value: Value, mark: &Mark) -> Node {
        let kind = match value {
            Value::Array(items) => {
                Kind::Sequence(items.iter().map(|item| Rc::new(self.placed(item.clone(), mark))).collect())
            }
            Value::Object(map) => {
                let mark = self.origins.0.get(&Arc::as_ptr(&map)).map_or(mark, |(_, origin)| origin);
                let entries = map.iter().map(|(key, value)| {
                    let style = Style::Result(key.as_str().into());
                    let key = Node { kind: Kind::Scalar(key.clone(), style), mark: mark.clone() };
                    (Rc::new(key), Rc::new(self.placed(value.clone(), mark)))
                });
                return Node { kind: Kind::Mapping(entries.collect()), mark: mark.clone() };
            }
            scalar => Kind::Scalar(scalar.text(), Style::Result(scalar)),
        };
        Node { kind, mark: mark.clone() }
    }
}
