//! What went wrong, as an exit code and a hint. All advice is made here; the library is free of it.

use std::process::ExitCode;

use kiln::{
    Advice, CacheError, CarryFailure, DaemonError, DownloadError, Error, ErrorKind, GitError, LookError,
    NoEmulator, OciError, RegistryError, StoreError,
};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was typed, or a file that was named, is no good.
    Usage(String),
    /// The engine's word.
    Engine(Box<Error>),
}

impl Failure {
    /// Makes a failure of a message in the user's words.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// Makes a failure of a parse error.
    pub(crate) fn from_usage(error: impl std::error::Error) -> Self {
        Self::Usage(error.to_string())
    }

    /// Returns the exit code: 1 a step failed; 2 usage or Dockerfile; 3 this machine cannot; 4 registry or network;
    /// 70 internal; 130 interrupted.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let Self::Engine(error) = self else { return ExitCode::from(2) };
        ExitCode::from(match error.kind() {
            ErrorKind::Step => 1,
            ErrorKind::Input => 2,
            ErrorKind::Machine => 3,
            ErrorKind::Network => 4,
            ErrorKind::Internal => 70,
            ErrorKind::Interrupted => 130,
        })
    }

    /// Returns what to do next, where that is known.
    pub(crate) fn hint(&self) -> Option<String> {
        let Self::Engine(error) = self else { return None };
        if let Error::CacheTo { error, .. } = &**error
            && error.kind() != ErrorKind::Input
        {
            let login = match error.root() {
                Error::Registry(error) => registry(error.root()),
                _ => None,
            };
            let ignored = "the outputs are written; with ignore-error=true in --cache-to this is a warning";
            return login.or(Some(ignored.to_owned()));
        }
        if error.is_full() {
            return Some(
                "make room with `kiln prune --all`, or put the store elsewhere with --root".to_owned(),
            );
        }
        // Some of what writes archives keeps no number of the error, only the system's words.
        let said = error.to_string().to_lowercase();
        if said.ends_with("no space left on device") {
            return Some("make room there, or write to another disk".to_owned());
        }
        if said.ends_with("read-only file system") {
            return Some("put the store where it can be written, with --root or KILN_ROOT".to_owned());
        }
        if said.ends_with("file too large") {
            return Some(
                "no file may be larger here than `ulimit -f` says, in blocks of 512 or 1024 bytes: raise it"
                    .to_owned(),
            );
        }
        match error.root() {
            Error::Foreign { missing, .. } => return missing.first().map(emulator),
            Error::NoEmulator(missing) => return Some(emulator(missing)),
            Error::Layer { file: false, .. } => {
                return Some(
                    "its publisher has to push the image anew, as its configuration and its layers do not belong together; \
                     `kiln pull` gets it when that is done, an older digest of it (NAME@sha256:...) may be whole"
                        .to_owned(),
                );
            }
            Error::Layer { .. } => {
                return Some("write the archive anew with the program that made it: `kiln load` and copies of it fail alike".to_owned());
            }
            Error::Registry(error) | Error::NotHad { error, .. } => {
                if let Some(hint) = registry(error.root()) {
                    return Some(hint);
                }
            }
            Error::Download(DownloadError::Denied { host, .. }) => {
                return Some(format!(
                    "--secret id=HTTP_AUTH_TOKEN_{host},src=FILE gives {host} a bearer token, \
                     HTTP_AUTH_HEADER_{host} a whole Authorization header"
                ));
            }
            Error::Download(DownloadError::Address { .. }) => return None,
            Error::Download(_) => {
                return Some(
                    "is the address right, and can it be reached from here? (HTTPS_PROXY, SSL_CERT_FILE)"
                        .to_owned(),
                );
            }
            Error::Daemon(DaemonError::NotFound { .. } | DaemonError::Unreachable { .. }) => {
                return Some(
                    "start docker or podman's socket, or say where it is with DOCKER_HOST=unix://PATH; kiln's own image \
                     store is -t NAME, with -o type=image beside other outputs"
                        .to_owned(),
                );
            }
            Error::Git(error) => return git(error.root()),
            Error::Store(StoreError::NotYours { .. }) => {
                return Some("each user has a store of their own: --root or KILN_ROOT says where".to_owned());
            }
            Error::Store(StoreError::Owners { root }) => {
                let root = root.display();
                return Some(format!(
                    "copy it again as root, with `cp -a` or `rsync -aHX --numeric-ids`, or take another --root; if /etc/subuid says \
                     other ids here, `mv {root}/full {root}/full.copied` keeps the images and lets steps run again"
                ));
            }
            Error::WrongCommit { .. } => {
                return Some(
                    "the ref was moved, or is not what it should be; nothing was fetched".to_owned(),
                );
            }
            Error::LockTimeout { .. } | Error::CacheMount(CacheError::TimedOut { .. }) => {
                return Some(
                    "wait longer with a larger --lock-timeout, or end that process: its locks go with it"
                        .to_owned(),
                );
            }
            Error::WrongChecksum { .. } => {
                return Some(
                    "the file has changed, or is not what it should be; none of it was kept".to_owned(),
                );
            }
            _ => {}
        }
        match &**error {
            Error::StepFailed { tail, .. } => Some(step_hint(tail).unwrap_or(
                "the steps before it are kept: correct the line and build again, it goes on from there",
            ).to_owned()),
            Error::NoSuchImage { .. } | Error::AmbiguousId { .. } => {
                Some("`kiln images --all` lists what is there".to_owned())
            }
            Error::Look(LookError::NothingKept) => Some(
                "`kiln build` keeps what a failed step left, until it is pruned or three others have failed".to_owned(),
            ),
            Error::Look(LookError::NotKept { .. }) => Some(
                "only what RUN leaves is kept; `kiln debug ls` lists the steps before it, which can be entered too".to_owned(),
            ),
            Error::Look(LookError::NoBuilds) => Some("`kiln build` notes what it does; only the last hundred builds stay".to_owned()),
            Error::Look(LookError::NoSuchBuild { .. } | LookError::SeveralBuilds { .. }) => {
                Some("`kiln explain --list` lists what there is".to_owned())
            }
            Error::Look(LookError::DidNotRun { .. }) => Some(
                "a step that did not run was cached, or nothing needed it; `kiln explain` lists those that did".to_owned(),
            ),
            Error::Look(_) => Some("`kiln debug ls` lists what is there".to_owned()),
            Error::LayerSize { .. } | Error::ImageSize { .. } => Some(
                "the largest files are those above, unpacked; what is only fetched or temporary stays out with \
                 RUN --mount=type=cache or type=tmpfs"
                    .to_owned(),
            ),
            Error::SeveralAlike { .. } => Some("`kiln images` lists what is there".to_owned()),
            Error::SeveralNames { .. } => Some("give one of the names, or --force for all of them".to_owned()),
            Error::CacheMount(CacheError::Held { .. }) => {
                Some("it can go when that process has ended; `kiln cache ls` shows who holds what".to_owned())
            }
            Error::NoSuchCache { .. } | Error::SeveralCaches { .. } | Error::CacheMount(CacheError::NoCache { .. }) => Some("`kiln cache ls` lists what is there".to_owned()),
            Error::Carry(CarryFailure::Nothing { .. }) => Some(
                "`kiln cache export --to PLACE` or `kiln build --cache-mounts-to PLACE` makes the first".to_owned(),
            ),
            Error::Carry(CarryFailure::Room { .. }) => {
                Some("export less with --max-size or --max-age, or import some ids only".to_owned())
            }
            other => match other.kind() {
                ErrorKind::Machine => {
                    Some("`kiln doctor` says what this machine allows, and what would help".to_owned())
                }
                ErrorKind::Network => Some(
                    "check the name; a mirror is given with --registry-mirror HOST=URL, a local image with \
                     --build-context NAME=oci-layout://DIR"
                        .to_owned(),
                ),
                ErrorKind::Internal => {
                    Some("this is a defect in kiln; please report it with the lines above".to_owned())
                }
                ErrorKind::Step | ErrorKind::Input | ErrorKind::Interrupted => None,
            },
        }
    }
}

impl Failure {
    /// Returns how to look at what a failed step left, if that is kept.
    pub(crate) fn look(&self) -> Option<&'static str> {
        match self {
            Self::Engine(error) if error.kept().is_some() => {
                Some("`kiln debug shell` opens a shell in what the step left")
            }
            _ => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(Box::new(error))
    }
}

/// How to come by an emulator.
fn emulator(missing: &NoEmulator) -> String {
    if missing.programs.is_empty() {
        return "build for another platform; `kiln doctor` lists what runs here".to_owned();
    }
    let variable = missing.architecture.to_ascii_uppercase();
    format!(
        "sudo apt-get install qemu-user-static, or KILN_EMULATOR_{variable}=FILE; stages that are \
         `FROM --platform=$BUILDPLATFORM` and steps that execute nothing need no emulator"
    )
}

/// What the last words of a failed step tell.
fn step_hint(tail: &[String]) -> Option<&'static str> {
    let said = |words: &str| tail.iter().any(|line| line.contains(words));
    if said("Temporary failure in name resolution") || said("Temporary failure resolving") {
        return Some(
            "does the name resolve on the host? If so, does it with --network=host, or with another --dns?",
        );
    }
    if (said("127.0.0.1") || said("localhost")) && said("refused") {
        return Some(
            "in a private network 127.0.0.1 is the step's own: --network=host gives it this machine's",
        );
    }
    if said("CERTIFICATE_VERIFY_FAILED") || said("certificate verify failed") {
        return Some(
            "the step does not trust the server's certificate: put your CA bundle into the base image, or mount it \
             (`--build-context` with `RUN --mount=type=bind`)",
        );
    }
    if said("setgroups") && said("not permitted") || said("Invalid argument") && said("chown") {
        return Some("this needs more than one user id: see `kiln doctor`");
    }
    if said("not found") && said("sh:") {
        return Some("the image has no such program: check the name, or install it in a step before");
    }
    None
}

