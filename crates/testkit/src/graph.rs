//! Step graphs as text.
//!
//! One step a line, inputs first: its name, its kind, its root (`-` for scratch), then words of that kind:
//!
//! ```text
//! main   context
//! url    http
//! base   image
//! dep    run base
//! src    copy dep main:src/*
//! out    run src bind=dep:etc cache=/root/.cache seed=dep:var no-cache
//! work   workdir out
//! link   copy - main:bin
//! both   merge work link
//! ```
//!
//! A run's arguments are its name; `arg=TEXT` adds one, so that a step's key can be changed while its name stays.
//! The name is the title.

use std::collections::HashMap;

use kiln_core::{
    Bind, CacheMount, CacheScope, ContextOp, CopyFrom, CopyOp, CopySource, Digest, Env, HttpOp, ImageOp,
    MergeOp, Mount, MountKind, Network, Op, Platform, RunOp, Security, Selection, Sharing, StepGraph, StepId,
    StepInfo, Unpack, WorkdirOp,
};

/// A graph whose steps have names.
#[derive(Debug, Clone, Default)]
pub struct TestGraph {
    /// The graph.
    pub graph: StepGraph,
    ids: HashMap<String, StepId>,
    names: HashMap<StepId, String>,
}

/// Reads a graph.
///
/// # Panics
/// If a line is not understood; the message holds it.
pub fn graph(text: &str) -> TestGraph {
    let mut out = TestGraph::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        out.add(line);
    }
    out
}

impl TestGraph {
    /// Adds a step as a line describes it.
    ///
    /// # Panics
    /// If the line is not understood.
    pub fn add(&mut self, line: &str) -> StepId {
        let mut words = line.split_whitespace();
        let mut next = || words.next().unwrap_or_else(|| panic!("a word is missing in {line:?}"));
        let (name, kind) = (next(), next());
        let root = match kind {
            "image" | "context" | "http" => None,
            _ => Some(next()).filter(|root| *root != "-").map(|root| self.id(root)),
        };
        let mut words: Vec<&str> = words.collect();
        let before = words.len();
        words.retain(|word| *word != "no-cache");
        let info = StepInfo { title: name.to_owned(), no_cache: words.len() < before, ..StepInfo::default() };
        let op = match kind {
            "image" => Op::Image(ImageOp { manifest: Digest::of(name.as_bytes()) }),
            "context" => Op::Context(ContextOp { name: name.to_owned() }),
            "http" => Op::Http(HttpOp { url: name.to_owned(), name: name.to_owned(), checksum: None }),
            "run" => Op::Run(self.run(name, root, &words)),
            "copy" => Op::Copy(CopyOp {
                unpack: Unpack::Never,
                root,
                sources: words.iter().map(|word| CopySource::From(self.copy_from(word))).collect(),
                dest: "/".to_owned(),
                dest_is_dir: true,
                chown: None,
                chmod: None,
            }),
            "merge" => Op::Merge(MergeOp { root, layers: self.id(words[0]) }),
            "workdir" => Op::Workdir(WorkdirOp { root, path: format!("/{name}"), user: String::new() }),
            _ => panic!("no kind of step in {line:?}"),
        };
        let id = self.graph.add(op, info);
        self.ids.insert(name.to_owned(), id);
        self.names.entry(id).or_insert_with(|| name.to_owned());
        id
    }

    /// Returns a step by name.
    ///
    /// # Panics
    /// If there is none.
    pub fn id(&self, name: &str) -> StepId {
        *self.ids.get(name).unwrap_or_else(|| panic!("no step is called {name:?}"))
    }

    /// Returns a step's name: of the first line that wrote it.
    ///
    /// # Panics
    /// If the step is of another graph.
    pub fn name(&self, id: StepId) -> &str {
        &self.names[&id]
    }

    fn run(&self, name: &str, root: Option<StepId>, words: &[&str]) -> RunOp {
        let mut args = vec![name.to_owned()];
        let mut mounts = Vec::new();
        let mut seed = None;
        for word in words {
            match word.split_once('=') {
                Some(("arg", arg)) => args.push(arg.to_owned()),
                Some(("bind", source)) => {
                    let CopyFrom { step, selection } = self.copy_from(source);
                    let bind = Bind { from: step, path: format!("/{}", selection.path), writable: false };
                    mounts.push(Mount { target: "/bind".to_owned(), kind: MountKind::Bind(bind) });
                }
                Some(("cache", id)) => mounts.push(cache_mount(id)),
                Some(("seed", source)) => {
                    let CopyFrom { step, selection } = self.copy_from(source);
                    seed = Some((step, format!("/{}", selection.path)));
                }
                _ => panic!("{word:?} is nothing that a run has"),
            }
        }
        for mount in &mut mounts {
            if let MountKind::Cache(cache) = &mut mount.kind {
                cache.seed = seed.take();
            }
        }
        assert!(seed.is_none(), "{name} has a seed and no cache before it");
        RunOp {
            security: Security::Sandbox,
            root,
            args,
            env: Env::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            network: Network::Default,
            mounts,
            files: Vec::new(),
            platform: Platform::new("linux", "amd64", None),
            hostname: None,
            machine: Box::default(),
        }
    }

    fn copy_from(&self, word: &str) -> CopyFrom {
        let (step, path) = word.split_once(':').unwrap_or_else(|| panic!("{word:?} is not STEP:PATH"));
        let selection =
            Selection { path: path.to_owned(), wildcard: path.contains('*'), ..Selection::default() };
        CopyFrom { step: self.id(step), selection }
    }
}

fn cache_mount(id: &str) -> Mount {
    let cache = CacheMount {
        id: id.to_owned(),
        scope: CacheScope::Global,
        sharing: Sharing::Shared,
        mode: 0o755,
        uid: 0,
        gid: 0,
        seed: None,
        read_only: false,
    };
    Mount { target: "/cache".to_owned(), kind: MountKind::Cache(cache) }
}
