//! Hostile base images, contexts and archives, and steps that are not root: a table of what they try. The host's files
//! are neither read nor changed, and nobody gets more of the image than is his. What a step does to its own world is in
//! runtime/tests/real/escape.rs.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_core::ImageConfig;
use kiln_oci::MediaTypes;
use kiln_testkit::image::TestImage;
use kiln_testkit::registry::FakeRegistry;
use kiln_testkit::tools::{run, tool};
use tar::EntryType;

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

/// What no image may hold and no message say.
const CANARY: &str = "the canary sings";

pub(crate) const UPWARDS: &str = "../../../../../../../../../..";

/// As each user, and as root in a chroot. That is no boundary for a step; but kiln itself must not be led astray there either.
fn for_each_way(case: impl Fn(User, &[&str])) {
    for_each_user(|user| {
        case(user, &[]);
        if user == User::Root {
            case(user, &["--isolation=chroot"]);
        }
    });
}

/// A directory of the user's, outside of everything that kiln was given.
pub(crate) struct Host {
    path: PathBuf,
    before: String,
}

impl Host {
    pub(crate) fn new(place: &Place) -> Self {
        place.file("host/canary", CANARY);
        place.file("host/blank", "");
        place.directory("host/empty");
        place.directory("host/dir/empty");
        let path = place.path("host");
        let before = listing(&path);
        Self { path, before }
    }

    pub(crate) fn text(&self) -> &str {
        self.path.to_str().expect("it is made of ASCII")
    }

    #[track_caller]
    pub(crate) fn is_untouched(&self, what: &str, ran: &Ran) {
        assert_eq!(listing(&self.path), self.before, "{what}: the host was changed: {ran}");
        assert!(
            !ran.stderr.contains(CANARY) && !ran.out().contains(CANARY),
            "{what}: the host was read: {ran}"
        );
    }
}

/// All that can be seen of a tree, but for times of access.
fn listing(dir: &Path) -> String {
    let mut out = String::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let m = fs::symlink_metadata(&path).expect("it is there");
        let time = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        let ids = (m.uid(), m.gid(), m.nlink(), m.len());
        writeln!(out, "{} {:o} {ids:?} {time:?}", path.display(), m.mode()).expect("memory");
        if m.is_dir() {
            todo.extend(fs::read_dir(&path).expect("it is ours").flatten().map(|entry| entry.path()));
        }
    }
    out
}

/// An entry of a layer or an archive: type, name, link target or content, extended attributes. `@` is the host's directory.
type Entry = (EntryType, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

/// A tar as no program would write it.
fn tar_of(entries: &[Entry], host: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, text, xattrs) in entries {
        let (name, text) = (name.replace('@', host), text.replace('@', host));
        let content = if *kind == FILE { text.as_str() } else { "" };
        let mut pax: Vec<(String, &[u8])> =
            xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_bytes())).collect();
        let mut header = tar::Header::new_gnu();
        if name.len() < 100 {
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        } else {
            pax.push(("path".to_owned(), name.as_bytes()));
        }
        if *kind != FILE {
            if text.len() < 100 {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
            } else {
                pax.push(("linkpath".to_owned(), text.as_bytes()));
            }
        }
        if !pax.is_empty() {
            let pax = pax.iter().map(|(name, value)| (name.as_str(), *value));
            builder.append_pax_extensions(pax).expect("memory");
        }
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_device_major(0).and_then(|()| header.set_device_minor(0)).expect("GNU headers have them");
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("memory");
    }
    builder.into_inner().expect("memory")
}

/// A layer with a shell.
fn busybox() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let program = fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    builder.append_data(&mut header, "bin/busybox", &program[..]).expect("memory");
    for name in ["sh", "cat", "ls", "echo", "mkdir", "touch", "id", "true", "test", "stat", "cp", "chmod"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(LINK);
        header.set_mode(0o777);
        header.set_size(0);
        builder.append_link(&mut header, format!("bin/{name}"), "busybox").expect("memory");
    }
    builder.into_inner().expect("memory")
}

