"""MathV360K as it is published: ``train_samples_all_tuning.json`` beside the folder ``data_images``.

The file is a list of ``{"id": "identity_0", "image": "IconQA/images/1.png", "conversations": [{"from": "human",
"value": "<image>..."}, {"from": "gpt", "value": "The answer is B"}]}``. An image's first folder is the data set that
the question was taken from.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mstar.data.importing.json_list import read_json_list
from mstar.data.importing.records import Reason, Row, Skipped
from mstar.data.importing.wording import IMAGE_MARK, read_answer, read_question
from mstar.errors import DataError

ANNOTATIONS = "train_samples_all_tuning.json"
IMAGES = ("data_images", "images_data")
"""Names that the authors have given to the folder of images."""


def find_files(folder: Path) -> tuple[Path, Path]:
    """The annotations and the folder of images; ``DataError`` says what is missing and where to put it."""
    annotations = folder / ANNOTATIONS
    if not annotations.is_file():
        raise DataError(
            f"no {ANNOTATIONS} in {folder}; name the folder that holds it and {IMAGES[0]}/ "
            "(both are in the data set Zhiqiang007/MathV360K)"
        )
    for name in IMAGES:
        if (folder / name).is_dir():
            return annotations, folder / name
    packed = folder / f"{IMAGES[0]}.zip"
    advice = f"unpack {packed}" if packed.exists() else f"put {IMAGES[0]}/ there"
    raise DataError(f"no folder {IMAGES[0]} in {folder}; {advice}")


def read_mathv360k(annotations: Path, images: Path) -> Iterator[Row | Skipped]:
    """All rows in the order of the file."""
    for number, item in enumerate(read_json_list(annotations)):
        yield _row(item, number, images)


def _row(item: Any, number: int, images: Path) -> Row | Skipped:
    name = item.get("id") if isinstance(item, dict) else None
    query = str(name) if name not in (None, "") else f"row-{number}"
    said = _turns(item)
    if said is None:
        detail = f"item {number} has not one question of a human and one answer of gpt"
        return Skipped(id=query, reason=Reason.MALFORMED, detail=detail)
    image = item.get("image")
    if isinstance(image, list):
        image = image[0] if len(image) == 1 else image
    if isinstance(image, list) or said[0].count(IMAGE_MARK) > 1:
        detail = f"{len(image) if isinstance(image, list) else said[0].count(IMAGE_MARK)} images"
        return Skipped(id=query, reason=Reason.SEVERAL_IMAGES, detail=detail)
    if not isinstance(image, str) or not image.strip():
        return Skipped(id=query, reason=Reason.NO_IMAGE, detail="no image is named")
    question, options = read_question(said[0])
    if not question:
        return Skipped(id=query, reason=Reason.MALFORMED, detail="the question is empty")
    return Row(
        id=query,
        image=str(images / image),
        name=image,
        question=question,
        options=options,
        answer=read_answer(said[1]),
        source=image.split("/", 1)[0] if "/" in image else "",
    )


def _turns(item: Any) -> tuple[str, str] | None:
    """What the human asks and what gpt answers, when that is the whole conversation."""
    turns = item.get("conversations") if isinstance(item, dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return None
    if [turn.get("from") for turn in turns] != ["human", "gpt"]:
        return None
    asked, answered = (turn.get("value") for turn in turns)
    return (asked, answered) if isinstance(asked, str) and isinstance(answered, str) else None
