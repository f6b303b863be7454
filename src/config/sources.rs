//! Where values come from: the command line, the environment, `config.toml`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::Origin;
use super::table::{self, Kind, Row, TABLE};
use crate::cli::Given;

/// How large a file of settings or seeds may be, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What the names of our variables begin with.
const PREFIX: &str = "ALTHING_";

/// The variables of the process, taken once, so that tests can give others.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Those of this process. One that is no UTF-8 is as good as none.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// An empty variable counts as none: it is how container tools pass what was not set.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// A sentence for each variable that looks like one of ours and is none.
    pub(super) fn unknown(&self) -> Vec<String> {
        let known = |name: &str| TABLE.iter().any(|row| row.variable() == name);
        let ours = self.0.keys().filter(|name| name.starts_with(PREFIX) && !known(name));
        ours.map(|name| {
            let key = name[PREFIX.len()..].to_lowercase().replace('_', "-");
            format!("the variable {name} means nothing; the nearest one is {}", table::nearest(&key).variable())
        })
        .collect()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl Row {
    /// The setting's own variable.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.to_uppercase().replace('-', "_"))
    }

    /// How an error says that the next start can have another value.
    pub(super) fn flag_and_variable(&self) -> String {
        format!("--{} or {}", self.key, self.variable())
    }
}

/// The value from outside the file: a flag, our variable, or a name of the seed projects.
pub(super) fn outer(row: &Row, given: &Given, environment: &Environment) -> Option<(Vec<String>, Origin)> {
    if let Some(values) = given.get(row.key) {
        return Some((values.clone(), Origin::Flag));
    }
    let own = row.variable();
    if let Some(text) = environment.get(&own) {
        return Some((split(row, text), Origin::Variable { rank: 0, name: own }));
    }
    let name = row.legacy?;
    let text = environment.get(name)?;
    // The convention behind NO_COLOR is that any value counts.
    let values = if name == "NO_COLOR" { vec!["true".to_owned()] } else { split(row, text) };
    Some((values, Origin::Variable { rank: 1, name: name.to_owned() }))
}

fn split(row: &Row, text: &str) -> Vec<String> {
    match row.kind {
        Kind::Many => {
            let words = text.split(|char: char| char == ',' || char.is_whitespace());
            words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
        }
        Kind::One | Kind::Path => vec![text.to_owned()],
    }
}

/// The settings of `config.toml`. A missing file is an error only when it was asked for.
pub(super) fn read_file(path: &Path, must_exist: bool) -> Result<BTreeMap<&'static str, Vec<String>>, String> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(BTreeMap::new()),
        Err(error) => return Err(format!("cannot read the configuration file {}: {error}", path.display())),
    };
    let table = text.parse::<toml::Table>().map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let message = error.message().replace('\n', " ");
        format!("{} is no TOML, line {line}: {message}", path.display())
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut settings = BTreeMap::new();
    for (key, value) in &table {
        let row = table::find(key).map_err(|why| format!("{}: {why}", path.display()))?;
        if !row.file {
            return Err(format!(
                "{key} in {}: it cannot stand in a file, only {}",
                path.display(),
                row.flag_and_variable()
            ));
        }
        let values = file_values(row, value, folder).map_err(|why| format!("{key} in {}: {why}", path.display()))?;
        settings.insert(row.key, values);
    }
    Ok(settings)
}

fn file_values(row: &Row, value: &toml::Value, folder: &Path) -> Result<Vec<String>, String> {
    match (row.kind, value) {
        (Kind::Many, toml::Value::Array(items)) => items.iter().map(scalar).collect(),
        (Kind::Many, _) => Err("it is a list, for example [\"/ip4/192.0.2.7/tcp/4001\"]".to_owned()),
        // A path in the file is relative to the file, wherever the node is started.
        (Kind::Path, toml::Value::String(path)) => Ok(vec![folder.join(path).to_string_lossy().into_owned()]),
        (Kind::Path, _) => Err("it is a path in quotes".to_owned()),
        (Kind::One, value) => Ok(vec![scalar(value)?]),
    }
}

fn scalar(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(truth) => Ok(truth.to_string()),
        _ => Err("it is a text, a number, true or false".to_owned()),
    }
}

/// A whole file as text. A larger one than [`MAX_FILE_BYTES`] is an error, whatever it claims to be.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

/// A path as it was given, made absolute, so that a later change of folder does no harm.
pub(super) fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{path:?} is no path: {error}"))
}
