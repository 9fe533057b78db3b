//! What podman, buildah and skopeo are configured with: `registries.conf`.
//! <https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md>

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// One file, or several read over one another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RegistriesConf {
    /// By prefix.
    rules: BTreeMap<String, Rule>,
    /// Short names and what they stand for to podman.
    aliases: BTreeMap<String, Alias>,
    /// The registries where short names without an alias are looked for.
    search: Option<Alias<Vec<String>>>,
    mode: Option<Mode>,
}

/// `short-name-mode`: what becomes of a short name that may be several images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Aliases do not count; the registries are asked in turn.
    Disabled,
    /// The registries are asked in turn.
    Permissive,
    /// It is an error, as nobody can be asked.
    Enforcing,
}

/// What is said of the images below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Where they really are; empty if there.
    pub(crate) location: String,
    pub(crate) insecure: bool,
    pub(crate) blocked: bool,
    pub(crate) mirrors: Vec<Mirror>,
    /// File and line.
    pub(crate) from: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// Instead of the prefix.
    pub(crate) location: String,
    pub(crate) insecure: bool,
    pub(crate) pulls: Pulls,
    pub(crate) from: String,
}

/// What a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) enum Pulls {
    #[default]
    #[serde(rename = "all", alias = "")]
    All,
    #[serde(rename = "digest-only")]
    Digests,
    #[serde(rename = "tag-only")]
    Tags,
}

/// Something, and the file it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alias<T = String> {
    pub(crate) value: T,
    pub(crate) from: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Raw {
    #[serde(default)]
    registry: Vec<Spanned<RawRegistry>>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<Mode>,
    /// The form of before 2018.
    registries: Option<Version1>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawRegistry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror: Vec<Spanned<RawMirror>>,
    #[serde(default)]
    mirror_by_digest_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawMirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Pulls>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version1 {
    search: List,
    insecure: List,
    block: List,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct List {
    registries: Vec<String>,
}

impl RegistriesConf {
    /// Reads one file, which `name` is.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| super::toml_error(text, &error))?;
        let at = |offset: usize| format!("{name}:{}", super::line(text, offset));
        let mut conf = Self::default();
        for registry in raw.registry {
            let from = at(registry.span().start);
            let raw = registry.into_inner();
            let location = raw.location.map(|location| location.trim_end_matches('/').to_owned());
            let location = location.unwrap_or_default();
            let prefix = raw.prefix.filter(|prefix| !prefix.is_empty()).unwrap_or_else(|| location.clone());
            let line = from.rsplit(':').next().unwrap_or_default().to_owned();
            let fail = |reason: &str| Err(format!("line {line}: {reason}"));
            if prefix.is_empty() {
                return fail("a [[registry]] needs a prefix or a location");
            }
            if location.is_empty() && !prefix.starts_with("*.") {
                return fail(&format!("the [[registry]] with prefix {prefix:?} needs a location"));
            }
            let wild = prefix.strip_prefix("*.");
            if wild.is_some_and(|host| host.contains(['/', '*'])) || wild.is_none() && prefix.contains('*') {
                return fail(&format!(
                    "prefix {prefix:?}: a * stands only for what is before a host, as in *.example.com"
                ));
            }
            if prefix.rsplit('/').next().is_some_and(|last| prefix.contains('/') && last.contains([':', '@']))
            {
                return fail(&format!(
                    "prefix {prefix:?} has a tag or digest: kiln knows rules for whole repositories only"
                ));
            }
            if location.contains("://") || prefix.contains("://") {
                return fail("a location has no scheme: insecure = true allows http");
            }
            let mut mirrors = Vec::new();
            for mirror in raw.mirror {
                let from = at(mirror.span().start);
                let mirror = mirror.into_inner();
                if mirror.location.is_empty() || mirror.location.contains("://") {
                    return fail(&format!("mirror location {:?} is not HOST[:PORT][/PATH]", mirror.location));
                }
                let pulls = match (mirror.pull_from_mirror, raw.mirror_by_digest_only) {
                    (Some(_), true) => {
                        return fail("pull-from-mirror and mirror-by-digest-only exclude one another");
                    }
                    (Some(pulls), false) => pulls,
                    (None, true) => Pulls::Digests,
                    (None, false) => Pulls::All,
                };
                let location = mirror.location.trim_end_matches('/').to_owned();
                mirrors.push(Mirror { location, insecure: mirror.insecure, pulls, from });
            }
            let (insecure, blocked) = (raw.insecure, raw.blocked);
            conf.rules.insert(prefix, Rule { location, insecure, blocked, mirrors, from });
        }
        let from = || name.to_owned();
        let old = raw.registries.unwrap_or_default();
        for host in old.insecure.registries.iter().chain(&old.block.registries) {
            let rule = Rule {
                location: host.clone(),
                insecure: old.insecure.registries.contains(host),
                blocked: old.block.registries.contains(host),
                mirrors: Vec::new(),
                from: from(),
            };
            conf.rules.insert(host.clone(), rule);
        }
        let aliases = raw.aliases.into_iter();
        conf.aliases = aliases.map(|(short, value)| (short, Alias { value, from: from() })).collect();
        let search = Some(old.search.registries).filter(|search| !search.is_empty());
        conf.search = raw.unqualified_search_registries.or(search).map(|value| Alias { value, from: from() });
        conf.mode = raw.short_name_mode;
        Ok(conf)
    }

    /// Reads a file over this one: what it says of a prefix or a short name counts.
    pub(crate) fn over(&mut self, later: Self) {
        self.rules.extend(later.rules);
        self.aliases.extend(later.aliases);
        self.search = later.search.or(self.search.take());
        self.mode = later.mode.or(self.mode);
    }

    /// Reads the aliases of a file over these: podman's own, where it notes what its user chose.
    pub(crate) fn alias_over(&mut self, later: Self) {
        self.aliases.extend(later.aliases);
    }

    /// Returns what is said of a repository (`host/path`), by the longest prefix, and how much of its name that takes.
    pub(crate) fn rule(&self, name: &str) -> Option<(&Rule, usize)> {
        let found =
            self.rules.iter().filter_map(|(prefix, rule)| Some((rule, covers(prefix, name)?, prefix)));
        found.max_by_key(|(_, taken, prefix)| (*taken, prefix.len())).map(|(rule, taken, _)| (rule, taken))
    }

    /// Returns the repositories that a short one (`fedora`, `team/app`) may be, in order, and whose word that is; none where
    /// these files say nothing of it.
    pub(crate) fn short(&self, short: &str) -> Option<Alias<Vec<String>>> {
        let alias = self.aliases.get(short).filter(|alias| !alias.value.is_empty());
        if let Some(alias) = alias.filter(|_| self.mode != Some(Mode::Disabled)) {
            return Some(Alias { value: vec![alias.value.clone()], from: alias.from.clone() });
        }
        let search = self.search.as_ref().filter(|search| !search.value.is_empty())?;
        let value = search.value.iter().map(|registry| format!("{registry}/{short}")).collect();
        Some(Alias { value, from: search.from.clone() })
    }

    /// Whether a name that may be several images is an error.
    pub(crate) fn is_enforcing(&self) -> bool {
        self.mode == Some(Mode::Enforcing)
    }
}

/// Returns how much of a name a prefix takes, if it fits.
fn covers(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split('/').next().unwrap_or_default();
        let end = host.find(domain)? + domain.len();
        // A port may follow, as podman has it.
        return (end > domain.len() && (end == host.len() || host[end..].starts_with(':'))).then_some(end);
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

#[cfg(test)]
mod tests;
