"""The builders that are compared: how each is started, told to build, and made to forget."""

import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
DISCARD = HERE.parent / "discard"


class Builder:
    """One way to build. `user` is None for whoever runs the bench."""

    programs = ()  # names of its own processes, for memory
    daemons = ()
    kind = ""
    note = ""

    def __init__(self, bench, user=None):
        self.bench, self.user = bench, user
        self.name = f"{self.kind} {user and 'rootless' or ('root' if os.getuid() == 0 else 'rootless')}"
        self.dir = bench.fs / "stores" / self.name.replace(" ", "-")

    def start(self):
        """Gets ready; an answer says why it cannot take part."""
        self.dir.mkdir(parents=True, exist_ok=True)
        self.give_dir()

    def give_dir(self):
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(self.dir, account.pw_uid, account.pw_gid)

    def stop(self):
        pass

    def forget(self):
        """Empties its store."""
        subprocess.run([str(DISCARD), str(self.dir)], check=True)
        self.dir.mkdir(parents=True)
        self.give_dir()

    def env(self):
        return {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "HOME": str(self.dir), "TMPDIR": str(self.dir)}

    def as_user(self, command):
        if not self.user:
            return command
        account = pwd.getpwnam(self.user)
        return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups",
                "--inh-caps=-all", *command]


class Kiln(Builder):
    kind = "kiln"
    programs = ("kiln",)

    def start(self):
        super().start()
        # Somebody else may not be able to read the checkout.
        self.binary = self.bench.fs / "kiln"
        shutil.copy(self.bench.kiln, self.binary)

    def commands(self, build):
        command = [str(self.binary), "build", "--root", str(self.dir / "store"), "--progress=plain", "-t", build.tag,
                   "-f", str(build.dockerfile), "--registry-mirror", f"docker.io=http://{self.bench.registry}"]
        command += build.flags()
        if build.oci:
            level = "" if build.gzip is None else f",compression=gzip,compression-level={build.gzip}"
            command += ["-o", f"type=oci,dest={self.dir / 'out.tar'}{level}"]
        commands = [[*command, str(build.context)]] if build.build else []
        if build.push:
            commands.append([str(self.binary), "push", "--root", str(self.dir / "store"), build.tag])
        return [self.as_user(c) for c in commands]


class Docker(Builder):
    """Debian's dockerd, whose embedded BuildKit needs no plugin; started by hand, its data on the bench's fs."""

    kind = "docker"
    programs = ("docker", "dockerd", "containerd", "containerd-shim", "runc")
    note = ("its BuildKit has no OCI output: an archive is `docker save`, which does not compress, and one of a gzip level "
            "`docker push` to the registry on this machine, which compresses with level 6 and stores as much")

    def start(self):
        super().start()
        daemon = shutil.which("dockerd", path=self.env()["PATH"])
        if os.getuid() != 0 or not daemon:
            return "dockerd needs root" if daemon else "dockerd is not installed (docker.io)"
        # A newer client may be found first, and that one wants a plugin.
        self.client = "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else "docker"
        self.socket = f"unix://{self.dir}/socket"
        command = [daemon, "--data-root", f"{self.dir}/data", "--exec-root", f"{self.dir}/exec",
                   "--pidfile", f"{self.dir}/pid", "-H", self.socket, "--iptables=false", "--ip6tables=false",
                   "--bridge=none", "--registry-mirror", f"http://{self.bench.registry}"]
        self.log = open(self.bench.out / "dockerd.log", "w")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=self.env(),
                                        start_new_session=True)
        until = time.monotonic() + 60
        while not self.ask("version"):
            if self.process.poll() is not None:
                return "dockerd ended at once, see dockerd.log"
            if time.monotonic() > until:
                self.stop()
                return "dockerd does not answer, see dockerd.log"
            time.sleep(0.1)
        self.daemons = [self.process.pid, *children_of(self.process.pid)]

    def ask(self, *command):
        """Whether the daemon does it. Never waits for one that has ended."""
        try:
            done = subprocess.run([self.client, *command], env=self.env(), capture_output=True, timeout=60)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def stop(self):
        if getattr(self, "process", None) and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def env(self):
        return {**super().env(), "DOCKER_HOST": getattr(self, "socket", ""), "DOCKER_BUILDKIT": "1"}

    def forget(self):
        for command in (["container", "prune", "-f"], ["image", "prune", "-af"], ["builder", "prune", "-af"]):
            if self.process.poll() is None:
                self.ask(*command)
        self.forget_pushed()

    def forget_pushed(self):
        """What it remembers of pushed layers, or it would not send them again; read anew each time."""
        for known in (self.dir / "data/image").glob("*/distribution"):
            for name in ("diffid-by-digest", "v2metadata-by-diffid"):
                subprocess.run([str(DISCARD), str(known / name)])
                (known / name / "sha256").mkdir(parents=True)

    def commands(self, build):
        pushed = build.push or (build.oci and build.gzip is not None)
        # A repository of its own each time: the registry has none of its blobs.
        tag = build.tag if build.push or not pushed else f"{self.bench.registry}/bench/archive-{self.bench.turn}"
        command = [self.client, "build", "--progress=plain", "--network=host", "-t", tag,
                   "-f", str(build.dockerfile), *build.flags(), str(build.context)]
        commands = [command] if build.build else []
        if build.oci and not pushed:
            commands.append([self.client, "save", "-o", f"{self.dir}/out.tar", tag])
        if pushed:
            commands.append([self.client, "push", tag])
        return commands


