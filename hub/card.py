"""A release's model card, written from its records alone: no number here has another source.

The front matter is huggingface_hub's own (`ModelCardData` with `EvalResult`, so a `model-index`);
the body says what the weights are, what they were trained and tested on, how they were trained,
and puts what the paper reported in a column of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.records import Evaluation, Metric, ReleaseConfig
from hub.card_operating import operating_section
from models._spec import ModelSpec, ReportedMetric

_PIPELINE = {
    "detect": "object-detection",
    "segment": "image-segmentation",
    "classify": "image-classification",
}
_DATASETS = {
    "neu-det": "NEU-DET (NEU surface defect database, detection version)",
    "neu-cls": "NEU surface defect database, one class per image",
    "neu-seg": "NEU-Seg (NEU surface defect segmentation set)",
    "x-sdd": "X-SDD (Xsteel surface defect dataset)",
    "gc10-det": "GC10-DET",
}
_PER_CLASS = {"mAP50": "AP50", "mAP50_95": "AP50_95", "mIoU": "IoU", "macro_F1": "F1"}
_HEADLINES = ("mAP50", "mAP50_95", "mIoU", "MPA", "accuracy", "macro_F1")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _interval(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return "–"
    return f"{_percent(metric.low)} – {_percent(metric.high)}"


def _title(metric: str) -> str:
    return metric if metric == "mAP50_95" else metric.replace("_", " ")


def _front_matter(config: ReleaseConfig, spec: ModelSpec) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=_PIPELINE[config.task],
            dataset_type=evaluation.dataset,
            dataset_name=_DATASETS.get(evaluation.dataset, evaluation.dataset),
            dataset_split=evaluation.split,
            dataset_revision=evaluation.test_id[:12],
            dataset_config=evaluation.protocol,
            metric_type=metric.name,
            metric_name=_title(metric.name),
            metric_value=round(metric.value, 4),
        )
        for evaluation in config.evaluations
        for metric in evaluation.metrics
    ]
    data = ModelCardData(
        license="agpl-3.0",
        library_name="rollmark",
        pipeline_tag=_PIPELINE[config.task],
        tags=["steel", "surface-inspection", "defect", spec.name],
        model_name=config.title if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _results(evaluation: Evaluation, spec: ModelSpec) -> list[str]:
    n = evaluation.metrics[0].n if evaluation.metrics else 0
    lines = [
        f"### {evaluation.dataset}, {evaluation.protocol} protocol, {evaluation.split} split "
        f"({n} images)",
        "",
        f"Split identity `{evaluation.test_id[:12]}`. Intervals are 95 % bootstrap intervals over "
        + ("groups of overlapping images." if evaluation.protocol == "leak-free" else "images."),
        "",
        "| metric (%) | measured | 95 % interval | reported by the paper |",
        "| --- | ---: | :---: | ---: |",
    ]
    reported: dict[str, ReportedMetric] = {}
    for figure in spec.reported:
        if figure.dataset.lower() == evaluation.dataset.lower():
            reported.setdefault(figure.name, figure)  # the full model comes before its ablations
    for metric in evaluation.metrics:
        theirs = reported.get(metric.name)
        said = "–" if theirs is None else f"{_percent(theirs.value)} ({theirs.where or 'paper'})"
        lines.append(
            f"| {_title(metric.name)} | {_percent(metric.value)} | {_interval(metric)} | {said} |"
        )
    per_class = [m for m in evaluation.metrics if m.per_class]
    if per_class:
        labels = list(per_class[0].per_class)
        lines += [
            "",
            "| class | "
            + " | ".join(f"{_PER_CLASS.get(m.name, m.name)} (%)" for m in per_class)
            + " |",
            "| --- |" + " ---: |" * len(per_class),
        ]
        lines += [
            f"| {label} | " + " | ".join(_percent(m.per_class.get(label)) for m in per_class) + " |"
            for label in labels
        ]
    return [*lines, ""]


def _flat(recipe: Mapping[str, object]) -> dict[str, object]:
    """Nested options beside the others: {"augment": {"crop": 1}} is {"augment.crop": 1}."""
    flat: dict[str, object] = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": v for inner, v in _flat(value).items()}
        else:
            flat[name] = value
    return flat


def _own_recipe(recipe: Mapping[str, object], spec: ModelSpec) -> list[str]:
    """What of the paper's training was left out or changed for these weights, if anything."""
    said = []
    if recipe.get("loss") == "stock" and spec.criterion is not None:
        said.append("These weights were trained with YOLO11's loss in place of the paper's.")
    if recipe.get("loss") == "border":
        said.append(
            "The loss has a term that the paper's has not: how well borders meet, for thin defects."
        )
    if recipe.get("balance") == "none" and spec.sampler is not None:
        said.append("Training images were drawn alike, not by the paper's sampler.")
    teachers, share = recipe.get("teachers"), recipe.get("teaching")
    if isinstance(teachers, list) and teachers and isinstance(share, int | float):
        said.append(
            f"Beside the labels, with {100 * share:.0f} % of the loss, they were taught by what "
            f"other releases find on the training images: {', '.join(map(str, teachers))}."
        )
    return [" ".join(said), ""] if said else []


