"""Runs one command and says what it took: wall time, CPU time and peak memory, a daemon's share included."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
TIMEOUT = 900  # seconds; a builder that hangs is a failure like any other


@dataclasses.dataclass
class Sample:
    """What one run took. `rss` only where it was watched: watching costs time, so those runs are not timed."""

    wall: float = 0.0  # seconds
    cpu: float = 0.0  # seconds, user and system, all processes the builder waited for
    rss: int | None = None  # bytes, the builder's own processes at their highest, the steps' left out
    error: str | None = None


def run(commands, *, env, log, programs=(), daemons=(), watch=False):
    """Runs the commands one after the other. `daemons` are process ids that work for them,
    the daemon itself first."""
    sample = Sample(rss=0 if watch else None)
    for command in commands:
        one = run_one(command, env, log, programs, daemons, watch)
        sample.wall += one.wall
        sample.cpu += one.cpu
        if watch:
            sample.rss = max(sample.rss, one.rss)
        if one.error:
            sample.error = one.error
            break
    return sample


def run_one(command, env, log, programs, daemons, watch):
    gone = dead(daemons)
    if gone:
        return Sample(rss=0 if watch else None, error=gone)
    cpu_before = sum(map(cpu_of, daemons))
    if watch:
        for pid in daemons:
            forget_peak(pid)
    with open(log, "ab") as out:
        out.write(f"$ {' '.join(command)}\n".encode())
        out.flush()
        begin_at = out.tell()
        begun = time.perf_counter()
        child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        watcher = Watcher(child.pid, programs, daemons) if watch else None
        guard = Guard(child.pid, daemons)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            # Whoever is told to end leaves nothing behind that holds a mount.
            child.kill()
            child.wait()
            raise
        finally:
            guard.stop()
        wall = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
    sample = Sample(wall=wall, cpu=usage.ru_utime + usage.ru_stime)
    sample.cpu += sum(map(cpu_of, daemons)) - cpu_before
    if watcher:
        # What ends before the first look has at least the kernel's word: the largest of all its processes.
        sample.rss = watcher.stop() or usage.ru_maxrss << 10
    if child.returncode != 0:
        with open(log, "rb") as said:
            said.seek(begin_at)
            tail = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()][-3:]
        sample.error = guard.reason or f"status {child.returncode}: " + " | ".join(tail)
    return sample


class Guard(threading.Thread):
    """Ends a command that takes too long, or whose daemon has ended: its client may wait for ever."""

    def __init__(self, pid, daemons):
        super().__init__(daemon=True)
        self.pid, self.daemons, self.reason = pid, list(daemons), None
        self.over = threading.Event()
        self.start()

    def run(self):
        until = time.monotonic() + TIMEOUT
        while not self.over.wait(0.2):
            self.reason = dead(self.daemons)
            if time.monotonic() > until:
                self.reason = f"it took more than {TIMEOUT} s"
            if self.reason:
                os.kill(self.pid, signal.SIGKILL)
                return

    def stop(self):
        self.over.set()
        self.join()


def dead(daemons):
    """Says that the daemon, the first of them, has ended. Others are its children, which may come and go."""
    for pid in daemons[:1]:
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            state = "X"
        if state in "XZ":
            return f"its daemon, process {pid}, has ended"
    return None


class Watcher(threading.Thread):
    """Reads, over and over, how much memory the processes of a builder hold."""

    def __init__(self, root, programs, daemons):
        super().__init__(daemon=True)
        self.root, self.programs, self.daemons = root, set(programs), list(daemons)
        self.peak, self.done = 0, threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(0.01):
            self.look()

    def look(self):
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
                except OSError:
                    continue
                name = stat[stat.index("(") + 1:stat.rindex(")")]
                parents[int(entry)] = (int(stat[stat.rindex(")") + 2:].split()[1]), name)
        tops = {self.root, *self.daemons}
        total = highest = 0
        for pid in parents:
            if self.is_below(pid, tops, parents) and (pid in tops or parents[pid][1] in self.programs):
                status = memory_of(pid)
                total += status.get("VmRSS", 0)
                # The kernel's own high-water mark sees what falls between two looks.
                highest = max(highest, status.get("VmHWM", 0))
        self.peak = max(self.peak, total, highest)

    @staticmethod
    def is_below(pid, tops, parents):
        for _ in range(64):
            if pid in tops:
                return True
            if pid not in parents:
                return False
            pid = parents[pid][0]
        return False

    def stop(self):
        self.done.set()
        self.join()
        for pid in self.daemons:
            self.peak = max(self.peak, memory_of(pid).get("VmHWM", 0))
        return self.peak


def memory_of(pid):
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {f[0][:-1]: int(f[1]) << 10 for f in map(str.split, lines) if f and f[0] in ("VmRSS:", "VmHWM:")}


def forget_peak(pid):
    """Sets VmHWM back (proc_pid_clear_refs(5))."""
    try:
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        pass


def cpu_of(pid):
    """Seconds that a process and the children it waited for have used."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICK
