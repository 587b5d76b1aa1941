// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! From files to objects: which there are, where each was read, and which fields are misspelt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Validation;
use super::kinds::Header;
use super::reach::ADDRESSES_ANNOTATION;
use super::values;
use crate::error::{Doing, Error, Result};

/// The namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// How names of files end that are read in a folder.
const MANIFESTS: [&str; 3] = ["yaml", "yml", "json"];

/// An object, and where it was read.
#[derive(Debug)]
pub(super) struct Object<T> {
    pub file: String,
    pub namespace: String,
    pub name: String,
    pub it: T,
}

impl<T: Resource> Object<T> {
    /// Its name, with the namespace that it is in.
    pub fn id(&self) -> String {
        id(&self.namespace, &self.name)
    }

    /// Its kind and name, for notes.
    pub fn title(&self) -> String {
        format!("{} {}", T::KIND, self.id())
    }

    /// Says what is wrong with a field of it.
    pub fn error(&self, field: impl Display, problem: impl Into<String>) -> Error {
        Error::Manifest {
            place: format!("{}: {}: {field}", self.file, self.title()),
            problem: problem.into(),
        }
    }

    /// Blames `field` if there is a problem.
    pub fn check<V>(
        &self,
        field: impl Display,
        value: std::result::Result<V, String>,
    ) -> Result<V> {
        value.map_err(|problem| self.error(field, problem))
    }
}

impl<T: Metadata<Ty = ObjectMeta>> Object<T> {
    /// An annotation that it may have, with its field.
    pub fn annotation(&self, name: &str) -> Option<(String, &str)> {
        let text = self.it.metadata().annotations.as_ref()?.get(name)?;
        Some((annotation_field(name), text))
    }
}

fn annotation_field(name: &str) -> String {
    format!("metadata.annotations[{name}]")
}

/// Whether an annotation is for `sctp-lb`, by its name.
fn is_ours(name: &str) -> bool {
    name.split('/').next() == ADDRESSES_ANNOTATION.split('/').next()
}

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub services: Vec<Object<Service>>,
    pub slices: Vec<Object<EndpointSlice>>,
    pub policies: Vec<Object<NetworkPolicy>>,
    pub pods: Vec<Object<Pod>>,
    pub namespaces: Vec<Object<Namespace>>,
    pub notes: Vec<String>,
    /// Whether a list without items says that nothing is wanted.
    nothing_wanted: bool,
    /// In which file each was, by kind and name.
    seen: BTreeMap<(&'static str, String), String>,
    validation: Validation,
    /// Fields that a note was made of.
    unknown: BTreeSet<String>,
    /// The names of objects that are not read, by file and kind, and version.
    unread: BTreeMap<(String, String), Vec<String>>,
}

/// A document of a file.
#[derive(Clone, Copy)]
struct Origin<'a> {
    file: &'a str,
    number: usize,
    /// Its place in a list.
    item: Option<usize>,
}

impl Origin<'_> {
    /// Blames the document, as its object has no name.
    fn error(&self, problem: impl Into<String>) -> Error {
        let item = self.item.map(|item| format!(": items[{item}]"));
        let item = item.unwrap_or_default();
        Error::Manifest {
            place: format!("{}: document {}{item}", self.file, self.number),
            problem: problem.into(),
        }
    }
}

