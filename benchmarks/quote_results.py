"""Puts the newest published figures into README and docs, so that no number there is typed by hand.

    python benchmarks/quote_results.py

Text between `<!-- quoted: NAME -->` and `<!-- end of quote -->` is written anew from benchmarks/results; where there is
no result yet it says so. A test checks that the texts are what this writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compared_arms import PAIRS, POOLED, QUESTION, Pair
from information_curves import CURVES
from results_file import newest

from infosam.evaluation import PROMPTS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FILES = (ROOT / "README.md", ROOT / "docs" / "evidence.md")
SEARCHES, HELP = "search-quality", "does-infosam-help"
LACKING = "Not measured yet."
CURVES_OF = {
    "cold": "cold searches",
    "warm": "searches warm-started from earlier sweeps",
    "starts": "the shipped search from its starts",
}
SHOWN_APART = (
    "random cold",
    *(f"tpe+asha {start}" for start in ("cold", "shipped points", "later sweep", "told the best")),
)
_BLOCK = re.compile(r"(<!-- quoted: ([a-z-]+) -->\n).*?(<!-- end of quote -->)", re.DOTALL)


def main() -> None:
    for file in FILES:
        file.write_text(quoted(file.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")


def quoted(text: str, results: Path) -> str:
    """A text with its quotes written anew. Raises KeyError for a quote of another name."""
    return _BLOCK.sub(lambda found: f"{found[1]}{QUOTES[found[2]](results)}\n{found[3]}", text)


def searches(results: Path) -> str:
    """Epochs that each search needs, and the curves."""
    found = newest(results, SEARCHES)
    if found is None:
        return LACKING
    figures = found["figures"]
    lines = [f"{_extent(figures)}. {_ratio(figures)}"]
    for slots, rows in figures["searches"].items():
        lines += ["", f"Trials at a time: {slots}.", "", *_searches_with(rows)]
    most = max(figures["by_domain"], key=int)
    lines += ["", f"Each domain alone, median epochs, {most} trials at a time:", "", *_domains_apart(figures, most), ""]
    lines += [_picture(f"Regret curves, {what}", f"{SEARCHES}-{name}", "../") for name, what in CURVES_OF.items()]
    return "\n".join([*lines, "", _origin(found)])


def _searches_with(rows: Mapping[str, Any]) -> list[str]:
    """One row for each search and start."""
    ratios = ("medians", "means", "domains")
    counted = ("median epochs", "mean", "replays that reach 99 %", "ratio of medians", "of means", "of domains")
    lines = _head(["search", *counted, "mean regret after 24, 48, 96, 192 epochs"])
    for name, row in rows.items():
        regret = ", ".join(f"{one:.4f}" for one in row["mean_regret_after"].values())
        cells = [f"{row['median_epochs_to_99']:g}", f"{row['mean_epochs_to_99']:.1f}", _share(row["share_reached"])]
        lines.append(_row([name, *cells, *(f"{row['ratio_to_random'][one]:.2f}" for one in ratios), regret]))
    return lines


def _domains_apart(figures: Mapping[str, Any], slots: str) -> list[str]:
    """Medians of each domain alone: of random search and of the one that ships, from its starts."""
    rows = figures["by_domain"][slots]
    shown = [name for name in SHOWN_APART if name in next(iter(rows.values()))["median_epochs_to_99"]]
    lines = _head(["domain", "configurations that reach 99 %", *shown])
    for domain, row in rows.items():
        reach = f"{row['configurations_that_reach']} of {figures['configurations'][domain]}"
        epochs = (f"{row['median_epochs_to_99'][name]:g} ({row['ratio_to_random'][name]:.2f})" for name in shown)
        lines.append(_row([domain.replace("_", " "), reach, *epochs]))
    return lines


def defaults(results: Path) -> str:
    """What the candidates for the defaults cost."""
    found = newest(results, SEARCHES)
    if found is None:
        return LACKING
    lines = []
    for what, choice in found["figures"]["choice"].items():
        lines += _head([what, "mean epochs to 99 %", "replays that reach it"])
        for name, row in choice["candidates"].items():
            lines.append(_candidate(f"**{name}**" if name == choice["chosen"] else name, row))
        lines += [_candidate(f"not a candidate: {name}", row) for name, row in choice.get("beside", {}).items()]
        lines.append("")
    best = found["figures"]["best_configurations"]
    lines += _head(["setting", "in the best four configurations of each domain"])
    lines += [_row([f"`{path}`", _where(row)]) for path, row in best.items()]
    return "\n".join(lines)


def _candidate(name: str, row: Mapping[str, Any]) -> str:
    return _row([name, f"{row['mean_epochs']:g}", _share(row["share_reached"])])


def gains(results: Path) -> str:
    """Gains of all pairs, and the means behind them."""
    found = newest(results, HELP)
    if found is None:
        return LACKING
    figures = found["figures"]
    names = list(figures["domains"])
    lines = []
    for prompt in PROMPTS:
        lines += [
            f"Gain in points of test Dice, prompt `{prompt}`, with 95 % interval over images and seeds, and standard "
            "deviation over seeds:",
            "",
        ]
        lines += _head(["pair", *names, POOLED])
        for pair in PAIRS:
            row = figures["gains"].get(str(pair), {}).get(prompt)
            if row is not None:
                lines.append(
                    "| " + " | ".join([str(pair), *(_with_spread(row.get(name)) for name in (*names, POOLED))]) + " |"
                )
        lines += ["", f"Mean test Dice, prompt `{prompt}`, ± standard deviation over seeds:", ""]
        lines += _head(["arm", *names])
        for arm in dict.fromkeys(arm for domain in figures["domains"].values() for arm in domain):
            cells = (_mean(figures["domains"][name].get(arm), prompt) for name in names)
            lines.append(_row([arm.replace("_", "-"), *cells]))
        lines.append("")
    lines += ["Peak learning rate that validation chose:", "", *_rates(figures["domains"]), ""]
    lines += [_picture("Gains of the information terms", HELP, "../"), "", _origin(found)]
    return "\n".join(lines)


def _rates(domains: Mapping[str, Any]) -> list[str]:
    lines = _head(["arm", *domains])
    for arm in dict.fromkeys(arm for domain in domains.values() for arm in domain):
        found = [domain.get(arm, {}).get("lr") for domain in domains.values()]
        if any(found):
            lines.append(_row([arm, *("" if rate is None else f"{rate:g}" for rate in found)]))
    return lines


def information(results: Path) -> str:
    """Bits in the relations at the first and at the last epoch."""
    found = newest(results, HELP)
    if found is None:
        return LACKING
    curves = found["figures"]["information"]
    arms = list(dict.fromkeys(arm for by_arm in curves.values() for arm in by_arm))
    lines = _head(["arm", "domain", *(f"{title}, bits" for title in CURVES.values())])
    for arm in arms:
        for domain, by_arm in curves.items():
            ends = (f"{by_arm[arm][name][0]:.2f} to {by_arm[arm][name][-1]:.2f}" for name in CURVES)
            lines.append(_row([arm, domain.replace("_", " "), *ends]))
    pictures = [_picture(f"Bits of {arm}", f"{HELP}-{arm.replace('+', '-')}-bits", "../") for arm in arms]
    return "\n".join([*lines, "", *pictures])


def variants(results: Path) -> str:
    """The question asked again under other settings: gains over all domains."""
    found = {HELP: newest(results, HELP), **{name: newest(results, name) for name in _names_of_variants(results)}}
    told = {name: one for name, one in found.items() if one is not None}
    if not told:
        return LACKING
    lines = _head(["settings", "pair", "bits shared in the last epoch", *(f"prompt {one}" for one in PROMPTS)])
    for one in told.values():
        figures = one["figures"]
        settings = " ".join(f"`{setting}`" for setting in figures["settings"]["overrides"]) or "as above"
        for pair in QUESTION:
            row = figures["gains"].get(str(pair))
            if row is not None:
                lines.append(
                    _row([settings, str(pair), _shared(figures, pair), *(_gain(row[one][POOLED]) for one in PROMPTS)])
                )
    return "\n".join([*lines, "", *(_origin(one) for name, one in told.items() if name != HELP)])


def _names_of_variants(results: Path) -> list[str]:
    return sorted({file.stem[len("2000-01-01-") :] for file in results.glob(f"????-??-??-{HELP}-*.json")})


def _shared(figures: Mapping[str, Any], pair: Pair) -> str:
    """Lowest and highest of the domains."""
    name = "info/mutual_information"
    last = [arms[pair.ours][name][-1] for arms in figures["information"].values() if pair.ours in arms]
    return f"{min(last):.2f} to {max(last):.2f}"


def in_short(results: Path) -> str:
    """Both in a few sentences."""
    lines = []
    if (found := newest(results, SEARCHES)) is not None:
        lines.append(f"- Search: {_ratio(found['figures'])} {_extent(found['figures'])}.")
    if (found := newest(results, HELP)) is not None:
        for pair in QUESTION:
            told = found["figures"]["gains"].get(str(pair))
            if told is not None:
                box, none = (told[prompt][POOLED] for prompt in ("box", "none"))
                lines.append(
                    f"- Information terms, {pair.theirs}: {_gain(box)} points of test Dice with a box, {_gain(none)} "
                    f"without a prompt ({box['images']} images of {len(found['figures']['domains'])} domains; 95 % "
                    f"interval over images and seeds). {_verdict(box, none)}"
                )
    pictures = {
        f"{SEARCHES}-starts": "Regret of the shipped search from its starts, and of random search",
        HELP: "Gains of the information terms, by domain",
    }
    lines += [
        "",
        *(_picture(what, name) for name, what in pictures.items() if newest(results, name.removesuffix("-starts"))),
    ]
    return "\n".join(lines).strip() or LACKING


QUOTES = {
    "evidence": in_short,
    "search-quality": searches,
    "chosen-defaults": defaults,
    "does-infosam-help": gains,
    "information": information,
    "variants": variants,
}


def _ratio(figures: Mapping[str, Any]) -> str:
    """The shipped search beside random search."""
    told = []
    for slots, rows in figures["searches"].items():
        ratios = rows[figures["shipped"]]["ratio_to_random"]
        trials = "1 trial" if slots == "1" else f"{slots} trials"
        told.append(
            f"with {trials} at a time {ratios['medians']:.2f} (ratio of medians; of means {ratios['means']:.2f}, mean "
            f"over domains {ratios['domains']:.2f})"
        )
    return (
        "Of the epochs that random search needs to 99 % of the best known validation Dice, the shipped search "
        f"({figures['shipped']}) needs {', '.join(told)}; the goal was 0.25."
    )


def _extent(figures: Mapping[str, Any]) -> str:
    counts = figures["configurations"].values()
    return (
        f"Replayed over {sum(counts)} finished runs of {len(counts)} domains, {figures['seeds']} seeds "
        f"({figures['gp_seeds']} for GP)"
    )


def _share(share: float) -> str:
    """With a decimal, so that a miss among hundreds shows."""
    return f"{share:.1%}"


def _picture(title: str, name: str, root: str = "") -> str:
    return f"![{title}]({root}benchmarks/results/{name}.svg)"


def _verdict(box: Mapping[str, Any], none: Mapping[str, Any]) -> str:
    """Chance is not called a gain."""
    words = []
    for row, name in ((box, "with a box"), (none, "without a prompt")):
        holds = row["low"] <= 0 <= row["high"]
        words.append(f"{name} {'not told from chance' if holds else 'a gain' if row['low'] > 0 else 'a loss'}")
    return f"That is {' and '.join(words)}."


def _where(row: Mapping[str, Any]) -> str:
    if "median" not in row:
        return ", ".join(f"{count} {value}" for value, count in row.items())
    return f"{row['low']:g} to {row['high']:g}, median {row['median']:g}" + (
        f", {row['zero']} zero" if row["zero"] else ""
    )


def _gain(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else f"{100 * row['mean']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


def _with_spread(row: Mapping[str, Any] | None) -> str:
    spread = None if row is None else row["sd_over_seeds"]
    return _gain(row) + ("" if spread is None else f", sd {100 * spread:.1f}")


def _mean(row: Mapping[str, Any] | None, prompt: str) -> str:
    if row is None:
        return ""
    spread = row.get(f"test/{prompt}/dice_sd")
    return f"{row[f'test/{prompt}/dice']:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")


def _head(names: Sequence[str]) -> list[str]:
    return [_row([name.replace("_", " ") for name in names]), "|---" * len(names) + "|"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _origin(found: Mapping[str, Any]) -> str:
    told = f"`{found['command']}`, {found['at'][:10]}, commit {found['commit']}, {found['device']}"
    if (runs := found.get("runs")) is not None:
        told += f"; runs of `{runs['command']}`, {runs['at'][:10]}, commits {' and '.join(runs['commits'])}"
    return f"{told}."


if __name__ == "__main__":
    main()
