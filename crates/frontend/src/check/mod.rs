//! BuildKit's checks that need what lowering knows: variables, the state of a stage, base images, .dockerignore. What
//! they find goes to the warnings; which of it is reported is not decided here.

mod copy;
mod expose;
mod from;
mod stage;

use kiln_dockerfile::{Diagnostic, Instruction, KeyValue, Rule, Span, Spanned};

use crate::diagnose::{warning, with_help};
use crate::lowering::Lowering;
use crate::place::Place;
use crate::state::StageState;

pub(crate) use from::from_lines;
pub(crate) use stage::Once;

/// Checks an instruction on the way to being lowered.
pub(crate) fn instruction(
    state: &mut StageState,
    instruction: &Instruction,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) {
    let found = match instruction {
        Instruction::Arg(args) => {
            args.iter().filter_map(|arg| secret("ARG", &arg.name.value, arg.name.span)).collect()
        }
        Instruction::Env(pairs) => {
            let names =
                pairs.iter().map(|pair| (lowering.words.quiet(&pair.name, &state.env), pair.name.span));
            let secrets = names.filter_map(|(name, span)| secret("ENV", &name, span));
            legacy("ENV", pairs).chain(secrets).collect()
        }
        Instruction::Label(pairs) => legacy("LABEL", pairs).collect(),
        Instruction::Cmd(command) => stage::cmd(state, command, at.span),
        Instruction::Entrypoint(command) => stage::entrypoint(state, command, at.span),
        Instruction::Healthcheck(_) => stage::healthcheck(state, at.span),
        Instruction::Workdir(path) => {
            let expanded = lowering.words.quiet(path, &state.env);
            stage::workdir(state, &Spanned { value: expanded, span: path.span })
        }
        Instruction::Expose(ports) => expose::ports(ports, &state.env, lowering.words),
        Instruction::Copy(copy) if copy.from.is_none() => copy::sources(copy, "COPY", state, lowering),
        Instruction::Add(add) => copy::sources(add, "ADD", state, lowering),
        _ => Vec::new(),
    };
    lowering.words.warnings.extend(found);
}

/// Words of a name that make it look like a secret's, and words that make it look harmless again.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Whether a variable of this name looks as if it held a secret.
pub fn is_secret(name: &str) -> bool {
    let has =
        |list: &[&str]| name.split('_').any(|word| list.iter().any(|one| word.eq_ignore_ascii_case(one)));
    has(&SECRET) && !has(&HARMLESS)
}

fn secret(instruction: &str, name: &str, span: Span) -> Option<Diagnostic> {
    is_secret(name).then(|| {
        let message =
            format!("{instruction} `{name}` looks like a secret, and everyone who has the image can read it");
        let help = "give it to the step that needs it: `RUN --mount=type=secret,id=...`".to_owned();
        with_help(finding(Rule::SecretsUsedInArgOrEnv, span, message), Some(help))
    })
}

fn legacy<'a>(instruction: &'a str, pairs: &'a [KeyValue]) -> impl Iterator<Item = Diagnostic> + 'a {
    pairs.iter().filter(|pair| pair.legacy).map(move |pair| {
        let name = &pair.name.value;
        let message = format!("`{instruction} {name} value` is deprecated");
        let help = format!("write `{instruction} {name}=value`");
        with_help(finding(Rule::LegacyKeyValueFormat, pair.name.span, message), Some(help))
    })
}

/// A finding of a rule.
pub(crate) fn finding(rule: Rule, span: Span, message: String) -> Diagnostic {
    Diagnostic { rule: Some(rule), ..warning(span, message) }
}