class Buildah(Builder):
    kind = "buildah"
    programs = ("buildah", "runc", "crun", "conmon", "fuse-overlayfs")
    probe = "FROM busybox\nRUN true\n"  # it has to build this

    def start(self):
        super().start()
        if not shutil.which("buildah"):
            return "buildah is not installed"
        conf = self.bench.fs / "registries.conf"
        conf.write_text('unqualified-search-registries = ["docker.io"]\n[[registry]]\nprefix = "docker.io"\n'
                        'location = "docker.io"\n[[registry.mirror]]\n'
                        f'location = "{self.bench.registry}"\ninsecure = true\n')
        self.policy = self.bench.fs / "policy.json"
        self.policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        # What it needs is found by trying: in a sandbox its own choice of isolation may not work.
        probe = self.bench.fs / "probe"
        probe.mkdir(exist_ok=True)
        (probe / "Dockerfile").write_text(self.probe)
        for self.isolation in ([], ["--isolation=chroot"]):
            for self.driver in ("overlay", "vfs"):
                command = [*self.head("bud"), *self.isolation, "--network=host", "-t", "probe", str(probe)]
                tried = subprocess.run(self.as_user(command), env=self.env(), capture_output=True, text=True)
                if tried.returncode == 0:
                    self.note = f"storage driver {self.driver}, {(self.isolation or ['its default isolation'])[0]}"
                    return None
        return "it cannot build here: " + " | ".join(tried.stderr.strip().splitlines()[-2:])

    def head(self, verb):
        head = ["buildah", "--root", f"{self.dir}/root", "--runroot", f"{self.dir}/run",
                "--storage-driver", self.driver]
        if verb == "bud" and os.access("/usr/sbin/runc", os.X_OK):
            return [*head, verb, "--runtime", "/usr/sbin/runc", "--signature-policy", str(self.policy)]
        return [*head, verb, "--signature-policy", str(self.policy)]

    def env(self):
        return {**super().env(), "CONTAINERS_REGISTRIES_CONF": str(self.bench.fs / "registries.conf"),
                "XDG_RUNTIME_DIR": str(self.dir)}

    def commands(self, build):
        command = [*self.head("bud"), *self.isolation, "--network=host", "--layers", "--jobs=2", "-t", build.tag,
                   "-f", str(build.dockerfile), *build.flags(), str(build.context)]
        commands = [command] if build.build else []
        if build.oci:
            (self.dir / "out.tar").unlink(missing_ok=True)
            level = [] if build.gzip is None else ["--compression-format=gzip", f"--compression-level={build.gzip}"]
            commands.append([*self.head("push"), *level, build.tag, f"oci-archive:{self.dir}/out.tar"])
        if build.push:
            commands.append([*self.head("push"), "--tls-verify=false", build.tag, f"docker://{build.tag}"])
        return [self.as_user(c) for c in commands]


def children_of(pid):
    path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(c) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
                for c in (task / "children").read_text().split()] if path.exists() else []
    return children + [c for child in children for c in children_of(child)]
