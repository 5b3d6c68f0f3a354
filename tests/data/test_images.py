"""One picture is the same to every engine and stage, or one clear message: what a check says, a run says."""

import io
import random
import struct
import warnings
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mstar.data import images
from mstar.data.images import decode_image
from mstar.data.importing.checking import check_data, find_splits
from mstar.data.importing.pictures import look_at
from mstar.errors import DataError


def encoded(picture, form="PNG", **more):
    buffer = io.BytesIO()
    picture.save(buffer, form, **more)
    return buffer.getvalue()


def noise(form, **more):
    return encoded(Image.effect_noise((40, 30), 60).convert("RGB"), form, **more)


def turned():
    picture = Image.new("RGB", (4, 2), "red")
    exif = picture.getexif()
    exif[0x0112] = 6
    return encoded(picture, "JPEG", exif=exif)


def animated(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:])


def deep():
    picture = Image.new("I;16", (2, 1))
    picture.putpixel((0, 0), 65535)
    picture.putpixel((1, 0), 128 * 257)
    return encoded(picture)


def palette():
    picture = Image.new("P", (3, 3), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    return encoded(picture, transparency=1)


def bomb():
    """A PNG whose head claims more pixels than memory has, and whose few bytes are zeros."""

    def chunk(name, body):
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def first_pixel(data):
    picture = decode_image(data, "q")
    assert picture.mode == "RGB"
    return picture.getpixel((0, 0))


@pytest.mark.parametrize(
    ("data", "pixel"),
    [
        (encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        (animated("GIF"), (255, 0, 0)),
        (animated("PNG"), (255, 0, 0)),
        (deep(), (255, 255, 255)),
        (palette(), (255, 255, 255)),
        (encoded(Image.new("RGBA", (3, 3), (0, 0, 0, 0))), (255, 255, 255)),
        (encoded(Image.new("LA", (3, 3), (0, 128))), (127, 127, 127)),
        (encoded(Image.new("1", (3, 3), 1)), (255, 255, 255)),
        (encoded(Image.new("L", (3, 3), 9)), (9, 9, 9)),
    ],
    ids=["cmyk", "gif", "apng", "16-bit", "palette", "transparent", "half", "1-bit", "gray"],
)
def test_a_picture_of_any_mode_is_seen_as_a_person_sees_it(data, pixel):
    assert first_pixel(data) == pixel


def test_sixteen_bits_keep_their_shades():
    assert decode_image(deep(), "q").getpixel((1, 0)) == (128, 128, 128)


def test_a_deep_picture_of_one_shade_is_a_picture():
    assert first_pixel(encoded(Image.new("I", (3, 3), 70_000), "TIFF")) == (0, 0, 0)


def test_a_turned_photograph_is_upright():
    assert decode_image(turned(), "q").size == (2, 4)


def test_a_photograph_with_damaged_notes_is_taken_as_it_lies():
    data = turned().replace(b"Exif\0\0MM", b"Exif\0\0??").replace(b"Exif\0\0II", b"Exif\0\0??")
    assert decode_image(data, "q").size == (4, 2)


def test_a_decompression_bomb_is_refused_from_its_head():
    with pytest.raises(DataError, match="query q9: the image is too large"):
        decode_image(bomb(), "q9")


def test_what_an_import_would_store_is_what_a_run_sees():
    for data in (turned(), deep(), palette(), animated("GIF")):
        stored = look_at(data).stored
        assert stored is not None
        seen = decode_image(data, "q")
        assert decode_image(stored, "q").size == seen.size


def said(data):
    """The mode of a picture, or what is wrong with it."""
    try:
        return decode_image(data, "q5").mode
    except DataError as error:
        return str(error)


DAMAGED = ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO", "TGA"]


@pytest.mark.parametrize("form", DAMAGED)
def test_a_damaged_file_is_a_picture_or_a_message_and_never_anything_else(form):
    whole, draw = noise(form), random.Random(form)
    for _ in range(60):
        data = bytearray(whole[: draw.randrange(1, len(whole) + 1)])
        for _ in range(draw.randrange(4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert said(bytes(data)).startswith(("RGB", "query q5: the image "))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is missing"),
        (b"junk", "in no known format"),
        (noise("JPEG")[:400], "is corrupt"),
        (noise("PNG")[:400], "is corrupt"),
        (bomb(), "is too large"),
        (noise("PNG"), "has 40 x 30 = 1200 pixels; at most 1000"),
    ],
    ids=["missing", "junk", "truncated jpeg", "truncated png", "bomb", "over the run's limit"],
)
def test_the_check_of_a_data_set_refuses_by_name_what_a_run_would_refuse(tmp_path, data, message):
    row = {"id": "q1", "image": {"bytes": data, "path": None}, "question": "?", "answer": "3"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=message) as told:
        check_data(find_splits(tmp_path), lambda *_: None, max_pixels=1000)
    assert "query q1" in str(told.value)


def test_a_picture_just_within_the_limit_of_what_is_decoded_is_taken(monkeypatch):
    monkeypatch.setattr(images, "MAX_SOURCE_PIXELS", 1200)
    assert decode_image(noise("PNG"), "q").size == (40, 30)
