#!/usr/bin/env python3
"""Draws the curves of runs side by side and tells how far apart they end.

    tools/compare.py runs/lm_sigmoid runs/lm_softmax --output comparison

A RUN is a run's folder or its metrics.jsonl. Writes DIR/compare.png and DIR/compare.html, a page
without outside parts, and prints the table of final values. Differences are against the first run.
Needs numpy and matplotlib (Debian: apt-get install python3-matplotlib); with python3-yaml it also
lists the settings in which the runs' config.yaml differ.
"""

import argparse
import base64
import dataclasses
import html
import io
import json
import math
import os
import sys

try:
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt
    from matplotlib import ticker
    from matplotlib.lines import Line2D
except ImportError as error:
    sys.exit(f"compare.py: {error}. Install it (Debian and Ubuntu: apt-get install "
             "python3-matplotlib) and run with that python3, usually /usr/bin/python3.")

# Okabe and Ito, "Color Universal Design" (2008): told apart under every common colour blindness.
# Where there are more runs than colours, the line style changes as well.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
STYLES = ["-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5))]

# The task that counts its data in this unit.
UNIT_TASKS = {"tokens": "language_modeling", "images": "image_classification",
              "audio_seconds": "speech_recognition"}

# Settings that say what the losses are of, and what does not compare where they differ.
DATA_KEYS = {
    "data.source": "losses are of different data",
    "data.train": "training losses are of different data",
    "data.validation": "validation losses are of different data",
    "data.tokenizer": "a token is not the same text",
    "data.speech.letters": "a letter is not the same",
    "model.vocab_size": "a token is not the same text",
    "model.vision.classes": "classes are not the same",
}

# Share of a run's records that "at the end" averages over.
END_SHARE = 0.05


@dataclasses.dataclass
class Run:
    """One run: its records by split in the order of their steps, and what was wrong with them."""
    name: str
    path: str
    records: dict  # split -> list of dicts
    notes: list
    config: dict  # dotted key -> value; empty if not known
    colour: str = COLOURS[0]
    style: object = STYLES[0]

    def series(self, split, key):
        """The numbers `key` of a split; NaN where a record has none or one that is not finite."""
        return np.array([number(record.get(key)) for record in self.records[split]], dtype=float)

    def layers(self, key):
        """(steps, values of shape [records, layers]) of a train diagnostic by layer."""
        found = [(number(r.get("step")), r[key]) for r in self.records["train"]
                 if isinstance(r.get(key), list) and r[key]]
        width = max((len(values) for _, values in found), default=0)
        table = np.full((len(found), width), np.nan)
        for row, (_, values) in enumerate(found):
            table[row, :len(values)] = [number(value) for value in values]
        return np.array([step for step, _ in found], dtype=float), table

    def is_empty(self):
        return not any(self.records.values())


def number(value):
    usable = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if usable and math.isfinite(value) else math.nan


# ---- Reading ----


def read_run(path):
    """Reads a run's folder or metrics file. Raises OSError if there is no such file."""
    path = os.path.normpath(path)
    metrics = os.path.join(path, "metrics.jsonl") if os.path.isdir(path) else path
    folder = os.path.dirname(os.path.abspath(metrics))
    with open(metrics, "rb") as file:
        lines = file.read().split(b"\n")
    records = {"train": [], "validation": []}
    notes = []
    unreadable = 0
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or math.isnan(number(record.get("step"))):
                raise ValueError("not a record")
        except ValueError:
            if index == len(lines) - 1:
                notes.append("the last line is truncated and was skipped")
            else:
                unreadable += 1
            continue
        records.setdefault(str(record.get("split")), []).append(record)
    if unreadable:
        notes.append(f"{unreadable} unreadable line{'s' * (unreadable > 1)} skipped")
    for split in sorted(set(records) - {"train", "validation"}):
        count = len(records.pop(split))
        notes.append(f"{count} record{'s' * (count > 1)} of an unknown split '{split}' skipped")
    for split in records.values():
        split.sort(key=lambda record: record["step"])
    run = Run(os.path.basename(folder), path, records, notes, read_config(folder, notes))
    if run.is_empty():
        notes.append("no records")
    for split in ("train", "validation"):
        bad = sum("loss" in r and math.isnan(number(r["loss"])) for r in records[split])
        if bad:
            notes.append(f"{bad} {split} record{'s' * (bad > 1)} with a loss that is not finite")
    return run


def read_config(folder, notes):
    """The resolved config as {"model.layers": 12, ...}; empty without a file or a YAML module."""
    path = os.path.join(folder, "config.yaml")
    if not os.path.exists(path):
        return {}
    try:
        import yaml
    except ImportError:
        notes.append("config.yaml not shown: python3-yaml is not installed")
        return {}
    flat = {}

    def visit(prefix, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    try:
        with open(path, encoding="utf-8") as file:
            visit("", yaml.safe_load(file) or {})
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        notes.append(f"config.yaml not shown: {str(error).splitlines()[0]}")
    return flat


def read_runs(paths):
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    for i, run in enumerate(runs):
        if names.count(run.name) > 1 or not run.name:
            run.name = run.path
        run.colour = COLOURS[i % len(COLOURS)]
        run.style = STYLES[i // len(COLOURS) % len(STYLES)]
    return runs


# ---- Numbers ----


def smooth(values, span):
    """Exponential moving average over about `span` values, unbiased at the start; there, where a
    curve is steep, over a tenth of the values so far. NaN values are passed over: they count for
    nothing and show the average so far."""
    out = np.full(len(values), np.nan)
    total = weight = 0.0
    for i, value in enumerate(values):
        decay = 1.0 - 2.0 / (max(min(span, 1.0 + i / 10.0), 1.0) + 1.0)
        if not math.isnan(value):
            total = decay * total + (1.0 - decay) * value
            weight = decay * weight + (1.0 - decay)
        if weight > 0.0:
            out[i] = total / weight
    return out


def automatic_span(count):
    return max(1.0, count / 50.0)


def at_the_end(values):
    """Mean over the last records, NaN left out; along the first axis."""
    if len(values) == 0:
        return math.nan
    tail = values[-max(1, round(END_SHARE * len(values))):]
    counts = np.sum(~np.isnan(tail), axis=0)
    return np.where(counts > 0, np.nansum(tail, axis=0) / np.maximum(counts, 1), np.nan)[()]


def finite(x, y):
    good = ~(np.isnan(x) | np.isnan(y))
    return x[good], y[good]


def difference(run, base, span):
    """(steps, run's loss minus base's, which loss) where both have one: the validation loss if
    both were evaluated in the same stretch, else the smoothed training loss."""
    for split in ("validation", "train"):
        curves = []
        for one in (base, run):
            loss = one.series(split, "loss")
            if split == "train":
                loss = smooth(loss, span or automatic_span(len(loss)))
            curves.append(finite(one.series(split, "step"), loss))
        (base_steps, base_loss), (steps, loss) = curves
        if len(steps) == 0 or len(base_steps) == 0:
            continue
        common = (steps >= base_steps[0]) & (steps <= base_steps[-1])
        if not np.any(common):
            continue
        steps, loss = steps[common], loss[common]
        return steps, loss - np.interp(steps, base_steps, base_loss), split
    return np.array([]), np.array([]), "validation"


def recorded_unit(runs):
    """What the runs record that they count their data in: tokens, images, ...; None if none does."""
    suffix = "_per_second"
    for run in runs:
        for record in run.records["train"]:
            for key in record:
                if key.endswith(suffix):
                    return key[:-len(suffix)]
    return None


def counted_unit(runs):
    return recorded_unit(runs) or "tokens"


def task_of(run):
    """The run's task as its config or else its records tell; None if neither does."""
    return run.config.get("task") or UNIT_TASKS.get(recorded_unit([run]))


def check_tasks(runs):
    """What is wrong with comparing them, or None: losses of two tasks have nothing in common."""
    known = [(run, task_of(run)) for run in runs if task_of(run)]
    for run, task in known[1:]:
        base, base_task = known[0]
        if task != base_task:
            return (f"{base.name} is a run of {base_task}, {run.name} of {task}: their losses do "
                    "not compare; name runs of one task")
    return None


def note_other_data(runs):
    """Adds to each run's notes what of its data is not the first run's: a difference of losses is
    then also one of the data."""
    base = next((run for run in runs if not run.is_empty()), runs[0])

    def evaluated(run):
        targets = run.series("validation", "targets")
        return targets[-1] if len(targets) else math.nan

    for run in runs:
        if run is base:
            continue
        if base.config and run.config:
            for key, what in DATA_KEYS.items():
                ours, theirs = run.config.get(key), base.config.get(key)
                if ours != theirs:
                    run.notes.append(f"{key} is {setting_text(ours)}, not {setting_text(theirs)} "
                                     f"as of {base.name}: {what}")
        ours, theirs = evaluated(run), evaluated(base)
        if not math.isnan(ours + theirs) and ours != theirs:
            run.notes.append(f"evaluated on {ours:,.0f} targets, {base.name} on {theirs:,.0f}: "
                             "validation losses are of different data")


def setting_text(value):
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "unset" if value in (None, "") else str(value)


def classifies(runs):
    """Whether any run judges itself by its accuracy."""
    return any("top5" in record for run in runs for record in run.records["validation"])


def recognises_speech(runs):
    """Whether any run judges itself by its letter error rate."""
    return any("letter_error_rate" in record for run in runs
               for record in run.records["validation"])


def summarise(runs, span):
    """The rows of the table, as {column: text}."""
    base = next((run for run in runs if not run.is_empty()), runs[0])
    rows = []
    unit, with_accuracy = counted_unit(runs), classifies(runs)
    for run in runs:
        train_loss = run.series("train", "loss")
        validation_steps, validation_loss = finite(run.series("validation", "step"),
                                                   run.series("validation", "loss"))
        everything = [r for split in run.records.values() for r in split]
        last = {key: max((number(r.get(key)) for r in everything
                          if not math.isnan(number(r.get(key)))), default=math.nan)
                for key in ("step", unit, "seconds")}
        best = int(np.argmin(validation_loss)) if len(validation_loss) else None
        row = {
            "run": run.name,
            "steps": count_text(last["step"], exact=True),
            unit: count_text(last[unit]),
            "time": duration_text(last["seconds"]),
            "train loss": loss_text(at_the_end(train_loss)),
            "validation loss": loss_text(validation_loss[-1] if len(validation_loss) else math.nan),
            "best validation": "–" if best is None else
                               f"{validation_loss[best]:.4f} at {validation_steps[best]:,.0f}",
            "difference": "–",
            f"{unit}/s at the end": count_text(at_the_end(run.series("train", f"{unit}_per_second"))),
            "gradient norm": short_text(at_the_end(run.series("train", "grad_norm"))),
        }
        if with_accuracy:
            for key, column in (("accuracy", "accuracy"), ("accuracy_ema", "averaged weights")):
                _, values = finite(run.series("validation", "step"), run.series("validation", key))
                row[column] = f"{values[-1]:.2%}" if len(values) else "–"
        if recognises_speech(runs):
            for key in ("letter_error_rate", "word_error_rate"):
                for suffix, added in (("", ""), ("_ema", ", averaged weights")):
                    if suffix and not any(key + suffix in record for other in runs
                                          for record in other.records["validation"]):
                        continue
                    _, values = finite(run.series("validation", "step"),
                                       run.series("validation", key + suffix))
                    row[f"best {key.replace('_', ' ')}{added}"] = (f"{min(values):.2%}"
                                                                   if len(values) else "–")
        if run is base:
            row["difference"] = "reference"
        else:
            steps, values, split = difference(run, base, span)
            if len(values):
                row["difference"] = f"{values[-1]:+.4f} {split}, step {steps[-1]:,.0f}"
        rows.append(row)
    return rows


def loss_text(value):
    return "–" if math.isnan(value) else f"{value:.4f}"


def short_text(value):
    return "–" if math.isnan(value) else f"{value:.3g}"


def count_text(value, exact=False):
    if math.isnan(value):
        return "–"
    if exact:
        return f"{value:,.0f}"
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}"


def duration_text(seconds):
    if math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}m"
    return f"{minutes // 60}h {minutes % 60:02d}m"


# ---- Drawing ----

STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": "#444444",
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
}


