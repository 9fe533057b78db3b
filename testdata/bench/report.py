"""Turns samples into target/bench/report.md and report.json."""

import json
import statistics


def write(out, machine, builders, results):
    """`results`: [{case, about, phases: {phase: {builder: {wall: [..], cpu: [..], rss: [..], error}}}, derived}]"""
    (out / "report.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    lines = ["# kiln beside its peers", "", *machine["lines"], ""]
    lines += [f"* {name}: {note}" for name, note in builders.items() if note]
    lines += ["", "Wall time is the median of interleaved rounds; in brackets CPU seconds (user and system, steps and daemon",
              "included) and the builder's peak memory (its own processes, a daemon's included, the steps' left out).",
              "`x 3.1` is the ratio to kiln with the same privileges.", ""]
    for result in results:
        lines += [f"## {result['case']}", "", result["about"], ""]
        names = [n for n in builders if any(n in by for by in result["phases"].values())]
        lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for phase, by in result["phases"].items():
            lines.append(f"| {phase} | " + " | ".join(cell(n, by) for n in names) + " |")
        for figure, by in result["derived"].items():
            cells = [seconds(by[n]) + ratio(n, by) if n in by else "" for n in names]
            lines.append(f"| **{figure}** | " + " | ".join(cells) + " |")
        errors = sorted({f"* {n}, {phase}: {by[n]['error']}" for phase, by in result["phases"].items()
                         for n in names if by.get(n, {}).get("error")})
        lines += ["", *errors, *([""] if errors else [])]
    text = "\n".join(lines) + "\n"
    (out / "report.md").write_text(text)
    return text


def cell(name, by):
    got = by.get(name)
    if not got:
        return ""
    if not got["wall"]:
        return "failed" if got.get("error") else ""
    walls = {n: statistics.median(v["wall"]) for n, v in by.items() if v["wall"]}
    memory = f", {max(got['rss']) / 2**20:.0f} MiB" if got["rss"] else ""
    return f"**{seconds(walls[name])}**{ratio(name, walls)} ({statistics.median(got['cpu']):.2f}{memory})"


def ratio(name, values):
    own = values.get("kiln " + name.split()[1])
    if name.startswith("kiln") or not own or own <= 0:
        return ""
    return f" x {values[name] / own:.1f}"


def seconds(value):
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"