/// What can be done about a registry that does not let one in.
fn registry(error: &RegistryError) -> Option<String> {
    let text = match error {
        RegistryError::Unauthorized { host, .. } | RegistryError::PushDenied { host, .. } => {
            let host = if host == "registry-1.docker.io" { "docker.io" } else { host };
            format!(
                "`kiln login {host}` keeps a name and a password for it; `kiln doctor registry IMAGE` tells what was asked"
            )
        }
        RegistryError::Tls { host, .. } => format!(
            "if its authority is your own: ~/.config/containers/certs.d/{host}/ca.crt, or SSL_CERT_FILE; --insecure-registry {host} looks at no \
             certificate"
        ),
        RegistryError::Helper { program, .. } => {
            format!("install {program}, or take it out of credHelpers in the file with credentials")
        }
        RegistryError::AmbiguousName { .. } => {
            "write it with its registry, or give it an alias in ~/.config/containers/registries.conf; \"short_names\": \"docker\" in kiln's \
             configuration takes such names from docker.io".to_owned()
        }
        RegistryError::RateLimited { host, .. } => format!(
            "who logs in (`kiln login HOST`) is mostly allowed more; a mirror is given with --registry-mirror HOST=URL, for {host}"
        ),
        RegistryError::Stalled { .. } | RegistryError::Interrupted { .. } => {
            "try again: what came is kept, and only the rest is asked for; a proxy or a firewall may be in the way".to_owned()
        }
        RegistryError::Status { status: 500.., .. } => {
            "the registry fails, not the name: try again later, or give a mirror with --registry-mirror HOST=URL".to_owned()
        }
        RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. } => {
            "nothing of it is kept: the registry, a mirror or a proxy sends other bytes than were pushed; `kiln doctor registry IMAGE` tells \
             who is asked".to_owned()
        }
        RegistryError::Protocol { .. } | RegistryError::Status { .. } => {
            "is it a registry, or a proxy's page? `kiln doctor registry IMAGE` tells what was asked and answered".to_owned()
        }
        RegistryError::Image { error: OciError::NoPlatform { .. }, .. } => {
            "--platform takes one that is there".to_owned()
        }
        RegistryError::Image { error: OciError::Malformed { .. }, .. } => {
            "either a proxy's page came in its place (`kiln doctor registry IMAGE` tells who answers), or whoever publishes it has to push it anew".to_owned()
        }
        RegistryError::Image { .. } => {
            "it came as it was pushed: whoever publishes it has to push it anew; an older digest (NAME@sha256:...) may be whole".to_owned()
        }
        RegistryError::Login { .. } => "many registries want a token in place of the password".to_owned(),
        _ => return None,
    };
    Some(text)
}

/// What can be done about a repository that is not to be had.
fn git(error: &GitError) -> Option<String> {
    let text = match error {
        GitError::Unauthorized { .. } => {
            "--secret id=GIT_AUTH_TOKEN,src=FILE gives the repository's host a token, GIT_AUTH_HEADER a whole \
             Authorization header; GIT_AUTH_TOKEN.HOST is for another host"
        }
        GitError::Unreachable { .. } | GitError::NoRepository { .. } | GitError::Protocol { .. } => {
            "is the address right, and can it be reached from here? (HTTPS_PROXY, SSL_CERT_FILE)"
        }
        GitError::NoSuchRef { reference, .. }
            if reference.len() < 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            "a commit is written with all of its 40 digits"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// Says what would keep a step from running the next time.
pub(crate) fn advice(advice: &Advice) -> String {
    match advice {
        Advice::ContextModes => {
            "checkouts under another umask hit as well with --context-modes=git".to_owned()
        }
        Advice::Ignore { patterns } => {
            format!("if the build does not need it, add to .dockerignore: {}", patterns.join(" "))
        }
        Advice::MoveArgument { name, line, used: Some(used) } => format!(
            "every RUN below line {line} sees ARG {name}, and line {used} is the first to mention it: declare it there"
        ),
        Advice::MoveArgument { name, line, used: None } => format!(
            "every RUN below line {line} sees ARG {name}, and none mentions it: declare it below the last RUN, or leave it out"
        ),
        Advice::PinBase { image } => format!("a digest does not move: FROM {image}"),
    }
}