def say_instead(axes, text):
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center",
              va="center", color="#888888", style="italic")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def after_the_first_tenth(curves):
    """The values of those of the (x, values) that reach that far, beyond a tenth of the longest."""
    start = 0.1 * max(x[-1] for x, _ in curves)
    later = [values[x >= start] for x, values in curves]
    return [values for values in later if len(values)]


def draw_training(axes, run, x, values, span):
    """The raw values and, over those of every run, their average; returns the average."""
    smoothed = smooth(values, span or automatic_span(len(values)))
    axes.plot(x, values, color=run.colour, alpha=0.18, linewidth=0.8, zorder=1.5)
    axes.plot(x, smoothed, color=run.colour, linestyle=run.style, linewidth=1.8, zorder=2.5)
    return smoothed


def fit_y(axes, curves, log_when_wide=False):
    """Limits from the curves that matter (not from the raw values behind them), and a logarithmic
    axis where they span a factor of five or more."""
    values = np.concatenate([np.ravel(curve) for curve in curves]) if curves else np.array([])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return
    low, high = float(values.min()), float(values.max())
    if log_when_wide and low > 0 and high / low >= 5:
        axes.set_yscale("log")
        axes.set_ylim(low / (high / low)**0.06, high * (high / low)**0.06)
        axes.yaxis.set_major_locator(
            ticker.LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,), numticks=12))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        return
    margin = 0.06 * (high - low) or 0.05 * max(abs(high), 1e-3)
    axes.set_ylim(low - margin, high + margin)


