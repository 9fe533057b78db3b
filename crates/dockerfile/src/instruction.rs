//! A node becomes a typed instruction, or errors in the user's words.

use crate::flags::{Flags, Kind};
use crate::heredoc;
use crate::mount::{self, has_variable};
use crate::node::{Node, error, instruction_names};
use crate::suggest::nearest;
use crate::{
    ArgDecl, Command, Copy, Diagnostic, From, Healthcheck, Heredoc, Instruction, KeyValue, Run, Severity,
    Span, Spanned, Trigger,
};

/// What a node says.
pub(crate) enum Parsed {
    /// FROM.
    From(From),
    /// Anything else.
    Instruction(Instruction),
}

const FROM: &[(&str, Kind)] = &[("platform", Kind::Text)];
const RUN: &[(&str, Kind)] =
    &[("mount", Kind::List), ("network", Kind::Text), ("security", Kind::Text), ("device", Kind::List)];
const COPY: &[(&str, Kind)] = &[
    ("from", Kind::Text),
    ("chown", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Bool),
    ("parents", Kind::Bool),
    ("exclude", Kind::List),
];
const ADD: &[(&str, Kind)] = &[
    ("chown", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Bool),
    ("keep-git-dir", Kind::Bool),
    ("checksum", Kind::Text),
    ("exclude", Kind::List),
    ("unpack", Kind::Bool),
];
const HEALTHCHECK: &[(&str, Kind)] = &[
    ("interval", Kind::Text),
    ("timeout", Kind::Text),
    ("start-period", Kind::Text),
    ("start-interval", Kind::Text),
    ("retries", Kind::Text),
];

/// Reads a node. `None` if it is so wrong that there is nothing to return; the diagnostics say why.
pub(crate) fn read(node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Option<Parsed> {
    let reader = Reader { node, heredocs: (&node.heredocs, &node.markers), diagnostics };
    match reader.read() {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            diagnostics.push(error);
            None
        }
    }
}