fn serve(registry: &FakeRegistry, layers: &[&[Entry]], host: &str, change: fn(&mut ImageConfig, &str)) {
    let mut config = ImageConfig::scratch(&"linux/amd64".parse().expect("a platform"));
    config.config.env = vec!["PATH=/bin".to_owned()];
    change(&mut config, host);
    let mut tars = vec![busybox()];
    tars.extend(layers.iter().map(|entries| tar_of(entries, host)));
    registry.put("hostile", "latest", &TestImage::of_tars(config, MediaTypes::Oci, &tars));
}

/// What a base image tries.
struct BaseCase {
    name: &'static str,
    layers: &'static [&'static [Entry]],
    /// What comes behind `FROM`; `@` is the host's directory.
    dockerfile: &'static str,
    /// What kiln says; none if it need not refuse.
    refused: Option<&'static str>,
}

/// The image has directories of these names itself: a link that leads nowhere is refused before anything else.
const LINKED: &[Entry] = &[
    (DIR, "@/empty", "", &[]),
    (DIR, "@/dir", "", &[]),
    (LINK, "l", "@", &[]),
    (LINK, "u", "../../../../../../../../../..@", &[]),
];

const BASES: &[BaseCase] = &[
    BaseCase {
        name: "a name that goes up",
        layers: &[&[(FILE, "../../../../../../../../../..@/new", "x", &[])]],
        dockerfile: "RUN true\n",
        refused: Some(".."),
    },
    BaseCase {
        name: "an absolute name",
        layers: &[&[(FILE, "/@/blank", "x", &[]), (FILE, "/@/new", "x", &[])]],
        dockerfile: "RUN test -s @/blank && test ! -e @/canary\n",
        refused: None,
    },
    BaseCase {
        name: "through a link of the same layer",
        layers: &[&[
            (DIR, "@", "", &[]),
            (LINK, "l", "@", &[]),
            (FILE, "l/blank", "x", &[]),
            (DIR, "l/made", "", &[]),
            (LINK, "l/canary", "x", &[]),
        ]],
        dockerfile: "RUN test -s @/blank && test -d @/made\n",
        refused: None,
    },
    BaseCase {
        name: "through a link of the layer below",
        layers: &[
            LINKED,
            &[
                (FILE, "l/blank", "x", &[]),
                (FILE, "l/.wh.canary", "", &[]),
                (FILE, "u/empty/.wh..wh..opq", "", &[]),
            ],
        ],
        dockerfile: "RUN ls -R /l /u; cat /l/canary || true\n",
        refused: None,
    },
    BaseCase {
        name: "a hard link out",
        layers: &[&[(HARD, "h", "../../../../../../../../../..@/canary", &[])]],
        dockerfile: "RUN cat /h\n",
        refused: Some(".."),
    },
    BaseCase {
        name: "an absolute hard link",
        layers: &[&[(HARD, "h", "@/canary", &[])]],
        dockerfile: "RUN cat /h\n",
        refused: Some("cannot be unpacked"),
    },
    BaseCase {
        name: "a hard link through a link",
        layers: &[&[(LINK, "l", "@", &[]), (HARD, "h", "l/canary", &[])]],
        dockerfile: "RUN cat /h\n",
        refused: Some("cannot be unpacked"),
    },
    BaseCase {
        name: "a hard link through a link of the layer below",
        layers: &[LINKED, &[(HARD, "h", "l/canary", &[])]],
        dockerfile: "RUN cat /h\n",
        refused: Some("cannot be unpacked"),
    },
    BaseCase {
        name: "a directory that becomes a link, and is then written to",
        layers: &[&[
            (DIR, "@", "", &[]),
            (DIR, "d", "", &[]),
            (FILE, "d/blank", "x", &[]),
            (LINK, "d", "@", &[]),
            (FILE, "d/blank", "y", &[]),
            (HARD, "d/linked", "d/blank", &[]),
        ]],
        dockerfile: "RUN ls -l /d/\n",
        refused: None,
    },
    BaseCase {
        name: "a layer that replaces a directory by a link, and one that writes to it",
        layers: &[
            &[(DIR, "@", "", &[]), (DIR, "d", "", &[]), (FILE, "d/blank", "x", &[])],
            &[(LINK, "d", "@", &[])],
            &[(FILE, "d/blank", "y", &[]), (FILE, "d/.wh.canary", "", &[])],
        ],
        dockerfile: "RUN ls -l /d/\n",
        refused: None,
    },
    BaseCase {
        name: "odd deletions",
        layers: &[
            LINKED,
            &[
                (FILE, ".wh.", "", &[]),
                (FILE, ".wh..", "", &[]),
                (FILE, "bin/.wh...", "", &[]),
                (FILE, ".wh..wh..opq/x", "", &[]),
            ],
        ],
        dockerfile: "RUN true\n",
        refused: None,
    },
    BaseCase {
        name: "marks of overlay's",
        layers: &[
            &[(DIR, "secret", "", &[]), (FILE, "secret/file", "of another directory", &[])],
            &[
                (
                    DIR,
                    "forged",
                    "",
                    &[("user.overlay.redirect", "/secret"), ("trusted.overlay.redirect", "/secret")],
                ),
                (
                    FILE,
                    "meta",
                    "",
                    &[("user.overlay.metacopy", ""), ("user.overlay.redirect", "/secret/file")],
                ),
                (DIR, "out", "", &[("user.overlay.redirect", "@"), ("user.overlay.opaque", "x")]),
                (FILE, "own", "", &[("user.kiln.stat", "0:0:104755"), ("user.kiln.xattr.user.x", "y")]),
            ],
        ],
        dockerfile: "RUN test ! -e /forged/file && test ! -s /meta && test ! -e /out/canary && test ! -u /own\n",
        refused: None,
    },
    BaseCase {
        name: "mounts of steps",
        layers: &[LINKED],
        dockerfile: "RUN --mount=type=cache,target=/l/empty --mount=type=tmpfs,target=/u/dir/empty \
                     --mount=type=bind,target=/l/context --mount=type=secret,id=s,target=/u/blank \
                     echo x > /l/empty/f; echo x > /u/dir/empty/f; echo x > /l/new; cat /l/canary; true\n",
        refused: None,
    },
    BaseCase {
        name: "WORKDIR and where COPY goes",
        layers: &[LINKED],
        dockerfile: "WORKDIR /l/new\nCOPY own own\nCOPY own /u/dir/\nCOPY own /l/blank\nCOPY <<E /l/canary\nx\nE\n\
                     ADD archive.tar /u/\nRUN --mount=type=cache,target=here touch here/f\n",
        refused: None,
    },
    BaseCase {
        name: "COPY from a link",
        layers: &[LINKED],
        dockerfile: "COPY --from=hostile /l/canary /c\n",
        refused: Some("/l/canary"),
    },
    BaseCase {
        name: "COPY from behind a link, by a pattern",
        layers: &[LINKED],
        dockerfile: "COPY --from=hostile /u/can* /c/\n",
        refused: None,
    },
    BaseCase {
        name: "COPY --parents from behind a link",
        layers: &[LINKED],
        dockerfile: "COPY --parents --from=hostile /l/./canary /c/\n",
        refused: Some("canary"),
    },
    BaseCase {
        name: "a bind mount of a link",
        layers: &[LINKED],
        dockerfile: "RUN --mount=type=bind,from=hostile,source=/l,target=/m cat /m/canary\n",
        refused: Some("/l"),
    },
    BaseCase {
        name: "the seed of a cache is a link",
        layers: &[LINKED],
        dockerfile: "RUN --mount=type=cache,from=hostile,source=/u,target=/m cat /m/canary\n",
        refused: Some("/u"),
    },
    BaseCase {
        name: "users from the host's file",
        layers: &[&[(LINK, "etc/passwd", "@/canary", &[]), (LINK, "etc/group", "/proc/self/fd/1", &[])]],
        dockerfile: "COPY --chown=the:canary own /own\n",
        refused: Some("the"),
    },
    BaseCase {
        name: "users from a device",
        layers: &[&[(LINK, "etc/passwd", "/dev/zero", &[]), (LINK, "etc/group", "/dev/zero", &[])]],
        dockerfile: "USER somebody\nRUN true\n",
        refused: Some("somebody"),
    },
];

