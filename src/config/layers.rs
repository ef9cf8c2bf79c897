//! Flag over variable over file: finds the value of each setting and notes what is wrong with it.

use std::io;
use std::path::{Path, PathBuf};

use super::keys::{Key, Kind};
use super::problem::{Place, Problem};
use super::value::{self, interpolate, show_quantity};
use super::yaml::FileText;
use crate::settings::Secret;

/// Where a value came from; later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    File,
    Variable,
    Flag,
}

/// From the strongest to the weakest.
pub(super) const LAYERS: [Layer; 3] = [Layer::Flag, Layer::Variable, Layer::File];

/// One value that was given. Not `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) struct Given {
    /// The value, `${VAR}` replaced.
    pub(super) text: String,
    /// What an error may quote: as written, `None` for secrets.
    pub(super) shown: Option<String>,
    pub(super) place: Place,
    pub(super) layer: Layer,
}

impl Given {
    /// `"5x" is no size`, or for a secret `the value is no size`.
    pub(super) fn complain(&self, complaint: &str) -> String {
        match &self.shown {
            Some(shown) => format!("\"{shown}\" {complaint}"),
            None => format!("the value {complaint}"),
        }
    }
}

/// A problem that has been noted already; the caller has only to give up on its part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted;

/// Everything a setting can be taken from, and what has been found wrong so far.
pub(super) struct Layers<'a> {
    /// Flag and its values, for the flags that were given.
    pub(super) flags: Vec<(&'static str, Vec<String>)>,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) read_file: &'a dyn Fn(&Path) -> io::Result<String>,
    pub(super) file: FileText,
    pub(super) problems: Vec<Problem>,
}