def _looks_at(config: ReleaseConfig) -> str:
    """The size of serving, where validation has chosen another than that of training."""
    if config.image_size == config.run.image_size:
        return ""
    return f" in training; it looks at {config.image_size} px, chosen on validation"


def _training(config: ReleaseConfig) -> list[str]:
    run = config.run
    recipe = ", ".join(f"{k} {v}" for k, v in sorted(_flat(run.recipe).items()))
    kept = "" if run.best_epoch is None else f", weights of epoch {run.best_epoch} kept"
    rows = [
        ("data", f"{_DATASETS.get(run.dataset, run.dataset)}, {run.protocol} training split"),
        ("data set identity", f"`{run.dataset_id[:12]}`"),
        ("initialisation", run.initialisation),
        ("epochs", f"{run.epochs} of {run.epochs_planned} planned{kept}, chosen on validation"),
        ("image size", f"{run.image_size} px{_looks_at(config)}"),
        ("recipe", recipe or "–"),
        ("seed", f"{run.seed} (one run)"),
        ("precision", run.precision),
        ("machine", run.machine),
        ("time", f"{run.wall_time_s / 60:.0f} min"),
        ("run", f"`{run.id}`, code `{run.git_commit[:12]}`"),
    ]
    return ["| what | value |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in rows), ""]


def _calibration(config: ReleaseConfig) -> list[str]:
    """What was fitted on validation to turn scores into probabilities, with its error."""
    fitted = config.calibration
    if not fitted:
        return ["Scores are raw: no calibration was fitted.", ""]
    error, items = ("dece", "D-ECE"), "boxes" if config.task == "detect" else "pixels"
    if fitted["kind"] == "temperature":
        error, items = ("ece", "ECE"), "images"
    before, after = fitted[f"{error[0]}_before"], fitted[f"{error[0]}_after"]
    how = "one temperature" if fitted["kind"] == "temperature" else "one rising curve per class"
    return [
        f"Probabilities come from {how}, fitted on {fitted['n']} {items} of the validation split: "
        f"{error[1]} {_percent(before)} % before, {_percent(after)} % after (cross-validated).",
        "",
        *_diagram(fitted, items),
    ]


def _diagram(fitted: Mapping[str, Any], items: str) -> list[str]:
    """The reliability diagram in numbers: a model that keeps its word is right as often as it says.

    Args:
        fitted: the calibration; one that was fitted before diagrams were kept has none.
        items: what is counted.
    """
    sides = [
        {point["tenth"]: point for point in fitted.get(key, ())}
        for key in ("diagram_before", "diagram_after")
    ]
    if not any(sides):
        return []

    def cells(point: Mapping[str, Any] | None) -> str:
        if point is None:
            return "– | – | –"
        return f"{_percent(point['claimed'])} | {_percent(point['right'])} | {point['n']}"

    return [
        f"How often {items} were right (%), by what was claimed; *before*: the raw score, *after*: "
        "the probability:",
        "",
        "| claimed | before: mean | right | n | after: mean | right | n |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {10 * k} to {10 * k + 10} | "
            + " | ".join(cells(side.get(k)) for side in sides)
            + " |"
            for k in sorted(sides[0].keys() | sides[1].keys())
        ),
        "",
    ]


