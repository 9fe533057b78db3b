//! Which findings are reported, and on which line.

use crate::check::Options;
use crate::{Diagnostic, Dockerfile, Instruction, Rule, Severity, Spanned};

/// A finding that is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// First and last line of the instruction it concerns.
    pub lines: (usize, usize),
    /// What there is to say.
    pub diagnostic: Diagnostic,
}

/// Picks what is reported out of everything that was found, in the order of the lines. What belongs to no rule is left
/// out.
pub fn report(
    file: &Dockerfile,
    text: &str,
    options: &Options,
    found: impl IntoIterator<Item = Diagnostic>,
) -> Vec<Finding> {
    let lines = Lines::of(file, text);
    let mut reported: Vec<Finding> = found
        .into_iter()
        .filter_map(|diagnostic| {
            let rule = diagnostic.rule?;
            let line = lines.at(diagnostic.span.start);
            let above =
                line.filter(|_| listens_to_comments(rule)).and_then(|line| lines.governing(rule, line));
            let allowed = options.allows(rule, above.and_then(Options::of_comments).as_ref());
            allowed.then(|| Finding { rule, lines: lines.place(rule, &diagnostic, line), diagnostic })
        })
        .collect();
    reported.sort_by_key(|finding| (finding.lines.0, finding.diagnostic.span.start, finding.rule));
    reported
}

impl Options {
    /// Says which names of `# check=` are no rule's; these are warnings without a rule.
    pub fn unknown(&self, file: &Dockerfile) -> Vec<Diagnostic> {
        let span = file.directives.check.as_ref().map(|directive| directive.span).unwrap_or_default();
        let warning = |message| Diagnostic {
            severity: Severity::Warning,
            message,
            span,
            help: None,
            rule: None,
            fix: None,
        };
        self.unknown_names().into_iter().map(warning).collect()
    }
}

/// What the program finds in the file as a whole does not listen to a comment above one instruction.
const fn listens_to_comments(rule: Rule) -> bool {
    !matches!(
        rule,
        Rule::ConsistentInstructionCasing
            | Rule::DuplicateStageName
            | Rule::ReservedStageName
            | Rule::NoEmptyContinuation
            | Rule::InvalidDefaultArgInFrom
            | Rule::InvalidBaseImagePlatform
    )
}

/// An instruction, whatever it is.
struct Line<'a> {
    start: usize,
    end: usize,
    lines: (usize, usize),
    stage: Option<usize>,
    instruction: Option<&'a Instruction>,
    comments: &'a [Spanned<String>],
}

/// All instructions, in the order of the text.
struct Lines<'a> {
    all: Vec<Line<'a>>,
    /// Where the lines of the text end.
    ends: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(file: &'a Dockerfile, text: &str) -> Self {
        let mut all = Vec::new();
        for arg in &file.global_args {
            all.push(line(arg, None, None));
        }
        for (number, stage) in file.stages.iter().enumerate() {
            all.push(line(&stage.from, Some(number), None));
            all.extend(stage.instructions.iter().map(|one| line(one, Some(number), Some(&one.value))));
        }
        all.sort_by_key(|line| line.start);
        Self { all, ends: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    fn at(&self, offset: usize) -> Option<&Line<'a>> {
        self.all[..self.after(offset)].last().filter(|line| offset <= line.end)
    }

    /// How many instructions begin up to here.
    fn after(&self, offset: usize) -> usize {
        self.all.partition_point(|line| line.start <= offset)
    }

    /// The line is that of the instruction's first word, wherever in it the finding stands; that of an empty line in a
    /// continued instruction is where the instruction ends.
    fn place(&self, rule: Rule, diagnostic: &Diagnostic, line: Option<&Line<'_>>) -> (usize, usize) {
        let number = |offset| self.ends.partition_point(|end| *end < offset) + 1;
        match line {
            _ if rule == Rule::NoEmptyContinuation => {
                let last = number(diagnostic.span.end);
                (last, last)
            }
            Some(line) => line.lines,
            None => (number(diagnostic.span.start), number(diagnostic.span.end)),
        }
    }

    /// Returns the comments that may silence a finding: those above the instruction, but if a later one makes it void,
    /// those above that.
    fn governing(&self, rule: Rule, line: &Line<'a>) -> Option<&'a [Spanned<String>]> {
        if rule != Rule::MultipleInstructionsDisallowed {
            return Some(line.comments);
        }
        let kind = std::mem::discriminant(line.instruction?);
        let same = |other: &&Line<'a>| {
            other.stage == line.stage
                && other.instruction.is_some_and(|instruction| std::mem::discriminant(instruction) == kind)
        };
        self.all[self.after(line.start)..].iter().find(same).map(|later| later.comments)
    }
}

fn line<'a, T>(
    located: &'a crate::Located<T>,
    stage: Option<usize>,
    instruction: Option<&'a Instruction>,
) -> Line<'a> {
    Line {
        start: located.span.start,
        end: located.span.end,
        lines: located.lines,
        stage,
        instruction,
        comments: &located.comments,
    }
}
