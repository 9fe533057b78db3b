//! One package, as its manager describes it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::os_release::Distribution;
use crate::purl::Purl;

/// Whose package it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ecosystem {
    /// Debian's and those of its descendants.
    Deb,
    /// Alpine's.
    Apk,
    /// Of an rpm database.
    Rpm,
    /// Python's.
    Pypi,
    /// JavaScript's.
    Npm,
    /// Rust's.
    Cargo,
    /// Go's.
    Golang,
}

impl Ecosystem {
    /// Its name in package URLs.
    pub fn purl_type(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
            Self::Pypi => "pypi",
            Self::Npm => "npm",
            Self::Cargo => "cargo",
            Self::Golang => "golang",
        }
    }
}

/// A checksum of what a package was installed from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Checksum {
    /// SPDX's name of the algorithm: `SHA256`.
    pub algorithm: &'static str,
    /// Lower-case hexadecimal.
    pub hex: String,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Whose.
    pub ecosystem: Ecosystem,
    /// The name, as the package manager writes it.
    pub name: String,
    /// The version, as the package manager writes it, with an epoch if it has one.
    pub version: String,
    /// For which machines, in the package manager's word.
    pub architecture: Option<String>,
    /// The source package that it was made from, if that has another name or version: `name` or `name@version`.
    pub upstream: Option<String>,
    /// Where its source is, if not at the usual place (purl's `vcs_url`).
    pub vcs_url: Option<String>,
    /// The licence as it is stated, an expression or not.
    pub licence: Option<String>,
    /// Who it is from: a name, and an address in angle brackets.
    pub supplier: Option<String>,
    /// Whether the supplier is an organization and not a person.
    pub from_organization: bool,
    /// Its page.
    pub homepage: Option<String>,
    /// Where it was downloaded from.
    pub download: Option<String>,
    /// Of what was downloaded.
    pub checksum: Option<Checksum>,
    /// The files in the tree that tell of it.
    pub found_in: BTreeSet<String>,
}

impl Package {
    /// Makes a package of which no more is known.
    pub(crate) fn new(ecosystem: Ecosystem, name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            ecosystem,
            name: name.into(),
            version: version.into(),
            architecture: None,
            upstream: None,
            vcs_url: None,
            licence: None,
            supplier: None,
            from_organization: false,
            homepage: None,
            download: None,
            checksum: None,
            found_in: BTreeSet::new(),
        }
    }

    /// Returns its package URL (<https://github.com/package-url/purl-spec>): the one name that all tools share.
    pub fn purl(&self, distribution: Option<&Distribution>) -> String {
        let purl = Purl::new(self.ecosystem.purl_type());
        let purl = match self.ecosystem {
            Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm => self.system_purl(purl, distribution),
            // "The name must be lowercased, and underscores replaced by dashes."
            Ecosystem::Pypi => purl.name(&self.name.to_lowercase().replace('_', "-")).version(&self.version),
            Ecosystem::Npm => match self.name.split_once('/') {
                Some((scope, name)) => purl.namespace(scope).name(name).version(&self.version),
                None => purl.name(&self.name).version(&self.version),
            },
            Ecosystem::Cargo => purl.name(&self.name).version(&self.version),
            // As the specification has it in lower case; the name above keeps its own.
            Ecosystem::Golang => match self.name.to_lowercase().rsplit_once('/') {
                Some((namespace, name)) => purl.namespace(namespace).name(name).version(&self.version),
                None => purl.name(&self.name.to_lowercase()).version(&self.version),
            },
        };
        purl.qualifier("vcs_url", self.vcs_url.as_deref()).to_string()
    }

    fn system_purl(&self, purl: Purl, distribution: Option<&Distribution>) -> Purl {
        let usual = match self.ecosystem {
            Ecosystem::Deb => "debian",
            Ecosystem::Apk => "alpine",
            _ => "",
        };
        let id = distribution.map_or(usual, |distribution| &distribution.id);
        // An rpm's epoch is a qualifier, a Debian one's stays in the version.
        let (epoch, version) = match self.version.split_once(':') {
            Some((epoch, version)) if self.ecosystem == Ecosystem::Rpm => (Some(epoch), version),
            _ => (None, self.version.as_str()),
        };
        purl.namespace(id)
            .name(&self.name)
            .version(version)
            .qualifier("arch", self.architecture.as_deref())
            .qualifier("distro", distribution.and_then(Distribution::tag).as_deref())
            .qualifier("epoch", epoch)
            .qualifier("upstream", self.upstream.as_deref())
    }
}