def x_axis(axes, kind, scale):
    if kind == "seconds":
        axes.set_xlabel({1: "seconds", 60: "minutes", 3600: "hours"}[scale])
    else:
        axes.set_xlabel(kind)
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: count_text(value)))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))


def draw_loss(axes, runs, kind, title, span):
    axes.set_title(title)
    longest = max((np.nanmax(x) for run in runs for split in run.records
                   if np.any(~np.isnan(x := run.series(split, kind)))), default=math.nan)
    scale = 1
    if kind == "seconds":
        scale = 3600 if longest > 2 * 3600 else 60 if longest > 120 else 1
    curves = []
    for run in runs:
        x, loss = finite(run.series("train", kind) / scale, run.series("train", "loss"))
        if len(x):
            curves.append((x, draw_training(axes, run, x, loss, span)))
        x, loss = finite(run.series("validation", kind) / scale, run.series("validation", "loss"))
        if len(x):
            axes.plot(x, loss, color=run.colour, linestyle="none", marker="o",
                      markersize=max(5.5 - len(x) / 40, 2.5), markeredgecolor="white",
                      markeredgewidth=0.8, zorder=3)
            curves.append((x, loss))
    if not curves:
        return say_instead(axes, f"no run records a loss with its {kind}")
    # The steep first tenth would press all that follows flat; it may reach above the axes.
    low = min(loss.min() for _, loss in curves)
    high = max(loss.max() for _, loss in curves)
    later = max(loss.max() for loss in after_the_first_tenth(curves))
    fit_y(axes, [np.array([low, min(high, low + 2 * (later - low))])])
    x_axis(axes, kind, scale)
    axes.set_ylabel("loss")


