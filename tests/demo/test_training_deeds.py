"""What the training page says of an order."""

from __future__ import annotations

from core.settings import PathSettings, Settings
from demo import training_deeds as deeds
from demo import training_markup
from demo.retraining import Retrainings
from demo.service import Service


def test_an_order_is_told_with_a_capital_and_the_model_s_title(
    service: Service, paths: PathSettings
) -> None:
    retrainings = Retrainings(service, Settings(paths=paths))
    done = deeds.do(retrainings, "da_yolo", "train", who="reviewer")
    assert done == "Training of DA_YOLO is asked for by reviewer."
    picture = retrainings.picture("da_yolo")
    assert ">Reviewer has asked for DA_YOLO to be trained" in training_markup.sentence(picture)
    assert deeds.main(picture).question == (
        "Reviewer has asked for DA_YOLO to be trained. Taken back, nothing is begun."
    )