impl Layers<'_> {
    /// Notes a problem.
    pub(super) fn note(&mut self, place: &Place, message: String) -> Noted {
        self.problems.push(Problem { place: place.clone(), message });
        Noted
    }

    /// Notes that a setting without which nothing works was not given; beside an unreadable file that
    /// would only mislead.
    pub(super) fn missing(&mut self, key: &Key) -> Noted {
        if self.file.is_unreadable {
            return Noted;
        }
        self.note(&Place::Nowhere, format!("\"{}\" is not set; give {}", key.path, key.ways()))
    }

    /// A variable's value; an empty one counts as not set, since compose files and charts pass on unset
    /// variables as empty ones.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// Every value of one layer; only lists have more than one.
    pub(super) fn all_at(&mut self, key: &Key, layer: Layer) -> Result<Vec<Given>, Noted> {
        let shown = |text: &str| (key.kind != Kind::Secret).then(|| text.to_owned());
        match layer {
            Layer::Flag => {
                let Some(flag) = key.flag else { return Ok(Vec::new()) };
                let found = self.flags.iter().find(|(name, _)| *name == flag);
                let given = |text: &String| Given {
                    text: text.clone(),
                    shown: shown(text),
                    place: Place::Flag(flag),
                    layer,
                };
                Ok(found.map_or_else(Vec::new, |(_, values)| values.iter().map(given).collect()))
            }
            Layer::Variable => {
                let given = |text: String| Given {
                    shown: shown(&text),
                    text,
                    place: Place::Variable(key.variable),
                    layer,
                };
                Ok(self.variable(key.variable).map(given).into_iter().collect())
            }
            Layer::File => self.all_in_file(key),
        }
    }

    fn all_in_file(&mut self, key: &Key) -> Result<Vec<Given>, Noted> {
        let mut out = Vec::new();
        let mut bad = Vec::new();
        for written in self.file.scalars.get(key.path).map_or(&[][..], Vec::as_slice) {
            let place = written.place.clone();
            match interpolate(&written.raw, self.env) {
                Ok(text) => out.push(Given {
                    text,
                    shown: (key.kind != Kind::Secret).then(|| written.raw.clone()),
                    place,
                    layer: Layer::File,
                }),
                Err(error) => bad.push((place, error.message())),
            }
        }
        // A key whose value could not be read is known to the walk and was noted there.
        let unread = self.file.scalars.get(key.path).is_some_and(Vec::is_empty);
        let failed = unread || !bad.is_empty();
        for (place, message) in bad {
            self.note(&place, message);
        }
        if failed { Err(Noted) } else { Ok(out) }
    }

    /// The values of the strongest layer that has any.
    pub(super) fn all(&mut self, key: &Key) -> Result<Vec<Given>, Noted> {
        for layer in LAYERS {
            let found = self.all_at(key, layer)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// The value of one layer.
    fn at(&mut self, key: &Key, layer: Layer) -> Result<Option<Given>, Noted> {
        Ok(self.all_at(key, layer)?.into_iter().next())
    }

    /// The value that wins.
    pub(super) fn find(&mut self, key: &Key) -> Result<Option<Given>, Noted> {
        Ok(self.all(key)?.into_iter().next())
    }

    /// The value that wins, of a setting that must be given.
    pub(super) fn required(&mut self, key: &Key) -> Result<Given, Noted> {
        match self.find(key)? {
            Some(given) => Ok(given),
            None => Err(self.missing(key)),
        }
    }

    /// A count, a number of bytes or of milliseconds, within its limits.
    pub(super) fn quantity(&mut self, key: &Key) -> Result<u64, Noted> {
        let Some(limits) = key.limits else { return Ok(0) };
        let Some(given) = self.find(key)? else { return Ok(limits.default) };
        let parsed = match key.kind {
            Kind::Size => value::parse_size(&given.text),
            Kind::Time => value::parse_time(&given.text),
            Kind::Ratio => value::parse_ratio(&given.text),
            Kind::Count | Kind::Text | Kind::Secret | Kind::Switch => {
                value::parse_count(&given.text)
            }
        };
        let quantity = match parsed {
            Ok(quantity) => quantity,
            Err(complaint) => return Err(self.refuse(key, &given, complaint)),
        };
        if (limits.min..=limits.max).contains(&quantity) {
            return Ok(quantity);
        }
        let (min, max) = (show_quantity(key.kind, limits.min), show_quantity(key.kind, limits.max));
        Err(self.refuse(key, &given, &format!("must be from {min} to {max}")))
    }

    /// `true` or `false`; not given is `false`.
    pub(super) fn switch(&mut self, key: &Key) -> Result<bool, Noted> {
        let Some(given) = self.find(key)? else { return Ok(false) };
        value::parse_switch(&given.text).map_err(|complaint| self.refuse(key, &given, complaint))
    }

    /// Notes a bad value; in the file the key is named too, since the position is the value's.
    pub(super) fn refuse(&mut self, key: &Key, given: &Given, complaint: &str) -> Noted {
        let complaint = given.complain(complaint);
        let message = match given.layer {
            Layer::File => format!("{}: {complaint}", key.name()),
            Layer::Variable | Layer::Flag => complaint,
        };
        self.note(&given.place, message)
    }

    /// A secret given directly or as a file's content, from the strongest layer that has either, and that
    /// file.
    pub(super) fn secret(
        &mut self,
        direct: &Key,
        in_file: &Key,
    ) -> Result<Option<(Secret, Given, Option<PathBuf>)>, Noted> {
        for layer in LAYERS {
            match (self.at(direct, layer)?, self.at(in_file, layer)?) {
                (None, None) => {}
                (Some(given), None) => {
                    return Ok(Some((Secret::new(given.text.clone()), given, None)));
                }
                (None, Some(given)) => {
                    let content = self.content(in_file, &given)?;
                    let file = PathBuf::from(&given.text);
                    return Ok(Some((Secret::new(content), given, Some(file))));
                }
                (Some(_), Some(given)) => {
                    let (one, other) = (direct.name(), in_file.name());
                    let message = format!("\"{one}\" and \"{other}\" are both given; keep one");
                    return Err(self.note(&given.place, message));
                }
            }
        }
        Ok(None)
    }

    /// A file's content without the line end that editors add.
    pub(super) fn content(&mut self, key: &Key, given: &Given) -> Result<String, Noted> {
        let read = (self.read_file)(Path::new(&given.text));
        match read.as_deref().map(secret_in_file) {
            Ok(Some(secret)) => Ok(secret.to_owned()),
            Ok(None) => Err(self.refuse(key, given, "is an empty file")),
            Err(error) => {
                let reason = io_reason(error);
                Err(self.refuse(key, given, &format!("cannot be read: {reason}")))
            }
        }
    }

    /// Notes a file of certificates that cannot be read or holds none. Checked here, since later it would
    /// only be one more failed connection.
    pub(super) fn check_certificates(&mut self, path: &Path) -> Result<(), String> {
        match (self.read_file)(path) {
            Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Ok(()),
            Ok(_) => Err("holds no PEM certificate".to_owned()),
            Err(error) => Err(format!("cannot be read: {}", io_reason(&error))),
        }
    }
}

/// The secret in a file's content: all but the line end that editors add; none in an empty file.
fn secret_in_file(content: &str) -> Option<&str> {
    let line = content.strip_suffix('\n').unwrap_or(content);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() { None } else { Some(line) }
}

/// What a secret's file holds now; none if it cannot be read, or is empty, as while it is being replaced.
pub(crate) async fn reread_secret(path: &Path) -> Option<Secret> {
    let content = tokio::fs::read_to_string(path).await.ok()?;
    secret_in_file(&content).map(|secret| Secret::new(secret.to_owned()))
}

/// What went wrong with a file, in words that are the same on every system.
pub(super) fn io_reason(error: &io::Error) -> String {
    error.kind().to_string()
}
