"""Pictures that programs show differently become plain ones; broken ones are told and raise nothing."""

import io

import pytest
from PIL import Image

from mstar.data import images
from mstar.data.images import oddities
from mstar.data.importing.pictures import look_at
from tests.data.importing.published import encoded, png


def deep():
    picture = Image.new("I;16", (2, 1))
    picture.putpixel((0, 0), 65535)
    picture.putpixel((1, 0), 128 * 257)
    return encoded(picture)


def turned():
    picture = Image.new("RGB", (4, 2), "red")
    exif = picture.getexif()
    exif[0x0112] = 6
    return encoded(picture, exif=exif)


def animated():
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def shown(data):
    looked = look_at(data)
    assert not looked.problem
    assert looked.stored is not None
    return Image.open(io.BytesIO(looked.stored)), looked.fixed


def test_cmyk_is_stored_as_rgb():
    picture, fixed = shown(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert fixed == ("CMYK: RGB",)
    assert picture.mode == "RGB"
    red, green, blue = picture.getpixel((4, 4))
    assert red > 240
    assert max(green, blue) < 20


def test_sixteen_bits_keep_their_shades_where_a_plain_conversion_makes_them_white():
    picture, fixed = shown(deep())
    assert fixed == ("16-bit: 8-bit",)
    assert [picture.getpixel((x, 0))[0] for x in (0, 1)] == [255, 128]


def test_the_first_frame_of_an_animation_is_kept():
    picture, fixed = shown(animated())
    assert fixed == ("animated: its first frame",)
    assert not getattr(picture, "is_animated", False)
    assert picture.getpixel((1, 1)) == (255, 0, 0)


def test_transparency_is_drawn_on_white():
    picture, fixed = shown(encoded(Image.new("RGBA", (3, 3), (0, 0, 0, 0))))
    assert fixed == ("transparent: on white",)
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_photograph_that_is_only_marked_as_turned_is_turned():
    picture, fixed = shown(turned())
    assert fixed == ("turned: upright",)
    assert picture.size == (2, 4)


@pytest.mark.parametrize(
    "picture", [Image.new("RGB", (3, 3)), Image.new("L", (3, 3)), Image.new("RGBA", (3, 3), "red")]
)
def test_an_ordinary_picture_stays_as_it_is(picture):
    looked = look_at(encoded(picture))
    assert (looked.stored, looked.fixed, looked.problem) == (None, (), "")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (encoded(Image.effect_noise((90, 90), 60))[:900], "corrupt (image file is truncated"),
        (
            encoded(Image.effect_noise((90, 90), 60), "JPEG")[:900],
            "corrupt (image file is truncated",
        ),
        (b"hello", "in no known format"),
        (b"", "it is empty"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "in no known format"),
    ],
)
def test_a_broken_picture_is_told_and_raises_nothing(data, problem):
    assert problem in look_at(data).problem


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(images, "MAX_SOURCE_PIXELS", 20)
    assert look_at(png(1)).problem.startswith("too large: 6 x 5 = 30 pixels")


def test_a_file_that_is_not_there_is_missing_rather_than_broken(tmp_path):
    assert look_at(str(tmp_path / "none.png")).missing
    assert not look_at(str(tmp_path)).missing


def test_two_files_of_one_picture_have_the_same_digest():
    picture = Image.effect_noise((20, 20), 50).convert("RGB")
    first, second = encoded(picture, compress_level=1), encoded(picture, compress_level=9)
    assert first != second
    assert look_at(first).digest == look_at(second).digest != look_at(png(3)).digest


@pytest.mark.parametrize(
    ("data", "odd"),
    [
        (png(1), ()),
        (deep(), ("16-bit",)),
        (animated(), ("animated",)),
        (turned(), ("turned",)),
        (encoded(Image.new("CMYK", (3, 3)), "JPEG"), ("CMYK",)),
        (encoded(Image.new("RGBA", (3, 3))), ("transparent",)),
        (b"junk", ()),
    ],
)
def test_what_is_odd_is_seen_from_the_head_alone(data, odd):
    assert oddities(data) == odd


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000 + ".png"])
def test_a_name_that_no_file_can_have_is_told_and_raises_nothing(tmp_path, name):
    assert look_at(str(tmp_path / name)).problem
