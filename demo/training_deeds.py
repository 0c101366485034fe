"""What a reviewer may have done on the training page, and what will come of it, in words.

A deed is offered as a button, asked about once, and then sent back by its key; who acts on a key
looks again whether it still applies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from active_learning.retraining import RetrainingRun
from core.errors import InputError
from demo.retraining import Picture, Retrainings
from demo.words import capital, short

NOTHING: Final = "Nothing to go back to"


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that can be done now.

    Args:
        key: what the page sends to have it done, such as `stop:20261121-grace-retrained-3`.
        button: offers it.
        question: says what will happen, and is answered before anything does.
        yes: the answer that has it done.
    """

    key: str
    button: str
    question: str
    yes: str


def main(picture: Picture) -> Deed:
    """What one would do next: train, stop, go on, or take an order back."""
    name, run, order = short(picture.config.title), picture.newest, picture.waiting
    if order is not None and order.what == "train":
        return Deed(
            f"withdraw:{order.id}",
            "Take the order back …",
            f"{capital(order.who)} has asked for {name} to be trained. Taken back, nothing is "
            "begun.",
            "Yes, take it back",
        )
    if order is not None:
        wish, else_ = ("stop", "goes on") if order.what == "stop" else ("be given up", "waits")
        return Deed(
            f"withdraw:{order.id}",
            "Take the order back …",
            f"{capital(order.who)} has asked for the run to {wish}. Taken back, it {else_}.",
            "Yes, take it back",
        )
    if run is not None and run.is_open:
        return _of_open(picture, run, name)
    why = picture.outlook.due.why
    due = f"{name} is due: {why}" if picture.outlook.due.now else f"{name} is not due: {why}"
    return Deed(
        "train",
        f"Train {name} now …",
        f"{due} The run takes up to {picture.budget_min:g} min, and its candidate goes live only "
        f"if it is proven better. {hearing(picture)}",
        "Yes, train it now",
    )


def _of_open(picture: Picture, run: RetrainingRun, name: str) -> Deed:
    if run.state == "open" and picture.is_carried:
        return Deed(
            f"stop:{run.id}",
            "Stop the run …",
            "The run ends after the step in hand; while it trains, that is one epoch. What was "
            "done is kept, and it goes on from there when somebody asks for it.",
            "Yes, stop it",
        )
    what = "Go on with the run now …" if run.state == "open" else "Take the run up again …"
    return Deed(
        "train",
        what,
        f"The run of {name} goes on from where it stopped. {hearing(picture)}",
        "Yes, go on with it",
    )


def give_up(picture: Picture) -> Deed | None:
    """Giving up a parked run, which keeps its model from being due; None where there is none."""
    run = picture.newest
    if run is None or run.state != "parked" or picture.waiting is not None:
        return None
    return Deed(
        f"drop:{run.id}",
        "Give the run up …",
        f"The run ends without a candidate, and {short(picture.config.title)} may become due "
        f"again. {hearing(picture)}",
        "Yes, give it up",
    )


def back(picture: Picture) -> Deed | None:
    """The way back to the release before; None where there is none."""
    if picture.back_to is None:
        return None
    name = short(picture.config.title)
    return Deed(
        f"back:{picture.back_to}",
        f"Roll {name} back to {picture.back_to} …",
        f"{name} will serve {picture.back_to} again instead of {picture.config.revision}"
        f"{_where(picture)}. No request fails meanwhile, and {picture.config.revision} is kept.",
        "Yes, go back",
    )


def put_live(picture: Picture, revision: str) -> Deed:
    """Another release put live.

    Raises:
        InputError: if no such release stands by.
    """
    chosen = next((one for one in picture.standby if one.revision == revision), None)
    if chosen is None:
        raise InputError("Choose the release that is to go live first.")
    name = short(picture.config.title)
    warning = f" The gate refused it: {chosen.refused}" if chosen.refused else ""
    return Deed(
        f"live:{revision}",
        "Put it live …",
        f"{name} will serve {revision} ({chosen.words}) instead of {picture.config.revision}"
        f"{_where(picture)}.{warning} The way back stays open.",
        "Yes, against the gate" if chosen.refused else "Yes, put it live",
    )


def hearing(picture: Picture) -> str:
    """Whether anybody hears an order."""
    if picture.is_carried:
        return "The process at work on the run hears an order to stop after the step in hand."
    if not picture.watchers:
        return (
            "Nobody is watching: what you ask for waits until somebody starts "
            "`python -m active_learning watch` where models are trained."
        )
    first = picture.watchers[0]
    more = f" and {len(picture.watchers) - 1} more" if len(picture.watchers) > 1 else ""
    return (
        f"A watcher on {first.host}{more} makes a pass every {first.poll_min:g} min, and takes up "
        "what you ask for within seconds unless another run is in hand."
    )


def do(retrainings: Retrainings, model: str, key: str, *, who: str) -> str:
    """Have a deed done.

    Returns:
        What was done, in a sentence.

    Raises:
        InputError: if there is no such deed, or it does not apply any more.
        RollmarkError: as the deed itself does.
    """
    match key.partition(":"):
        case ("train", "", ""):
            order = retrainings.train(model, who=who)
            return f"Training of {retrainings.title(model)} is asked for by {order.who}."
        case ("stop", _, subject):
            order = retrainings.stop(subject, who=who)
            who = capital(order.who)
            return f"{who} has asked for the run to stop; it does after the step in hand."
        case ("drop", _, subject):
            order = retrainings.drop(subject, who=who)
            return f"{capital(order.who)} has asked for the run to be given up."
        case ("withdraw", _, subject) if subject.isdecimal() and len(subject) < 16:
            retrainings.take_back(int(subject), who=who)
            return "The order is taken back."
        case ("back", _, subject):
            before, after = retrainings.go_back(model, subject, who=who)
            return f"{retrainings.title(model)} is back at {after}; {before} is kept."
        case ("live", _, subject):
            before, after = retrainings.put_live(model, subject, who=who)
            return f"{retrainings.title(model)} serves {after} now; {before} is kept."
    raise InputError(f"There is no deed {key[:40]!r}: use the buttons of the page.")


def _where(picture: Picture) -> str:
    if picture.namespace is None:
        return ", on this machine"
    return f", on this machine and on the Hub as {picture.namespace}"
