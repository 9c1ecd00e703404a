#!/usr/bin/env python3
"""Draws the demo's test pictures: photograph-like scenes whose text is known.

    python3 make_images.py [OUTPUT_DIRECTORY]      (default: pictures/ beside this file)

Each scene sets text on a textured surface, then does to it what a hand-held camera does: perspective or
rotation, uneven light, defocus, sensor noise, JPEG compression. `expected.tsv` is written with them, one
line a picture: file name, a tab, the lines of text joined by " / ".

Needs Pillow and numpy, and Debian's fonts-dejavu-core, fonts-liberation, fonts-urw-base35 and
fonts-comic-neue. The pictures are committed, so only a change to them needs this program. It draws the same
pixels each time (fixed seeds), as far as the versions of Pillow and of the fonts are the same.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

FONTS = Path("/usr/share/fonts")
DEJAVU = FONTS / "truetype/dejavu"
LIBERATION = FONTS / "truetype/liberation"
URW = FONTS / "opentype/urw-base35"
COMIC = FONTS / "opentype/comic-neue"


def font(path, size):
    return ImageFont.truetype(str(path), size)


def texture(rng, size, base, grain, streak=(1, 1)):
    """A surface of one colour with smooth noise; `streak` stretches the noise, as in wood."""
    width, height = size
    small = rng.normal(0, grain, (height // streak[1] + 1, width // streak[0] + 1)).astype(np.float32)
    noise = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))
    pixels = np.array(base, dtype=np.float32)[None, None, :] + noise[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write(image, lines, colour, left, top):
    """Draws (text, font) lines one under another and returns the y below the last."""
    draw = ImageDraw.Draw(image)
    for text, face in lines:
        draw.text((left, top), text, font=face, fill=colour)
        box = draw.textbbox((left, top), text, font=face)
        top = box[3] + (box[3] - box[1]) // 2 + 6
    return top


def perspective(image, corners):
    """Maps the picture's four corners (clockwise from the upper left) to `corners`, with a coverage mask."""
    width, height = image.size
    source = [(0, 0), (width, 0), (width, height), (0, height)]
    rows, values = [], []
    # Pillow maps output to input, so the unknowns are solved in that direction.
    for (x, y), (u, v) in zip(corners, source):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    coefficients = np.linalg.solve(np.array(rows, float), np.array(values, float))
    size = (max(x for x, _ in corners) + 1, max(y for _, y in corners) + 1)

    def warp(layer):
        return layer.transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)

    return warp(image), warp(Image.new("L", image.size, 255))


def lay(scene, piece, mask, at):
    """Lays a piece of paper or metal on the scene, with a soft shadow under it."""
    shadow = Image.new("L", scene.size, 0)
    shadow.paste(mask.point(lambda value: value // 2), (at[0] + 7, at[1] + 9))
    shadow = shadow.filter(ImageFilter.GaussianBlur(9))
    scene.paste(Image.new("RGB", scene.size, (12, 10, 8)), (0, 0), shadow)
    scene.paste(piece, at, mask)


def light(image, centre, falloff):
    """A lamp: bright at `centre` (fractions of the size), darker away from it."""
    width, height = image.size
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot((x / width) - centre[0], (y / height) - centre[1])
    gain = np.clip(1.08 - falloff * distance, 0.25, 1.1)
    pixels = np.asarray(image, dtype=np.float32) * gain[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def camera(rng, image, blur, noise):
    """Defocus, then noise that is a little stronger in one channel, as a small sensor has."""
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32)
    grain = rng.normal(0, noise, soft.shape) * np.array([1.0, 0.8, 1.3])
    return Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8))


def note(rng):
    """A typed note on a wooden desk, seen at an angle."""
    paper = texture(rng, (620, 330), (238, 234, 222), 3, (3, 3))
    face = font(LIBERATION / "LiberationSerif-Regular.ttf", 50)
    texts = ["Meet the shepherd", "at the north gate", "before 7:30"]
    write(paper, [(text, face) for text in texts], (42, 40, 52), 52, 44)
    scene = texture(rng, (860, 560), (124, 84, 50), 16, (60, 2))
    lay(scene, *perspective(paper, [(42, 0), (640, 46), (606, 400), (0, 338)]), (104, 74))
    return camera(rng, light(scene, (0.3, 0.2), 0.55), 0.8, 5), texts


def sign(rng):
    """A street sign against the sky, white on blue."""
    height, width = 480, 900
    sky = np.linspace((120, 165, 215), (225, 232, 238), height)[:, None, :] + np.zeros((1, width, 1))
    scene = Image.fromarray(sky.astype(np.uint8))
    ImageDraw.Draw(scene).rectangle((430, 120, 458, height), fill=(96, 98, 102))
    plate = texture(rng, (700, 170), (22, 62, 128), 4, (9, 9))
    ImageDraw.Draw(plate).rounded_rectangle((8, 8, 691, 161), 16, outline=(236, 240, 244), width=6)
    face = font(LIBERATION / "LiberationSansNarrow-Bold.ttf", 90)
    write(plate, [("Meadow Lane 42", face)], (240, 244, 248), 62, 34)
    lay(scene, *perspective(plate, [(0, 30), (712, 0), (712, 176), (0, 186)]), (92, 110))
    return camera(rng, light(scene, (0.8, 0.1), 0.35), 1.1, 4), ["Meadow Lane 42"]