struct Reader<'a> {
    node: &'a Node,
    /// Bodies, and the words that announce them.
    heredocs: (&'a [Heredoc], &'a [Span]),
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn read(mut self) -> Result<Parsed, Diagnostic> {
        let name = self.node.name.value.to_ascii_uppercase();
        let flags = match name.as_str() {
            "FROM" => FROM,
            "RUN" => RUN,
            "COPY" => COPY,
            "ADD" => ADD,
            "HEALTHCHECK" => HEALTHCHECK,
            _ if instruction_names().any(|known| known == name) => &[],
            _ => return Err(self.unknown()),
        };
        let flags = Flags::read(self.node, flags, self.diagnostics);
        Ok(Parsed::Instruction(match name.as_str() {
            "FROM" => return Ok(Parsed::From(self.from(flags)?)),
            "ADD" => Instruction::Add(self.copy(flags, &name)?),
            "ARG" => Instruction::Arg(self.args()?),
            "CMD" => Instruction::Cmd(self.command("CMD", "`CMD []` clears an inherited one")?),
            "COPY" => Instruction::Copy(self.copy(flags, &name)?),
            "ENTRYPOINT" => Instruction::Entrypoint(
                self.command("ENTRYPOINT", "`ENTRYPOINT []` clears an inherited one")?,
            ),
            "ENV" => Instruction::Env(self.pairs("ENV")?),
            "EXPOSE" => Instruction::Expose(self.some("a port, such as 8080/tcp")?),
            "HEALTHCHECK" => Instruction::Healthcheck(self.healthcheck(flags)?),
            "LABEL" => Instruction::Label(self.pairs("LABEL")?),
            "MAINTAINER" => Instruction::Maintainer(self.one("a name")?.value),
            "ONBUILD" => Instruction::Onbuild(Box::new(self.onbuild()?)),
            "RUN" => Instruction::Run(self.run(flags)?),
            "SHELL" => Instruction::Shell(self.shell()?),
            "STOPSIGNAL" => Instruction::StopSignal(self.one("a signal, such as SIGTERM")?),
            "USER" => Instruction::User(self.one("a user, such as 1000:1000")?),
            "VOLUME" => Instruction::Volume(self.volume()?),
            "WORKDIR" => Instruction::Workdir(self.one("a directory")?),
            _ => return Err(self.unknown()),
        }))
    }

    fn unknown(&self) -> Diagnostic {
        let name = &self.node.name;
        if name.value.is_empty() {
            return error("an instruction is missing here".to_owned(), self.node.span);
        }
        let mut error = error(format!("unknown instruction: {}", name.value), name.span);
        error.help = nearest(&name.value, instruction_names()).map(|near| format!("did you mean `{near}`?"));
        error
    }

    fn from(&self, mut flags: Flags) -> Result<From, Diagnostic> {
        let platform = flags.text("platform");
        let (image, name) = match self.node.args.as_slice() {
            [image] => (image, None),
            [image, word, name] if word.value.eq_ignore_ascii_case("as") => (image, Some(name)),
            [] => return Err(self.missing("an image, an earlier stage or `scratch`")),
            [_, extra, ..] => {
                let last = self.node.args.last().unwrap_or(extra);
                let span = Span { start: extra.span.start, end: last.span.end };
                let mut error =
                    error("FROM takes one image, and AS and a name if the stage has one".to_owned(), span);
                error.help = Some("write `FROM image` or `FROM image AS name`".to_owned());
                return Err(error);
            }
        };
        let name = name.map(stage_name).transpose()?;
        Ok(From { image: image.clone(), platform, name })
    }

    fn args(&self) -> Result<Vec<ArgDecl>, Diagnostic> {
        let mut args = Vec::with_capacity(self.node.args.len());
        for word in &self.node.args {
            let (name, default) = match word.value.split_once('=') {
                Some((name, default)) => (name, Some(default)),
                None => (word.value.as_str(), None),
            };
            if name.is_empty() {
                return Err(error("an ARG needs a name before the `=`".to_owned(), word.span));
            }
            let equals = word.span.start + name.len();
            args.push(ArgDecl {
                name: Spanned {
                    value: name.to_owned(),
                    span: Span { start: word.span.start, end: equals.min(word.span.end) },
                },
                default: default.map(|default| Spanned {
                    value: default.to_owned(),
                    span: Span { start: (equals + 1).min(word.span.end), end: word.span.end },
                }),
            });
        }
        if args.is_empty() { Err(self.missing("a name")) } else { Ok(args) }
    }

    fn pairs(&self, instruction: &str) -> Result<Vec<KeyValue>, Diagnostic> {
        let mut pairs = Vec::with_capacity(self.node.args.len() / 3);
        for triple in self.node.args.chunks_exact(3) {
            let [name, value, separator] = triple else { continue };
            if name.value.is_empty() {
                let message = format!("{instruction} needs a name before the `=`");
                return Err(error(message, separator.span));
            }
            let legacy = separator.value.is_empty();
            pairs.push(KeyValue { name: name.clone(), value: value.clone(), legacy });
        }
        if pairs.is_empty() { Err(self.missing("name=value")) } else { Ok(pairs) }
    }

    fn run(&mut self, mut flags: Flags) -> Result<Run, Diagnostic> {
        let mut mounts = Vec::new();
        for flag in flags.list("mount") {
            match mount::fields(flag) {
                Ok(mount) => mounts.push(mount),
                Err(error) => self.diagnostics.push(error),
            }
        }
        let network = flags.text("network");
        let security = flags.text("security");
        let command = self.command("RUN", "write the command on the same line, or a heredoc")?;
        if let Command::Exec(words) = &command
            && words.is_empty()
        {
            return Err(self.missing("a command"));
        }
        Ok(Run { command, mounts, network, security, heredocs: self.bodies(), flags: flags.rest() })
    }

    fn command(&self, instruction: &str, help: &str) -> Result<Command, Diagnostic> {
        let args = &self.node.args;
        if self.node.json {
            return Ok(Command::Exec(args.iter().map(|word| word.value.clone()).collect()));
        }
        match args.first() {
            Some(text) => Ok(Command::Shell(text.value.clone())),
            None => {
                let mut error = error(format!("{instruction} needs a command"), self.node.span);
                error.help = Some(help.to_owned());
                Err(error)
            }
        }
    }

    fn copy(&self, mut flags: Flags, instruction: &str) -> Result<Copy, Diagnostic> {
        let from = flags.text("from");
        if let Some(from) = &from
            && has_variable(&from.value)
        {
            let mut error = error("variables do not work in --from".to_owned(), from.span);
            let help = "give the image a name with FROM ... AS, where variables work, and use that";
            error.help = Some(help.to_owned());
            return Err(error);
        }
        let chown = flags.text("chown");
        let chmod = flags.text("chmod");
        let announces = |word: &Spanned<String>| {
            let (_, markers) = self.heredocs;
            markers.iter().any(|marker| marker.start < word.span.end && word.span.start < marker.end)
        };
        let Some((dest, sources)) = self.node.args.split_last() else {
            return Err(self.missing("a source and a destination"));
        };
        if sources.is_empty() {
            let mut error =
                error(format!("{instruction} needs a source and a destination, here is only one"), dest.span);
            error.help = Some(format!("write `{instruction} {} DESTINATION`", dest.value));
            return Err(error);
        }
        if announces(dest) {
            return Err(error(format!("a heredoc cannot be the destination of {instruction}"), dest.span));
        }
        Ok(Copy {
            sources: sources.iter().filter(|word| !announces(word)).cloned().collect(),
            heredocs: self.bodies(),
            dest: dest.clone(),
            from,
            chown,
            chmod,
            flags: flags.rest(),
        })
    }

    fn healthcheck(&mut self, flags: Flags) -> Result<Healthcheck, Diagnostic> {
        let Some((kind, rest)) = self.node.args.split_first() else {
            return Err(self.missing("CMD and a command, or NONE"));
        };
        if kind.value.eq_ignore_ascii_case("NONE") {
            if let Some(extra) = rest.first() {
                return Err(error("HEALTHCHECK NONE takes nothing more".to_owned(), extra.span));
            }
            for flag in flags.rest() {
                self.diagnostics.push(Diagnostic {
                    severity: Severity::Warning,
                    message: format!("--{} has no effect on HEALTHCHECK NONE", flag.name),
                    span: flag.span,
                    help: None,
                    rule: None,
                    fix: None,
                });
            }
            return Ok(Healthcheck { command: None, flags: Vec::new() });
        }
        if !kind.value.eq_ignore_ascii_case("CMD") {
            let message = format!("HEALTHCHECK takes CMD or NONE, not `{}`", kind.value);
            return Err(error(message, kind.span));
        }
        let command = match rest {
            [] => return Err(error("HEALTHCHECK CMD needs a command".to_owned(), self.node.span)),
            _ if self.node.json => Command::Exec(rest.iter().map(|word| word.value.clone()).collect()),
            [text, ..] => Command::Shell(text.value.clone()),
        };
        Ok(Healthcheck { command: Some(command), flags: flags.rest() })
    }

    fn onbuild(&mut self) -> Result<Trigger, Diagnostic> {
        let Some(child) = &self.node.child else { return Err(self.missing("an instruction")) };
        if let Some(error) = no_trigger(child) {
            return Err(error);
        }
        // A body is kept as written: `<<-` strips it when the trigger runs.
        let bodies = self.heredocs.0.iter().map(|body| format!("\n{}{}", body.content, body.name));
        let text = std::iter::once(child.text.clone()).chain(bodies).collect();
        let reader = Reader { node: child, heredocs: self.heredocs, diagnostics: self.diagnostics };
        match reader.read()? {
            Parsed::Instruction(instruction) => Ok(Trigger { instruction, text }),
            Parsed::From(_) => Err(error("FROM is not allowed under ONBUILD".to_owned(), child.span)),
        }
    }

    fn shell(&self) -> Result<Vec<String>, Diagnostic> {
        let words: Vec<String> = self.node.args.iter().map(|word| word.value.clone()).collect();
        if words.is_empty() {
            return Err(self.missing("a JSON array"));
        }
        if !self.node.json {
            let span = self.node.args[0].span;
            let mut error = error("SHELL takes a JSON array".to_owned(), span);
            error.help = Some("write `SHELL [\"/bin/sh\", \"-c\"]`".to_owned());
            return Err(error);
        }
        Ok(words)
    }

    fn volume(&self) -> Result<Vec<Spanned<String>>, Diagnostic> {
        let mut paths = self.some("a path")?;
        for path in &mut paths {
            path.value = path.value.trim().to_owned();
            if path.value.is_empty() {
                return Err(error("a VOLUME cannot be empty".to_owned(), path.span));
            }
        }
        Ok(paths)
    }

    fn some(&self, what: &str) -> Result<Vec<Spanned<String>>, Diagnostic> {
        if self.node.args.is_empty() { Err(self.missing(what)) } else { Ok(self.node.args.clone()) }
    }

    fn one(&self, what: &str) -> Result<Spanned<String>, Diagnostic> {
        self.node.args.first().cloned().ok_or_else(|| self.missing(what))
    }

    fn bodies(&self) -> Vec<Heredoc> {
        let typed = |raw: &Heredoc| {
            let content = if raw.chomp { heredoc::chomp(&raw.content) } else { raw.content.clone() };
            Heredoc { content, ..raw.clone() }
        };
        self.heredocs.0.iter().map(typed).collect()
    }

    fn missing(&self, what: &str) -> Diagnostic {
        let name = self.node.name.value.to_ascii_uppercase();
        error(format!("{name} needs {what}"), self.node.span)
    }
}

/// Says why an instruction cannot be a trigger, if it cannot.
pub(crate) fn no_trigger(node: &Node) -> Option<Diagnostic> {
    let name = node.name.value.to_ascii_uppercase();
    let why = match name.as_str() {
        "ONBUILD" => "a trigger runs in the next image and leaves none behind",
        "FROM" => "a trigger runs in a stage that has its base already",
        "MAINTAINER" => "it would name somebody else's image as one's own; LABEL can be used",
        _ => return None,
    };
    let mut error = error(format!("{name} is not allowed under ONBUILD"), node.name.span);
    error.help = Some(why.to_owned());
    Some(error)
}

/// A stage's name: a letter, then letters, digits, `-`, `_` and `.`; lower-cased.
fn stage_name(written: &Spanned<String>) -> Result<Spanned<String>, Diagnostic> {
    let value = written.value.to_lowercase();
    let good = value.starts_with(|ch: char| ch.is_ascii_lowercase())
        && value.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
    if good {
        return Ok(Spanned { value, span: written.span });
    }
    let mut error = error(format!("`{}` cannot be a stage's name", written.value), written.span);
    error.help = Some("it begins with a letter and has letters, digits, `-`, `_` and `.`".to_owned());
    Err(error)
}
