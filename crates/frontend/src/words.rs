//! Expands words with the variables of a place, and warns of those that are not set.

use std::collections::BTreeSet;

use kiln_dockerfile::expand::{self, ExpandError, Expanded};
use kiln_dockerfile::{Diagnostic, Rule, Span, Spanned};

use crate::diagnose::{did_you_mean, error, warning, with_help};
use crate::variables::Variables;

/// So many warnings say what may have been meant. It takes a look at every variable, and nobody reads on.
pub(crate) const SUGGESTIONS: usize = 100;

/// Arguments of the program itself, never in a step's environment.
pub(crate) const NOT_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Expands words of one file and gathers warnings.
#[derive(Debug)]
pub(crate) struct Words {
    escape: char,
    /// Names that are declared by an ARG without a value: writing them is no slip.
    declared: BTreeSet<String>,
    /// What was found on the way.
    pub(crate) warnings: Vec<Diagnostic>,
}

impl Words {
    /// Starts for a file with this escape character.
    pub(crate) fn new(escape: char) -> Self {
        Self { escape, declared: BTreeSet::new(), warnings: Vec::new() }
    }

    /// Forgets what the last stage declared, and takes over what this one inherits.
    pub(crate) fn enter_stage<'a>(&mut self, declared: impl Iterator<Item = &'a str>) {
        self.declared = declared.map(str::to_owned).collect();
    }

    /// Notes an ARG.
    pub(crate) fn declare(&mut self, name: &str) {
        self.declared.insert(name.to_owned());
    }

    /// Expands a word to one string.
    pub(crate) fn expand(&mut self, word: &Spanned<String>, env: &Variables) -> Result<String, Diagnostic> {
        self.expand_text(&word.value, word.span, env)
    }

    /// Expands text that stands somewhere in `span`.
    pub(crate) fn expand_text(
        &mut self,
        text: &str,
        span: Span,
        env: &Variables,
    ) -> Result<String, Diagnostic> {
        if is_plain(text, self.escape) {
            return Ok(text.to_owned());
        }
        self.run(text, span, env).map(|expanded| expanded.text)
    }

    /// Expands a word without a word about variables that are not set.
    pub(crate) fn look(&self, word: &Spanned<String>, env: &Variables) -> Result<Expanded, Diagnostic> {
        expand::word(&word.value, self.escape, &|name| env.get(name).map(str::to_owned))
            .map_err(|error| describe(&error, &word.value, word.span))
    }

    /// Expands a word for a check; a malformed one stands for itself, since lowering refuses it anyway.
    pub(crate) fn quiet(&self, word: &Spanned<String>, env: &Variables) -> String {
        self.title(&word.value, env)
    }

    /// Expands the body of a heredoc.
    pub(crate) fn expand_heredoc(
        &mut self,
        body: &str,
        span: Span,
        env: &Variables,
    ) -> Result<String, Diagnostic> {
        let expanded = expand::heredoc(body, &|name| env.get(name).map(str::to_owned))
            .map_err(|e| describe(&e, body, span))?;
        self.warn_of_undefined(&expanded, span, env);
        Ok(expanded.text)
    }

    /// Expands an instruction's text for its title; text that cannot be expanded stands for itself.
    pub(crate) fn title(&self, text: &str, env: &Variables) -> String {
        if is_plain(text, self.escape) {
            return text.to_owned();
        }
        expand::word(text, self.escape, &|name| env.get(name).map(str::to_owned))
            .map_or_else(|_| text.to_owned(), |expanded| expanded.text)
    }

    fn run(&mut self, text: &str, span: Span, env: &Variables) -> Result<Expanded, Diagnostic> {
        let expanded = expand::word(text, self.escape, &|name| env.get(name).map(str::to_owned))
            .map_err(|error| describe(&error, text, span))?;
        self.warn_of_undefined(&expanded, span, env);
        Ok(expanded)
    }

    /// Also of `${name:-default}`, as the program does.
    fn warn_of_undefined(&mut self, expanded: &Expanded, span: Span, env: &Variables) {
        for name in &expanded.undefined {
            if !self.declared.contains(name) && !NOT_IN_ENV.contains(&name.as_str()) {
                let so = if expanded.missing.contains(name) { ", so it is empty" } else { "" };
                let warning = warning(span, format!("variable `{name}` is not set here{so}"));
                let warning = Diagnostic { rule: Some(Rule::UndefinedVar), ..warning };
                let help = (self.warnings.len() < SUGGESTIONS).then(|| did_you_mean(name, env.names()));
                self.warnings.push(with_help(warning, help.flatten()));
            }
        }
    }
}

/// Most words have nothing to expand, and most files have thousands of words.
fn is_plain(text: &str, escape: char) -> bool {
    !text.contains(['$', '\'', '"', escape])
}

/// Points at the place inside the word, where the word stands in the file as it is given here.
fn describe(problem: &ExpandError, text: &str, span: Span) -> Diagnostic {
    let same = span.end.saturating_sub(span.start) == text.len() && problem.offset <= text.len();
    let span = if same { Span { start: span.start + problem.offset, end: span.end } } else { span };
    error(span, problem.to_string())
}
