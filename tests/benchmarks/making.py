"""Files of a few questions, exactly as the benchmarks are published."""

import base64
import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TEXT, TEXTS, WHOLE = pa.string(), pa.list_(pa.string()), pa.int64()
METADATA = {
    "category": "general-vqa", "context": "natural image", "grade": "daily life", "img_height": 16, "img_width": 16,
    "language": "english", "skills": ["numeric commonsense"], "source": "A-OKVQA", "split": "testmini",
    "task": "visual question answering",
}  # fmt: skip
MATHVISTA = pa.schema(
    [
        ("pid", TEXT), ("question", TEXT), ("image", TEXT), ("decoded_image", IMAGE), ("choices", TEXTS),
        ("unit", TEXT), ("precision", pa.float64()), ("answer", TEXT), ("question_type", TEXT), ("answer_type", TEXT),
        ("metadata", pa.struct([
            (name, {"skills": TEXTS, "img_height": WHOLE, "img_width": WHOLE}.get(name, TEXT)) for name in METADATA
        ])),
        ("query", TEXT),
    ]
)  # fmt: skip
M3COT = pa.schema(
    [
        (name, {"choices": TEXTS, "image": IMAGE}.get(name, TEXT))
        for name in (
            "id", "category", "image_id", "question", "choices", "context", "answer", "rationale", "split", "image",
            "domain", "topic",
        )
    ]
)  # fmt: skip
MMSTAR = pa.schema(
    [
        ("index", WHOLE), ("question", TEXT), ("image", IMAGE), ("answer", TEXT), ("category", TEXT),
        ("l2_category", TEXT),
        ("meta_info", pa.struct([("source", TEXT), ("split", TEXT), ("image_path", TEXT)])),
    ]
)  # fmt: skip
AI2D = pa.schema([("question", TEXT), ("options", TEXTS), ("answer", TEXT), ("image", IMAGE)])


def png(shade=90, size=16):
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (shade, 120, 40)).save(buffer, format="PNG")
    return buffer.getvalue()


def image(shade=90):
    return {"bytes": png(shade), "path": "1.png"}


def mathvista_row(pid="1", **changes):
    """A question of testmini, multiple choice unless something else is said."""
    row = {
        "pid": pid, "question": "Which is larger?", "image": f"images/{pid}.jpg", "decoded_image": image(),
        "choices": ["the cat", "the dog"], "unit": None, "precision": None, "answer": "the dog",
        "question_type": "multi_choice", "answer_type": "text", "metadata": METADATA, "query": None,
    }  # fmt: skip
    return row | changes


def number_row(pid="2", answer="14", kind="integer", **changes):
    """A free-form question of testmini."""
    free = {"choices": None, "answer": answer, "question_type": "free_form", "answer_type": kind}
    return mathvista_row(pid, question="How many?", **free) | changes


def m3cot_row(name="physical-1", **changes):
    row = {
        "id": name, "category": "Usage", "image_id": "1", "question": "What is it for?",
        "choices": ["to sell food", "to sleep", "to drive"], "context": "", "answer": "A", "rationale": "It sells.",
        "split": "test", "image": image(), "domain": "commonsense", "topic": "physical-commonsense",
    }  # fmt: skip
    return row | changes


def mmstar_row(index=0, **changes):
    row = {
        "index": index,
        "question": "Where is it?\nOptions: A: on the book, beside the cat, B: under the bed, C: nowhere, D: here.",
        "image": image(), "answer": "B", "category": "math", "l2_category": "geometry",
        "meta_info": {"source": "MMBench", "split": "val", "image_path": "images/0.jpg"},
    }  # fmt: skip
    return row | changes


def tsv_row(index=1, **changes):
    """A question of a harness's TSV file."""
    row = {
        "index": index, "image": base64.b64encode(png()).decode(), "question": "What is it?", "hint": "",
        "A": "a cat", "B": "a dog", "C": "a cow", "D": "", "answer": "B", "category": "object_localization",
        "l2-category": "logic_reasoning", "split": "dev",
    }  # fmt: skip
    return row | changes


def rotations(index=1, **changes):
    """One question of MMBench in its three rotations; later ones name the first one's image."""
    names, texts = "ABC", ("a cat", "a dog", "a cow")
    for turn in range(3):
        turned = texts[turn:] + texts[:turn]
        options = dict(zip(names, turned, strict=True))
        answer = names[turned.index("a dog")]
        picture = {"image": str(index)} if turn else {}
        yield tsv_row(index + turn * 1_000_000, **options, answer=answer, **picture, **changes)


def write_parquet(path, rows, schema):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


def write_tsv(path, rows):
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_json(path, rows):
    """``testmini.json`` and its images."""
    (path.parent / "images").mkdir(parents=True, exist_ok=True)
    plain = {}
    for row in rows:
        (path.parent / row["image"]).write_bytes(png())
        plain[row["pid"]] = {k: v for k, v in row.items() if k not in {"decoded_image", "query"}}
    path.write_text(json.dumps(plain), encoding="utf-8")
    return path


def write_all(folder):
    """Every benchmark in a folder, under its published name."""
    hard = {"category": "instance reasoning", "l2_category": "cross-instance attribute reasoning"}
    seen = {"category": "coarse perception", "l2_category": "image emotion"}
    write_parquet(
        folder / "MathVista" / "data" / "testmini-00000-of-00001-725687bf7a18d64b.parquet",
        [mathvista_row(), number_row(), number_row("3", "1.2", "float", precision=1.0)],
        MATHVISTA,
    )
    write_parquet(
        folder / "M3CoT" / "data" / "test-00000-of-00001.parquet",
        [m3cot_row(), m3cot_row("algebra-2", domain="mathematics", topic="algebra")],
        M3COT,
    )
    write_parquet(
        folder / "mmstar.parquet",
        [mmstar_row(), mmstar_row(1, **hard), mmstar_row(2, **seen)],
        MMSTAR,
    )
    write_tsv(
        folder / "MMBench_DEV_EN_V11.tsv",
        [*rotations(1), *rotations(2, **{"l2-category": "coarse_perception"})],
    )
    write_tsv(folder / "AI2D_TEST.tsv", [tsv_row(), tsv_row(2)])
    write_tsv(folder / "AI2D_TEST_NO_MASK.tsv", [tsv_row()])
    return folder