/// Reads `files` in their order.
pub(super) fn read(files: &[PathBuf], validation: Validation) -> Result<Objects> {
    let mut objects = Objects {
        validation,
        ..Default::default()
    };
    for path in &all_files(files)? {
        let file = path.display().to_string();
        let text = match path.to_str() {
            Some("-") => std::io::read_to_string(std::io::stdin()),
            _ => std::fs::read_to_string(path),
        };
        let text = text.doing(|| format!("read {file}"))?;
        let documents = documents(path, &text).map_err(|problem| Error::Manifest {
            place: file.clone(),
            problem,
        })?;
        // As it comes from a command that has failed.
        if documents.iter().all(Value::is_null) {
            return Err(empty(file, "there is nothing in it"));
        }
        for (number, document) in (1..).zip(documents) {
            let file = file.as_str();
            let origin = Origin {
                file,
                number,
                item: None,
            };
            objects.add(origin, document, &Header::default())?;
        }
    }
    objects.note_unread();
    if let Some(first) = files
        .first()
        .filter(|_| objects.seen.is_empty() && !objects.nothing_wanted)
    {
        let others = match files.len() {
            1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        let place = format!("{}{others}", first.display());
        return Err(empty(place, "there is no object that is read"));
    }
    Ok(objects)
}

fn empty(place: String, problem: &str) -> Error {
    let so = "what is not named would be removed: an empty List says that this is wanted";
    Error::Manifest {
        place,
        problem: format!("{problem}, and {so}"),
    }
}

/// The files, and those of folders by their names, but not of folders in these: as `kubectl` has it.
fn all_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if path.to_str() == Some("-") || !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let doing = || format!("read the folder {}", path.display());
        let entries = path.read_dir().doing(doing)?;
        let entries = entries.collect::<std::io::Result<Vec<_>>>().doing(doing)?;
        // A link that leads nowhere is one, and an error when it is read.
        let is_file = |path: &PathBuf| path.is_file() || !path.exists();
        let is_manifest = |path: &PathBuf| {
            let extension = path.extension().and_then(|e| e.to_str());
            is_file(path) && extension.is_some_and(|e| MANIFESTS.contains(&e))
        };
        let paths = entries.into_iter().map(|entry| entry.path());
        let mut files: Vec<_> = paths.filter(is_manifest).collect();
        if files.is_empty() {
            return Err(Error::Manifest {
                place: path.display().to_string(),
                problem: format!(
                    "there is no file in it that ends in {}",
                    MANIFESTS.join(", ")
                ),
            });
        }
        files.sort();
        all.extend(files);
    }
    Ok(all)
}

fn documents(path: &Path, text: &str) -> std::result::Result<Vec<Value>, String> {
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        let documents = serde_json::Deserializer::from_str(text).into_iter();
        return documents
            .collect::<serde_json::Result<_>>()
            .map_err(|e| format!("not JSON, as the name says: {e}"));
    }
    // A cluster's pods are more than what the parser takes by itself; its limits of depth stay.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1_000_000,
            max_events: 200_000_000,
            max_nodes: 100_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
        with_snippet: false,
    };
    let documents = serde_saphyr::from_multiple_with_options(text, options);
    documents.map_err(|e| e.render_with_formatter(&serde_saphyr::UserMessageFormatter))
}

impl Objects {
    fn add(&mut self, origin: Origin<'_>, mut value: Value, list: &Header) -> Result<()> {
        let header = Header::of(&value, list).map_err(|problem| origin.error(problem))?;
        let blame = |problem, value: &Value| {
            Err(origin.error(format!("{}: {problem}", title(&header, value))))
        };
        if let Some(problem) = header.mistake() {
            return blame(problem.as_str(), &value);
        }
        match (header.items(), value.get_mut("items").map(Value::take)) {
            (Some(of_items), Some(Value::Array(items))) => {
                self.nothing_wanted |= items.is_empty() && header.is_list();
                let mut items = items.into_iter().enumerate();
                return items.try_for_each(|(index, value)| {
                    let item = Some(index);
                    self.add(Origin { item, ..origin }, value, &of_items)
                });
            }
            // As Go writes an empty list.
            (Some(_), Some(Value::Null)) => {
                self.nothing_wanted |= header.is_list();
                return Ok(());
            }
            _ if header.is_list() => return blame("items is missing: not a list", &value),
            _ => {}
        }
        if header.is::<Service>() {
            self.push(origin, value, |all| &mut all.services)
        } else if header.is::<EndpointSlice>() {
            self.push(origin, value, |all| &mut all.slices)
        } else if header.is::<NetworkPolicy>() {
            self.push(origin, value, |all| &mut all.policies)
        } else if header.is::<Pod>() {
            self.push(origin, value, |all| &mut all.pods)
        } else if header.is::<Namespace>() {
            self.push(origin, value, |all| &mut all.namespaces)
        } else {
            let Header { api_version, kind } = &header;
            let of = format!("{}: {kind}", origin.file);
            let unread = self.unread.entry((of, api_version.clone())).or_default();
            unread.push(id_of(&value));
            Ok(())
        }
    }

    fn push<T: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned>(
        &mut self,
        origin: Origin<'_>,
        value: Value,
        list: impl Fn(&mut Self) -> &mut Vec<Object<T>>,
    ) -> Result<()> {
        let (object, unknown) = parse::<T>(origin, value)?;
        for field in unknown {
            self.unknown(&object, &field)?;
        }
        let annotations = object.it.metadata().annotations.as_ref();
        let ours = annotations.into_iter().flat_map(BTreeMap::keys);
        let misspelt = |name: &&String| is_ours(name) && *name != ADDRESSES_ANNOTATION;
        for name in ours.filter(misspelt) {
            self.unknown(&object, &annotation_field(name))?;
        }
        let file = object.file.clone();
        if let Some(other) = self.seen.insert((T::KIND, object.id()), file) {
            let problem = format!("is in {other} already: remove one of them");
            return Err(object.error("metadata.name", problem));
        }
        list(self).push(object);
        Ok(())
    }

    /// One note for each kind, as a dump of a cluster has many objects.
    fn note_unread(&mut self) {
        for ((kind, api_version), ids) in std::mem::take(&mut self.unread) {
            let which = match ids.as_slice() {
                [one] => one.clone(),
                [first, ..] => format!("{first} and {} more", ids.len() - 1),
                [] => continue,
            };
            let kind = format!("{kind} {which}");
            let kind = kind.trim_end();
            self.notes.push(format!("{kind} ({api_version}): not read"));
        }
    }

    /// A field that we know nothing of: it is misspelt, or from a later Kubernetes. In policies
    /// `form` for `from` would let everybody in.
    fn unknown<T: Resource>(&mut self, object: &Object<T>, field: &str) -> Result<()> {
        let decides = T::KIND == NetworkPolicy::KIND && field.starts_with("spec");
        if decides || self.validation == Validation::Strict {
            let problem = format!("is not a field of {}: correct its name", T::KIND);
            let or_later = "; or let it pass, with --validate warn, if another Kubernetes has it";
            let or_later = if decides { "" } else { or_later };
            return Err(object.error(field, problem + or_later));
        }
        let field_of_kind = format!("{} {}", T::KIND, field.replace(char::is_numeric, ""));
        if self.unknown.insert(field_of_kind) {
            let title = object.title();
            self.notes
                .push(format!("{title}: {field}: not known, ignored"));
        }
        Ok(())
    }
}

/// A name with the namespace, which is empty for what is in none.
fn id(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_string()
    } else {
        format!("{namespace}/{name}")
    }
}

fn metadata<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    let text = value.get("metadata")?.get(field)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

/// The namespace and name of an object that is not read, if it has any.
fn id_of(value: &Value) -> String {
    let namespace = metadata(value, "namespace").unwrap_or_default();
    id(namespace, metadata(value, "name").unwrap_or_default())
}

/// The kind and name of an object that is not read.
fn title(header: &Header, value: &Value) -> String {
    format!("{} {}", header.kind, id_of(value))
        .trim_end()
        .to_string()
}

/// The object that `value` is, and the fields of it that are not known.
fn parse<T: Resource + DeserializeOwned>(
    origin: Origin<'_>,
    value: Value,
) -> Result<(Object<T>, Vec<String>)> {
    let namespace = match metadata(&value, "namespace") {
        _ if T::KIND == Namespace::KIND => "",
        namespace => namespace.unwrap_or(DEFAULT_NAMESPACE),
    };
    let name = metadata(&value, "name").ok_or_else(|| {
        origin.error(format!("{}: metadata.name is missing or not text", T::KIND))
    })?;
    for (field, name) in [("name", name), ("namespace", namespace)] {
        if !name.is_empty() {
            let checked = values::object_name(name);
            let blame = |problem| origin.error(format!("{}: metadata.{field}: {problem}", T::KIND));
            checked.map_err(blame)?;
        }
    }
    let (file, namespace) = (origin.file.to_string(), namespace.to_string());
    let place = format!("{file}: {} {}", T::KIND, id(&namespace, name));
    let name = name.to_string();

    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let value = serde_path_to_error::Deserializer::new(value, &mut track);
    let mut ignored = |path: serde_ignored::Path<'_>| unknown.push(field(&path));
    let value = serde_ignored::Deserializer::new(value, &mut ignored);
    let it = T::deserialize(value).map_err(|e| Error::Manifest {
        place: format!("{place}: {}", track.path()),
        problem: e.to_string(),
    })?;
    let object = Object {
        file,
        namespace,
        name,
        it,
    };
    Ok((object, unknown))
}

/// A field as users write it.
fn field(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", field(parent)),
        Path::Map { parent, key } => match field(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => field(parent),
    }
}
