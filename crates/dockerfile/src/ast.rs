//! What a Dockerfile says, typed from the first pass, every part with its place in the text.

use serde::{Deserialize, Serialize};

use crate::Rule;

/// A range of bytes in the Dockerfile's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

/// A whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dockerfile {
    /// `# syntax=`, `# escape=`, `# check=`.
    pub directives: Directives,
    /// ARG instructions before the first FROM.
    pub global_args: Vec<Located<Vec<ArgDecl>>>,
    /// Stages in order.
    pub stages: Vec<Stage>,
}

/// Parser directives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directives {
    /// `# syntax=`; kiln has one frontend and only keeps the text.
    pub syntax: Option<Spanned<String>>,
    /// `\` or a backtick.
    pub escape: char,
    /// `# check=`.
    pub check: Option<Spanned<String>>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

/// One instruction with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located<T> {
    /// What it says.
    pub value: T,
    /// From the instruction's first letter to the end of its last line (heredoc bodies included).
    pub span: Span,
    /// First and last line, from 1.
    pub lines: (usize, usize),
    /// The instruction as written, on one line: continuations joined, heredoc bodies left out; for titles and
    /// history.
    pub text: String,
    /// The comments directly above, `#` and blanks around removed: `name description` documents a stage or an
    /// argument, `check=skip=...` silences a check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comments: Vec<Spanned<String>>,
}

impl<T> Located<T> {
    /// Returns how a comment above describes a stage or an argument: `# name description`.
    pub fn description(&self, name: &str) -> Option<&str> {
        self.comments.iter().find_map(|comment| comment.value.strip_prefix(name)?.strip_prefix(' '))
    }
}

/// A stage: FROM to the next FROM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The FROM line.
    pub from: Located<From>,
    /// What follows it.
    pub instructions: Vec<Located<Instruction>>,
}

/// FROM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct From {
    /// Image, stage or `scratch`, unexpanded.
    pub image: Spanned<String>,
    /// `--platform`, unexpanded.
    pub platform: Option<Spanned<String>>,
    /// AS name, lower case.
    pub name: Option<Spanned<String>>,
}

/// `name` or `name=default` of ARG, unexpanded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArgDecl {
    /// The name.
    pub name: Spanned<String>,
    /// The default, quotes and escapes as written.
    pub default: Option<Spanned<String>>,
}

/// `name=value` of ENV and LABEL, unexpanded, quotes and escapes as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The name.
    pub name: Spanned<String>,
    /// The value.
    pub value: Spanned<String>,
    /// Whether it was written without `=` (`ENV name value`), which is deprecated.
    pub legacy: bool,
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A string for SHELL: continuations joined, inner blanks kept.
    Shell(String),
    /// A JSON array.
    Exec(Vec<String>),
}

/// `[fd]<<[-]NAME` and its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heredoc {
    /// The terminator, quotes removed.
    pub name: String,
    /// Whether variables in the body are expanded (the name was not quoted).
    pub expand: bool,
    /// Whether leading tabs are stripped (`<<-`); `content` has them stripped already.
    pub chomp: bool,
    /// The file descriptor, 0 unless written.
    pub fd: u32,
    /// The body, every line with its line end.
    pub content: String,
    /// Where the body stands.
    pub span: Span,
}

/// A flag `--name[=value]`, for those whose values are expanded later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// Without dashes.
    pub name: String,
    /// After the `=`, unexpanded.
    pub value: Option<String>,
    /// Where it stands.
    pub span: Span,
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The command; for a shell form with heredocs, the text before the bodies.
    pub command: Command,
    /// `--mount`s, fields split but unexpanded.
    pub mounts: Vec<MountFlag>,
    /// `--network`, unexpanded.
    pub network: Option<Spanned<String>>,
    /// `--security`, unexpanded.
    pub security: Option<Spanned<String>>,
    /// Heredocs in order.
    pub heredocs: Vec<Heredoc>,
    /// Other flags that the reference knows (`--device`).
    pub flags: Vec<Flag>,
}

/// `--mount=k=v,...` as CSV fields; keys lower case, values unexpanded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlag {
    /// The fields; a bare `ro` has no value.
    pub fields: Vec<(String, Option<String>)>,
    /// Where it stands.
    pub span: Span,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Sources that are paths, unexpanded, in order among themselves.
    pub sources: Vec<Spanned<String>>,
    /// Heredocs, in order; they come in place of their word in the source list.
    pub heredocs: Vec<Heredoc>,
    /// The destination, unexpanded.
    pub dest: Spanned<String>,
    /// `--from`, never expanded.
    pub from: Option<Spanned<String>>,
    /// `--chown`, unexpanded.
    pub chown: Option<Spanned<String>>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<Spanned<String>>,
    /// All other flags that the reference knows: link, parents, exclude, checksum, keep-git-dir, unpack.
    pub flags: Vec<Flag>,
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// None for `HEALTHCHECK NONE`.
    pub command: Option<Command>,
    /// interval, timeout, start-period, start-interval, retries.
    pub flags: Vec<Flag>,
}

/// ONBUILD: an instruction for whoever builds upon the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// What it defers.
    pub instruction: Instruction,
    /// The instruction as an image stores it: on one line, then the bodies of its heredocs as written.
    pub text: String,
}

/// The closed set of instructions, FROM aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Instruction {
    /// ADD.
    Add(Copy),
    /// ARG.
    Arg(Vec<ArgDecl>),
    /// CMD.
    Cmd(Command),
    /// COPY.
    Copy(Copy),
    /// ENTRYPOINT.
    Entrypoint(Command),
    /// ENV.
    Env(Vec<KeyValue>),
    /// EXPOSE.
    Expose(Vec<Spanned<String>>),
    /// HEALTHCHECK.
    Healthcheck(Healthcheck),
    /// LABEL.
    Label(Vec<KeyValue>),
    /// MAINTAINER.
    Maintainer(String),
    /// ONBUILD and the instruction it defers.
    Onbuild(Box<Trigger>),
    /// RUN.
    Run(Run),
    /// SHELL.
    Shell(Vec<String>),
    /// STOPSIGNAL.
    StopSignal(Spanned<String>),
    /// USER.
    User(Spanned<String>),
    /// VOLUME, both forms.
    Volume(Vec<Spanned<String>>),
    /// WORKDIR.
    Workdir(Spanned<String>),
}

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing can be built.
    Error,
    /// Worth knowing.
    Warning,
}

/// Something to say about a place in the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// One sentence, lower case, no period.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What to write instead, if kiln knows: "did you mean `COPY`?".
    pub help: Option<String>,
    /// The check that says so; none for what is simply wrong. A check can be skipped or made an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// How to change the text so that there is nothing more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

/// A mechanical change of the text: edits that do not overlap, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    /// The edits.
    pub edits: Vec<Edit>,
}

/// One edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// What is replaced; empty for an insertion.
    pub span: Span,
    /// What comes there.
    pub text: String,
}
