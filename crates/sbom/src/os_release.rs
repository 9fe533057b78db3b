//! Which distribution a tree is (os-release(5), <https://www.freedesktop.org/software/systemd/man/os-release.html>).

use serde::{Deserialize, Serialize};

/// A distribution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// `ID`: `debian`.
    pub id: String,
    /// `VERSION_ID`: `12`. Those that roll have none.
    pub version: Option<String>,
    /// `VERSION_CODENAME`: `bookworm`.
    pub codename: Option<String>,
    /// `PRETTY_NAME`, else `NAME`.
    pub name: Option<String>,
    /// `HOME_URL`.
    pub homepage: Option<String>,
}

impl Distribution {
    /// Reads the file; none if it names no distribution.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut found = Self { id: String::new(), ..Self::default() };
        let mut plain = None;
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            let value = Some(unquoted(value)).filter(|value| !value.is_empty());
            match key {
                "ID" => found.id = value.unwrap_or_default().to_lowercase(),
                "VERSION_ID" => found.version = value,
                "VERSION_CODENAME" => found.codename = value,
                "PRETTY_NAME" => found.name = value,
                "NAME" => plain = value,
                "HOME_URL" => found.homepage = value,
                _ => {}
            }
        }
        found.name = found.name.or(plain);
        (!found.id.is_empty()).then_some(found)
    }

    /// Returns what package URLs call it: `debian-12`, and `arch` where there are no versions.
    pub fn tag(&self) -> Option<String> {
        Some(match self.version.as_ref().or(self.codename.as_ref()) {
            Some(version) => format!("{}-{version}", self.id),
            None => self.id.clone(),
        })
    }
}

/// A value is written as for a shell, without anything that one would expand.
fn unquoted(value: &str) -> String {
    let mut out = String::new();
    let mut chars = value.trim().chars();
    let mut quote = None;
    while let Some(char) = chars.next() {
        match char {
            '\\' if quote != Some('\'') => out.extend(chars.next()),
            '"' | '\'' if quote.is_none() => quote = Some(char),
            _ if quote == Some(char) => quote = None,
            _ => out.push(char),
        }
    }
    out
}
