//! SecretInCommand and SecretCopiedToImage. No message ever holds the secret.

use kiln_dockerfile::{Diagnostic, Rule, Span};

use crate::advice::finding;
use crate::path::is_in;
use crate::shell::{Command, Part, Word};
use crate::survey::{Kind, Stage, Step, Survey};

/// Passwords in a command's words, and mounted secrets that stay.
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    for (stage, step) in survey.steps() {
        let Some(script) = &step.script else { continue };
        for command in &step.commands {
            for word in secrets(command).filter(|word| is_exposed(survey, stage, step, word)) {
                let span = script.span(word.range.clone()).unwrap_or(step.located.span);
                found.push(in_command(span));
            }
        }
        found.extend(copied(step));
    }
}

fn in_command(span: Span) -> Diagnostic {
    let message = "a password or token stands in the command, and so in the image's history";
    let help =
        "write `RUN --mount=type=secret,id=token,env=TOKEN`, use $TOKEN, and build with `--secret id=token`";
    finding(Rule::SecretInCommand, span, message, help)
}

/// A variable in a secret's text, between these marks.
const OPEN: char = '\u{1}';
const CLOSE: char = '\u{2}';
const OPAQUE: char = '\u{3}';

/// A word that carries a secret, and the secret with its variables marked.
struct Exposed<'a> {
    word: &'a Word,
    secret: String,
}

impl std::ops::Deref for Exposed<'_> {
    type Target = Word;

    fn deref(&self) -> &Word {
        self.word
    }
}

/// Finds words with a URL's password, curl's and wget's.
fn secrets(command: &Command) -> impl Iterator<Item = Exposed<'_>> {
    let program = command.words.first().and_then(Word::literal).unwrap_or_default();
    let client = ["curl", "wget"].contains(&program.rsplit('/').next().unwrap_or(""));
    let mut before = String::new();
    let all = command.words.iter().chain(command.assignments.iter().map(|(_, word)| word));
    all.filter_map(move |word| {
        let text = marked(word);
        let flag = std::mem::replace(&mut before, text.clone());
        let secret = in_url(&text).or_else(|| client.then(|| of_client(&flag, &text)).flatten())?;
        Some(Exposed { word, secret })
    })
}

fn marked(word: &Word) -> String {
    let mut text = String::new();
    for part in &word.parts {
        match part {
            Part::Text(piece) => text.push_str(piece),
            Part::Variable(name) => text.extend([&OPEN.to_string(), name.as_str(), &CLOSE.to_string()]),
            Part::Home | Part::Opaque => text.push(OPAQUE),
        }
    }
    text
}

/// `https://user:secret@host/`; also `https://$TOKEN@host/`.
fn in_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.rsplit(|ch: char| !ch.is_ascii_alphanumeric() && ch != '+').next().unwrap_or("");
    if !["http", "https", "ftp", "ftps", "git+https", "git+http"].contains(&scheme) {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let (user, host) = authority.rsplit_once('@')?;
    let name = host.split(':').next().unwrap_or("");
    if ["localhost", "127.0.0.1", "example.com", "example.org"].contains(&name) || host.is_empty() {
        return None;
    }
    match user.split_once(':') {
        Some((_, "")) => None,
        Some((_, secret)) => Some(secret.to_owned()),
        None if user.starts_with(OPEN) && user.ends_with(CLOSE) && sounds_secret(user) => {
            Some(user.to_owned())
        }
        None => None,
    }
}

/// `curl -u user:secret`, `-H "Authorization: Bearer secret"`, `wget --password=secret`.
fn of_client(flag: &str, text: &str) -> Option<String> {
    let value = |names: &[&str]| {
        let joined = names.iter().find_map(|name| text.strip_prefix(name)?.strip_prefix('='));
        joined.or_else(|| names.contains(&flag).then_some(text))
    };
    if let Some(user) = value(&["-u", "--user"]) {
        return user.split_once(':').map(|(_, secret)| secret.to_owned()).filter(|secret| !secret.is_empty());
    }
    if let Some(header) = value(&["-H", "--header"]) {
        let (name, secret) = header.split_once(':')?;
        let name = name.trim().to_ascii_lowercase();
        let known = ["authorization", "private-token", "x-api-key", "job-token"].contains(&name.as_str());
        let secret = secret.trim().rsplit(' ').next().unwrap_or("");
        return (known && !secret.is_empty()).then(|| secret.to_owned());
    }
    value(&["--password", "--http-password", "--ftp-password"]).map(str::to_owned)
}

fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "secret", "password", "passwd", "credential", "_pat", "api_key", "apikey"]
        .iter()
        .any(|word| name.contains(word))
}

/// Whether a secret's value is in the file, or comes from ARG or ENV; not from a mounted secret or a program's output.
fn is_exposed(survey: &Survey<'_>, stage: &Stage<'_>, step: &Step<'_>, found: &Exposed<'_>) -> bool {
    if found.secret.contains(OPAQUE) {
        return false;
    }
    let mut names = found.secret.split(OPEN).skip(1).filter_map(|rest| rest.split(CLOSE).next()).peekable();
    if names.peek().is_none() {
        let plain = found.secret.trim_matches(['*', 'x', 'X', '.', '<', '>']);
        return !plain.is_empty();
    }
    names.any(|name| {
        let mounted = step.mounts.iter().any(|mount| mount.env.as_deref() == Some(name));
        let assigned = step.commands.iter().any(|command| {
            let words = command.words.iter().filter_map(|word| match word.parts.first() {
                Some(Part::Text(text)) => text.split_once('=').map(|(name, _)| name),
                _ => None,
            });
            let reads = ["read", "for"]
                .contains(&command.words.first().and_then(Word::literal).as_deref().unwrap_or(""));
            reads
                || words
                    .chain(command.assignments.iter().map(|(name, _)| name.as_str()))
                    .any(|set| set == name)
        });
        let set =
            || survey.chain(stage.number).any(|stage| stage.settings.iter().any(|one| one.name == name));
        !mounted && !assigned && set()
    })
}

/// A mounted secret that is written to a file which stays.
fn copied(step: &Step<'_>) -> Option<Diagnostic> {
    let secrets: Vec<&str> = step
        .mounts
        .iter()
        .filter(|mount| mount.kind == Kind::Secret)
        .filter_map(|mount| mount.target.as_deref())
        .collect();
    // who removes files may well remove this one
    let removes =
        step.calls.iter().any(|call| ["rm", "shred", "unlink", "mv"].contains(&call.program.as_str()));
    if secrets.is_empty() || removes {
        return None;
    }
    let is_secret = |path: &str| secrets.contains(&path);
    let stays = |path: &str| {
        !path.starts_with("/dev/")
            && !path.starts_with("/proc/")
            && !step
                .mounts
                .iter()
                .filter_map(|mount| mount.target.as_deref())
                .any(|target| is_in(path, target))
    };
    let script = step.script.as_ref()?;
    let place = |number: usize| script.span(step.commands[number].range.clone()).unwrap_or(step.located.span);
    for call in &step.calls {
        let values: Vec<&str> = call.args.iter().filter_map(|arg| arg.value.as_deref()).collect();
        let number = call.command;
        let written = match call.program.as_str() {
            "cp" | "install" => {
                let (dest, sources) = values.split_last()?;
                let all_known = values.len() == call.args.len();
                let dest = (dest.starts_with('/') || step.dir.is_some()).then(|| match &step.dir {
                    Some(dir) => crate::path::resolve(dir, dest),
                    None => (*dest).to_owned(),
                });
                all_known
                    && sources.iter().any(|source| is_secret(source))
                    && dest.is_some_and(|dest| stays(&dest))
            }
            "cat" if values.iter().any(|value| is_secret(value)) => number.is_some_and(|number| {
                let command = &step.commands[number];
                let files = command.redirects.iter().filter(|redirect| redirect.writes);
                let home = step.home.as_deref();
                let mut paths = files.filter_map(|redirect| redirect.file.resolve(&|_| None, home));
                paths
                    .any(|path| !path.is_empty() && path.bytes().any(|b| !b.is_ascii_digit()) && stays(&path))
            }),
            _ => false,
        };
        if written {
            let message = "this writes a mounted secret to a file of the image";
            let help = "use the file where it is mounted, or mount it where the program looks: `target=/root/.npmrc`";
            let span = number.map_or(step.located.span, place);
            return Some(finding(Rule::SecretCopiedToImage, span, message, help));
        }
    }
    None
}
