//! Fixes for BuildKit's rules, where a change of the text is certain to mean the same, or what the rule asks for.

use kiln_dockerfile::{
    Command, Diagnostic, Dockerfile, Edit, Instruction, KeyValue, Located, Rule, Span, Stage,
};

use crate::advice::{remove, with_fix};

/// Adds fixes to findings of BuildKit's rules that have none.
pub fn add_fixes(text: &str, file: &Dockerfile, findings: &mut [Diagnostic]) {
    let bare = |one: &&mut Diagnostic| one.fix.is_none() && text.get(one.span.start..one.span.end).is_some();
    for one in findings.iter_mut().filter(bare) {
        let Some(rule) = one.rule else { continue };
        let edits = edits(text, file, rule, one.span);
        *one = with_fix(one.clone(), edits);
    }
}

fn edits(text: &str, file: &Dockerfile, rule: Rule, span: Span) -> Option<Vec<Edit>> {
    let word = &text[span.start..span.end];
    let replace = |text: String| Some(vec![Edit { span, text }]);
    match rule {
        Rule::ConsistentInstructionCasing => {
            let upper = !is_mostly_lower(text, file);
            replace(if upper { word.to_uppercase() } else { word.to_lowercase() })
        }
        Rule::StageNameCasing => replace(word.to_lowercase()),
        Rule::FromAsCasing => from_as(text, file, span).map(|edit| vec![edit]),
        Rule::MaintainerDeprecated => maintainer(text, file, span).map(|edit| vec![edit]),
        Rule::LegacyKeyValueFormat => legacy(text, file, span).map(|edit| vec![edit]),
        Rule::JSONArgsRecommended => json_args(text, file, span).map(|edit| vec![edit]),
        Rule::NoEmptyContinuation => empty_lines(text, file, span),
        Rule::RedundantTargetPlatform => platform(text, span).map(|span| vec![remove(span)]),
        _ => None,
    }
}

/// Whether more instructions are in lower case than in upper; as the rule counts.
fn is_mostly_lower(text: &str, file: &Dockerfile) -> bool {
    let starts = file.stages.iter().flat_map(|stage| {
        std::iter::once(stage.from.span.start).chain(stage.instructions.iter().map(|line| line.span.start))
    });
    let (mut lower, mut upper) = (0, 0);
    for start in starts {
        let name = text[start..].split(|ch: char| !ch.is_ascii_alphabetic()).next().unwrap_or("");
        lower += usize::from(name.bytes().all(|byte| byte.is_ascii_lowercase()));
        upper += usize::from(name.bytes().all(|byte| byte.is_ascii_uppercase()));
    }
    lower > upper
}

fn from_as(text: &str, file: &Dockerfile, span: Span) -> Option<Edit> {
    let stage = file
        .stages
        .iter()
        .find(|stage| stage.from.value.name.as_ref().is_some_and(|name| name.span.end == span.end))?;
    let name = stage.from.value.name.as_ref()?;
    let between = &text[stage.from.value.image.span.end..name.span.start];
    let word = between.trim();
    if !word.eq_ignore_ascii_case("as") {
        return None;
    }
    let start = stage.from.value.image.span.end + between.find(word)?;
    let upper = text[stage.from.span.start..].starts_with("FROM");
    let text = if upper { "AS" } else { "as" }.to_owned();
    Some(Edit { span: Span { start, end: start + word.len() }, text })
}

/// An instruction without the blanks behind it.
fn written(text: &str, span: Span) -> Span {
    Span { end: span.start + text[span.start..span.end].trim_end().len(), ..span }
}

/// The instruction that a finding is about, with its stage.
fn instruction(file: &Dockerfile, span: Span) -> Option<(&Stage, &Located<Instruction>)> {
    let number = file.stages.partition_point(|stage| stage.from.span.start <= span.start).checked_sub(1)?;
    let stage = &file.stages[number];
    let at = stage.instructions.partition_point(|line| line.span.start <= span.start).checked_sub(1)?;
    let line = &stage.instructions[at];
    (span.start <= line.span.end).then_some((stage, line))
}

