//! Plans and graphs as text, one line a step; docs/debug.md fixes the form.

use std::collections::HashMap;
use std::fmt::Write as _;

use kiln_core::{
    CacheMount, CacheScope, Chmod, ContainerConfig, CopyOp, CopySource, GitOp, HttpOp, InlineFile, Machine,
    Mount, MountKind, Network, Op, RunOp, Security, Selection, Sharing, Step, StepGraph, StepId, Unpack,
};

use serde_json::Value;

use crate::duration;
use crate::quote::{quote, quote_list};
use crate::{BuildPlan, PlannedImage};

/// Writes all that a plan says: every step with its operation, every image with its configuration and history.
pub fn plan(plan: &BuildPlan) -> String {
    let names = Names::of(&plan.graph);
    let mut out = String::new();
    for (id, step) in plan.graph.iter() {
        let _ = writeln!(out, "{}", names.step(id, step));
    }
    for image in &plan.images {
        out.push_str(&names.image(image));
    }
    if plan.index {
        out.push_str("index\n");
    }
    if let Some(epoch) = &plan.source_date_epoch {
        let _ = writeln!(out, "source_date_epoch {}", quote(epoch));
    }
    for (name, value) in &plan.run_env {
        let _ = writeln!(out, "run_env {}", quote(&format!("{name}={value}")));
    }
    out
}

/// Writes the shape of a graph: every step with its title and the steps it needs.
pub fn graph(graph: &StepGraph) -> String {
    let names = Names::of(graph);
    let mut out = String::new();
    for (id, step) in graph.iter() {
        let mut inputs: Vec<&str> = Vec::new();
        for input in step.op.inputs() {
            let name = names.of_id(input);
            if !inputs.contains(&name) {
                inputs.push(name);
            }
        }
        let needs = if inputs.is_empty() { String::new() } else { format!(" <- {}", inputs.join(" ")) };
        let _ = writeln!(out, "{}{needs}  {}", names.of_id(id), step.info.title);
    }
    out
}

/// Steps are named s1, s2, ... in the order of the graph.
struct Names(HashMap<StepId, String>);

impl Names {
    fn of(graph: &StepGraph) -> Self {
        Self(graph.iter().zip(1..).map(|((id, _), number)| (id, format!("s{number}"))).collect())
    }

    fn of_id(&self, id: StepId) -> &str {
        self.0.get(&id).map_or("?", String::as_str)
    }

    fn of_root(&self, root: Option<StepId>) -> &str {
        root.map_or("scratch", |id| self.of_id(id))
    }

    fn step(&self, id: StepId, step: &Step) -> String {
        let mut line = match &step.op {
            Op::Image(op) => format!("image {}", op.manifest),
            Op::Context(op) => format!("context {}", quote(&op.name)),
            Op::Http(op) => http(op),
            Op::Git(op) => git(op),
            Op::Merge(op) => {
                format!("merge root={} layers={}", self.of_root(op.root), self.of_id(op.layers))
            }
            Op::Run(op) => self.run(op),
            Op::Copy(op) => self.copy(op),
            Op::Workdir(op) => {
                let user = optional(" user=", &op.user);
                format!("workdir root={} path={}{user}", self.of_root(op.root), quote(&op.path))
            }
        };
        if step.info.no_cache {
            line.push_str(" no-cache");
        }
        if let Some((first, last)) = step.info.lines {
            let _ = write!(line, " lines {first}-{last}");
        }
        format!("{} {line} title={}", self.of_id(id), quote(&step.info.title))
    }

