//! Which rung of the ladder this machine has, and why: for `kiln doctor`.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use kiln_core::{IoError, IoResultExt};
use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use crate::emulator::{self, EmulatorSearch};
use crate::enter::{EnterOptions, Entered, Isolation, enter, in_child};
use crate::error::EnterError;
use crate::ids::{IdMode, IdRange};
use crate::network::NetworkError;
use crate::proc::{self, Proc};
use crate::{mounts, sys};

/// The name under which this binary, executed again, tries things out.
pub(crate) const PROBE: &str = "kiln-probe";

/// One part of the ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Which: "user ids", "isolation", "file system", "proc", "network", "limits"; "linux/arm64" and its like for programs
    /// of other architectures.
    pub what: String,
    /// What kiln uses here; none if it cannot work.
    pub chosen: Option<String>,
    /// Why.
    pub reason: String,
    /// The command that would give a better one.
    pub raise: Option<String>,
}

/// Tries out what this machine allows, in a process of its own that keeps its file systems below `store`. Emulators are
/// looked for as `emulators` says; with `isolation`, it is what kiln has if it is told to use that.
///
/// # Errors
/// That process could not be run.
pub fn probe(
    store: &Path,
    emulators: &EmulatorSearch,
    isolation: Option<Isolation>,
) -> Result<Vec<Rung>, IoError> {
    let program = "/proc/self/exe";
    let asked =
        serde_json::to_string(&(emulators, isolation)).map_err(io::Error::from).at("write to", program)?;
    let output = Command::new(program).arg0(PROBE).arg(store).arg(asked).output().at("run", program)?;
    serde_json::from_slice(&output.stdout).map_err(io::Error::from).at("read the answer of", program)
}

/// Serves as that process; does not return.
pub(crate) fn serve() -> ! {
    let store = std::env::args_os().nth(1).unwrap_or_default();
    let asked = std::env::args_os().nth(2).and_then(|text| serde_json::from_str(text.to_str()?).ok());
    let (emulators, isolation) = asked.unwrap_or_default();
    let options = EnterOptions { isolation, ..EnterOptions::default() };
    let answer = serde_json::to_vec(&try_out(Path::new(&store), &emulators, &options));
    let written = answer.is_ok_and(|answer| io::Write::write_all(&mut io::stdout(), &answer).is_ok());
    std::process::exit(i32::from(!written))
}

fn try_out(store: &Path, emulators: &EmulatorSearch, options: &EnterOptions) -> Vec<Rung> {
    let entered = match enter(options) {
        Ok(entered) => entered,
        Err(error) => {
            let raise = match &error {
                EnterError::NoUserNamespaces { obstacle, .. } => obstacle.remedy(),
                _ => None,
            };
            return vec![rung("user ids", None, error.to_string(), raise)];
        }
    };
    if let Some((reason, raise)) = entered.why_bare() {
        return [vec![user_ids(&entered)], in_a_chroot(reason, raise), vec![limits(&entered)]].concat();
    }
    let mut rungs = vec![
        user_ids(&entered),
        isolation(),
        file_system(&entered, store),
        proc(&entered),
        network(&entered),
        limits(&entered),
    ];
    rungs.extend(emulator::rungs(&entered, emulators));
    rungs
}

fn user_ids(entered: &Entered) -> Rung {
    let count = |map: &[IdRange]| map.iter().map(|range| u64::from(range.count)).sum::<u64>();
    let chosen = match entered.ids() {
        IdMode::Root => "root".to_owned(),
        IdMode::Mapped => "a range that is mapped already".to_owned(),
        IdMode::Subordinate { uids, gids } => {
            format!("subordinate: {} user ids, {} group ids", count(uids), count(gids))
        }
        IdMode::Single if entered.answers() => {
            "a single id: other users and owners are answered for by kiln, and recorded".to_owned()
        }
        IdMode::Single => "a single id: RUN as root only, files of other owners cannot be made".to_owned(),
    };
    rung("user ids", Some(chosen), entered.reason().to_owned(), entered.raise().map(str::to_owned))
}

fn isolation() -> Rung {
    let reason = "each step has its own processes, mounts, host name and System V IPC".to_owned();
    rung("isolation", Some("namespaces".to_owned()), reason, None)
}

/// All that follows from there being no namespaces.
fn in_a_chroot(reason: &str, raise: Option<&str>) -> Vec<Rung> {
    let because = |what, chosen: &str, why: &str| rung(what, Some(chosen.to_owned()), why.to_owned(), None);
    vec![
        rung(
            "isolation",
            Some("chroot: nothing keeps a step from this machine or container".to_owned()),
            reason.to_owned(),
            raise.map(str::to_owned),
        ),
        because(
            "file system",
            "copy: layers are copied into one tree, which costs time with each step",
            "nothing can be mounted; caches are moved to their places",
        ),
        because(
            "proc",
            "minimal",
            "nothing can be mounted; it has what tells of the machine, nothing of processes",
        ),
        because("network", "host", "steps use this machine's network; RUN --network=none is refused"),
    ]
}