def draw_measure(axes, runs, key):
    """A share that the runs record at each evaluation: accuracy, letter_error_rate."""
    name = key.replace("_", " ")
    axes.set_title(f"Validation {name}")
    curves = []
    for run in runs:
        x, share = finite(run.series("validation", "step"), run.series("validation", key))
        if len(x):
            axes.plot(x, share, color=run.colour, linestyle=run.style, linewidth=1.8, marker="o",
                      markersize=4)
            curves.append(share)
    if not curves:
        return say_instead(axes, f"no run records its {name}")
    fit_y(axes, curves)
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    x_axis(axes, "step", 1)


def draw_gradient_norm(axes, runs, span):
    axes.set_title("Gradient norm")
    curves = []
    for run in runs:
        x, norm = finite(run.series("train", "step"), run.series("train", "grad_norm"))
        if len(x):
            curves.append(draw_training(axes, run, x, norm, span))
    if not curves:
        return say_instead(axes, "no run records grad_norm")
    fit_y(axes, curves, log_when_wide=True)
    x_axis(axes, "step", 1)


def draw_over_time(axes, runs, key, title):
    """The median over the layers, and the range of all of them behind it."""
    axes.set_title(title)
    curves = []
    for run in runs:
        steps, table = run.layers(key)
        known = np.any(~np.isnan(table), axis=1) & ~np.isnan(steps)
        if not np.any(known):
            continue
        steps, table = steps[known], table[known]
        low, high = np.nanmin(table, axis=1), np.nanmax(table, axis=1)
        axes.fill_between(steps, low, high, color=run.colour, alpha=0.13, linewidth=0)
        axes.plot(steps, np.nanmedian(table, axis=1), color=run.colour, linestyle=run.style,
                  linewidth=1.8)
        curves += [low, high]
    if not curves:
        return say_instead(axes, f"no run records {key}")
    fit_y(axes, curves, log_when_wide=True)
    x_axis(axes, "step", 1)


