//! Debian's own tools on every rung: apt, dpkg with maintainer scripts, useradd, su, chown -R, pip. The base is made of this
//! machine's packages, the ones that are installed here are made for the test: nothing comes from a network.

use std::fs;
use std::path::Path;
use std::process::Command;

use kiln_testkit::tools::{run, tool};

use super::{field, same_layers_of_much};
use crate::place::Place;
use crate::user::skip;

/// What a minimal Debian consists of, without what these depend on; and what pip needs.
const PACKAGES: &str = "base-files base-passwd bash coreutils dash debianutils diffutils dpkg findutils grep gzip hostname libc-bin \
                        login mawk ncurses-bin passwd perl-base sed tar util-linux apt libcap2-bin python3-minimal libpython3-stdlib";

/// Its world: packages without manuals, dpkg's list of them, and the links of a merged /usr.
fn base_tar(into: &Path) {
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut depends = Command::new("apt-cache");
    depends.args([
        "depends",
        "--recurse",
        "--installed",
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
        "--no-breaks",
    ]);
    depends.args(["--no-replaces", "--no-enhances"]).args(PACKAGES.split_whitespace());
    let mut names = lines(run(&mut depends));
    names.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    let mut known = Command::new("dpkg-query");
    known.args(["--show", "--showformat=${binary:Package} ${Package}\\n"]);
    let known = lines(run(&mut known));
    let mut files: Vec<String> = [
        "bin",
        "sbin",
        "lib",
        "lib64",
        "etc/pam.d/common-auth",
        "etc/pam.d/common-account",
        "etc/pam.d/common-password",
    ]
    .map(|name| format!("/{name}"))
    .into();
    files.extend(
        ["etc/pam.d/common-session", "etc/pam.d/common-session-noninteractive"]
            .map(|name| format!("/{name}")),
    );
    let mut packages = Vec::new();
    for line in &known {
        let (binary, package) = line.split_once(' ').expect("two names");
        if names.iter().any(|name| name == package) {
            packages.push(binary);
            let info = fs::read_dir("/var/lib/dpkg/info").expect("this is Debian").flatten();
            let of_it = info.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let of_it = of_it.filter(|file| {
                file.rsplit_once('.').is_some_and(|(stem, _)| stem == binary || stem == package)
            });
            files.extend(of_it.map(|file| format!("/var/lib/dpkg/info/{file}")));
        }
    }
    let listed = run(Command::new("dpkg-query").arg("--listfiles").args(&packages));
    let manuals =
        ["/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/info", "/usr/share/lintian"];
    // A diversion is told in words; what is not there was taken out of this machine.
    let wanted = |name: &str| {
        name.starts_with('/')
            && !manuals.iter().any(|dir| name.starts_with(dir))
            && Path::new(name).symlink_metadata().is_ok()
    };
    files.extend(lines(listed));
    let wheels = fs::read_dir("/usr/share/python-wheels").into_iter().flatten().flatten();
    files.extend(wheels.map(|wheel| wheel.path().to_string_lossy().into_owned()));
    // What is a mount, or changes meanwhile, is no part of it.
    let living = ["/.", "/dev", "/proc", "/run", "/sys", "/tmp"];
    files.retain(|name| wanted(name) && !living.contains(&name.as_str()));
    files.sort();
    files.dedup();
    // The links first: what is said to be in /bin is in /usr/bin.
    let (links, rest): (Vec<_>, Vec<_>) = files.into_iter().partition(|name| name.matches('/').count() == 1);
    let scratch = tempfile::tempdir().expect("a directory");
    let list = scratch.path().join("list");
    fs::write(&list, [links, rest].concat().join("\n")).expect("writing the list");
    let status = run(Command::new("dpkg-query").arg("--status").args(&packages));
    let dpkg = scratch.path().join("var/lib/dpkg");
    fs::create_dir_all(&dpkg).expect("a directory");
    fs::write(dpkg.join("status"), status).expect("writing dpkg's list");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--numeric-owner", "--no-recursion", "--xattrs", "--absolute-names", "--file"])
        .arg(into);
    tar.arg("--files-from").arg(&list).arg("-C").arg(scratch.path()).arg("var/lib/dpkg/status");
    for name in ["passwd", "group"] {
        fs::create_dir_all(scratch.path().join("etc")).expect("a directory");
        let master = format!("/usr/share/base-passwd/{name}.master");
        fs::copy(master, scratch.path().join("etc").join(name)).expect("base-passwd has it");
        tar.arg(format!("etc/{name}"));
    }
    run(&mut tar);
}

/// Makes a package out of files (path, mode, content) and a script that is run when it is installed.
fn package(place: &Place, name: &str, control: &str, files: &[(&str, u32, &str)], postinst: &str) {
    let top = format!("packages/{name}");
    place.file(
        &format!("{top}/DEBIAN/control"),
        &format!("Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: for a test\n{control}"),
    );
    for (file, mode, content) in files {
        place.mode(&format!("{top}/{file}"), content, *mode);
    }
    place.mode(&format!("{top}/DEBIAN/postinst"), &format!("#!/bin/sh\nset -e\n{postinst}"), 0o755);
    place.directory("context/debs");
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .arg(place.path(&top))
        .arg(place.path("context/debs")));
}

