//! What a stage is after some of its instructions.

use std::sync::Arc;

use kiln_core::{ImageConfig, Platform, RootFs, StepId};

use crate::PlannedHistory;
use crate::check::Once;
use crate::path;
use crate::variables::Variables;

/// A stage so far: a value that each instruction takes and gives back changed.
///
/// What grows with the file is shared until it changes, so that `FROM stage` costs little.
#[derive(Debug, Clone)]
pub(crate) struct StageState {
    /// Its files; none for scratch.
    pub(crate) rootfs: Option<StepId>,
    /// What its steps run on.
    pub(crate) platform: Platform,
    /// The image's configuration; its `Env` is in `image_env` until the end.
    pub(crate) config: ImageConfig,
    /// What the image's `Env` will be: the base's and ENV's.
    pub(crate) image_env: Arc<Variables>,
    /// What RUN sees and words are expanded with: `image_env` and ARG's. The last line that sets a name wins,
    /// whether it is ENV or ARG.
    pub(crate) env: Arc<Variables>,
    /// ARGs declared so far, with their values or nothing; RUN's history line names them.
    pub(crate) args: Arc<Variables>,
    /// Lines of history after the base image's.
    pub(crate) history: Arc<History>,
    /// The base image's own configuration.
    pub(crate) base: Option<Arc<ImageConfig>>,
    /// For the checks: what must be said once.
    pub(crate) once: Once,
    /// Whether CMD was set in this stage: ENTRYPOINT clears an inherited one only.
    pub(crate) has_own_cmd: bool,
}

/// Lines of history, those of an inherited stage shared with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    inherited: Option<Arc<History>>,
    lines: Vec<PlannedHistory>,
}

impl History {
    /// Returns all lines, oldest first.
    pub(crate) fn flatten(&self) -> Vec<PlannedHistory> {
        let mut chain = vec![self];
        while let Some(next) = chain.last().and_then(|last| last.inherited.as_deref()) {
            chain.push(next);
        }
        chain.into_iter().rev().flat_map(|part| part.lines.iter().cloned()).collect()
    }
}

impl Drop for History {
    /// One after the other: a file may have more stages upon stages than the thread's stack has room for.
    fn drop(&mut self) {
        let mut next = self.inherited.take();
        while let Some(mut history) = next.and_then(Arc::into_inner) {
            next = history.inherited.take();
        }
    }
}

impl StageState {
    /// Starts from a configuration and its files.
    pub(crate) fn new(
        config: ImageConfig,
        rootfs: Option<StepId>,
        platform: Platform,
        base: Option<Arc<ImageConfig>>,
    ) -> Self {
        let env = Arc::new(Variables::of_config(&config.config.env));
        let mut config =
            ImageConfig { created: None, rootfs: RootFs::default(), history: Vec::new(), ..config };
        let dir = &mut config.config.working_dir;
        if !dir.is_empty() {
            *dir = path::resolve("/", dir);
        }
        Self {
            rootfs,
            platform,
            config,
            image_env: Arc::clone(&env),
            env,
            args: Arc::default(),
            history: Arc::default(),
            base,
            once: Once::default(),
            has_own_cmd: false,
        }
    }

    /// Returns what a stage that says `FROM this` starts with: everything but the right to keep an own CMD.
    pub(crate) fn inherit(&self) -> Self {
        let history = History { inherited: Some(Arc::clone(&self.history)), lines: Vec::new() };
        let once = self.once.inherit();
        Self { history: Arc::new(history), once, has_own_cmd: false, ..self.clone() }
    }

    /// Sets a variable of the image and of the build.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        Arc::make_mut(&mut self.image_env).set(name, value);
        Arc::make_mut(&mut self.env).set(name, value);
    }

    /// Sets a variable of the build alone.
    pub(crate) fn set_arg(&mut self, name: &str, value: &str) {
        Arc::make_mut(&mut self.env).set(name, value);
    }

    /// Notes that an ARG was declared.
    pub(crate) fn declare(&mut self, name: &str, value: Option<&str>) {
        Arc::make_mut(&mut self.args).set(name, value.unwrap_or(""));
    }

    /// Appends a line of history without a layer.
    #[must_use]
    pub(crate) fn with_history(self, created_by: String) -> Self {
        self.with_line(created_by, None)
    }

    /// Puts a step's result in the place of the files so far, and appends its line of history.
    #[must_use]
    pub(crate) fn with_step(self, step: StepId, created_by: String) -> Self {
        Self { rootfs: Some(step), ..self }.with_line(created_by, Some(step))
    }

    /// Returns the working directory, absolute.
    pub(crate) fn cwd(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            dir => dir,
        }
    }

    fn with_line(mut self, created_by: String, step: Option<StepId>) -> Self {
        Arc::make_mut(&mut self.history).lines.push(PlannedHistory { created_by, step });
        self
    }
}