def draw_by_layer(axes, runs, key, title):
    """The end of the run, and its first record as a thin dotted line."""
    axes.set_title(title)
    curves = []
    for run in runs:
        _, table = run.layers(key)
        if not np.any(~np.isnan(table)):
            continue
        layer = np.arange(table.shape[1])
        end = at_the_end(table)
        axes.plot(layer, table[0], color=run.colour, linestyle=":", linewidth=1.3, alpha=0.8)
        axes.plot(layer, end, color=run.colour, linestyle=run.style, linewidth=1.8, marker="o",
                  markersize=4.5, markeredgecolor="white", markeredgewidth=0.7)
        curves += [table[0], end]
    if not curves:
        return say_instead(axes, f"no run records {key}")
    fit_y(axes, curves, log_when_wide=True)
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))


def draw_difference(axes, runs, span):
    base = next((run for run in runs if not run.is_empty()), runs[0])
    axes.set_title(f"Loss minus that of {shortened(base.name, 24)}")
    curves, splits = [], set()
    for run in runs:
        if run is base:
            continue
        steps, values, split = difference(run, base, span)
        if len(steps) == 0:
            continue
        dots = {"marker": "o", "markersize": 4.5, "markeredgecolor": "white",
                "markeredgewidth": 0.7} if split == "validation" else {}
        axes.plot(steps, values, color=run.colour, linestyle=run.style, linewidth=1.8, **dots)
        curves.append((steps, values))
        splits.add(split)
    if not curves:
        return say_instead(axes, "no other run with a loss at the same steps")
    axes.axhline(0, color=base.colour, linewidth=1.4, linestyle=base.style)
    fit_y(axes, [np.zeros(1)] + after_the_first_tenth(curves))
    x_axis(axes, "step", 1)
    axes.set_ylabel(" and ".join(sorted(splits, reverse=True)) + " loss difference")


def shortened(text, length):
    return text if len(text) <= length else text[:length - 1] + "…"


