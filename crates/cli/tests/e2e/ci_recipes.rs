//! docs/ci.md: each recipe is what its system reads, and its shell lines do what the page says.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_testkit::registry::{Access, FakeRegistry};
use serde_json::Value;

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

/// A recipe: the file that it is, as its first line says, and what a shell is given.
struct Recipe {
    name: String,
    script: String,
}

#[test]
fn each_recipe_builds_warm_on_its_second_worker() {
    let recipes = recipes();
    let names: Vec<&str> = recipes.iter().map(|recipe| recipe.name.as_str()).collect();
    let expected = [
        ".github/workflows/image.yml",
        ".github/workflows/image-with-actions-cache.yml",
        ".gitlab-ci.yml",
        "Jenkinsfile",
        "task.yaml",
        "pod.yaml",
    ];
    assert_eq!(names, expected);
    for_each_user(|user| {
        for recipe in &recipes {
            run(user, recipe);
        }
    });
}

fn run(user: User, recipe: &Recipe) {
    let registry = FakeRegistry::start();
    registry.access(Access::Token(Some(("me".to_owned(), "hunter2".to_owned()))));
    let place = Place::with(
        user,
        "RUN --mount=type=cache,target=/root/.cache/pip if test -e /root/.cache/pip/f; then echo WARM; else echo COLD; \
         echo x > /root/.cache/pip/f; fi\n",
    );
    place.file("context/.dockerignore", ".kiln-caches\n");
    let host = registry.host();
    let mut login = place.command(&["login", "-u", "me", "--password", "hunter2", &host]);
    Ran::of(&mut login).ok();
    for (worker, found) in [("one", "COLD"), ("two", "WARM")] {
        let mut shell = place.as_user("/bin/sh", worker, &["-eu"]);
        shell.current_dir(place.path("context")).stdin(Stdio::piped());
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        let path = format!("{}:/usr/bin:/bin", place.text(""));
        let image = format!("{host}/team/app");
        for (name, value) in [
            ("PATH", path.as_str()),
            ("KILN_PROGRESS", "plain"),
            ("IMAGE", &image),
            ("REGISTRY", &host),
            ("REGISTRY_USER", "me"),
            ("REGISTRY_PASSWORD", "hunter2"),
            ("LOGIN_USR", "me"),
            ("LOGIN_PSW", "hunter2"),
            ("BUILD_NUMBER", "7"),
            ("CACHE", &format!("{image}/caches")),
            ("CI_REGISTRY", &host),
            ("CI_REGISTRY_USER", "me"),
            ("CI_REGISTRY_PASSWORD", "hunter2"),
            ("CI_REGISTRY_IMAGE", &image),
            ("CI_COMMIT_REF_SLUG", "branch"),
        ] {
            shell.env(name, value);
        }
        let mut child = shell.spawn().expect("sh starts");
        child.stdin.take().unwrap().write_all(recipe.script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} on worker {worker}: {said}", recipe.name);
        assert!(
            said.contains(&format!(" {found}\n")),
            "{} on worker {worker} is not {found}: {said}",
            recipe.name
        );
    }
}

fn recipes() -> Vec<Recipe> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ci.md");
    let page = fs::read_to_string(page).expect("docs/ci.md");
    let mut recipes = Vec::new();
    for block in page.split("```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').expect("a block");
        let name = text.lines().next().unwrap_or_default().trim_start_matches(['#', '/', ' ']).to_owned();
        let script = match language {
            "yaml" => {
                let mut scripts = Vec::new();
                shell_lines(&parsed(&name, text), &mut scripts);
                scripts.join("\n")
            }
            "groovy" => {
                let (_, rest) = text.split_once("sh '''").expect("a shell step");
                rest.split_once("'''").expect("its end").0.to_owned()
            }
            other => panic!("a block of {other:?}: is it a recipe?"),
        };
        assert!(script.contains("kiln build"), "{name}: {script}");
        recipes.push(Recipe { name, script });
    }
    recipes
}

/// Reads YAML with a program that does.
fn parsed(name: &str, text: &str) -> Value {
    let program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let mut python = Command::new("python3");
    let mut child =
        python.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name} is not YAML, or python3-yaml is missing");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What is run, in order: `run` of GitHub, `script` of GitLab and Tekton, `args` of a pod's shell.
fn shell_lines(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("run" | "script", Value::String(text)) => into.push(text.clone()),
                    ("script" | "args", Value::Array(lines)) => {
                        into.extend(lines.iter().filter_map(|line| Some(line.as_str()?.to_owned())));
                    }
                    (_, value) => shell_lines(value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| shell_lines(item, into)),
        _ => {}
    }
}
