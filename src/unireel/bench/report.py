"""What a race said: as numbers, as a table, as a picture."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from unireel.bench.measure import WHOLE, Clock, Contestant, Runs, difference, ratio

OURS = "unireel"


def summarise(
    contestants: Sequence[Contestant],
    results: Mapping[str, Runs],
    rates: Mapping[str, float],
    operations: int,
    clock: Clock,
    subject: str,
    stage: str = "denoise",
    tokens: Callable[[Tensor], int] | None = None,
) -> dict[str, Any]:
    """Everything measured, in seconds, bytes and operations a second.

    Args:
        rates: of the machine's products, by format.
        operations: of one run of the first contestant, which the others' rates refer to too: who leaves out work
            that changes nothing gets no smaller number of operations for it.
        subject: what was run.
        stage: the one whose operations they are.
        tokens: how many of an outcome are said in the stage "words", for models that say something.
    """
    exact = results[contestants[0].name].outcome
    assert exact is not None
    rows = {}
    for each in contestants:
        runs = results[each.name]
        assert runs.outcome is not None
        speed = operations / runs.median(stage)
        rows[each.name] = {
            "seconds": {stage: runs.median(stage) for stage in runs.seconds},
            "rounds": runs.seconds,
            "weights": each.weights,
            "memory_beyond_weights": runs.memory,
            "operations_per_second": speed,
            "share_of_machine": speed / rates[each.rate],
            "format": each.rate,
            "difference": difference(runs.outcome, exact),
        }
        if tokens is not None:
            rows[each.name]["tokens_per_second"] = tokens(runs.outcome) / runs.median("words")
        if each.name != OURS:
            rows[each.name]["ratio"] = {
                each_stage: dict(
                    zip(("median", "low", "high"), ratio(runs, results[OURS], each_stage), strict=True)
                )
                for each_stage in runs.seconds
                if each_stage in results[OURS].seconds
            }
    return {
        "subject": subject,
        "clock": clock,
        "operations": operations,
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "rates": dict(rates),
        },
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "contestants": rows,
    }


def table(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    rows = summary["contestants"]
    stages = [stage for stage in next(iter(rows.values()))["seconds"] if stage != WHOLE]
    machine = summary["machine"]
    rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in machine["rates"].items())
    lines = [
        summary["subject"],
        f"{machine['gpu'] or machine['processor']}, {machine['threads']} thread(s), {summary['clock']} clock; "
        f"products reach (GFLOP/s): {rates}",
        "",
    ]
    times = [f"{stage} s" for stage in (*stages, WHOLE)]
    header = ["", *times, "unireel is x faster", "GFLOP/s", "of peak", "weights MiB", "peak + MiB", "differs"]
    says = "tokens_per_second" in next(iter(rows.values()))
    body = [[*header, "tokens/s"] if says else header]
    for name, row in rows.items():
        seconds = [f"{row['seconds'][stage]:.3f}" for stage in (*stages, WHOLE)]
        times = row.get("ratio", {}).get(WHOLE)
        gain = f"{times['median']:.2f} ({times['low']:.2f}-{times['high']:.2f})" if times else ""
        body.append([
            name, *seconds, gain, f"{row['operations_per_second'] / 1e9:.0f}", f"{row['share_of_machine']:.0%}",
            f"{row['weights'] / 2**20:.1f}", f"{row['memory_beyond_weights'] / 2**20:.0f}", f"{row['difference']:.1e}",
            *([f"{row['tokens_per_second']:.0f}"] if says else []),
        ])  # fmt: skip
    widths = [max(len(line[column]) for line in body) for column in range(len(body[0]))]
    for line in body:
        lines.append("  ".join(cell.ljust(width) if not column else cell.rjust(width)
                               for column, (cell, width) in enumerate(zip(line, widths, strict=True))))  # fmt: skip
    return "\n".join(lines)


COLOURS = {
    "text": "#c9a227",
    "denoise": "#3b6ea5",
    "decode": "#7a9e7e",
    "prefill": "#8e5ea2",
    "words": "#c26d5c",
}
REST = "#b0b0b0"


def picture(summary: Mapping[str, Any]) -> str:
    """Bars of the stages' medians, as SVG."""
    rows = summary["contestants"]
    longest = max(row["seconds"][WHOLE] for row in rows.values())
    width, bar, left = 460, 26, 150
    parts = []
    for number, (name, row) in enumerate(rows.items()):
        top, x = 40 + number * (bar + 14), float(left)
        parts.append(f'<text x="{left - 8}" y="{top + 17}" text-anchor="end">{escape(name)}</text>')
        stages = {stage: seconds for stage, seconds in row["seconds"].items() if stage != WHOLE}
        stages["rest"] = max(row["seconds"][WHOLE] - sum(stages.values()), 0)
        for stage, seconds in stages.items():
            length = width * seconds / longest
            colour = COLOURS.get(stage, REST)
            parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{length:.1f}" height="{bar}" fill="{colour}">'
                f"<title>{escape(stage)} {seconds:.4f} s</title></rect>"
            )
            x += length
        times = row.get("ratio", {}).get(WHOLE)
        gain = f" ({times['median']:.2f} times unireel's)" if times else ""
        parts.append(f'<text x="{x + 6:.1f}" y="{top + 17}">{row["seconds"][WHOLE]:.3f} s{gain}</text>')
    below = 40 + len(rows) * (bar + 14) + 12
    met = {
        stage: colour
        for stage, colour in COLOURS.items()
        if any(stage in row["seconds"] for row in rows.values())
    }
    for number, (stage, colour) in enumerate({**met, "rest": REST}.items()):
        parts.append(f'<rect x="{left + 90 * number}" y="{below}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + 90 * number + 18}" y="{below + 11}">{stage}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 210}" height="{below + 28}" '
        'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{left}" y="22">{escape(summary["subject"])}</text>{"".join(parts)}</svg>\n'
    )


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
