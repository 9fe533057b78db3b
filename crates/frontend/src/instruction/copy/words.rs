//! The words and flags of a COPY or ADD, expanded.

use kiln_core::IgnoreList;
use kiln_dockerfile::{Copy, Diagnostic, Flag, Spanned};

use super::Verb;
use crate::diagnose::{error, with_help};
use crate::mount::boolean;
use crate::path;
use crate::state::StageState;

/// What is written, with variables replaced where they are.
pub(super) struct Words<'a> {
    pub(super) verb: Verb,
    pub(super) sources: Vec<String>,
    pub(super) dest: String,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<String>,
    /// What a remote source must have.
    pub(super) checksum: Option<Spanned<String>>,
    /// Patterns of what is left out; their variables are not replaced.
    pub(super) exclude: Vec<String>,
    pub(super) link: bool,
    pub(super) parents: bool,
    /// None where it is not said.
    pub(super) unpack: Option<bool>,
    pub(super) keep_git_dir: Option<&'a Flag>,
}

impl<'a> Words<'a> {
    pub(super) fn read(
        copy: &'a Copy,
        verb: Verb,
        state: &StageState,
        words: &mut crate::words::Words,
    ) -> Result<Self, Diagnostic> {
        let mut expand = |word: &Spanned<String>| words.expand(word, &state.env);
        let mut option = |word: &Option<Spanned<String>>| match word {
            Some(word) => expand(word).map(|text| Some(text).filter(|text| !text.is_empty())),
            None => Ok(None),
        };
        let (chown, chmod) = (option(&copy.chown)?, option(&copy.chmod)?);
        let flag = |name: &str| copy.flags.iter().find(|flag| flag.name == name);
        let checksum = flag("checksum").and_then(|flag| {
            Some(Spanned { value: flag.value.clone().filter(|value| !value.is_empty())?, span: flag.span })
        });
        let checksum = match checksum {
            Some(word) => Some(Spanned { value: expand(&word)?, span: word.span }),
            None => None,
        };
        let sources = copy.sources.iter().map(&mut expand).collect::<Result<_, _>>()?;
        let found = Self {
            verb,
            sources,
            dest: expand(&copy.dest)?,
            chown,
            chmod,
            checksum,
            exclude: excluded(copy)?,
            link: flag("link").is_some_and(is_on),
            parents: flag("parents").is_some_and(is_on),
            unpack: flag("unpack").map(is_on),
            keep_git_dir: flag("keep-git-dir"),
        };
        found.check_destination(copy)?;
        found.check_owner(copy)?;
        found.check_checksum()?;
        Ok(found)
    }

    /// Whether `.git` is kept, if the flag says.
    pub(super) fn keeps_git_dir(&self) -> Option<bool> {
        self.keep_git_dir.map(is_on)
    }

    /// Returns the instruction with some of the sources, as history has it.
    pub(super) fn line<'w>(&self, sources: impl Iterator<Item = &'w str>) -> String {
        let parents = self.parents.then(|| "--parents".to_owned());
        let chown = self.chown.iter().map(|chown| format!("--chown={chown}"));
        let chmod = self.chmod.iter().map(|chmod| format!("--chmod={chmod}"));
        let flags = parents.into_iter().chain(chown).chain(chmod);
        let words: Vec<String> = flags.chain(sources.map(str::to_owned)).collect();
        format!("{} {} {}", self.verb.name(), words.join(" "), self.dest)
    }

    /// Several files into a place that is no directory would overwrite one another (buildkit#1853). With `--parents`
    /// the destination is a directory however it is written.
    fn check_destination(&self, copy: &Copy) -> Result<(), Diagnostic> {
        let several = self.sources.len() + copy.heredocs.len() > 1;
        if !several || self.parents || path::is_directory(&self.dest) {
            return Ok(());
        }
        let message = "with several sources the destination must be a directory and end with `/`";
        let help = format!("write `{}/`", self.dest);
        Err(with_help(error(copy.dest.span, message), Some(help)))
    }

    /// A linked copy is made without anything below it, so that there is no /etc/passwd to look a name up in
    /// (buildkit#2987: "invalid user index").
    fn check_owner(&self, copy: &Copy) -> Result<(), Diagnostic> {
        let (true, Some(owner), Some(written)) = (self.link, &self.chown, &copy.chown) else { return Ok(()) };
        let is_number = |part: &str| part.is_empty() || part.parse::<u32>().is_ok();
        if owner.splitn(2, ':').all(is_number) {
            return Ok(());
        }
        let message =
            format!("`--chown={owner}` with `--link`: a linked copy knows no names of users and groups");
        let help = "write numbers, such as --chown=1000:1000, or leave --link out".to_owned();
        Err(with_help(error(written.span, message), Some(help)))
    }

    fn check_checksum(&self) -> Result<(), Diagnostic> {
        match &self.checksum {
            Some(checksum) if self.sources.len() != 1 => {
                Err(error(checksum.span, "`--checksum` is for one source: with several it is not said which"))
            }
            _ => Ok(()),
        }
    }
}

fn is_on(flag: &Flag) -> bool {
    flag.value.as_deref().is_none_or(|value| boolean(value) == Some(true))
}

fn excluded(copy: &Copy) -> Result<Vec<String>, Diagnostic> {
    let mut patterns = Vec::new();
    for flag in copy.flags.iter().filter(|flag| flag.name == "exclude") {
        let Some(pattern) = flag.value.as_deref().filter(|pattern| !pattern.is_empty()) else { continue };
        IgnoreList::from_patterns([pattern]).map_err(|problem| error(flag.span, problem.to_string()))?;
        patterns.push(pattern.to_owned());
    }
    Ok(patterns)
}
