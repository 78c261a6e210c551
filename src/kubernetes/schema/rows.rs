//! Reads the table of built-in resources (`resources.toml`).

use super::builtin;
use super::name::{GroupVersion, GroupVersionKind, GroupVersionResource};
use super::resource::{Column, ColumnSource, Resource, ScalePaths, Subresource, Verb};
use serde::Deserialize;

const ROWS: &str = include_str!("resources.toml");
const EVERY_VERB: [Verb; 8] =
    [Verb::Create, Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];
const READ_WRITE: [Verb; 3] = [Verb::Get, Verb::Patch, Verb::Update];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    resource: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Row {
    group: String,
    version: String,
    kind: String,
    name: String,
    singular: Option<String>,
    #[serde(default)]
    cluster: bool,
    #[serde(default)]
    short: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    verbs: Option<Vec<Verb>>,
    #[serde(default)]
    subresources: Vec<String>,
    #[serde(default)]
    columns: Vec<String>,
    stored_as: Option<String>,
    #[serde(default)]
    computed: bool,
}

/// The built-in resources, in discovery order.
///
/// # Errors
/// The table's own mistakes, as text; a test reads it.
pub(super) fn builtin() -> Result<Vec<Resource>, String> {
    let file: File = toml::from_str(ROWS).map_err(|error| error.to_string())?;
    file.resource.into_iter().map(resource).collect()
}

fn resource(row: Row) -> Result<Resource, String> {
    let gvk = GroupVersionKind::new(&*row.group, &*row.version, &*row.kind);
    Ok(Resource {
        subresources: row.subresources.iter().map(|s| subresource(s, &gvk)).collect::<Result<_, _>>()?,
        columns: row.columns.iter().map(|c| column(c)).collect::<Result<_, _>>()?,
        stored_as: row.stored_as.map(|stored| {
            let stored = GroupVersion::parse(&stored);
            GroupVersionResource::new(stored.group, stored.version, &*row.name)
        }),
        definition: builtin::of_kind(&gvk),
        list_kind: format!("{}List", row.kind),
        singular: row.singular.unwrap_or_else(|| row.kind.to_lowercase()),
        group: row.group,
        version: row.version,
        name: row.name,
        kind: row.kind,
        namespaced: !row.cluster,
        short_names: row.short,
        categories: row.categories,
        verbs: row.verbs.unwrap_or_else(|| EVERY_VERB.to_vec()),
        computed: row.computed,
    })
}

/// `NAME`, `NAME VERBS KIND` or `NAME VERBS GROUP/VERSION/KIND`.
fn subresource(text: &str, parent: &GroupVersionKind) -> Result<Subresource, String> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let usual = |kind, scale| Subresource { name: text.to_owned(), kind, verbs: READ_WRITE.to_vec(), scale };
    match parts[..] {
        ["status"] => Ok(usual(parent.clone(), None)),
        ["scale"] => Ok(usual(GroupVersionKind::new("autoscaling", "v1", "Scale"), Some(ScalePaths::builtin()))),
        [name, verbs, kind] => Ok(Subresource {
            name: name.to_owned(),
            kind: match kind.rsplit_once('/') {
                Some((group_version, kind)) => GroupVersion::parse(group_version).kind(kind),
                None => parent.group_version().kind(kind),
            },
            verbs: verbs.split(',').map(|v| Verb::parse(v).ok_or(text)).collect::<Result<_, _>>()?,
            scale: None,
        }),
        _ => Err(format!("subresource {text:?}")),
    }
}

/// `NAME[:TYPE][*] = SOURCE`.
fn column(text: &str) -> Result<Column, String> {
    let (head, source) = text.split_once(" = ").ok_or_else(|| format!("column {text:?}"))?;
    let (head, priority) = match head.strip_suffix('*') {
        Some(head) => (head, 1),
        None => (head, 0),
    };
    let (name, type_) = head.split_once(':').unwrap_or((head, "string"));
    let (type_, format) = if type_ == "name" { ("string", "name") } else { (type_, "") };
    let source = if source.starts_with('.') {
        ColumnSource::Path(source.to_owned())
    } else {
        ColumnSource::Compute(source.to_owned())
    };
    Ok(Column {
        name: name.to_owned(),
        type_: type_.to_owned(),
        format: format.to_owned(),
        priority,
        description: String::new(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_definition_and_a_name_column() {
        for row in builtin().unwrap() {
            assert!(row.definition.is_some() || row.group == "metrics.k8s.io", "{}", row.gvr());
            let first = row.columns.first();
            assert!(row.computed || first.is_some(), "{}", row.gvr());
            for subresource in &row.subresources {
                let known = builtin::of_kind(&subresource.kind).is_some();
                assert!(known || subresource.kind.kind.ends_with("Options"), "{}", subresource.kind);
            }
        }
    }
}
