//! COPY.

use kiln_core::{CopyFrom, CopyOp, CopySource, InlineFile, Op, Pattern, Selection, StepId, Unpack};
use kiln_dockerfile::{Copy, Diagnostic, Heredoc, Spanned};

use super::{chmod, unsupported};
use crate::diagnose::{error, with_help};
use crate::lowering::Lowering;
use crate::path;
use crate::place::Place;
use crate::state::StageState;

/// `COPY`.
pub(super) fn copy(
    state: StageState,
    copy: &Copy,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    if let Some(refusal) = unsupported::copy_flags(copy).into_iter().next() {
        return Err(refusal);
    }
    let words = Expanded::of(copy, &state, lowering)?;
    words.check_destination(copy)?;
    let mut sources = Vec::with_capacity(words.sources.len() + copy.heredocs.len());
    if !words.sources.is_empty() {
        let from = source_step(copy, at, lowering)?;
        for (path, written) in words.sources.iter().zip(&copy.sources) {
            sources.push(CopySource::From(CopyFrom { step: from, selection: selection(path, written)? }));
        }
    }
    for heredoc in &copy.heredocs {
        sources.push(CopySource::Inline(inline(heredoc, &state, lowering)?));
    }
    let mode = match (&words.chmod, &copy.chmod) {
        (Some(text), Some(written)) => Some(
            chmod::read(text)
                .map_err(|expected| error(written.span, format!("`--chmod={text}`: {expected}")))?,
        ),
        _ => None,
    };
    let op = Op::Copy(CopyOp {
        root: state.rootfs,
        sources,
        dest: path::resolve(state.cwd(), &words.dest),
        dest_is_dir: path::is_directory(&words.dest),
        chown: words.chown.clone(),
        chmod: mode,
        unpack: Unpack::Never,
    });
    let title = lowering.words.title(at.text, &state.env);
    let step = lowering.graph.add(op, at.info(&state, &title));
    Ok(state.with_step(step, words.history(copy)))
}

/// The words of the instruction, expanded.
struct Expanded {
    sources: Vec<String>,
    dest: String,
    chown: Option<String>,
    chmod: Option<String>,
}

impl Expanded {
    fn of(copy: &Copy, state: &StageState, lowering: &mut Lowering<'_>) -> Result<Self, Diagnostic> {
        let mut expand = |word: &Spanned<String>| lowering.words.expand(word, &state.env);
        let mut flag = |word: &Option<Spanned<String>>| match word {
            Some(word) => expand(word).map(|text| Some(text).filter(|text| !text.is_empty())),
            None => Ok(None),
        };
        let (chown, chmod) = (flag(&copy.chown)?, flag(&copy.chmod)?);
        let sources = copy.sources.iter().map(&mut expand).collect::<Result<_, _>>()?;
        Ok(Self { sources, dest: expand(&copy.dest)?, chown, chmod })
    }

    /// Several files into a place that is no directory would overwrite one another (buildkit#1853).
    fn check_destination(&self, copy: &Copy) -> Result<(), Diagnostic> {
        if self.sources.len() + copy.heredocs.len() < 2 || path::is_directory(&self.dest) {
            return Ok(());
        }
        let message = "with several sources the destination must be a directory and end with `/`";
        let help = format!("write `{}/`", self.dest);
        Err(with_help(error(copy.dest.span, message), Some(help)))
    }

    fn history(&self, copy: &Copy) -> String {
        let chown = self.chown.iter().map(|chown| format!("--chown={chown}"));
        let chmod = self.chmod.iter().map(|chmod| format!("--chmod={chmod}"));
        let heredocs = copy.heredocs.iter().map(|heredoc| format!("<<{}", heredoc.name));
        let words: Vec<String> =
            chown.chain(chmod).chain(self.sources.iter().cloned()).chain(heredocs).collect();
        format!("COPY {} {} # buildkit", words.join(" "), self.dest)
    }
}

/// Returns the step whose files are copied.
fn source_step(copy: &Copy, at: &Place<'_>, lowering: &mut Lowering<'_>) -> Result<StepId, Diagnostic> {
    let Some(name) = &copy.from else { return Ok(lowering.main_context()) };
    let source = lowering.stages.find(name, at.stage)?;
    let files = lowering.files(&source, name.span)?;
    files.ok_or_else(|| error(name.span, format!("`{}` has no files that could be copied", name.value)))
}

/// Returns what a source path selects: from the source's root, wherever it says it is.
fn selection(text: &str, written: &Spanned<String>) -> Result<Selection, Diagnostic> {
    if let Some(kind) = remote_kind(text) {
        return Err(error(written.span, format!("COPY takes no {kind}; ADD does")));
    }
    let path = path::resolve("/", text).trim_start_matches('/').to_owned();
    let wildcard = Pattern::is_wildcard(&path);
    if wildcard {
        Pattern::new(&path).map_err(|problem| error(written.span, problem.to_string()))?;
    }
    Ok(Selection { path, wildcard, ..Selection::default() })
}

fn remote_kind(text: &str) -> Option<&'static str> {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    if starts(&["git@", "git://", "ssh://"]) {
        return Some("git repository");
    }
    starts(&["http://", "https://"]).then_some("URL")
}

fn inline(
    heredoc: &Heredoc,
    state: &StageState,
    lowering: &mut Lowering<'_>,
) -> Result<InlineFile, Diagnostic> {
    let content = match heredoc.expand {
        true => lowering.words.expand_heredoc(&heredoc.content, heredoc.span, &state.env)?,
        false => heredoc.content.clone(),
    };
    Ok(InlineFile { name: heredoc.name.clone(), content, mode: 0o644 })
}
