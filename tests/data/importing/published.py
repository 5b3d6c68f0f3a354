"""Small data sets in exactly the published formats."""

import io
import json

from PIL import Image

HINT = (
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
    "Question: "
)


def encoded(picture, form="PNG", **how):
    buffer = io.BytesIO()
    picture.save(buffer, form, **how)
    return buffer.getvalue()


def png(shade, size=(6, 5)):
    return encoded(Image.new("RGB", size, (shade % 256, shade // 256 % 256, 7)))


def item(number, image, asked, said):
    """One item as MathV360K has it."""
    return {
        "id": f"identity_{number}",
        "image": image,
        "conversations": [
            {"from": "human", "value": f"<image>\n{asked}"},
            {"from": "gpt", "value": said},
        ],
    }


def mathv360k(folder, images=20, questions=3, more=(), pictures=None):
    """A folder as the authors publish it: each image with several questions, then ``more`` items and ``pictures``."""
    items: list[object] = []
    place = folder / "data_images" / "IconQA" / "images"
    place.mkdir(parents=True)
    for number in range(images):
        (place / f"{number}.png").write_bytes(png(number))
        for question in range(questions):
            asked, said = (
                (f"{HINT}What is {question}?\nChoices:\n(A) 3\n(B) 4", "The answer is B")
                if question % 2
                else (f"How many are {question}?", f"The answer is {number + 1}")
            )
            items.append(item(len(items), f"IconQA/images/{number}.png", asked, said))
    for name, data in (pictures or {}).items():
        path = folder / "data_images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    items += more
    (folder / "train_samples_all_tuning.json").write_text(json.dumps(items), encoding="utf-8")
    return folder