def receipt(rng):
    """A till receipt in a typewriter face, folded shadow across it."""
    paper = texture(rng, (430, 560), (228, 226, 220), 4, (2, 2))
    face = font(DEJAVU / "DejaVuSansMono.ttf", 34)
    texts = ["GREEN PASTURE", "Hay       12.50", "Salt lick  3.75", "Bell      18.00", "TOTAL     34.25"]
    write(paper, [(text, face) for text in texts], (58, 58, 62), 44, 60)
    fold = Image.new("L", paper.size, 255)
    ImageDraw.Draw(fold).rectangle((0, 300, 430, 560), fill=214)
    fold = fold.filter(ImageFilter.GaussianBlur(6))
    paper = ImageChops.multiply(paper, Image.merge("RGB", (fold,) * 3))
    scene = texture(rng, (640, 700), (70, 74, 80), 7, (4, 4))
    lay(scene, *perspective(paper, [(12, 0), (436, 14), (424, 578), (0, 562)]), (96, 58))
    # Columns of a receipt are read as lines of their own: the runs of spaces above are layout, not text.
    return camera(rng, light(scene, (0.6, 0.3), 0.5), 0.9, 6), [" ".join(text.split()) for text in texts]


def label(rng):
    """A parcel label lying at an angle of 17 degrees."""
    paper = texture(rng, (560, 230), (245, 240, 226), 3, (4, 4))
    ImageDraw.Draw(paper).rectangle((10, 10, 549, 219), outline=(150, 36, 30), width=5)
    texts = ["FRAGILE", "Lot 8841-K"]
    faces = [font(DEJAVU / "DejaVuSans-Bold.ttf", 78), font(DEJAVU / "DejaVuSans.ttf", 52)]
    write(paper, list(zip(texts, faces)), (150, 36, 30), 56, 28)
    turned = paper.convert("RGBA").rotate(17, Image.Resampling.BICUBIC, expand=True)
    scene = texture(rng, (800, 560), (176, 138, 96), 10, (2, 30))
    lay(scene, turned.convert("RGB"), turned.getchannel("A"), (90, 80))
    return camera(rng, light(scene, (0.2, 0.8), 0.4), 0.9, 5), texts


def board(rng):
    """A chalkboard: light handwriting-like letters on dark slate, with chalk dust in them."""
    scene = texture(rng, (860, 460), (44, 58, 52), 7, (24, 12))
    chalk = Image.new("L", scene.size, 0)
    texts = ["Fresh wool today", "ask inside"]
    faces = [font(COMIC / "ComicNeue-Bold.otf", 84), font(COMIC / "ComicNeue-Bold.otf", 68)]
    write(chalk, list(zip(texts, faces)), 240, 90, 96)
    dust = np.clip(rng.normal(0.9, 0.12, (460, 860)), 0, 1)
    mask = Image.fromarray((np.asarray(chalk) * dust).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    scene.paste(Image.new("RGB", scene.size, (232, 232, 224)), (0, 0), mask)
    return camera(rng, light(scene, (0.5, 0.2), 0.4), 0.9, 4), texts


def poster(rng):
    """An invitation in three book faces on a coloured ground, held crooked."""
    height, width = 520, 760
    ramp = np.linspace((250, 226, 190), (236, 170, 150), height)[:, None, :] + np.zeros((1, width, 1))
    paper = Image.fromarray(ramp.astype(np.uint8))
    texts = ["Village Concert", "Saturday 20 June", "Free entry"]
    faces = [
        font(URW / "URWBookman-Demi.otf", 72),
        font(URW / "C059-Italic.otf", 54),
        font(URW / "URWGothic-Book.otf", 50),
    ]
    write(paper, list(zip(texts, faces)), (66, 28, 60), 66, 90)
    turned = paper.convert("RGBA").rotate(-8, Image.Resampling.BICUBIC, expand=True)
    scene = texture(rng, (960, 760), (92, 96, 88), 8, (12, 12))
    lay(scene, turned.convert("RGB"), turned.getchannel("A"), (56, 60))
    return camera(rng, light(scene, (0.4, 0.4), 0.45), 0.9, 4), texts


def scan(rng):
    """A delivery note in small print from a flatbed scanner: grey, clean, two degrees off."""
    page = texture(rng, (760, 420), (246, 246, 246), 1.5)
    draw = ImageDraw.Draw(page)
    draw.line((60, 96, 700, 96), fill=(70, 70, 70), width=2)
    texts = ["Delivery note 2026-117", "3 crates of apples", "Signed by the driver", "Thank you for your order"]
    faces = [font(LIBERATION / "LiberationSans-Bold.ttf", 34)] + [font(URW / "P052-Roman.otf", 27)] * 3
    top = write(page, list(zip(texts[:1], faces)), (36, 36, 36), 60, 48)
    write(page, list(zip(texts[1:], faces[1:])), (50, 50, 50), 60, top + 30)
    page = page.rotate(2, Image.Resampling.BICUBIC, fillcolor=(246, 246, 246))
    # Noise does not compress without loss: sixteen greys, as a document scanner saves them, do.
    page = page.convert("L").filter(ImageFilter.GaussianBlur(0.5))
    return page.quantize(16, dither=Image.Dither.NONE).convert("L"), texts


SCENES = {
    "note.jpg": note,
    "sign.jpg": sign,
    "receipt.jpg": receipt,
    "label-rotated.jpg": label,
    "board.jpg": board,
    "poster.jpg": poster,
    "scan.png": scan,
}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed, (name, draw) in enumerate(SCENES.items(), start=1):
        picture, texts = draw(np.random.default_rng(seed))
        picture.save(folder / name, quality=80, optimize=True)
        rows.append(f"{name}\t{' / '.join(texts)}\n")
    (folder / "expected.tsv").write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