fn file_system(entered: &Entered, store: &Path) -> Rung {
    const WHAT: &str = "file system";
    let place = store.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let scratch = place.join(format!(".kiln-probe-{}", std::process::id()));
    let made = fs::create_dir_all(&scratch).at("create", &scratch);
    let result = match made.and_then(|()| mounts::try_overlay(entered, &scratch)) {
        Ok(()) => rung(
            WHAT,
            Some("overlay".to_owned()),
            format!("the kernel mounts it on {}", place.display()),
            None,
        ),
        Err(error) if error.is_full() || error.errno == Some(libc::EROFS) => {
            rung(WHAT, None, format!("{} cannot be written to: {error}", place.display()), None)
        }
        Err(error) => rung(
            WHAT,
            Some("copy: layers are copied into one tree, which costs time with each step".to_owned()),
            format!("overlay cannot be used: {error}"),
            Some("kiln --root DIR, with DIR on ext4, xfs or btrfs, and Linux 5.11 or later".to_owned()),
        ),
    };
    // What overlay's own directory cannot be rid of is not worth failing for: it is empty.
    let _ = fs::remove_dir_all(&scratch);
    result
}

fn proc(entered: &Entered) -> Rung {
    let try_out = |which| in_child(CloneFlags::CLONE_NEWPID, || proc::mount(Some(which)).map(drop));
    let raise = || Some("docker run --security-opt systempaths=unconfined ...".to_owned());
    let (asked, why_not) = match entered.proc() {
        Some(asked) => (Some(asked), "another one was asked for".to_owned()),
        None => match try_out(Proc::Fresh) {
            Ok(()) => (Some(Proc::Fresh), String::new()),
            Err(error) => (
                try_out(Proc::Bound).is_ok().then_some(Proc::Bound),
                format!("a fresh one is refused ({error})"),
            ),
        },
    };
    let (chosen, reason, raise) = match asked {
        Some(Proc::Fresh) => ("fresh", "steps see their own processes only".to_owned(), None),
        Some(Proc::Bound) => {
            let why = "as in a container with a masked /proc; steps see other processes";
            ("bound", format!("{why_not}, {why}"), raise())
        }
        Some(Proc::Minimal) | None => {
            ("minimal", format!("{why_not}; it has what tells of the machine, nothing of processes"), raise())
        }
    };
    rung("proc", Some(chosen.to_owned()), reason, raise)
}

fn network(entered: &Entered) -> Rung {
    if let Err(error) = in_child(CloneFlags::CLONE_NEWNET, sys::loopback_up) {
        let reason = format!("network namespaces are refused ({error}); RUN --network=none cannot work");
        return rung("network", Some("host".to_owned()), reason, None);
    }
    let host = |reason, raise| rung("network", Some("host, or none".to_owned()), reason, raise);
    match entered.make_private_network() {
        Ok(()) => rung(
            "network",
            Some("private, host, or none".to_owned()),
            "pasta gives steps a network behind address translation; --network=host is this machine's"
                .to_owned(),
            None,
        ),
        Err(NetworkError::NoPasta) => host(
            "steps use this machine's network, its loopback too; RUN --network=none has only lo".to_owned(),
            Some("sudo apt-get install passt".to_owned()),
        ),
        Err(error) => {
            let tun = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
            let closed = rustix::fs::access("/dev/net/tun", tun).is_err();
            let raise = closed.then(|| "sudo modprobe tun && sudo chmod 666 /dev/net/tun".to_owned());
            host(format!("steps use this machine's network: {error}"), raise)
        }
    }
}

fn limits(entered: &Entered) -> Rung {
    let Some(reason) = entered.limits_are_watched() else {
        let reason =
            "a control group of its own keeps each step to --memory, --cpus and --pids-limit".to_owned();
        return rung("limits", Some("control groups".to_owned()), reason, None);
    };
    let systemd = Path::new("/run/systemd/system").is_dir() && *entered.ids() != IdMode::Root;
    rung(
        "limits",
        Some("watchdog".to_owned()),
        format!("steps that exceed --memory or --pids-limit are ended when it is seen: {reason}"),
        systemd.then(|| "systemd-run --user --scope kiln ...".to_owned()),
    )
}

fn rung(what: &str, chosen: Option<String>, reason: String, raise: Option<String>) -> Rung {
    Rung { what: what.to_owned(), chosen, reason, raise }
}