def draw(runs, span):
    """The figure, as PNG bytes."""
    with plt.rc_context(STYLE):
        legend_columns = min(len(runs), 4)
        legend_rows = math.ceil(len(runs) / legend_columns)
        height = 13.2 + 0.28 * legend_rows
        figure, grid = plt.subplots(3, 3, figsize=(17, height), dpi=120)
        draw_loss(grid[0, 0], runs, "step", "Loss by step", span)
        if classifies(runs):
            draw_measure(grid[0, 1], runs, "accuracy")
        elif recognises_speech(runs):
            draw_measure(grid[0, 1], runs, "letter_error_rate")
        else:
            unit = counted_unit(runs)
            draw_loss(grid[0, 1], runs, unit, f"Loss by {unit} seen", span)
        draw_loss(grid[0, 2], runs, "seconds", "Loss by time", span)
        draw_difference(grid[1, 0], runs, span)
        draw_over_time(grid[1, 1], runs, "attention_out_rms", "Attention output RMS: over training")
        draw_over_time(grid[1, 2], runs, "attention_row_sum", "Attention row sum: over training")
        draw_gradient_norm(grid[2, 0], runs, span)
        draw_by_layer(grid[2, 1], runs, "attention_out_rms", "Attention output RMS: by layer")
        draw_by_layer(grid[2, 2], runs, "attention_row_sum", "Attention row sum: by layer")

        top = 1 - (0.75 + 0.28 * legend_rows) / height
        figure.subplots_adjust(left=0.05, right=0.985, bottom=0.06, top=top - 0.022, wspace=0.2,
                               hspace=0.36)
        names = [Line2D([], [], color=run.colour, linestyle=run.style, linewidth=3,
                        label=shortened(run.name, 40)) for run in runs]
        figure.legend(handles=names, loc="upper left", bbox_to_anchor=(0.045, 0.995), frameon=False,
                      ncol=legend_columns, fontsize=13, columnspacing=2.2, handlelength=2.2)
        grey = {"color": "#666666", "linewidth": 1.8}
        keys = [
            Line2D([], [], label="training, smoothed (raw behind)", **grey),
            Line2D([], [], label="validation", color="#666666", linestyle="none", marker="o",
                   markersize=6),
            plt.Rectangle((0, 0), 1, 1, facecolor="#666666", alpha=0.25,
                          label="all layers (line: their median)"),
            Line2D([], [], label="first record", color="#666666", linestyle=":", linewidth=1.5),
        ]
        figure.legend(handles=keys, loc="upper left",
                      bbox_to_anchor=(0.045, 1 - 0.30 * (legend_rows + 0.35) / height),
                      frameon=False, ncol=4, fontsize=10.5, labelcolor="#555555",
                      columnspacing=2.2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        plt.close(figure)
    return buffer.getvalue()


# ---- Reports ----


def text_table(rows):
    columns = list(rows[0])
    widths = {c: max(len(c), *(len(row[c]) for row in rows)) for c in columns}

    def line(cells):
        return "  ".join(cell.ljust(widths[c]) if c == "run" else cell.rjust(widths[c])
                         for c, cell in zip(columns, cells)).rstrip()

    return "\n".join([line(columns), line("-" * widths[c] for c in columns)] +
                     [line(row.values()) for row in rows])


def differing_settings(runs):
    """[(key, [value of each run])] for the keys whose values are not the same in all configs."""
    runs = [run for run in runs if run.config]
    keys = sorted({key for run in runs for key in run.config})
    rows = [(key, [run.config.get(key, "–") for run in runs]) for key in keys]
    return runs, [(key, values) for key, values in rows
                  if any(repr(value) != repr(values[0]) for value in values)]


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #222;
       background: #fff; margin: 0 auto; max-width: 1500px; padding: 1.5rem 2rem 3rem; }}
h1 {{ font-size: 1.6rem; margin: 0 0 1rem; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .6rem; }}
img {{ width: 100%; height: auto; display: block; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .4rem .9rem; text-align: right; white-space: nowrap;
          border-bottom: 1px solid #e6e6e6; }}
th {{ color: #555; font-weight: 600; border-bottom: 2px solid #ccc; }}
th:first-child, td:first-child {{ text-align: left; }}
td:first-child {{ font-weight: 600; }}
.key {{ display: inline-block; width: .8em; height: .8em; border-radius: 2px;
        margin-right: .55em; vertical-align: -.05em; }}
.note {{ color: #666; font-size: .92em; }}
code {{ font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .93em; }}
</style>
</head>
<body>
<h1>{title}</h1>
<h2>At the end</h2>
<div class="scroll">{table}</div>
<p class="note">Train loss, speed and gradient norm: mean over the last {share:.0%} of the
records. Difference: loss minus that of the reference, at the last step both have reached.</p>
{notes}
<h2>Curves</h2>
<img alt="Loss, gradient norm and attention diagnostics of the runs" src="data:image/png;base64,{image}">
{settings}
</body>
</html>
"""


def html_table(header, rows):
    """Cells are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def page(runs, rows, image):
    def swatch(run):
        return f'<span class="key" style="background:{run.colour}"></span>{html.escape(run.name)}'

    table = html_table(rows[0], [[swatch(run)] + [html.escape(v) for v in list(row.values())[1:]]
                                 for run, row in zip(runs, rows)])
    notes = "".join(f"<li>{html.escape(run.name)}: {html.escape(note)}</li>"
                    for run in runs for note in run.notes)
    notes = f'<h2>Remarks</h2><ul class="note">{notes}</ul>' if notes else ""
    configured, differing = differing_settings(runs)
    settings = ""
    if len(configured) > 1:
        body = html_table(["setting"] + [swatch(run) for run in configured],
                          [[f"<code>{html.escape(key)}</code>"] +
                           [f"<code>{html.escape(str(value))}</code>" for value in values]
                           for key, values in differing])
        settings = "<h2>Settings that differ</h2>" + (
            f'<div class="scroll">{body}</div>' if differing else "<p>None.</p>")
    return PAGE.format(title=html.escape(" and ".join(run.name for run in runs[:3]) +
                                         (f" and {len(runs) - 3} more" if len(runs) > 3 else "")),
                       table=table, share=END_SHARE, notes=notes, settings=settings,
                       image=base64.b64encode(image).decode())


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description="Draws the curves of runs side by side and tells how far apart they end.",
        epilog="Differences are against the first run.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder or metrics.jsonl")
    parser.add_argument("--output", default="comparison", metavar="DIR",
                        help="where compare.png and compare.html go (default: %(default)s)")
    parser.add_argument("--smoothing", type=float, default=0.0, metavar="RECORDS",
                        help="records that the training curves are averaged over; 1: none "
                             "(default: a fiftieth of the run)")
    options = parser.parse_args(arguments)
    if options.smoothing and not options.smoothing >= 1:
        parser.error("--smoothing must be at least 1")
    try:
        runs = read_runs(options.runs)
    except OSError as error:
        parser.error(f"cannot read {error.filename}: {error.strerror}; a RUN is a folder with a "
                     "metrics.jsonl, or that file")
    if problem := check_tasks(runs):
        print(f"compare.py: {problem}", file=sys.stderr)
        return 2
    note_other_data(runs)
    for run in runs:
        for note in run.notes:
            print(f"{run.name}: {note}", file=sys.stderr)
    if all(run.is_empty() for run in runs):
        print("compare.py: none of the runs has a record; nothing to draw", file=sys.stderr)
        return 1
    rows = summarise(runs, options.smoothing)
    image = draw(runs, options.smoothing)
    try:
        os.makedirs(options.output, exist_ok=True)
        with open(os.path.join(options.output, "compare.png"), "wb") as file:
            file.write(image)
        with open(os.path.join(options.output, "compare.html"), "w", encoding="utf-8") as file:
            file.write(page(runs, rows, image))
    except OSError as error:
        print(f"compare.py: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(text_table(rows))
    print(f"\nwritten: {options.output}/compare.png and compare.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
