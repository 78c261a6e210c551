//! Variables of a run and of a job: names without case, secret and read-only ones, macros.

use crate::{
    expression::{self, Value},
    logging::mask::SecretMasker,
};
use indexmap::IndexMap;
use std::{collections::BTreeMap, sync::Arc};

/// How deep values of variables may name other variables, as the agent has it.
const DEPTH: usize = 50;

/// A variable's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// As it was first written.
    pub name: String,
    /// Text.
    pub value: String,
    /// Masked, and kept out of environments.
    pub secret: bool,
    /// Scripts cannot change it.
    pub readonly: bool,
}

/// Why a variable could not be set.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VariableError {
    /// It is read-only.
    #[error("Overwriting readonly variable '{0}' is not permitted.")]
    ReadOnly(String),
    /// A name with characters that a variable cannot have.
    #[error("Variable name '{0}' is not valid.")]
    Name(String),
}

/// Variables by name without case, in the order they were first set.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    values: IndexMap<String, Variable>,
}

impl Variables {
    /// A value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(&name.to_lowercase()).map(|v| v.value.as_str())
    }

    /// Sets an ordinary variable, whatever it was.
    pub fn put(&mut self, name: &str, value: impl Into<String>) {
        self.insert(Variable { name: name.to_owned(), value: value.into(), secret: false, readonly: false });
    }

    /// Sets a secret.
    pub fn put_secret(&mut self, name: &str, value: impl Into<String>) {
        self.insert(Variable { name: name.to_owned(), value: value.into(), secret: true, readonly: false });
    }

    /// Sets a variable that scripts cannot change.
    pub fn put_readonly(&mut self, name: &str, value: impl Into<String>) {
        self.insert(Variable { name: name.to_owned(), value: value.into(), secret: false, readonly: true });
    }

    /// Forgets a variable.
    pub fn remove(&mut self, name: &str) {
        self.values.shift_remove(&name.to_lowercase());
    }

    /// Sets a variable, whatever it was.
    pub fn insert(&mut self, variable: Variable) {
        self.values.insert(variable.name.to_lowercase(), variable);
    }

    /// Sets a variable as a script may: a secret stays secret, a read-only one as it is.
    ///
    /// # Errors
    /// [`VariableError`].
    pub fn set(&mut self, name: &str, value: &str, secret: bool, readonly: bool) -> Result<(), VariableError> {
        if name.is_empty() || name.contains(['\n', '\r', '\0', '=']) {
            return Err(VariableError::Name(name.to_owned()));
        }
        let before = self.values.get(&name.to_lowercase());
        if before.is_some_and(|v| v.readonly) {
            return Err(VariableError::ReadOnly(name.to_owned()));
        }
        let secret = secret || before.is_some_and(|v| v.secret);
        self.insert(Variable { name: name.to_owned(), value: value.to_owned(), secret, readonly });
        Ok(())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Variable> {
        self.values.values()
    }

    /// Puts the value of each `$(name)` in its place; unknown names stay as they are.
    pub fn expand(&self, text: &str) -> String {
        expression::expand_macros(text, &|name| self.get(name).map(str::to_owned))
    }

    /// Expands the values that name other variables.
    pub fn expand_values(&mut self) {
        for _ in 0..DEPTH {
            let before = self.clone();
            let mut changed = false;
            for variable in self.values.values_mut().filter(|v| v.value.contains("$(")) {
                let own = variable.name.to_lowercase();
                // A value that names itself stays as it is.
                let lookup =
                    |name: &str| (name.to_lowercase() != own).then(|| before.get(name).map(str::to_owned)).flatten();
                let expanded = expression::expand_macros(&variable.value, &lookup);
                let taken = |v: &Variable| v.secret && before_names(&variable.value, &v.name);
                if before.iter().any(taken) {
                    variable.secret = true;
                }
                if expanded != variable.value && expanded.len() < (1 << 20) {
                    variable.value = expanded;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// Environment of a process: names in upper case with `_` for `.`, space and others; no secrets.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let plain = self.values.values().filter(|v| !v.secret && !v.value.contains('\0'));
        plain.map(|v| (environment_name(&v.name), v.value.clone())).filter(|(name, _)| !name.is_empty()).collect()
    }

    /// As the context `variables` of expressions.
    pub fn context(&self) -> Value {
        self.values.values().map(|v| (v.name.clone(), Value::String(v.value.clone()))).collect()
    }

    /// Tells the masker every secret.
    pub fn teach(&self, masker: &Arc<SecretMasker>) {
        self.values.values().filter(|v| v.secret).for_each(|v| masker.add(&v.value));
    }
}

fn before_names(text: &str, name: &str) -> bool {
    text.to_lowercase().contains(&format!("$({})", name.to_lowercase()))
}

/// `BUILD_BUILDID` of `Build.BuildId`.
pub fn environment_name(name: &str) -> String {
    let keep = |c: char| if matches!(c, '.' | ' ') { '_' } else { c };
    let name: String = name.chars().map(keep).collect::<String>().to_uppercase();
    if name.contains(['=', '\0']) { String::new() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_case_and_secrets_stay_secret() {
        let mut variables = Variables::default();
        variables.put_secret("Token", "t0p");
        variables.put_readonly("Build.BuildId", "7");
        assert_eq!(variables.get("TOKEN"), Some("t0p"));
        variables.set("token", "other", false, false).unwrap();
        assert!(variables.iter().all(|v| v.name != "token" || v.secret));
        assert_eq!(
            variables.set("build.buildid", "8", false, false).unwrap_err().to_string(),
            "Overwriting readonly variable 'build.buildid' is not permitted."
        );
        assert_eq!(variables.environment().into_iter().collect::<Vec<_>>(), [("BUILD_BUILDID".into(), "7".into())]);
        assert!(variables.set("a\nb", "", false, false).is_err());
    }

    #[test]
    fn values_that_name_each_other_end() {
        let mut variables = Variables::default();
        for (name, value) in [("a", "$(b)"), ("b", "$(a)x"), ("c", "$(d)$(d)"), ("d", "1"), ("self", "$(self)!")] {
            variables.put(name, value);
        }
        variables.put_secret("s", "hidden");
        variables.put("uses", "x-$(S)");
        variables.expand_values();
        assert_eq!((variables.get("c"), variables.get("self")), (Some("11"), Some("$(self)!")));
        assert_eq!(variables.get("uses"), Some("x-hidden"));
        assert!(!variables.environment().contains_key("USES"));
    }
}