fn maintainer(text: &str, file: &Dockerfile, span: Span) -> Option<Edit> {
    let (_, line) = instruction(file, span)?;
    let Instruction::Maintainer(name) = &line.value else { return None };
    let place = written(text, line.span);
    let plain = !name.contains(['"', '\'', '\\', '$', '`']) && !text[place.start..place.end].contains('\n');
    let label = if text[span.start..].starts_with("MAINTAINER") { "LABEL" } else { "label" };
    plain.then(|| Edit { span: place, text: format!("{label} org.opencontainers.image.authors=\"{name}\"") })
}

/// `ENV name value` as `ENV name=value`, in quotes if there are blanks in it.
fn legacy(text: &str, file: &Dockerfile, span: Span) -> Option<Edit> {
    let (_, line) = instruction(file, span)?;
    let (Instruction::Env(pairs) | Instruction::Label(pairs)) = &line.value else { return None };
    let pair: &KeyValue = pairs.iter().find(|pair| pair.legacy && pair.name.span == span)?;
    let place = Span { start: pair.name.span.end, end: pair.value.span.end };
    let value = text.get(pair.value.span.start..pair.value.span.end)?;
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    if text[place.start..place.end].contains('\n') || value.contains(['\'', '\\', '`']) || inner.contains('"')
    {
        return None;
    }
    let text = if inner.contains(char::is_whitespace) || inner.is_empty() {
        format!("=\"{inner}\"")
    } else {
        format!("={value}")
    };
    Some(Edit { span: place, text })
}

/// `CMD a b` as `CMD ["a", "b"]`. Not for ENTRYPOINT, which would begin to take arguments, nor for the CMD of one.
fn json_args(text: &str, file: &Dockerfile, span: Span) -> Option<Edit> {
    const SHELL_ONLY: [&str; 14] = [
        "cd", "exec", "export", "set", "unset", "source", ".", "eval", "ulimit", "umask", "wait", "trap",
        "if", "exit",
    ];
    let (stage, line) = instruction(file, span)?;
    let Instruction::Cmd(Command::Shell(command)) = &line.value else { return None };
    let has_entrypoint =
        stage.instructions.iter().any(|line| matches!(line.value, Instruction::Entrypoint(_)));
    let plain = |ch: char| ch.is_ascii_alphanumeric() || " -_./:,=@+".contains(ch);
    let words: Vec<&str> = command.split(' ').filter(|word| !word.is_empty()).collect();
    let first = *words.first()?;
    let place = written(text, line.span);
    let source = &text[place.start..place.end];
    if has_entrypoint || !command.chars().all(plain) || first.contains('=') || SHELL_ONLY.contains(&first) {
        return None;
    }
    let start = place.start + source.strip_suffix(command.as_str())?.len();
    let json = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    Some(Edit { span: Span { start, end: place.end }, text: format!("[{json}]") })
}

/// Takes out the empty lines of a continued instruction, up to where its heredocs begin.
fn empty_lines(text: &str, file: &Dockerfile, span: Span) -> Option<Vec<Edit>> {
    let (_, line) = instruction(file, span)?;
    let mut edits = Vec::new();
    let mut at = line.span.start;
    for raw in text[line.span.start..line.span.end].split_inclusive('\n') {
        let body = raw.trim_end_matches(['\r', '\n']).trim_end_matches([' ', '\t']);
        let place = Span { start: at, end: at + raw.len() };
        at = place.end;
        if body.trim().is_empty() {
            edits.push(remove(place));
        } else if !body.trim_start().starts_with('#') && !body.ends_with(file.directives.escape) {
            break;
        }
    }
    Some(edits)
}

/// `--platform=$TARGETPLATFORM ` with the blanks behind it.
fn platform(text: &str, span: Span) -> Option<Span> {
    const FLAG: &str = "--platform=";
    let flag = if text[span.start..span.end].starts_with(FLAG) { "" } else { FLAG };
    let start = span.start - text[..span.start].ends_with(flag).then_some(flag.len())?;
    let blanks = text[span.end..].len() - text[span.end..].trim_start_matches([' ', '\t']).len();
    (blanks > 0).then_some(Span { start, end: span.end + blanks })
}
