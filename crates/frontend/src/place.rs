//! Where an instruction stands, and how progress speaks of its step.

use kiln_core::{Platform, StepInfo};
use kiln_dockerfile::{Instruction, Span, Stage};

use crate::LowerOptions;
use crate::settings::Settings;
use crate::source::Source;
use crate::stages::{Needed, Stages};
use crate::state::StageState;
use crate::trigger::Trigger;
use crate::variables::Variables;

/// Where an instruction stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Its stage's number.
    pub(crate) stage: usize,
    /// The instruction; of a trigger, the FROM line.
    pub(crate) span: Span,
    /// First and last line.
    pub(crate) lines: (usize, usize),
    /// The instruction as written, on one line.
    pub(crate) text: &'a str,
    /// Which of the stage's steps it is, from 1.
    number: usize,
    /// Whether it is a trigger of the stage's base.
    is_trigger: bool,
    naming: &'a Naming,
}

/// How steps of one stage are named: `[linux/amd64 build 2/4] `.
#[derive(Debug)]
pub(crate) struct Naming {
    /// For [`StepInfo::stage`].
    stage: String,
    /// The stage's name in titles; empty in a file of one stage.
    label: String,
    with_platform: bool,
    no_cache: bool,
    /// Steps of the stage.
    total: usize,
}

impl Naming {
    /// Looks at a whole stage.
    pub(crate) fn of(
        needed: &Needed,
        stages: &Stages<'_>,
        options: &LowerOptions,
        settings: &Settings,
    ) -> Self {
        let Needed { number, start, triggers, .. } = needed;
        let number = *number;
        let stage = stages.get(number);
        let triggers = triggers.iter().filter(|trigger| makes_step(&trigger.instruction.value)).count();
        let name = stage.from.value.name.as_ref().map(|name| name.value.as_str());
        let is_filtered = |wanted: &String| {
            name.map_or(*wanted == number.to_string(), |name| wanted.eq_ignore_ascii_case(name))
        };
        Self {
            stage: name.map_or_else(|| number.to_string(), str::to_owned),
            label: if stages.len() > 1 { stages.label(number) } else { String::new() },
            with_platform: options.platforms.len() > 1 || settings.multi_platform,
            no_cache: options.no_cache || options.no_cache_filter.iter().any(is_filtered),
            total: usize::from(has_own_step(&start.source)) + triggers + steps_of(stage),
        }
    }

    /// Returns the place of the FROM line.
    pub(crate) fn of_from<'a>(&'a self, number: usize, stage: &'a Stage) -> Place<'a> {
        let from = &stage.from;
        Place {
            stage: number,
            span: from.span,
            lines: from.lines,
            text: &from.text,
            number: 1,
            is_trigger: false,
            naming: self,
        }
    }
}

impl<'a> Place<'a> {
    /// Returns the places of the triggers of a stage's base: all of them are the FROM line.
    pub(crate) fn of_triggers(
        needed: &'a Needed,
        stage: &'a Stage,
        naming: &'a Naming,
    ) -> impl Iterator<Item = (Self, &'a Trigger)> {
        let mut step = usize::from(has_own_step(&needed.start.source));
        needed.triggers.iter().map(move |trigger| {
            step += usize::from(makes_step(&trigger.instruction.value));
            let from = naming.of_from(needed.number, stage);
            (Self { text: &trigger.instruction.text, number: step, is_trigger: true, ..from }, trigger)
        })
    }

    /// Returns the places of a stage's instructions, with what stands there.
    pub(crate) fn of_instructions(
        needed: &'a Needed,
        stage: &'a Stage,
        naming: &'a Naming,
    ) -> impl Iterator<Item = (Self, &'a Instruction)> {
        let mut step = naming.total - steps_of(stage);
        stage.instructions.iter().map(move |located| {
            step += usize::from(makes_step(&located.value));
            let place = Self {
                stage: needed.number,
                span: located.span,
                lines: located.lines,
                text: &located.text,
                number: step,
                is_trigger: false,
                naming,
            };
            (place, &located.value)
        })
    }

    /// Returns how to speak of this instruction's step, `text` being what its title says.
    pub(crate) fn info(&self, state: &StageState, text: &str) -> StepInfo {
        StepInfo { no_cache: self.naming.no_cache, ..self.describe(&state.platform, &state.env, text) }
    }

    /// Returns how to speak of a stage's first files. They are never made anew: their digest says what they are.
    pub(crate) fn info_of_base(&self, platform: &Platform, text: &str) -> StepInfo {
        self.describe(platform, &Variables::default(), text)
    }

    fn describe(&self, platform: &Platform, env: &Variables, text: &str) -> StepInfo {
        let naming = self.naming;
        let mut words = Vec::new();
        if naming.with_platform {
            words.push(format!("{platform}{}", cross(platform, env)));
        }
        if !naming.label.is_empty() {
            words.push(naming.label.clone());
        }
        let width = naming.total.to_string().len();
        words.push(format!("{:>width$}/{}", self.number, naming.total));
        StepInfo {
            title: format!("[{}] {}{text}", words.join(" "), if self.is_trigger { "ONBUILD " } else { "" }),
            stage: naming.stage.clone(),
            lines: Some(self.lines),
            no_cache: false,
        }
    }
}

/// `->arm64` where a step on one platform makes things for another and says so with a platform argument.
fn cross(platform: &Platform, env: &Variables) -> String {
    let target = match (env.get("TARGETPLATFORM"), env.get("TARGETARCH")) {
        (Some(text), _) => text.parse::<Platform>().ok(),
        (None, Some(arch)) => {
            Some(Platform::new(env.get("TARGETOS").unwrap_or(&platform.os), arch, env.get("TARGETVARIANT")))
        }
        (None, None) => None,
    };
    match target {
        Some(target) if target.os != platform.os => format!("->{target}"),
        Some(target) if target.architecture != platform.architecture => {
            let variant = target.variant.map(|variant| format!("/{variant}")).unwrap_or_default();
            format!("->{}{variant}", target.architecture)
        }
        _ => String::new(),
    }
}

/// A stage that starts from an image or files has a step for that; it is number 1.
fn has_own_step(source: &Source) -> bool {
    matches!(source, Source::Image(_) | Source::Files(_))
}

fn steps_of(stage: &Stage) -> usize {
    stage.instructions.iter().filter(|located| makes_step(&located.value)).count()
}

fn makes_step(instruction: &Instruction) -> bool {
    matches!(
        instruction,
        Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_)
    )
}