#[test]
fn a_base_image_reaches_nothing() {
    for_each_way(|user, way| {
        for case in BASES {
            let place = Place::new(user);
            let host = Host::new(&place);
            let registry = FakeRegistry::start();
            serve(&registry, case.layers, host.text(), |_, _| ());
            place.file("context/own", "own\n");
            fs::write(place.path("context/archive.tar"), tar_of(ARCHIVE, host.text())).expect("it is ours");
            let dockerfile = case.dockerfile.replace('@', host.text());
            place.dockerfile(&format!(
                "FROM {0}/hostile AS hostile\nFROM {0}/hostile\n{dockerfile}",
                registry.host()
            ));
            place.file("secret", "secret value");
            let args = ["--secret", "id=s,src=secret", "-o", "type=tar,dest=out.tar"];
            let ran = place.build(&[way, &args].concat());
            let what = format!("{} as {} {way:?}", case.name, user.name());
            host.is_untouched(&what, &ran);
            match case.refused {
                None if ran.code == Some(0) => {
                    let tar = fs::read(place.path("out.tar")).expect("it was made");
                    assert!(!holds(&tar, CANARY), "{what}: the canary is in the image");
                }
                None => assert!(matches!(ran.code, Some(1..=4)), "{what}: {ran}"),
                Some(words) => {
                    assert!(matches!(ran.code, Some(1..=4)), "{what}: {ran}");
                    assert!(ran.stderr.contains(words), "{what}: no {words:?} in {ran}");
                }
            }
            assert_eq!(place.half_made(), [] as [String; 0], "{what}");
        }
    });
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// What an archive of the context tries when it is added.
const ARCHIVE: &[Entry] = &[
    (LINK, "a", "@", &[]),
    (FILE, "a/blank", "x", &[]),
    (FILE, "a/new", "x", &[]),
    (LINK, "dir", "@/dir", &[]),
    (FILE, "dir/made", "x", &[]),
    (DIR, "forged", "", &[("user.overlay.redirect", "@")]),
];

/// Makes a configuration hostile; the text is a path of the host.
type Change = fn(&mut ImageConfig, &str);

#[test]
fn the_configuration_of_a_base_image_reaches_nothing() {
    let changes: [(&str, Change); 4] = [
        ("the working directory", |config, host| config.config.working_dir = format!("/{UPWARDS}{host}/new")),
        ("the working directory of another process", |config, _| {
            config.config.working_dir = "/proc/1/cwd".to_owned()
        }),
        ("a descriptor", |config, _| config.config.working_dir = "/proc/self/fd/7".to_owned()),
        ("loaders and paths", |config, host| {
            config.config.env = vec![
                format!("PATH=/bin:{host}"),
                format!("LD_PRELOAD={host}/canary"),
                format!("HOME={host}"),
            ];
        }),
    ];
    for_each_way(|user, way| {
        for (what, change) in changes {
            let place = Place::new(user);
            let host = Host::new(&place);
            let registry = FakeRegistry::start();
            serve(&registry, &[], host.text(), change);
            place.dockerfile(&format!(
                "FROM {}/hostile\nRUN echo x > new; cat canary ../canary {h}/canary; echo ran\n",
                registry.host(),
                h = host.text()
            ));
            let ran = place.build(&[way, &["-t", "hostile"]].concat());
            host.is_untouched(what, &ran);
            assert!(matches!(ran.code, Some(0 | 1 | 3)), "{what}: {ran}");
            let script = ["run", "hostile", "/bin/sh", "-c", "cat canary ../canary; echo x > new; true"];
            let ran = place.kiln(&[way, &script].concat());
            host.is_untouched(what, &ran);
        }
    });
}

#[test]
fn a_context_reaches_nothing() {
    // Dockerfile behind the base, and what kiln says if it refuses.
    let cases: &[(&str, Option<&str>)] = &[
        ("COPY out /c\n", Some("out")),
        ("COPY out/canary /c\n", Some("canary")),
        ("COPY up/canary /c\n", Some("canary")),
        ("COPY up/can* /c/\n", None),
        ("COPY --parents up/canary /c/\n", Some("canary")),
        ("COPY ../host/canary /c\n", Some("canary")),
        ("COPY file /c\n", Some("file")),
        ("ADD file /c\n", Some("file")),
        ("COPY links /c\nRUN cat /c/file /c/dir/canary; test -L /c/file\n", None),
        ("RUN --mount=type=bind,source=up,target=/m cat /m/canary\n", Some("up")),
        ("RUN --mount=type=bind,source=links,target=/m cat /m/file /m/dir/canary; test -L /m/file\n", None),
        (
            "RUN --mount=type=bind,target=/m,rw echo x > /m/links/file; echo x > /m/links/dir/blank; cat /m/links/file; true\n",
            None,
        ),
        ("ADD archive.tar /\nADD archive.tar /a/\nRUN cat /a/canary /dir/canary; true\n", None),
        ("ADD upwards.tar /\n", Some("..")),
        ("ADD linked.tar /\n", Some("hard link")),
    ];
    for_each_way(|user, way| {
        let place = Place::new(user);
        let host = Host::new(&place);
        place.directory("context/links");
        place.link("context/out", host.text());
        place.link("context/up", "../host");
        place.link("context/file", &format!("{}/canary", host.text()));
        place.link("context/links/file", &format!("{}/canary", host.text()));
        place.link("context/links/dir", "../../host");
        let upwards = [(FILE, "../../../../../../../../../..@/new", "x", &[] as &[_])];
        let linked = [(HARD, "h", "@/canary", &[] as &[_])];
        for (name, entries) in [("archive", ARCHIVE), ("upwards", &upwards), ("linked", &linked)] {
            fs::write(place.path(&format!("context/{name}.tar")), tar_of(entries, host.text()))
                .expect("it is ours");
        }
        for (dockerfile, refused) in cases {
            place.base(dockerfile);
            let ran = place.build(&[way, &["-o", "type=tar,dest=out.tar"]].concat());
            host.is_untouched(dockerfile, &ran);
            match refused {
                None => {
                    assert_eq!(ran.code, Some(0), "{dockerfile}{ran}");
                    assert!(!holds(&fs::read(place.path("out.tar")).expect("made"), CANARY), "{dockerfile}");
                }
                Some(words) => {
                    assert!(matches!(ran.code, Some(1 | 2)), "{dockerfile}{ran}");
                    assert!(ran.stderr.contains(words), "{dockerfile}{ran}");
                }
            }
        }
        // What is in the image goes into a directory of the user's without following what lies there.
        place.base("RUN mkdir /d && echo mine > /d/canary && echo mine > /d/blank\n");
        place.directory("out");
        place.link("out/d", host.text());
        let ran = place.build(&[way, &["-o", "type=local,dest=out"]].concat());
        host.is_untouched("an export over a link", &ran);
        place.fsck();
        place.is_quiet();
    });
}

#[test]
fn files_that_change_while_they_are_copied_lead_nowhere() {
    for_each_user(|user| {
        let place = Place::new(user);
        let host = Host::new(&place);
        for number in 0..30 {
            place.file(&format!("context/d/sub/{number}"), &"x".repeat(5000));
        }
        place.file("context/d/canary", "mine");
        place.base("COPY d /d\nRUN --mount=type=bind,source=d,target=/m cat /m/sub/canary /m/canary; true\n");
        let stop = AtomicBool::new(false);
        let (sub, aside, file) =
            (place.path("context/d/sub"), place.path("context/d/aside"), place.path("context/d/canary"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(&sub, &aside).expect("it is ours");
                    symlink(&host.path, &sub).expect("it is ours");
                    fs::remove_file(&file).expect("it is ours");
                    symlink(host.path.join("canary"), &file).expect("it is ours");
                    fs::remove_file(&sub).expect("it is ours");
                    fs::rename(&aside, &sub).expect("it is ours");
                    fs::remove_file(&file).expect("it is ours");
                    fs::write(&file, "mine").expect("it is ours");
                }
            });
            for round in 0..12 {
                let ran = place.build(&["--no-cache", "-o", "type=tar,dest=out.tar"]);
                host.is_untouched(&format!("round {round}"), &ran);
                if ran.code == Some(0) {
                    let tar = fs::read(place.path("out.tar")).expect("it was made");
                    assert!(!holds(&tar, CANARY), "round {round}: {ran}");
                } else {
                    assert!(matches!(ran.code, Some(1..=3)), "round {round}: {ran}");
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        place.fsck();
    });
}

#[test]
fn who_is_not_root_in_a_step_makes_nothing_of_roots() {
    // kiln records owners, devices and capabilities that a file cannot have in extended attributes of the file. A step's
    // user can write such attributes on files of his own.
    let forge = "perl -e 'my ($f, $n, $v) = @ARGV; syscall(188, $f, $n, $v, length $v, 0) and print \"re\", \"fused\\n\"'";
    let Some(mut ldd) = tool("ldd") else { return };
    let libraries = run(ldd.arg("/usr/bin/perl"));
    for_each_user(|user| {
        if user == User::Plain || !cfg!(target_arch = "x86_64") {
            // With a single id every process of a step is the same user to the kernel: docs/rootless.md.
            return;
        }
        let place = Place::new(user);
        for path in libraries.split_whitespace().chain(["/usr/bin/perl"]).filter(|word| word.starts_with('/'))
        {
            let (dir, _) = path.rsplit_once('/').expect("it is absolute");
            place.directory(&format!("context/perl{dir}"));
            fs::copy(path, place.path(&format!("context/perl{path}"))).expect("it is there");
        }
        place.base(&format!(
            "COPY perl /\nENV PATH=/bin:/usr/bin\nRUN mkdir -m 777 /open\nUSER 1000:1000\n\
             RUN cp /bin/busybox /open/shell && chmod 4755 /open/shell && touch /open/disk /open/capable && \
             {forge} /open/shell user.kiln.stat 0:0:104755 && {forge} /open/disk user.kiln.stat 0:0:60666:8:0 && \
             {forge} /open/capable user.kiln.xattr.security.capability \"$(printf '\\001\\001\\002\\200')\"\n\
             USER 0\nRUN cp -a /open /copied\nFROM scratch\nCOPY --from=0 /open /\n"
        ));
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok().lacks(&["refused"]);
        place.build(&["--target", "0", "-o", "type=oci,dest=stage,tar=false"]).ok();
        for (image, below) in [("image", ""), ("stage", "open/")] {
            let layers = kiln_testkit::layers::read_layers(&place.path(image));
            let entries: Vec<_> = layers.iter().flat_map(|layer| &layer.entries).collect();
            for name in ["shell", "disk", "capable"] {
                let found = entries.iter().find(|entry| entry.name == format!("{below}{name}"));
                let fields = &found.unwrap_or_else(|| panic!("{image}: no {name} in {entries:?}")).fields;
                let about = (fields["uid"].as_str(), fields["type"].as_str());
                assert_eq!(about, ("1000", "Regular"), "{image}: {name}: {fields:?}");
                assert!(
                    !fields.keys().any(|key| key.contains("xattr.security")),
                    "{image}: {name}: {fields:?}"
                );
            }
        }
    });
}