    fn run(&self, op: &RunOp) -> String {
        let mut line = format!("run root={}", self.of_root(op.root));
        if !op.mounts.is_empty() {
            let mounts: Vec<String> = op.mounts.iter().map(|mount| self.mount(mount)).collect();
            let _ = write!(line, " mounts=[{}]", mounts.join(", "));
        }
        let _ = write!(line, " args={}", quote_list(&op.args));
        let env: Vec<String> = op.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let _ = write!(line, " env={} cwd={}", quote_list(&env), quote(&op.cwd));
        line.push_str(&optional(" user=", &op.user));
        match op.network {
            Network::Default => {}
            Network::None => line.push_str(" network=none"),
            Network::Host => line.push_str(" network=host"),
        }
        match op.security {
            Security::Sandbox => {}
            Security::Insecure => line.push_str(" security=insecure"),
        }
        if !op.files.is_empty() {
            let files: Vec<String> = op.files.iter().map(inline).collect();
            let _ = write!(line, " files=[{}]", files.join(", "));
        }
        let _ = write!(line, " platform={}", op.platform);
        line.push_str(&optional(" hostname=", op.hostname.as_deref().unwrap_or("")));
        let Machine { hosts, shm_size, limits } = &*op.machine;
        for (address, name) in hosts {
            let _ = write!(line, " host={}", quote(&format!("{name}:{address}")));
        }
        if let Some(bytes) = shm_size {
            let _ = write!(line, " shm-size={bytes}");
        }
        for limit in limits {
            let word = |value: Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
            let _ = write!(line, " ulimit={}={}:{}", limit.name, word(limit.soft), word(limit.hard));
        }
        line
    }

    fn mount(&self, mount: &Mount) -> String {
        let target = &mount.target;
        match &mount.kind {
            MountKind::Bind(bind) => {
                let rw = if bind.writable { " rw" } else { "" };
                format!("bind:{target} from={} source={}{rw}", self.of_id(bind.from), quote(&bind.path))
            }
            MountKind::Cache(cache) => format!("cache:{target} {}", self.cache(cache)),
            MountKind::Tmpfs(tmpfs) => {
                let size = tmpfs.size.map(|size| format!(" size={size}")).unwrap_or_default();
                format!("tmpfs:{target}{size}")
            }
            MountKind::Secret(secret) => {
                let required = if secret.required { " required" } else { "" };
                let env = optional(" env=", secret.env.as_deref().unwrap_or(""));
                let file = file_mode(secret.mode, 0o400, secret.uid, secret.gid);
                format!("secret:{target} id={}{env}{file}{required}", quote(&secret.id))
            }
            MountKind::Ssh(ssh) => {
                let required = if ssh.required { " required" } else { "" };
                let file = file_mode(ssh.mode, 0o600, ssh.uid, ssh.gid);
                format!("ssh:{target} id={}{file}{required}", quote(&ssh.id))
            }
        }
    }

    fn cache(&self, cache: &CacheMount) -> String {
        let scope = match &cache.scope {
            CacheScope::Global => "global",
            CacheScope::Platform(platform) => platform,
        };
        let sharing = match cache.sharing {
            Sharing::Shared => "shared",
            Sharing::Locked => "locked",
            Sharing::Private => "private",
        };
        let mut out = format!("id={} scope={scope} sharing={sharing}", quote(&cache.id));
        if (cache.mode, cache.uid, cache.gid) != (0o755, 0, 0) {
            let _ = write!(out, " mode={:04o} uid={} gid={}", cache.mode, cache.uid, cache.gid);
        }
        if let Some((step, path)) = &cache.seed {
            let _ = write!(out, " seed={}:{}", self.of_id(*step), quote(path));
        }
        if cache.read_only {
            out.push_str(" ro");
        }
        out
    }

    fn copy(&self, op: &CopyOp) -> String {
        let sources: Vec<String> = op
            .sources
            .iter()
            .map(|source| match source {
                CopySource::From(from) => {
                    let Selection { path, wildcard, exclude, parents } = &from.selection;
                    let mut text = format!("{}:{}", self.of_id(from.step), quote(path));
                    text.push_str(if *wildcard { " wildcard" } else { "" });
                    if let Some(pivot) = parents {
                        let _ = write!(text, " parents={}", quote(pivot));
                    }
                    if !exclude.is_empty() {
                        let _ = write!(text, " exclude={}", quote_list(exclude));
                    }
                    text
                }
                CopySource::Inline(file) => inline(file),
            })
            .collect();
        let mut line = format!("copy root={} sources=[{}]", self.of_root(op.root), sources.join(", "));
        let _ = write!(line, " dest={}", quote(&op.dest));
        if op.dest_is_dir {
            line.push_str(" dir");
        }
        line.push_str(&optional(" chown=", op.chown.as_deref().unwrap_or("")));
        match &op.chmod {
            None => {}
            Some(Chmod::Octal(mode)) => {
                let _ = write!(line, " chmod={mode:04o}");
            }
            Some(Chmod::Symbolic(mode)) => {
                let _ = write!(line, " chmod={mode}");
            }
        }
        match op.unpack {
            Unpack::Never => {}
            Unpack::Archives => line.push_str(" unpack"),
        }
        line
    }

