"""Writing a release: fp16 safetensors and the `config.json` by which they are rebuilt and trusted.

Reading one back is `models._release`.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import WeightsError
from core.files import write_atomically
from core.records import ReleaseConfig, RunRecord
from core.types import Task
from models._release import write_config
from training import plots

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models._spec import ModelSpec
    from training.runs import RunFolder

logger = logging.getLogger(__name__)


def release_best(run: RunFolder, spec: ModelSpec) -> RunRecord:
    """Write the release of a run's best epoch and call the run finished; twice gives the same.

    Its curves are drawn to the last epoch, however the run came to its end.

    Raises:
        WeightsError: if the weights cannot be stored in fp16.
    """
    from safetensors.torch import load_file

    record = run.load_record().model_copy(update={"finished_at": datetime.now(UTC)})
    network = spec.build(len(record.labels), record.scale)
    network.load_state_dict(load_file(run.best))
    release = write_release(run.release, network, record=record, title=spec.title, task=spec.task)
    plots.draw_curves(run, title=f"{spec.title}, {run.id}")
    run.save_record(release.run)
    logger.info("run %s kept epoch %s: %s", run.id, record.best_epoch, record.validation)
    return release.run


def write_release(
    folder: Path, network: nn.Module, *, record: RunRecord, title: str, task: Task
) -> ReleaseConfig:
    """Write `model.safetensors` (fp16) and `config.json`, the layout of a Hub repository.

    Weights come first and the configuration, which carries their SHA-256, last: a folder that was
    cut off in between is recognised by its missing or disagreeing hash. The same weights and
    record give the same bytes.

    Args:
        folder: where to; made if missing.
        network: trained network of any device and mode; left as it is.
        record: the run it came from; the release's copy carries the hash of the fp16 weights.
        title: the model's name for people.
        task: what it answers.

    Raises:
        WeightsError: if the weights cannot be stored in fp16.
    """
    from safetensors.torch import save

    weights = save(_half_state(network), metadata={"format": "pt"})
    digest = hashlib.sha256(weights).hexdigest()
    config = ReleaseConfig(
        name=record.model,
        title=title,
        task=task,
        scale=record.scale,
        labels=record.labels,
        image_size=record.image_size,
        dataset=record.dataset,
        protocol=record.protocol,
        parameters=record.parameters,
        gflops=record.gflops,
        weights_sha256=digest,
        run=record.model_copy(update={"weights_sha256": digest}),
    )
    write_atomically(folder / config.weights_file, weights)
    write_config(folder, config)
    logger.info("wrote release %s of %s to %s", config.revision, config.name, folder)
    return config


def _half_state(network: nn.Module) -> dict[str, Tensor]:
    """State dict fit for safetensors: floats as fp16, integers as they are, nothing shared.

    Statistics of a batch norm that are beyond fp16 stay as they are: a sum of products, as in
    StarNet's blocks, has variances above 65504 in sound runs, and the norm divides by them.

    Raises:
        WeightsError: if a value is not finite or, learned, does not fit fp16 (|x| > 65504).
    """
    learned = {name for name, _ in network.named_parameters()}
    state = {}
    for name, tensor in network.state_dict().items():
        value = tensor.detach().cpu()
        if value.is_floating_point():
            half = value.half()
            if name in learned or half.isfinite().all():
                value = half
            if not value.isfinite().all():
                raise WeightsError(f"{name} holds values fp16 cannot: the run has diverged.")
        state[name] = value.contiguous().clone()
    return state