fn packages(place: &Place) {
    package(
        place,
        "probe",
        "Depends: probe-data\n",
        &[
            ("usr/bin/probe", 0o755, "#!/bin/sh\n"),
            ("usr/bin/probe-ping", 0o755, "ping\n"),
            ("etc/probe.conf", 0o640, "x\n"),
        ],
        "useradd --system --home-dir /var/lib/probe --shell /usr/sbin/nologin probe\n\
         install -d -o probe -g probe -m 2750 /var/lib/probe\n\
         su -s /bin/sh probe -c 'id -un > /var/lib/probe/me; mkdir /var/lib/probe/sub'\n\
         chgrp probe /etc/probe.conf\n\
         setcap cap_net_raw+ep /usr/bin/probe-ping\n\
         dpkg-statoverride --update --add probe probe 4750 /usr/bin/probe\n",
    );
    package(
        place,
        "probe-data",
        "",
        &[("usr/share/probe/a", 0o644, "a\n"), ("usr/share/probe/deep/b", 0o644, "b\n")],
        "chown -R games:games /usr/share/probe\nln -s a /usr/share/probe/link\nchown -h mail:mail /usr/share/probe/link\n",
    );
    let wheel = "import zipfile\n\
                 z = zipfile.ZipFile('context/probe-1.0-py3-none-any.whl', 'w')\n\
                 z.writestr('probe/__init__.py', 'x = 1\\n')\n\
                 z.writestr('probe-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: probe\\nVersion: 1.0\\n')\n\
                 z.writestr('probe-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
                 z.writestr('probe-1.0.dist-info/entry_points.txt', '[console_scripts]\\nprobe-py = probe:main\\n')\n\
                 z.writestr('probe-1.0.dist-info/RECORD', '')\n\
                 z.close()\n";
    run(Command::new("python3").args(["-c", wheel]).current_dir(place.path("")));
}

/// Logs, caches and backups have the time in them.
const TIDY: &str = "rm -rf /var/log/* /var/cache/apt /var/cache/ldconfig /var/lib/apt/lists /var/lib/dpkg/*-old /root/.cache /tmp/*";

#[test]
fn apt_useradd_su_and_pip_leave_the_same_files() {
    let needed = ["dpkg-deb", "dpkg-query", "apt-cache", "tar", "python3"];
    if !needed.iter().all(|name| tool(name).is_some()) {
        return;
    }
    if !Path::new("/usr/share/python-wheels").is_dir() || !Path::new("/bin").is_symlink() {
        return skip("this machine is no Debian with a merged /usr and python3-pip-whl");
    }
    let made = tempfile::tempdir().expect("a directory");
    let base = made.path().join("base.tar");
    base_tar(&base);
    let layers = same_layers_of_much(&[], |place| {
        fs::copy(&base, place.path("context/base.tar")).expect("a copy");
        packages(place);
        place.dockerfile(&format!(
            "FROM scratch\n\
             ADD base.tar /\n\
             ENV DEBIAN_FRONTEND=noninteractive SOURCE_DATE_EPOCH=1000000000 PYTHONDONTWRITEBYTECODE=1\n\
             RUN mkdir -p /tmp /root /home /var/lib/apt/lists/partial /var/cache/apt/archives/partial && chmod 1777 /tmp && touch /etc/shadow /etc/gshadow\n\
             RUN --mount=type=bind,source=debs,target=/debs apt-get install -y /debs/probe_1.0_all.deb /debs/probe-data_1.0_all.deb && {TIDY}\n\
             RUN groupadd -g 3000 team && useradd -m -u 2000 -g team -s /bin/bash ann && su ann -c 'umask 027; mkdir -p ~/work; echo x > ~/work/x; ln -s x ~/work/l' && mkdir -p /srv && cp -a /home/ann/work /srv/copy && {TIDY}\n\
             RUN chown -R ann:team /usr/share/probe /srv && chmod g+s /srv && chroot --userspec=2000:3000 / mkdir /srv/by-chroot && {TIDY}\n\
             RUN --mount=type=bind,source=probe-1.0-py3-none-any.whl,target=/probe-1.0-py3-none-any.whl \\\n\
                 PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl) python3 -m pip install --no-index --no-compile --no-cache-dir --break-system-packages /probe-1.0-py3-none-any.whl && {TIDY}\n\
             USER ann\n\
             RUN python3 -c 'import probe, os; open(os.path.expanduser(\"~/seen\"), \"w\").write(str((os.getuid(), os.getgid(), probe.x)))'\n\
             USER root\n\
             RUN apt-get purge -y probe && userdel -r ann && {TIDY}\n"
        ));
    });
    assert_eq!(field(&layers[..3], "var/lib/probe/sub", "mode"), "2755");
    assert_eq!(field(&layers, "home/ann/seen", "content"), "\"(2000, 3000, 1)\"");
    let capability = super::odd::NET_RAW.escape_ascii().to_string();
    assert_eq!(field(&layers, "usr/bin/probe-ping", "pax SCHILY.xattr.security.capability"), capability);
}
