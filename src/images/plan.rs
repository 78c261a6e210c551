//! Which stages a build needs, and in what order.

use super::{
    dockerfile::{Dockerfile, Kind, RunMount, Source, expand},
    error::BuildError,
    manifest::Platform,
};
use aksim_model::{image_ref::ImageRef, suggest::nearest};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a stage builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage, by index.
    Stage(usize),
    /// An image.
    Image(ImageRef),
}

/// What a build does.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Base of each stage.
    pub bases: Vec<Base>,
    /// Stages to build, in order; the last is the target.
    pub order: Vec<usize>,
    /// Values of the ARGs before the first FROM.
    pub global_args: BTreeMap<String, String>,
}

/// ARGs that every stage may declare without a default.
pub fn platform_args(platform: &Platform) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    for side in ["TARGET", "BUILD"] {
        let variant = platform.variant.clone().unwrap_or_default();
        let whole = if variant.is_empty() { platform.to_string() } else { format!("{platform}/{variant}") };
        args.insert(format!("{side}PLATFORM"), whole);
        args.insert(format!("{side}OS"), platform.os.clone());
        args.insert(format!("{side}ARCH"), platform.architecture.clone());
        args.insert(format!("{side}VARIANT"), variant);
    }
    args
}

impl Plan {
    /// Decides what to build for `target` (name or number of a stage; the last when absent).
    ///
    /// # Errors
    /// [`BuildError::Dockerfile`] for a base or target that is none.
    pub fn new(
        file: &Dockerfile,
        source: &Source,
        build_args: &BTreeMap<String, String>,
        target: Option<&str>,
        platform: &Platform,
    ) -> Result<Self, BuildError> {
        let global_args = global_args(file, source, build_args, platform)?;
        let mut bases = Vec::new();
        for (index, stage) in file.stages.iter().enumerate() {
            let lookup = |name: &str| global_args.get(name).cloned();
            let fail = |message: String, hint: Option<String>| source.error(stage.base_span, message, hint);
            let base = expand(&stage.base, file.escape, &lookup).map_err(|e| fail(e.to_string(), None))?;
            if base.is_empty() {
                let hint = "give the ARG before the first FROM a default, or pass --build-arg".to_owned();
                return Err(fail(format!("the base {} is empty", stage.base), Some(hint)).into());
            }
            let earlier = file.stages[..index].iter().rposition(|s| s.name.as_deref() == Some(&base.to_lowercase()));
            bases.push(match earlier {
                Some(stage) => Base::Stage(stage),
                None if base == "scratch" => Base::Scratch,
                None => Base::Image(base.parse().map_err(|e| fail(format!("{e}"), None))?),
            });
        }
        let target = match target {
            None => file.stages.len() - 1,
            Some(target) => find_stage(file, target).ok_or_else(|| {
                let names = || file.stages.iter().filter_map(|s| s.name.as_deref());
                let hint = nearest(target, names()).map(|n| format!("did you mean {n}?"));
                let hint = hint.or_else(|| Some(format!("stages: {}", names().collect::<Vec<_>>().join(", "))));
                source.error(file.stages[0].span, format!("no stage is called {target:?}"), hint)
            })?,
        };
        let mut needed = BTreeSet::new();
        need(file, &bases, target, &mut needed);
        Ok(Self { bases, order: needed.into_iter().collect(), global_args })
    }
}

/// A stage by name or number.
pub fn find_stage(file: &Dockerfile, name: &str) -> Option<usize> {
    let by_name = file.stages.iter().rposition(|s| s.name.as_deref() == Some(&name.to_lowercase()));
    by_name.or_else(|| name.parse().ok().filter(|n| *n < file.stages.len()))
}

/// Stages only refer to earlier ones, so their numbers are an order that works, and this ends.
fn need(file: &Dockerfile, bases: &[Base], stage: usize, needed: &mut BTreeSet<usize>) {
    if !needed.insert(stage) {
        return;
    }
    if let Base::Stage(base) = bases[stage] {
        need(file, bases, base, needed);
    }
    for instruction in &file.stages[stage].instructions {
        let from: Vec<&String> = match &instruction.kind {
            Kind::Copy(transfer) | Kind::Add(transfer) => transfer.from.iter().collect(),
            Kind::Run(run) => run
                .mounts
                .iter()
                .filter_map(|m| match m {
                    RunMount::Bind { from, .. } => from.as_ref(),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        for other in from.into_iter().filter_map(|name| find_stage(file, name)).filter(|other| *other < stage) {
            need(file, bases, other, needed);
        }
    }
}

fn global_args(
    file: &Dockerfile,
    source: &Source,
    build_args: &BTreeMap<String, String>,
    platform: &Platform,
) -> Result<BTreeMap<String, String>, BuildError> {
    let mut values = platform_args(platform);
    for instruction in &file.global_args {
        let Kind::Arg(args) = &instruction.kind else { continue };
        for (name, default) in args {
            let lookup = |name: &str| values.get(name).cloned();
            let value = match (build_args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(
                    expand(default, file.escape, &lookup)
                        .map_err(|e| source.error(instruction.span, e.to_string(), None))?,
                ),
                (None, None) => None,
            };
            if let Some(value) = value {
                values.insert(name.clone(), value);
            }
        }
    }
    Ok(values)
}
