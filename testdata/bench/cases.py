"""What is built. A case writes its inputs once and yields, each round, the builds to time."""

import dataclasses
import itertools
import pathlib
import random

EXPERIMENTS = pathlib.Path(__file__).resolve().parent.parent / "experiments"


@dataclasses.dataclass
class Build:
    """One build, as every builder is told it."""

    phase: str | None  # what it is called in the report; None: only to get into the state to measure from
    context: pathlib.Path
    dockerfile: pathlib.Path
    args: dict = dataclasses.field(default_factory=dict)
    no_cache: bool = False
    oci: bool = False
    gzip: int | None = None  # the archive's level; the builder's own if none
    push: bool = False  # to `tag`, which names a registry
    build: bool = True  # else only the push
    forget: bool = False  # empty the store first, not timed
    tag: str = "bench"

    def flags(self):
        flags = ["--no-cache"] if self.no_cache else []
        return flags + list(itertools.chain(*(("--build-arg", f"{k}={v}") for k, v in self.args.items())))


class Case:
    """`dir` is the case's own; `bench` has .quick, .index and so on. `turn` is different for each call."""

    name = ""
    about = ""

    def __init__(self, bench):
        self.bench = bench
        self.dir = bench.fs / "cases" / self.name
        self.context = self.dir / "context"
        self.context.mkdir(parents=True)

    def prepare(self):
        pass

    def write(self, name, text):
        path = self.dir / name
        path.write_text(text)
        return path

    def derived(self, median):
        """Figures computed from the medians: {name: seconds}."""
        return {}


class NoOp(Case):
    name, about = "no-op", "rebuild of 10 instructions with nothing changed"

    def prepare(self):
        (self.context / "a").write_text("a\n")
        (self.context / "b").write_text("b\n")
        self.dockerfile = self.write("Dockerfile", "FROM busybox:latest\nENV A=1\nWORKDIR /w\nCOPY a /w/\nRUN echo 1 >one\n"
                                     "COPY b /w/\nRUN echo 2 >two\nLABEL l=1\nUSER nobody\nCMD [\"sh\"]\n")

    def builds(self, turn):
        yield Build(None, self.context, self.dockerfile)
        yield Build("rebuild", self.context, self.dockerfile)


class NoOpContext(Case):
    name, about = "no-op-50k", "the same with a context of 50,000 files that one of them copies"

    def prepare(self):
        many_files(self.context, self.bench.files, size=64)
        self.dockerfile = self.write("Dockerfile", "FROM busybox:latest\nENV A=1\nWORKDIR /w\nCOPY . /w/\nRUN echo 1 >one\n"
                                     "ENV B=1\nRUN echo 2 >two\nLABEL l=1\nUSER nobody\nCMD [\"sh\"]\n")

    def builds(self, turn):
        yield Build(None, self.context, self.dockerfile)
        yield Build("rebuild", self.context, self.dockerfile)


class RunTrue(Case):
    name, about = "run-true", "RUN true, uncached; the margin of a step is (t40 - t20) / 20"

    def prepare(self):
        self.files = {n: self.write(f"Dockerfile.{n}", "FROM busybox:latest\nARG TURN\n" +
                                    "".join(f"RUN true {i}\n" for i in range(n))) for n in (20, 40)}

    def builds(self, turn):
        for n in (20, 40):
            yield Build(f"{n} steps", self.context, self.files[n], args={"TURN": f"{turn}-{n}"})

    def derived(self, median):
        if "20 steps" in median and "40 steps" in median:
            return {"margin per step": (median["40 steps"] - median["20 steps"]) / 20}
        return {}


class Pip(Case):
    name, about = "pip", "15 packages from an index at 40 ms and 5 MB/s, cache mount empty (cold) and full (warm)"

    def prepare(self):
        (self.context / "requirements.txt").write_text((EXPERIMENTS / "requirements.txt").read_text())

    def builds(self, turn):
        # A cache id of its own makes a build cold for every builder alike.
        dockerfile = self.write(f"Dockerfile.{turn}", "FROM python:3.10\nARG PIP_INDEX_URL\nARG PIP_TRUSTED_HOST\n"
                                "ARG TURN\nCOPY requirements.txt .\n"
                                f"RUN --mount=type=cache,id=pip-{turn},target=/root/.cache/pip \\\n"
                                "    pip install --target /pip-packages -r requirements.txt\n")
        args = {"PIP_INDEX_URL": f"{self.bench.index}/simple/", "PIP_TRUSTED_HOST": "127.0.0.1"}
        warm_up = self.write("Dockerfile.base", "FROM python:3.10\nRUN true\n")
        yield Build(None, self.context, warm_up)
        yield Build("cold", self.context, dockerfile, args={**args, "TURN": f"{turn}-cold"})
        yield Build("warm", self.context, dockerfile, args={**args, "TURN": f"{turn}-warm"})


