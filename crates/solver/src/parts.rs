//! The parts of a key under their names, so that a miss can be explained.

use kiln_core::{
    Chmod, CopyOp, CopySource, Digest, ENCODING_VERSION, InlineFile, Mount, MountKind, Network, Op, RunOp,
    Security, Unpack,
};
use serde::{Deserialize, Serialize};

use crate::KeyInputs;

/// All that a content key was made of, in order: whatever changes the key changes a part, and nothing else does.
/// Heredocs are here by their digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyParts(pub Vec<KeyPart>);

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// What it is: `op`, `root`, `arg 2`, `env PATH`, `mount 1`, `source 1`. Unique within a key.
    pub name: String,
    /// Its value, as a person would write it.
    pub value: String,
}

impl KeyParts {
    /// Names the parts of a step's content key.
    pub fn of(op: &Op, inputs: &KeyInputs) -> Self {
        let mut parts = Self::of_instruction(op);
        if let Op::Run(op) = op {
            for (name, value) in &op.env {
                parts.push(&format!("env {name}"), value);
            }
            // The order of the environment is in the key too: a program sees it.
            let names: Vec<&str> = op.env.iter().map(|(name, _)| name.as_str()).collect();
            parts.push("env order", names.join(" "));
        }
        parts.push("root", inputs.root.map_or_else(|| "scratch".to_owned(), |key| key.to_string()));
        if let Some(layers) = inputs.layers {
            parts.push("layers", layers.to_string());
        }
        for (number, source) in inputs.sources.iter().enumerate() {
            let content = source.content.map_or_else(|| "unknown".to_owned(), |digest| digest.to_string());
            parts.push(&format!("source {}", number + 1), content);
        }
        parts
    }

    /// Names those parts that the instruction itself is made of: all but its environment, what it stands on and what it takes.
    pub fn of_instruction(op: &Op) -> Self {
        let mut parts = Self::default();
        parts.push("encoding", ENCODING_VERSION.to_string());
        match op {
            Op::Image(op) => {
                parts.push("op", "image");
                parts.push("manifest", op.manifest.to_string());
            }
            Op::Context(op) => {
                parts.push("op", "context");
                parts.push("name", &op.name);
            }
            Op::Http(op) => {
                parts.push("op", "http");
                parts.push("url", &op.url);
                parts.push("name", &op.name);
                parts.option("checksum", op.checksum.map(|checksum| checksum.to_string()));
            }
            Op::Git(op) => {
                parts.push("op", "git");
                parts.push("remote", &op.remote);
                parts.option("reference", op.reference.clone());
                parts.push("subdir", &op.subdir);
                parts.option("checksum", op.checksum.clone());
                parts.push("keep git dir", op.keep_git_dir.to_string());
                parts.push("submodules", op.submodules.to_string());
            }
            Op::Merge(_) => parts.push("op", "merge"),
            Op::Run(op) => parts.run(op),
            Op::Copy(op) => parts.copy(op),
            Op::Workdir(op) => {
                parts.push("op", "workdir");
                parts.push("path", &op.path);
                parts.push("user", &op.user);
            }
        }
        parts
    }

    /// Returns the value of a part.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|part| part.name == name).map(|part| part.value.as_str())
    }

    fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(KeyPart { name: name.to_owned(), value: value.into() });
    }

    fn option(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.push(name, value);
        }
    }

    fn run(&mut self, op: &RunOp) {
        self.push("op", "run");
        for (number, arg) in op.args.iter().enumerate() {
            self.push(&format!("arg {}", number + 1), arg);
        }
        self.push("cwd", &op.cwd);
        self.push("user", &op.user);
        let network = match op.network {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        };
        self.push("network", network);
        let security = match op.security {
            Security::Sandbox => "sandbox",
            Security::Insecure => "insecure",
        };
        self.push("security", security);
        for (number, mount) in op.mounts.iter().enumerate() {
            self.push(&format!("mount {}", number + 1), describe_mount(mount));
        }
        for (number, file) in op.files.iter().enumerate() {
            self.file(&format!("file {}", number + 1), file);
        }
        self.push("platform", op.platform.to_string());
        if let Some(hostname) = &op.hostname {
            self.push("hostname", hostname);
        }
        for (number, (address, name)) in op.machine.hosts.iter().enumerate() {
            self.push(&format!("host {}", number + 1), format!("{name} is {address}"));
        }
        self.option("shm size", op.machine.shm_size.map(|bytes| bytes.to_string()));
        for (number, limit) in op.machine.limits.iter().enumerate() {
            let word = |value: Option<u64>| value.map_or("unlimited".to_owned(), |value| value.to_string());
            let value = format!("{} {} of {}", limit.name, word(limit.soft), word(limit.hard));
            self.push(&format!("limit {}", number + 1), value);
        }
    }

    fn copy(&mut self, op: &CopyOp) {
        self.push("op", "copy");
        for (number, source) in op.sources.iter().enumerate() {
            let name = format!("from {}", number + 1);
            match source {
                CopySource::From(from) if from.selection.parents.is_some() => {
                    self.push(&name, "files with their directories");
                }
                CopySource::From(from) if from.selection.wildcard => self.push(&name, "files by wildcard"),
                CopySource::From(_) => self.push(&name, "files"),
                CopySource::Inline(file) => self.file(&name, file),
            }
        }
        self.push("dest", &op.dest);
        self.push("dest is directory", op.dest_is_dir.to_string());
        if let Some(chown) = &op.chown {
            self.push("chown", chown);
        }
        match &op.chmod {
            None => {}
            Some(Chmod::Octal(mode)) => self.push("chmod", format!("{mode:04o}")),
            Some(Chmod::Symbolic(text)) => self.push("chmod", text),
        }
        let unpack = match op.unpack {
            Unpack::Never => "never",
            Unpack::Archives => "archives",
        };
        self.push("unpack", unpack);
    }

    fn file(&mut self, name: &str, file: &InlineFile) {
        let content = Digest::of(file.content.as_bytes());
        self.push(name, format!("{} mode {:04o} {content}", file.name, file.mode));
    }
}

fn describe_mount(mount: &Mount) -> String {
    let target = &mount.target;
    match &mount.kind {
        MountKind::Cache(_) => format!("cache on {target}"),
        MountKind::Bind(bind) if bind.writable => format!("writable bind on {target}"),
        MountKind::Bind(_) => format!("bind on {target}"),
        MountKind::Tmpfs(tmpfs) => match tmpfs.size {
            Some(size) => format!("tmpfs of {size} bytes on {target}"),
            None => format!("tmpfs on {target}"),
        },
        MountKind::Secret(secret) => match &secret.env {
            Some(name) => format!("secret {} on {target} and in {name}", secret.id),
            None => format!("secret {} on {target}", secret.id),
        },
        MountKind::Ssh(ssh) => format!("ssh {} on {target}", ssh.id),
    }
}