    fn image(&self, image: &PlannedImage) -> String {
        let mut out = format!("result {} root={}\n", image.platform, self.of_root(image.rootfs));
        for (name, value) in settings(&image.config.config, image.config.author.as_deref()) {
            let _ = writeln!(out, "  {name} {value}");
        }
        for line in &image.history {
            let step = line.step.map_or("-", |id| self.of_id(id));
            let _ = writeln!(out, "  history {step} {}", quote(&line.created_by));
        }
        out
    }
}

/// What a configuration says, without what it does not say.
fn settings(config: &ContainerConfig, author: Option<&str>) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    let mut list = |name, items: &Option<Vec<String>>| {
        if let Some(items) = items {
            out.push((name, quote_list(items)));
        }
    };
    list("entrypoint", &config.entrypoint);
    list("cmd", &config.cmd);
    list("shell", &config.shell);
    let mut each = |name, items: &mut dyn Iterator<Item = String>| {
        out.extend(items.map(|item| (name, quote(&item))));
    };
    each("env", &mut config.env.iter().cloned());
    each("label", &mut config.labels.iter().map(|(name, value)| format!("{name}={value}")));
    each("expose", &mut config.exposed_ports.iter().cloned());
    each("volume", &mut config.volumes.iter().cloned());
    let texts = [
        ("user", config.user.as_str()),
        ("workdir", &config.working_dir),
        ("stopsignal", config.stop_signal.as_deref().unwrap_or("")),
        ("author", author.unwrap_or("")),
    ];
    out.extend(texts.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (*name, quote(text))));
    out.extend(config.healthcheck.as_ref().map(|check| ("healthcheck", healthcheck(check))));
    out.extend(config.on_build.iter().map(|trigger| ("onbuild", quote(trigger))));
    out
}

/// The command, and what is not docker's own choice.
fn healthcheck(check: &Value) -> String {
    let test = check["Test"].as_array().map_or(&[][..], Vec::as_slice);
    let test: Vec<String> = test.iter().map(|word| word.as_str().unwrap_or_default().to_owned()).collect();
    let mut out = quote_list(&test);
    let times = [
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start-period", "StartPeriod"),
        ("start-interval", "StartInterval"),
    ];
    for (name, key) in times {
        if let Some(time) = check[key].as_i64().filter(|time| *time != 0) {
            let _ = write!(out, " {name}={}", duration::format(time));
        }
    }
    if let Some(retries) = check["Retries"].as_i64().filter(|retries| *retries != 0) {
        let _ = write!(out, " retries={retries}");
    }
    out
}

fn http(op: &HttpOp) -> String {
    let checksum = op.checksum.map(|checksum| format!(" checksum={checksum}")).unwrap_or_default();
    format!("http {} name={}{checksum}", quote(&op.url), quote(&op.name))
}

fn git(op: &GitOp) -> String {
    let mut line = format!("git {}", quote(&op.remote));
    line.push_str(&optional(" ref=", op.reference.as_deref().unwrap_or("")));
    line.push_str(&optional(" subdir=", &op.subdir));
    line.push_str(&optional(" checksum=", op.checksum.as_deref().unwrap_or("")));
    line.push_str(if op.keep_git_dir { " keep-git-dir" } else { "" });
    line.push_str(if op.submodules { "" } else { " no-submodules" });
    line
}

/// A file's mode and owner, where they are not the default.
fn file_mode(mode: u32, usual: u32, uid: u32, gid: u32) -> String {
    if (mode, uid, gid) == (usual, 0, 0) {
        return String::new();
    }
    format!(" mode={mode:04o} uid={uid} gid={gid}")
}

fn inline(file: &InlineFile) -> String {
    format!("<<{} mode={:04o} {}", quote(&file.name), file.mode, quote(&file.content))
}

fn optional(prefix: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{prefix}{}", quote(text)) }
}