class Copy(Case):
    name, about = "copy", "COPY of 50,000 files of 4 KiB: empty store, nothing changed, one file changed"

    def prepare(self):
        many_files(self.context, self.bench.files, size=4096)
        self.dockerfile = self.write("Dockerfile", "FROM scratch\nCOPY . /data/\n")

    def builds(self, turn):
        yield Build("cold", self.context, self.dockerfile, forget=True)
        yield Build("unchanged", self.context, self.dockerfile)
        (self.context / "d0/f0").write_text(f"changed {turn}\n")
        yield Build("one changed", self.context, self.dockerfile)


class BigLayer(Case):
    name, about = "big-layer", "a layer of 1 GiB, half of it random, exported as an OCI archive"

    def prepare(self):
        rng = random.Random(1)
        text = bytes(rng.choice(b"abcdefgh \n") for _ in range(1 << 16)) * 16
        for i in range(self.bench.big_mib // 16):
            with open(self.context / f"f{i}", "wb") as f:
                for part in range(16):
                    f.write(rng.randbytes(1 << 20) if part % 2 else text)
        self.dockerfile = self.write("Dockerfile", "FROM scratch\nCOPY . /data/\n")

    def builds(self, turn):
        yield Build("build and export", self.context, self.dockerfile, forget=True, oci=True)


class OciGzip(BigLayer):
    name = "oci-1gib"
    about = "that layer as an OCI archive of gzip level 6, at once and behind a step of 20 s; docker pushes it instead"

    def prepare(self):
        super().prepare()
        self.behind = self.write("Dockerfile.behind", "FROM busybox:latest\nCOPY . /data/\nRUN sleep 20\n")

    def builds(self, turn):
        for phase, dockerfile in (("at once", self.dockerfile), ("behind a step", self.behind)):
            yield Build(phase, self.context, dockerfile, forget=True, oci=True, gzip=6)


class Stages(Case):
    name, about = "two-stages", "two independent stages that sleep 3 s each"

    def prepare(self):
        self.dockerfile = self.write("Dockerfile", "FROM busybox:latest AS a\nARG TURN\nRUN sleep 3; echo a >/a\n"
                                     "FROM busybox:latest AS b\nARG TURN\nRUN sleep 3; echo b >/b\n"
                                     "FROM busybox:latest\nCOPY --from=a /a /\nCOPY --from=b /b /\n")
        self.warm_up = self.write("Dockerfile.base", "FROM busybox:latest\nRUN true\n")

    def builds(self, turn):
        yield Build(None, self.context, self.warm_up)
        yield Build("both", self.context, self.dockerfile, args={"TURN": str(turn)})


class Pull(Case):
    name, about = "pull", "pull and unpack of the python base from a registry on this machine, then RUN true"

    def prepare(self):
        self.dockerfile = self.write("Dockerfile", "FROM python:3.10\nRUN true\n")

    def builds(self, turn):
        yield Build("empty store", self.context, self.dockerfile, forget=True)


class PullTen(Case):
    name, about = "pull-10-layers", "pull and unpack of a base of 10 layers and 500 MB of files, then an empty file"

    def prepare(self):
        layers = 10
        for i in range(layers):
            (self.context / f"l{i}").mkdir()
            many_files(self.context / f"l{i}", self.bench.ten_files // layers, size=25_000)
        base = self.write("Dockerfile.base", "FROM scratch\n" + "".join(f"COPY l{i} /l{i}/\n" for i in range(layers)))
        self.bench.push_base(base, self.context, "library/ten:latest")
        self.empty = self.dir / "empty"
        self.empty.mkdir()
        (self.empty / "f").write_text("")
        self.dockerfile = self.write("Dockerfile", "FROM ten:latest\nCOPY f /\n")

    def builds(self, turn):
        yield Build("empty store", self.empty, self.dockerfile, forget=True)


class PushUnchanged(Case):
    name, about = "push-unchanged", "push of an image that the registry has"

    def prepare(self):
        (self.context / "a").write_text("a\n")
        self.dockerfile = self.write("Dockerfile", "FROM busybox:latest\nCOPY a /\nRUN echo 1 >one\nRUN echo 2 >two\n")

    def builds(self, turn):
        image = dict(push=True, tag=f"{self.bench.registry}/bench/unchanged:latest")
        yield Build(None, self.context, self.dockerfile, **image)
        yield Build("push again", self.context, self.dockerfile, **image, build=False)


def many_files(directory, count, size):
    rng = random.Random(2)
    for d in range((count + 499) // 500):
        sub = directory / f"d{d}"
        sub.mkdir()
        for f in range(min(500, count - d * 500)):
            (sub / f"f{f}").write_bytes(rng.randbytes(size // 2) + b"x" * (size - size // 2))


ALL = [NoOp, NoOpContext, RunTrue, Pip, Copy, BigLayer, OciGzip, Stages, Pull, PullTen, PushUnchanged]