def _eight_bits(config: ReleaseConfig) -> list[str]:
    """What `ROLLMARK_SERVING__RUNTIME=int8` costs, where it was measured."""
    loss = config.int8
    if loss is None:
        return []
    title = _title(loss.metric)
    return [
        "## With 8 bits",
        "",
        f"Quantised after training (weights and activations, ranges from training images), {title} "
        f"on the {loss.n} validation images at {loss.image_size} px is {_percent(loss.int8)} % "
        f"instead of {_percent(loss.fp32)} %. It is served only where "
        "`ROLLMARK_SERVING__RUNTIME=int8` asks for it.",
        "",
    ]


def results_table(configs: Iterable[ReleaseConfig]) -> str:
    """The bundled models beside each other, as the README prints them: leak-free test splits."""
    lines = [
        "| model | task | data | parameters | GFLOPs at px | measured on the leak-free test split "
        "(95 % interval, %) | n |",
        "| --- | --- | --- | ---: | ---: | --- | ---: |",
    ]
    for config in configs:
        tests = [e for e in config.evaluations if (e.protocol, e.split) == ("leak-free", "test")]
        metrics = [m for m in tests[0].metrics if m.name in _HEADLINES] if tests else []
        measured = ", ".join(
            f"{_title(m.name)} {_percent(m.value)} ({_interval(m).replace(' ', '')})"
            for m in metrics
        )
        n = str(metrics[0].n) if metrics else "–"
        lines.append(
            f"| `{config.name}` ({config.scale}) | {config.task} | {config.dataset} | "
            f"{config.parameters:,} | {config.gflops:.2f} at {config.image_size} | "
            f"{measured or 'not measured'} | {n} |"
        )
    return "\n".join(lines)


def write_card(config: ReleaseConfig, spec: ModelSpec) -> str:
    """The README.md of a release, front matter included."""
    paper = spec.paper
    lines = [
        _front_matter(config, spec),
        "",
        f"# {config.title}",
        "",
        f"Steel surface defects, task *{config.task}*, scale `{config.scale}`: "
        f"{config.parameters:,} parameters, {config.gflops:.2f} GFLOPs (2 × MAC) at "
        f"{config.image_size} px. Weights are fp16 safetensors, revision `{config.revision}`.",
        "",
        "Classes: " + ", ".join(f"`{label}`" for label in config.labels) + ".",
        "",
        "```bash",
        f"python -m training predict {config.name} --images FOLDER --output OUT",
        "```",
        "",
        "## Results",
        "",
    ]
    for evaluation in config.evaluations:
        lines += _results(evaluation, spec)
    if not config.evaluations:
        lines += ["Not evaluated yet.", ""]
    lines += ["## Calibration", "", *_calibration(config)]
    if config.ask_from is not None:
        lines += [
            f"It asks for a person from an uncertainty of {config.ask_from:g} on: at most a "
            "quarter of its validation images.",
            "",
        ]
    lines += operating_section(config)
    lines += _eight_bits(config)
    lines += ["## Training", "", *_own_recipe(config.run.recipe, spec), *_training(config)]
    if paper is not None:
        lines += [
            "## Paper",
            "",
            f'{paper.authors}, "{paper.title}", {paper.venue} ({paper.year})'
            + (f", doi [{paper.doi}](https://doi.org/{paper.doi})" if paper.doi else "")
            + (f". The authors' code: {paper.code}." if paper.code else "."),
            "",
            "Numbers in the column *reported* are the paper's own, on its own split; they are not "
            f"measurements of these weights. {paper.caveat}".rstrip(),
            "",
        ]
    if spec.departures:
        lines += ["Where this network departs from the paper, or the paper leaves a choice:", ""]
        lines += [f"- {departure}" for departure in spec.departures] + [""]
    limits, licence = _fine_print(config.dataset)
    lines += ["## Limits", "", limits, "", "## Licence", "", licence, ""]
    return "\n".join(lines)


def _fine_print(dataset: str) -> tuple[str, str]:
    """What weights of a data set, or of one grown from it, are not good for, and not free for."""
    if dataset.partition("@")[0] not in _DATASETS:
        return (
            f"Trained on the pictures of one source, {dataset}. On other steel, lighting or scale "
            "expect less until images from there have been reviewed and learned.",
            "AGPL-3.0. The training images belong to whoever made the data set.",
        )
    return (
        "Trained on small crops of hot-rolled strip from one laboratory. On other steel, lighting "
        "or scale expect less until images of your own have been reviewed and learned.",
        "AGPL-3.0. The training images are published for research by their authors; clear "
        "commercial use with them.",
    )
