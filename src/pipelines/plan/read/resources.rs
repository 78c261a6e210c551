//! `resources`.

use super::Reader;
use crate::{
    plan::{Container, OtherResource, Repository, Resources},
    template::{Lazy, Map},
    yaml::Mark,
};

impl Reader<'_> {
    /// `resources:`; repositories become known to template references at once.
    pub(super) fn resources(&mut self, value: &Lazy, resources: &mut Resources) {
        let Some(mut map) = self.loader.map(value) else { return };
        if let Some(value) = map.take("repositories") {
            for item in self.plain_items(&value) {
                self.repository(&item, resources);
            }
        }
        if let Some(value) = map.take("containers") {
            for item in self.loader.items(&value) {
                let Some(mut map) = self.loader.map(&item) else { continue };
                let Some(alias) = self.alias(&mut map, "container") else { continue };
                let twice = resources.containers.iter().any(|c| c.alias == alias);
                self.refuse_twice(twice, &alias, &item.node.mark);
                let container = self.container(map, alias);
                resources.containers.push(container);
            }
        }
        for (section, key, construct) in [
            ("pipelines", "pipeline", "resources: pipelines"),
            ("builds", "build", "resources: builds"),
            ("packages", "package", "resources: packages"),
            ("webhooks", "webhook", "resources: webhooks"),
        ] {
            let Some(value) = map.take(section) else { continue };
            let mut found = Vec::new();
            for item in self.loader.items(&value) {
                let Some(mut map) = self.loader.map(&item) else { continue };
                let Some(alias) = self.alias(&mut map, key) else { continue };
                self.note(construct, &item.node.mark);
                let properties = self.others(&mut map);
                if section == "pipelines" {
                    let name = properties.get("source").and_then(serde_json::Value::as_str).unwrap_or(&alias);
                    self.pipelines.insert(alias.clone(), name.to_owned());
                }
                found.push(OtherResource { alias, properties, location: item.location() });
            }
            match section {
                "pipelines" => resources.pipelines.extend(found),
                "builds" => resources.builds.extend(found),
                "packages" => resources.packages.extend(found),
                _ => resources.webhooks.extend(found),
            }
        }
        self.loader.finish(map);
    }

    /// Items of a sequence in which no expression is allowed.
    fn plain_items(&mut self, value: &Lazy) -> Vec<Lazy> {
        let items = self.loader.items(value);
        if let crate::yaml::Kind::Sequence(nodes) = &value.node.kind {
            for node in nodes {
                if let crate::yaml::Kind::Mapping(entries) = &node.kind {
                    for (key, _) in entries.iter().filter(|(key, _)| key.scalar().is_some_and(|k| k.contains("${{"))) {
                        self.loader.error(&key.mark, "A template expression is not allowed in this context");
                    }
                }
            }
        }
        items
    }

    fn alias(&mut self, map: &mut Map, key: &'static str) -> Option<String> {
        let mark = map.mark.clone();
        let alias = self.some_text(map, key);
        if alias.is_none() {
            self.loader.error(&mark, format!("A resource begins with its '{key}'"));
        }
        alias
    }

    fn refuse_twice(&mut self, twice: bool, alias: &str, mark: &Mark) {
        if twice {
            self.loader.error(mark, format!("The resource alias '{alias}' is already defined"));
        }
    }

    fn repository(&mut self, item: &Lazy, resources: &mut Resources) {
        let Some(mut map) = self.loader.map(item) else { return };
        let Some(alias) = self.alias(&mut map, "repository") else { return };
        let twice = resources.repositories.iter().any(|r| r.alias.eq_ignore_ascii_case(&alias));
        self.refuse_twice(twice, &alias, &item.node.mark);
        let kind = map.take("type");
        let text = kind.as_ref().and_then(|kind| self.loader.text(kind)).unwrap_or_else(|| "git".to_owned());
        let allowed = ["git", "github", "githubenterprise", "bitbucket"];
        if let Some(kind) = kind.filter(|_| !allowed.contains(&text.to_lowercase().as_str())) {
            self.not_among(&kind, &text, &allowed);
        }
        self.note("resources: repositories", &item.node.mark);
        let repository = Repository {
            kind: text,
            name: self.text_of(&mut map, "name").unwrap_or_default(),
            reference: self.text_of(&mut map, "ref").unwrap_or_default(),
            endpoint: self.some_text(&mut map, "endpoint"),
            trigger: map.take("trigger").map(|v| self.trigger(&v, false)),
            alias,
            location: item.location(),
        };
        if repository.trigger.is_some() {
            self.note("trigger of a repository resource", &item.node.mark);
        }
        self.loader.finish(map);
        let names = (repository.name.clone(), repository.reference.clone());
        self.loader.repositories.insert(repository.alias.clone(), names);
        resources.repositories.push(repository);
    }

    /// A container's keys.
    pub(super) fn container(&mut self, mut map: Map, alias: String) -> Container {
        let location = map.mark.location();
        let mark = map.mark.clone();
        let mut container = Container {
            alias,
            image: self.text_of(&mut map, "image").unwrap_or_default(),
            endpoint: self.some_text(&mut map, "endpoint"),
            env: map.take("env").map(|v| self.dictionary(&v)).unwrap_or_default(),
            options: self.some_text(&mut map, "options"),
            ports: self.texts_of(&mut map, "ports"),
            volumes: self.texts_of(&mut map, "volumes"),
            map_docker_socket: self.flag(&mut map, "mapDockerSocket"),
            mount_read_only: Vec::new(),
            more: indexmap::IndexMap::new(),
            location,
        };
        if let Some(mut only) = map.take("mountReadOnly").and_then(|v| self.loader.map(&v)) {
            for key in ["work", "externals", "tools", "tasks"] {
                if self.flag(&mut only, key) == Some(true) {
                    container.mount_read_only.push(key.to_owned());
                }
            }
            self.loader.finish(only);
        }
        for key in
            ["type", "trigger", "azureSubscription", "resourceGroup", "registry", "repository", "localImage", "tags"]
        {
            let Some(value) = map.take(key) else { continue };
            if let Some(node) = self.loader.deep(&value) {
                container.more.insert(key.to_owned(), node.value().to_json());
            }
        }
        if container.more.contains_key("trigger") {
            self.note("trigger of a container resource", &mark);
        }
        if container.image.is_empty() && !container.more.contains_key("type") {
            self.loader.error(&mark, "A container needs an 'image'");
        }
        self.loader.finish(map);
        container
    }
}
