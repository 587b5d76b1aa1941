// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Label selectors.

use std::collections::BTreeMap;

use k8s_openapi::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::reading::Object;
use super::values;
use crate::error::Result;

/// Labels of an object.
pub(super) type Labels = BTreeMap<String, String>;

/// What the value of a label must be.
#[derive(Debug)]
enum Wanted {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

/// Selects objects by labels. All that it wants must hold, so that an empty one selects all.
#[derive(Debug)]
pub(super) struct Selector(Vec<(String, Wanted)>);

impl Selector {
    /// Reads the selector in `field` of `object`.
    pub fn parse<T: Resource>(
        object: &Object<T>,
        field: &str,
        selector: &LabelSelector,
    ) -> Result<Self> {
        let mut all = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            let checked = values::label_key(key).and_then(|_| values::label_value(value));
            object.check(format!("{field}.matchLabels"), checked)?;
            all.push((key.clone(), Wanted::In(vec![value.clone()])));
        }
        for (index, requirement) in (0..).zip(selector.match_expressions.iter().flatten()) {
            let field = format!("{field}.matchExpressions[{index}]");
            all.push((
                requirement.key.clone(),
                wanted(object, &field, requirement)?,
            ));
        }
        Ok(Self(all))
    }

    /// Whether it selects what has these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, wanted)| {
            let value = labels.get(key);
            match wanted {
                Wanted::In(values) => value.is_some_and(|value| values.contains(value)),
                Wanted::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Wanted::Exists => value.is_some(),
                Wanted::DoesNotExist => value.is_none(),
            }
        })
    }
}

fn wanted<T: Resource>(
    object: &Object<T>,
    field: &str,
    requirement: &LabelSelectorRequirement,
) -> Result<Wanted> {
    let wanted_values = requirement.values.clone().unwrap_or_default();
    let operator = requirement.operator.as_str();
    if requirement.key.is_empty() {
        return Err(object.error(format!("{field}.key"), "is missing"));
    }
    object.check(format!("{field}.key"), values::label_key(&requirement.key))?;
    for value in &wanted_values {
        let checked = values::label_value(value);
        object.check(format!("{field}.values"), checked)?;
    }
    let takes_values = matches!(operator, "In" | "NotIn");
    let wanted = match operator {
        "In" => Wanted::In(wanted_values.clone()),
        "NotIn" => Wanted::NotIn(wanted_values.clone()),
        "Exists" => Wanted::Exists,
        "DoesNotExist" => Wanted::DoesNotExist,
        _ => {
            let problem =
                format!("\"{operator}\" is not one of In, NotIn, Exists and DoesNotExist");
            return Err(object.error(format!("{field}.operator"), problem));
        }
    };
    if takes_values == wanted_values.is_empty() {
        let problem = if takes_values {
            "must have values"
        } else {
            "must have no values"
        };
        return Err(object.error(format!("{field}.values"), format!("{operator} {problem}")));
    }
    Ok(wanted)
}
