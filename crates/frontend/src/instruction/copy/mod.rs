//! COPY and ADD.

mod remote;
mod words;

use kiln_core::{CopyFrom, CopyOp, CopySource, InlineFile, MergeOp, Op, Pattern, Selection, StepId, Unpack};
use kiln_dockerfile::{Copy, Diagnostic, Heredoc, Spanned};

use super::chmod;
use crate::diagnose::{error, warning, with_help};
use crate::lowering::Lowering;
use crate::path;
use crate::place::Place;
use crate::state::StageState;
use remote::Remote;
use words::Words;

/// Which of the two instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Copy,
    Add,
}

/// One source and what becomes of it.
struct Item {
    source: CopySource,
    unpack: Unpack,
    /// As history names it.
    word: String,
}

/// `COPY` and `ADD`.
pub(super) fn copy(
    state: StageState,
    copy: &Copy,
    verb: Verb,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    let words = Words::read(copy, verb, &state, lowering.words)?;
    let mode = match (&words.chmod, &copy.chmod) {
        (Some(text), Some(written)) => Some(
            chmod::read(text)
                .map_err(|expected| error(written.span, format!("`--chmod={text}`: {expected}")))?,
        ),
        _ => None,
    };
    let items = items(copy, &words, &state, at, lowering)?;
    let mut state = state;
    // An operation unpacks all of its sources or none: files of the context and files behind URLs part ways.
    for part in items.chunk_by(|a, b| a.unpack == b.unpack) {
        let line = words.line(part.iter().map(|item| item.word.as_str()));
        let title = match part.len() == items.len() {
            true => lowering.words.title(at.text, &state.env),
            false => line.clone(),
        };
        let linked = words.link && state.rootfs.is_some();
        let op = Op::Copy(CopyOp {
            root: if words.link { None } else { state.rootfs },
            sources: part.iter().map(|item| item.source.clone()).collect(),
            dest: path::resolve(state.cwd(), &words.dest),
            dest_is_dir: words.parents || path::is_directory(&words.dest),
            chown: words.chown.clone(),
            chmod: mode.clone(),
            unpack: part.first().map_or(Unpack::Never, |item| item.unpack),
        });
        let mut step = lowering.graph.add(op, at.info(&state, &title));
        if linked {
            let op = Op::Merge(MergeOp { root: state.rootfs, layers: step });
            step = lowering.graph.add(op, at.info(&state, &format!("LINK {title}")));
        }
        state = state.with_step(step, format!("{line} # buildkit"));
    }
    Ok(state)
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Copy => "COPY",
            Self::Add => "ADD",
        }
    }
}

/// Returns the sources: paths and URLs in their order, then heredocs.
fn items(
    copy: &Copy,
    words: &Words,
    state: &StageState,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<Vec<Item>, Diagnostic> {
    let mut items = Vec::with_capacity(words.sources.len() + copy.heredocs.len());
    let mut files = None;
    let mut has_git = false;
    for (text, written) in words.sources.iter().zip(&copy.sources) {
        let (step, selection, archives) = match Remote::of(text, words, written.span)? {
            Some(_) if words.verb == Verb::Copy => {
                let problem = error(written.span, format!("COPY takes no {}; ADD does", remote::name(text)));
                // `a:b` is a path on the host a, as for git.
                let help = (!text.contains('@') && !text.contains("://"))
                    .then(|| format!("for the file of that name write `./{text}`"));
                return Err(with_help(problem, help));
            }
            Some(remote) => {
                has_git |= matches!(remote, Remote::Git(_));
                let archives = matches!(remote, Remote::Http(_)) && words.unpack == Some(true);
                let (step, selection) = remote.add(at, lowering);
                (step, selection, archives)
            }
            None => {
                let step = match files {
                    Some(step) => step,
                    None => *files.insert(source_step(copy, at, lowering)?),
                };
                let archives = words.unpack.unwrap_or(words.verb == Verb::Add);
                (step, local(text, words, written)?, archives)
            }
        };
        let selection = Selection { exclude: words.exclude.clone(), ..selection };
        items.push(Item {
            source: CopySource::From(CopyFrom { step, selection }),
            unpack: if archives { Unpack::Archives } else { Unpack::Never },
            word: text.clone(),
        });
    }
    // Its content is text: it goes with whatever is before it.
    let unpack = items.last().map_or(Unpack::Never, |item| item.unpack);
    for heredoc in &copy.heredocs {
        let source = CopySource::Inline(inline(heredoc, state, lowering)?);
        items.push(Item { source, unpack, word: format!("<<{}", heredoc.name) });
    }
    if let Some(flag) = words.keep_git_dir.filter(|_| !has_git) {
        let message = "`--keep-git-dir` means nothing here: no source is a git repository";
        lowering.words.warnings.push(warning(flag.span, message));
    }
    Ok(items)
}

/// Returns the step whose files are copied.
fn source_step(copy: &Copy, at: &Place<'_>, lowering: &mut Lowering<'_>) -> Result<StepId, Diagnostic> {
    let Some(name) = &copy.from else { return Ok(lowering.main_context()) };
    let source = lowering.stages.find(name, at.stage)?;
    let files = lowering.files(&source, name.span)?;
    files.ok_or_else(|| error(name.span, format!("`{}` has no files that could be copied", name.value)))
}

/// Returns what a source path selects: from the source's root, wherever it says it is.
fn local(text: &str, words: &Words, written: &Spanned<String>) -> Result<Selection, Diagnostic> {
    let clean = |text: &str| path::resolve("/", text).trim_start_matches('/').to_owned();
    let path = clean(text);
    let wildcard = Pattern::is_wildcard(&path);
    if wildcard {
        Pattern::new(&path).map_err(|problem| error(written.span, problem.to_string()))?;
    }
    let pivot = || text.split_once("/./").map_or_else(String::new, |(before, _)| clean(before));
    Ok(Selection { path, wildcard, parents: words.parents.then(pivot), ..Selection::default() })
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
